/* The interface of a compute device. One implementation per device (cpu/, cuda/, and the plain-C reference of the
 * tests); nothing above this header knows which.
 *
 * Shapes are checked once, in the graph; a kernel is prepared for a node and may trust them. All floats are float32,
 * but for values that belong to images and their gradients where the layout is narrow (DC_PRECISION_BF16): those are
 * bfloat16. How a tensor is laid out inside is the backend's own affair: a view names a channel range of a stored
 * tensor, and `write`/`read` convert from and to plain NCHW of floats. Which values are still there in backward:
 * dc_op_backward_reads_* in graph/plan.h. CPU: x[batch/16][C][H][W][16], see kernels/kernels.h. */
#ifndef DC_BACKEND_BACKEND_H
#define DC_BACKEND_BACKEND_H

#include "backend/precision.h"
#include "base/rng.h"
#include "graph/graph.h"
#include "graph/plan.h"
#include "kernels.h"

/* A channel range of a tensor in device memory. data points at the first element of the range in the first block of
 * images; stride is the number of elements from one block of images to the next (block = layout.lane images). */
typedef struct dc_view {
    float *data; /* of bfloat16 where the layout is narrow and the tensor belongs to images; NULL: absent */
    dc_shape shape;
    size_t stride;
    const float *affine; /* a deferred batch norm (graph/plan.h), one read through it: affine[2 c] * stored +
                            affine[2 c + 1] for channel c of the range; NULL: the tensor is what is stored */
} dc_view;

/* One step's inputs and circumstances, the same for all of its kernels. */
typedef struct dc_step {
    dc_view images;        /* in the backend's layout, planned batch; lanes past n_images hold finite numbers */
    const int32_t *labels; /* device memory, rounded batch; NULL when there is no loss */
    int n_images;          /* 1..batch: the rest of the last block counts for nothing (statistics, loss, gradients) */
    int n_global;          /* images of all ranks' batches together: gradients are of the loss' mean over these, so
                              that the ranks' gradients add up; 0: n_images */
    bool training;         /* batch statistics and random masks; false: running statistics, no masks */
    float drop_path_rate;
    float momentum;       /* of batch norm's running statistics: 0.1, the share of the new batch */
    uint64_t seed;        /* of random masks */
    uint32_t index;       /* the step's number, the counter of its random numbers */
    uint32_t first_image; /* this rank's position in the global batch: masks do not depend on the rank count */
} dc_step;

typedef enum dc_grad_kind { DC_GRAD_WEIGHTS = 1, DC_GRAD_ALPHA = 2 } dc_grad_kind;

/* Whether `what`, a set of these, has the gradients of parameters of this role. */
static inline bool dc_grad_has(unsigned what, dc_role role)
{
    return (role == DC_ROLE_WEIGHT && what & DC_GRAD_WEIGHTS) || (role == DC_ROLE_ALPHA && what & DC_GRAD_ALPHA);
}

/* A prepared kernel: owned and cached by the backend, shared by equal nodes. */
typedef struct dc_kernel dc_kernel;

/* A convolution's share in the deferred batch norm after it (graph/plan.h); saved NULL: none. */
typedef struct dc_norm_share {
    void *saved;   /* what the batch norm saves, for backward: by then it has run */
    void *scratch; /* the batch norm's forward scratch, for moments */
    int channels;  /* of the batch norm, in which the convolution's output begins at first_channel */
    int first_channel;
} dc_norm_share;

/* A reader's share in the backward of the deferred batch norm that is its input: sums over the gradient, where the
 * batch norm's backward looks for them; NULL: none are wanted. */
typedef struct dc_norm_sums {
    const void *saved; /* what the batch norm saves */
    void *sums;        /* its backward scratch */
} dc_norm_sums;

typedef struct dc_kernel_args dc_kernel_args;

