/* A group of ranks, each with a GPU of its own, over NCCL. Not compiled where CUDA lacks.
 *
 * Nothing here hangs when another rank has ended: creation is polled, and whoever waits for a stream that a sum is on
 * does so by dc_nccl_wait, or asks dc_nccl_check again and again. On NCCL's error, or after DCANAS_NCCL_TIMEOUT_S (a
 * duration; 300 s where it is not set) of waiting, they abort the communicator, which ends what is on the stream, and
 * return DC_ERR_COMM with a line that says what this rank waited for; the group can then only be destroyed. */
#ifndef DC_COMM_NCCL_H
#define DC_COMM_NCCL_H

#include "backend/cuda/cuda_error.h"
#include "comm/comm.h"

typedef struct dc_nccl dc_nccl;

/* Whether each rank has a present CUDA device of its own: DC_ERR_INPUT, on every rank, where two have the same one.
 * Collective. */
dc_status dc_nccl_check_distinct(const dc_comm *comm);

/* For the present CUDA device of each rank, checked as above. Collective, but from NCCL's own start on a rank may fail
 * alone, and does not wait to agree with ranks that may be gone. dc_nccl_destroy is collective, except after an error;
 * NULL is legal. */
dc_status dc_nccl_create(const dc_comm *comm, dc_nccl **nccl);
void dc_nccl_destroy(dc_nccl *nccl);

/* Enqueue on the stream, for device memory, the same on every rank in the same order. Sums are in place, with the same
 * bits on every rank and in every run on the same GPUs. Not while the stream is captured: all ranks would have to
 * capture and to replay the same sums together, and the group could neither end nor abort while a graph has one. */
dc_status dc_nccl_sum(dc_nccl *nccl, float *values, size_t count, cudaStream_t stream);

/* Of somebody who has waited so long for a stream that the group's work is on. */
dc_status dc_nccl_check(dc_nccl *nccl, double waited_s);

/* Waits for a stream that the group's work is on; asleep, but for a short time at first. */
dc_status dc_nccl_wait(dc_nccl *nccl, cudaStream_t stream);

#endif
