/* What the files of the CUDA backend share. */
#ifndef DC_BACKEND_CUDA_CUDA_INTERNAL_H
#define DC_BACKEND_CUDA_CUDA_INTERNAL_H

#include "backend/cuda/conv_plans.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/cuda_error.h"
#include "backend/cuda/linear_plans.h"
#include "backend/prepared.h"
#include "cuda.h"

enum { DC_CUDA_TABLES = 16, DC_CUDA_STAGES = 2, DC_CUDA_LATER = 64 };

/* A list of segments on the device, kept while the same list is asked for. */
typedef struct dc_cuda_table {
    int n;
    size_t total; /* floats of all segments */
    dck_run *host, *device;
    uint64_t used; /* when, for replacing the oldest */
} dc_cuda_table;

/* A batch on its way to the device: bytes, draws, table and labels. */
typedef struct dc_cuda_stage {
    size_t capacity; /* bytes */
    void *pinned, *device;
    cudaEvent_t copied, read; /* the copy to the device is through; and it has been read there */
    bool started;
} dc_cuda_stage;

/* Few numbers that come back on their own, in order, to be taken when they are there. */
typedef struct dc_cuda_later {
    int first, n;
    float (*pinned)[DC_LATER_FLOATS];
    cudaEvent_t arrived[DC_CUDA_LATER];
    dc_take take[DC_CUDA_LATER];
    void *context[DC_CUDA_LATER];
} dc_cuda_later;

typedef struct dc_cuda_backend {
    dc_backend base; /* first: a dc_backend is one of these */
    int device;
    cudaStream_t stream, copies;
    dck_queue queue;
    dc_kernels prepared;
    dc_precision precision;
    dc_conv_plans *convs;
    dc_linear_plans *linears;
    dck_moment *moment;
    void *workspace; /* of cuDNN and cuBLASLt; grows, by which every recording ends */
    size_t workspace_bytes;
    uint64_t generation;    /* of what a recording has built in */
    bool in_run, recording; /* between open_run and close_run; and that is being recorded */
    dc_cuda_table tables[DC_CUDA_TABLES];
    uint64_t clock;
    void *sums;       /* device: scratch of gradient norms, then the sum (double) and the scale (float) */
    double *seen_sum; /* pinned: the last sum that came back */
    dc_cuda_stage stages[DC_CUDA_STAGES];
    dc_cuda_later later;
    int next_stage;
    size_t image_bytes, label_bytes; /* of: */
    void *images, *labels;           /* the batch that is computed on */
    size_t described_bytes;          /* memory of the GPU that is only described; 0: it is here */
} dc_cuda_backend;

static inline dc_cuda_backend *cuda_of(dc_backend *backend)
{
    return (dc_cuda_backend *)backend;
}

static inline dck_moment dc_cuda_moment(const dc_step *step)
{
    return (dck_moment){step->index, step->first_image, step->drop_path_rate};
}