struct dc_kernel_args {
    const dc_step *step;
    int batch; /* planned */
    int n_inputs;
    const dc_view *inputs; /* MIX: inputs[0] is the softmax: plain rows*columns floats at data */
    dc_view output;        /* batch-free outputs: plain floats at data; CROSS_ENTROPY: four floats: mean loss over
                              n_images, images right at top 1, at top 5, n_images */
    float *const *params;  /* values, in the node's order */
    void *saved;
    void *scratch;
    const int *index;   /* MIX */
    int n_left;         /* MIX, backward: so many inputs behind the softmax, and their weights, are left to the mix that
                           this one extends */
    bool deferred;      /* BATCH_NORM: fill output.affine instead of the output */
    bool grad_deferred; /* BATCH_NORM: the convolutions before it leave moments in its forward scratch, and want factors
                           in `saved` instead of the gradient of its input */
    bool summed;        /* BATCH_NORM, backward: the sums over the gradient are there already */
    const dc_norm_sums *norm_sums; /* backward, per input: wanted only as the layout's sums_gradient has it */
    dc_norm_share norm;            /* CONV */
    int n_followers; /* CONV: others of the same input that it runs with its own (graph/plan.h): theirs are output,
                        norm, params, output_grad and param_grads. MIX, backward: those that extend it: theirs are
                        inputs[0], index, output_grad and input_grads[0] */
    const dc_kernel_args *const *followers;
    const struct dc_kernel_args *inner; /* CONV: of the convolution that is computed on the way, which makes inputs[0],
                                           and its kernel; NULL: none */
    const dc_kernel *inner_kernel;
    /* backward only */
    dc_view output_grad;        /* CROSS_ENTROPY: absent (its gradient is attr.weight) */
    const dc_view *input_grads; /* data NULL where not wanted; MIX: [0] is the softmax's, zeroed before backward, always
                                   added to */
    const bool *accumulate;     /* per input: add to it instead of writing it */
    float *const *param_grads;  /* NULL entries: not wanted now; always written, never added to */
};

/* A run of one parameter for the optimizers: device memory. */
typedef struct dc_segment {
    float *value, *grad;
    float *first, *second; /* momentum (SGD), moments (Adam: both) */
    size_t count;
} dc_segment;

typedef struct dc_sgd {
    float learning_rate, momentum, weight_decay;
    bool nesterov;
    float clip; /* gradients are scaled down to this norm, over all segments, first; 0: no */
} dc_sgd;

typedef struct dc_adam {
    float learning_rate, beta1, beta2, epsilon,
        weight_decay; /* decay is added to the gradient (L2), as torch.optim.Adam */
    uint32_t step;    /* 1 for the first update: bias correction */
} dc_adam;

typedef struct dc_backend dc_backend;

/* Receives numbers that a device sends on its own, at most so many at once. */
enum { DC_LATER_FLOATS = 128 };
typedef void (*dc_take)(void *context, const float *values);

/* The images of a batch as bytes, and what makes the batch of them (data/augment.h). */
typedef struct dc_raw_images {
    const uint8_t *bytes;          /* [n][C][H][W] */
    const dck_augment_draw *draws; /* [n] */
    const float *table;            /* normalised value of each byte, [C][256] */
    int pad;                       /* of the draws */
} dc_raw_images;

/* Recorded runs of an executor, the backend's own. */
typedef struct dc_runs dc_runs;

/* The error of gradients that are not finite. */
dc_status dc_backend_diverged(double learning_rate);

/* What gradients of this norm are multiplied by, as torch.nn.utils.clip_grad_norm_; clip 0: 1. */
static inline float dc_clip_scale(double norm, double clip)
{
    return clip > 0 && norm > clip ? (float)(clip / (norm + 1e-6)) : 1;
}

