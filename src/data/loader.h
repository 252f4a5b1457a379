/* Batches for a rank, made by background threads ahead of the step: each takes the next image (JPEG files, or crops of
 * pixels) or block of images, of the batch that is wanted first. What is made depends on no number of threads.
 *
 * The order of an epoch is a permutation of the index list that depends on (seed, epoch) only. Global batch s is its
 * entries [s*B, (s+1)*B); each rank takes its contiguous share [b*rank/size, b*(rank+1)/size) of the b images of the
 * global batch. So every image comes exactly once in an epoch over all ranks, in one order for any number of ranks. */
#ifndef DC_DATA_LOADER_H
#define DC_DATA_LOADER_H

#include "backend/backend.h"
#include "data/augment.h"
#include "data/dataset.h"

/* How a rank loads. */
typedef struct dc_loading {
    int threads;  /* that make batches; 0: one */
    int prefetch; /* batches made ahead of the one in use; 0: DC_DEFAULT_PREFETCH */
} dc_loading;
enum { DC_DEFAULT_PREFETCH = 2, DC_MAX_PREFETCH = 64, DC_MAX_DECODE_THREADS = 256 };

/* Threads that suit a rank of so many cores: for stored pixels one; for JPEG files a quarter of the cores where they
 * compute too, all but one where a GPU computes. */
int dc_loading_threads(const dc_dataset *dataset, int cores, bool on_gpu);

typedef struct dc_loader_options {
    dc_split split;
    const dc_indices *indices; /* these images of the split (copied); NULL: all */
    int batch;                 /* of all ranks together */
    int rank, size;
    int lane;       /* images to a block of the layout (dc_plan_layout): 16 on the CPU, 1: NCHW */
    bool as_pixels; /* batches are bytes, and what makes them of these, for a device that does it (dc_backend's
                       stage_batch) */
    uint64_t seed;
    bool shuffle;       /* false: the order of the list */
    bool drop_last;     /* leave out a last batch that would be partial */
    bool repeat;        /* after an epoch's last batch go on with the next epoch by itself */
    dc_augment augment; /* zeros: none */
    dc_loading loading;
} dc_loader_options;

/* One rank's share of a global batch. Valid until the next call on its loader. */
typedef struct dc_batch {
    const float *images;   /* [capacity / lane][C][H][W][lane], capacity = local batch rounded up to lane; zero after
                              n_images; 64-byte aligned; NULL as pixels */
    dc_raw_images pixels;  /* of n_images; NULLs otherwise */
    const int32_t *labels; /* [capacity], zero after n_images */
    int n_images;          /* 0 only when a last, partial global batch has fewer images than there are ranks */
    int n_global;          /* images of the global batch */
    int first_image;       /* position of this rank's first image in the global batch */
    uint32_t epoch, step;  /* where it belongs: resume after it by dc_loader_begin_epoch(epoch, step + 1) */
} dc_batch;

typedef struct dc_loader dc_loader;

/* The data set must outlive the loader. Fails when the list is empty, or, with shuffle or drop_last, shorter than one
 * batch. Not collective. Owned by the caller. */
dc_status dc_loader_create(const dc_dataset *dataset, const dc_loader_options *options, dc_loader **loader);

/* Stops the threads, at any time. NULL is legal. */
void dc_loader_destroy(dc_loader *loader);

/* Global batches of an epoch. */
uint32_t dc_loader_steps(const dc_loader *loader);

/* The largest number of images of a rank in a global batch: ceil(batch / size). */
static inline int dc_loader_local_share(int batch, int size)
{
    return (batch + size - 1) / size;
}

/* Host bytes that the loader holds for given options: for the memory plan of a job. */
size_t dc_loader_bytes(const dc_dataset *dataset, const dc_loader_options *options);

/* The next batch will be the one of start_step; batches made ahead are dropped. With repeat a position counted in
 * steps since the beginning is (steps / dc_loader_steps, steps % dc_loader_steps). start_step up to dc_loader_steps. */
dc_status dc_loader_begin_epoch(dc_loader *loader, uint32_t epoch, uint32_t start_step);

/* Waits for the next batch; *batch is NULL after the epoch's last (never with repeat). An error of the threads comes
 * back here, in its batch's place; it names the file and the picture. */
dc_status dc_loader_next(dc_loader *loader, const dc_batch **batch);

/* Seconds that dc_loader_next has waited since the loader was created. */
double dc_loader_wait_seconds(const dc_loader *loader);

#endif