/* Rounded up as places of batches are. */
static inline size_t dc_cuda_aligned(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

/* Device memory, not cleared; out of it, one line says what was wanted and what was free. */
dc_status dc_cuda_alloc(size_t bytes, void **memory);

/* Memory beside the arena, in cuda_memory.c. */
dc_status dc_cuda_step_bytes(dc_backend *backend, const dc_plan *plan, size_t *bytes);
dc_status dc_cuda_memory(dc_backend *backend, size_t *free_bytes, size_t *total_bytes);

/* What cuBLASLt may ask for: it is counted whole, since cuBLASLt cannot be asked without a GPU. */
enum { DC_CUDA_LINEAR_WORKSPACE = 32 << 20 };

/* Until all that was enqueued is through; and until an event is. */
dc_status dc_cuda_wait(dc_cuda_backend *b);
dc_status dc_cuda_wait_for(dc_cuda_backend *b, cudaEvent_t event);

/* At least so many bytes that the next call on the stream may use. */
dc_status dc_cuda_workspace(dc_cuda_backend *b, size_t bytes, void **workspace);

/* What a node needs beside its operands. */
typedef struct dc_cuda_extra {
    size_t saved_bytes, forward_scratch_bytes, backward_scratch_bytes;
} dc_cuda_extra;

/* How a plan uses a node's operands: elements from one block to the next of input, output and their gradients. */
typedef struct dc_cuda_use {
    size_t x_stride, y_stride, dx_stride, dy_stride;
    bool training, wants, adds; /* gradients: of parameters; of the input; that one added to what is there */
} dc_cuda_use;

typedef struct dc_cuda_op {
    dc_status (*forward)(dc_cuda_backend *, const dc_kernel *, const dc_kernel_args *);
    dc_status (*backward)(dc_cuda_backend *, const dc_kernel *, const dc_kernel_args *);
    void (*extra)(const dc_cuda_backend *, const dc_kernel *, dc_cuda_extra *extra); /* NULL: nothing */
} dc_cuda_op;

/* By dc_op. */
extern const dc_cuda_op dc_cuda_ops[DC_OP_COUNT];

/* The weights of cuDNN's and cuBLASLt's products: the float ones themselves or, for operands of bfloat16, a copy that
 * forward makes of them in `saved`, of these bytes, and backward uses too. */
size_t dc_cuda_weights_bytes(const dc_cuda_backend *b, size_t count);
dc_status dc_cuda_weights_prepare(dc_cuda_backend *b, const dc_kernel_args *a, size_t count);
static inline float *dc_cuda_weights(const dc_cuda_backend *b, const dc_kernel_args *a)
{
    return b->base.layout.narrow ? a->saved : a->params[0];
}

/* Of CONV, in cuda_conv.c. */
dc_status dc_cuda_conv_forward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a);
dc_status dc_cuda_conv_backward(dc_cuda_backend *b, const dc_kernel *k, const dc_kernel_args *a);
bool dc_cuda_conv_reads_deferred(const dc_kernel *k);
void dc_cuda_conv_extra(const dc_cuda_backend *b, const dc_kernel *k, dc_cuda_extra *extra);
dc_status dc_cuda_conv_workspace(dc_cuda_backend *b, const dc_kernel *k, const dc_cuda_use *use, size_t *bytes);

/* The optimizers, in cuda_optim.c. */
dc_status dc_cuda_sgd(dc_backend *backend, int n, const dc_segment *segments, const dc_sgd *sgd, double *norm);
dc_status dc_cuda_adam(dc_backend *backend, int n, const dc_segment *segments, const dc_adam *adam);
dc_status dc_cuda_blend(dc_backend *backend, float *y, const float *x, size_t count, float a, float b);
dc_status dc_cuda_add(dc_backend *backend, float *y, const float *host, size_t count);
void dc_cuda_tables_clear(dc_cuda_backend *b);

/* Recording of runs and staging of batches, in cuda_step.c. */
dc_status dc_cuda_open_run(dc_backend *backend, dc_runs **runs, const dc_step *step, unsigned what, const void *parts,
                           bool *replayed);
dc_status dc_cuda_end_part(dc_backend *backend, dc_runs *runs);
dc_status dc_cuda_begin_part(dc_backend *backend, dc_runs *runs);
dc_status dc_cuda_close_run(dc_backend *backend, dc_runs *runs, dc_status status);
void dc_cuda_destroy_runs(dc_backend *backend, dc_runs *runs);
dc_status dc_cuda_stage_batch(dc_backend *backend, dc_shape shape, int n_images, const dc_raw_images *pixels,
                              const int32_t *labels, const float **device_images, const int32_t **device_labels);
/* Device memory that batches of so many images take there. */
size_t dc_cuda_batch_bytes(const dc_plan_layout *layout, dc_shape shape, int n_images);
void dc_cuda_stages_clear(dc_cuda_backend *b);
dc_status dc_cuda_later_init(dc_cuda_later *later);
void dc_cuda_later_clear(dc_cuda_later *later);
dc_status dc_cuda_copy_out_later(dc_backend *backend, const float *device, size_t count, dc_take take, void *context);
dc_status dc_cuda_await(dc_backend *backend, const void *context);
/* All that is pending, after the stream has been waited for. */
void dc_cuda_take_later(dc_cuda_backend *b);

#endif