/* Every operation below is required. What is optional are abilities that save passes over memory, told by the layout
 * (graph/plan.h): relu folded into convolutions (folds_relu), concat by reference (concat_views), batch norm applied by
 * its readers (reads_deferred, takes_norm), convolutions of one tensor run together (joins), mixes of the
 * same features differentiated in one pass (chains_mixes), sums over gradients left for batch norms (sums_gradient),
 * one convolution computed again instead of kept (recomputes) or on the way of its reader (fuses). Where a backend
 * lacks one, the plan makes it of required operations; the tests run every network both ways. */
typedef struct dc_backend_interface {
    const char *name;
    void (*destroy)(dc_backend *);
    /* device memory, at least 64-byte aligned, zeroed */
    dc_status (*alloc)(dc_backend *, size_t bytes, void **memory);
    void (*release)(dc_backend *, void *memory, size_t bytes);
    dc_status (*copy_in)(dc_backend *, void *device, const void *host, size_t bytes);
    dc_status (*copy_out)(dc_backend *, void *host, const void *device, size_t bytes);
    dc_status (*fill_zero)(dc_backend *, void *device, size_t bytes);
    dc_status (*sync)(dc_backend *);
    dc_status (*prepare)(dc_backend *, const dc_graph *, int node, int batch, bool relu_input, dc_kernel **kernel);
    dc_status (*forward)(dc_backend *, const dc_kernel *, const dc_kernel_args *);
    dc_status (*backward)(dc_backend *, const dc_kernel *, const dc_kernel_args *);
    /* logical NCHW host floats, n images, to and from a view */
    dc_status (*write)(dc_backend *, dc_view view, int n_images, const float *nchw);
    dc_status (*read)(dc_backend *, dc_view view, int n_images, float *nchw);
    /* DC_ERR_INPUT when the gradients are not finite (training has diverged): nothing is changed then. norm, of all
     * gradients before clipping, added up in double in a fixed order: may be NULL, and then a device that computes on
     * its own need not be waited for; it says in a later call that it met such gradients. */
    dc_status (*sgd)(dc_backend *, int n_segments, const dc_segment *segments, const dc_sgd *sgd, double *norm);
    dc_status (*adam)(dc_backend *, int n_segments, const dc_segment *segments, const dc_adam *adam);
    /* y = a x + b y over count floats of two arrays that `alloc` gave: averages of weights, sums of gradients */
    dc_status (*blend)(dc_backend *, float *y, const float *x, size_t count, float a, float b);
    /* y += a few floats of the host's, which have been read on return; a device is not waited for */
    dc_status (*add)(dc_backend *, float *y, const float *host, size_t count);

    /* What follows is of devices that compute on their own while the host goes on, and NULL of others.
     *
     * The stream (a cudaStream_t) on which all of this is only enqueued, so that others can put their own
     * work before and after it. NULL: memory is the host's, and what has returned is done. */
    void *(*stream)(dc_backend *);
    /* A run: forward (what = 0) or backward of a step, between open and close. The same run with the same operands is
     * recorded and replayed from then on; then *replayed is true, and no calls of forward, backward and the like must
     * follow. Between end_part and begin_part the caller puts work of others on the stream (sums over ranks), which is
     * not recorded: `parts`, NULL where there are none, says whose, and the same run has the same parts. close returns
     * status or its own error. *runs starts as NULL, and destroy_runs is legal on it; the operands' addresses must stay
     * what they are until then. */
    dc_status (*open_run)(dc_backend *, dc_runs **runs, const dc_step *step, unsigned what, const void *parts,
                          bool *replayed);
    dc_status (*end_part)(dc_backend *, dc_runs *runs);
    dc_status (*begin_part)(dc_backend *, dc_runs *runs);
    dc_status (*close_run)(dc_backend *, dc_runs *runs, dc_status status);
    void (*destroy_runs)(dc_backend *, dc_runs *runs);
    /* Begins to copy a batch to the device, while what was enqueued before is computed, where it is then assembled. The
     * host's memory may be changed on return; the device's is valid until the next call. shape: of an image; labels:
     * n_images. */
    dc_status (*stage_batch)(dc_backend *, dc_shape shape, int n_images, const dc_raw_images *pixels,
                             const int32_t *labels, const float **device_images, const int32_t **device_labels);
    /* Begins to copy count (at most DC_LATER_FLOATS) floats to the host, where `take` is called with them, in the order
     * of these calls, during some later call of the backend, at the latest in sync. */
    dc_status (*copy_out_later)(dc_backend *, const float *device, size_t count, dc_take take, void *context);
    /* Until all that was to come for this context has been taken: waits for nothing that was enqueued after it. */
    dc_status (*await)(dc_backend *, const void *context);

    /* What follows is of devices with a memory of their own, and NULL of others.
     *
     * Bytes that steps of a plan take beside its arena: workspaces of libraries (what they plan is kept), batches on
     * their way. */
    dc_status (*step_bytes)(dc_backend *, const dc_plan *plan, size_t *bytes);
    /* Memory that nobody uses now, and all of it. */
    dc_status (*memory)(dc_backend *, size_t *free_bytes, size_t *total_bytes);
} dc_backend_interface;

