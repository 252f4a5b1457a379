/* Data-parallel gradients: summed over ranks in buckets while backward still runs.
 *
 * The gradients are one contiguous buffer in forward order (nn/params.h), so backward completes it from its end. It is
 * cut once, from the end, into buckets of about bucket_bytes (1-4 MB: large enough for bandwidth, small enough to start
 * early); a bucket's all-reduce starts when its last parameter is done and goes on during the rest of backward. Buckets
 * start in one fixed order, so the sums have the same bits on every rank and in every run with as many ranks, whatever
 * the order of completion.
 *
 * The gradients are the host's, summed by MPI, or a GPU's, summed by NCCL: then completion means what the caller has
 * put on its stream until now, sums run on a stream of their own, and neither side waits on the host (transport.h). */
#ifndef DC_COMM_BUCKETS_H
#define DC_COMM_BUCKETS_H

#include "comm/comm.h"

typedef struct dc_buckets dc_buckets;

/* One parameter's gradient: grads[offset] .. grads[offset + count]. */
typedef struct dc_bucket_param {
    size_t offset, count; /* floats */
} dc_bucket_param;

enum { DC_BUCKET_BYTES = 2 << 20 };

/* Whether gradients of these ranks can be summed, asked before there are any: DC_ERR_INPUT on every rank where some
 * streams are a GPU's (as below) and others not, or two ranks have the same GPU. Collective. */
dc_status dc_buckets_check_ranks(const dc_comm *comm, void *stream);

/* stream: NULL for host memory, else the cudaStream_t on which the gradients are computed and used. grads: the
 * caller's, outlives this; params: n of them, copied, in ascending order of offset without overlap, equal on every
 * rank. Collective; the communicator is duplicated, so that other collectives may be used during a step.
 * dc_buckets_destroy is collective too, outside of a step; NULL is legal. */
dc_status dc_buckets_create(const dc_comm *comm, void *stream, float *grads, int n, const dc_bucket_param *params,
                            size_t bucket_bytes, dc_buckets **buckets);
void dc_buckets_destroy(dc_buckets *buckets);

/* Before backward. expected[i]: whether parameter i is in the present graph and will complete; NULL: all; equal on
 * every rank. Others are not reduced; one that lies between expected ones of its bucket has its gradient set to zero.
 */
dc_status dc_buckets_begin(dc_buckets *buckets, const bool *expected);

/* In backward, when the gradient of parameter `index` is complete: once for each expected one, in any order. It belongs
 * to the reduction from now on and may not be touched before dc_buckets_finish. *starts becomes true where sums can now
 * be started, and is else left as it is. */
dc_status dc_buckets_done(dc_buckets *buckets, int index, bool *starts);

/* Starts the sums that can be: to be called soon after some could. */
dc_status dc_buckets_start(dc_buckets *buckets);

/* After backward: waits for the rest (the stream does). grads then hold the SUM over ranks (each rank's are of the mean
 * over all ranks' images). It is an error when an expected parameter did not complete. */
dc_status dc_buckets_finish(dc_buckets *buckets);

/* A dc_watch of backend/backend.h, whose context is the buckets: DC_ERR_COMM when their sums have failed or are waited
 * for too long, since another rank has ended. */
dc_status dc_buckets_check(void *buckets, double waited_s);

#endif