/* Looks after what others have put on the device, on which the backend's own work may wait (sums over ranks). */
typedef struct dc_watch {
    dc_status (*check)(void *context, double waited_s);
    void *context;
} dc_watch;

struct dc_backend {
    const dc_backend_interface *call;
    dc_plan_layout layout;
    char description[160]; /* one line for logs: "cpu avx2, 2 threads" */
    dc_watch watch;        /* called again and again while the host waits for the stream (in sync, copy_out, ...), with
                              the length of this wait so far; an error ends the wait. check NULL: nobody watches */
    /* implementation's data follows */
};

typedef struct dc_backend_options {
    int threads;    /* OpenMP threads of this rank, at least 1 */
    int local_rank; /* among the ranks of this node: which of its GPUs (modulo their number) */
    dc_precision precision;
    bool autotune;   /* GPUs: time the engines of convolutions and keep the fastest; results may then differ from one
                        backend to the next by rounding */
    const char *gpu; /* "cuda": a100, h100 or b200, to plan for a GPU that need not be here; nothing can be executed
                        then. NULL: the one that is here */
} dc_backend_options;

/* The registry: "cpu" (instruction set chosen at start; DCANAS_ISA=avx512_bf16|avx512|avx2|portable overrides), "cuda"
 * where the program was built with it, and "auto": a GPU when the driver shows one, else the CPU; description says
 * which, and why not. TF32 is a GPU's: DC_ERR_INPUT without one. Owned by the caller; dc_backend_destroy(NULL) is
 * legal. */
dc_status dc_backend_create(const char *name, const dc_backend_options *options, dc_backend **backend);
void dc_backend_destroy(dc_backend *backend);

/* What steps of a plan take of the device's memory beside its arena; 0 where it has no memory of its own. */
dc_status dc_backend_step_bytes(dc_backend *backend, const dc_plan *plan, size_t *bytes);

/* DC_ERR_MEMORY, in one line, where `what` ("the search") needs more bytes of the device's memory than are free;
 * `where`
 * ("[search]") has the batch, channels and cells to lower. DC_OK where the device has no memory of its own. */
dc_status dc_backend_check_memory(dc_backend *backend, size_t bytes, const char *what, const char *where);

/* As copy_out_later and await: of a device that does not compute on its own, all is taken at once. */
dc_status dc_backend_copy_out_later(dc_backend *backend, const float *device, size_t count, dc_take take,
                                    void *context);
dc_status dc_backend_await(dc_backend *backend, const void *context);

/* The number of GPUs here, and a text of what was built in for them and what the driver shows, or why there are none.
 */
int dc_backend_gpus(char *text, size_t size);

/* The backend's description; valid as long as it. */
const char *dc_backend_description(const dc_backend *backend);

#endif
