/* Softmax cross-entropy with label smoothing (Szegedy et al. 2016), as torch.nn.CrossEntropyLoss: the target is
 * 1 - s at the label plus s / classes everywhere; mean over the images. And the softmax of architecture parameters.
 *
 * A block of threads has 16 images, 16 threads each. forward reads the logits of an image's classes from memory once
 * (then from the cache) and writes its probabilities, 8 bytes a class and image, backward reads those and writes 8; too
 * small to be bound by anything but the time of a launch (1000 classes, 1024 images: 8 MB). */
#include "plane.cuh"

enum { TEAM = THREADS / DCK_LANES /* threads of an image */ };

/* ---- softmax: a thread for each of a few rows ---- */

static __global__ void __launch_bounds__(THREADS)
    softmax_forward_kernel(const float *alpha, float *p, int rows, int columns)
{
    const int row = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (row >= rows)
        return;
    const float *from = alpha + (size_t)row * (size_t)columns;
    float *to = p + (size_t)row * (size_t)columns, highest = from[0], total = 0;
    for (int c = 1; c < columns; c++)
        highest = from[c] > highest ? from[c] : highest;
    for (int c = 0; c < columns; c++) {
        to[c] = expf(from[c] - highest);
        total += to[c];
    }
    for (int c = 0; c < columns; c++)
        to[c] /= total;
}

static __global__ void __launch_bounds__(THREADS)
    softmax_backward_kernel(const float *p, const float *dp, float *dalpha, int rows, int columns)
{
    const int row = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (row >= rows)
        return;
    const size_t first = (size_t)row * (size_t)columns;
    float mean = 0;
    for (int c = 0; c < columns; c++)
        mean += p[first + (size_t)c] * dp[first + (size_t)c];
    for (int c = 0; c < columns; c++)
        dalpha[first + (size_t)c] = p[first + (size_t)c] * (dp[first + (size_t)c] - mean);
}

cudaError_t dck_cuda_softmax_forward(const dck_queue *queue, const float *alpha, float *p, int rows, int columns)
{
    return launch(softmax_forward_kernel, dim3(ceil_div((size_t)rows, THREADS)), dim3(THREADS), 0, queue->stream, alpha,
                  p, rows, columns);
}

cudaError_t dck_cuda_softmax_backward(const dck_queue *queue, const float *p, const float *dp, float *dalpha, int rows,
                                      int columns)
{
    return launch(softmax_backward_kernel, dim3(ceil_div((size_t)rows, THREADS)), dim3(THREADS), 0, queue->stream, p,
                  dp, dalpha, rows, columns);
}

/* ---- cross-entropy ---- */

static __device__ inline float to_float(float x)
{
    return x;
}

static __device__ inline float to_float(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

/* What an image's team has found: each gets the maximum, or the sum in a fixed order. shared: THREADS numbers that
 * nothing else uses. */
static __device__ inline float team_max(float x, float *shared)
{
    const unsigned lane = threadIdx.x % DCK_LANES;
    shared[threadIdx.x] = x;
    __syncthreads();
    float highest = shared[lane];
    for (unsigned i = 1; i < TEAM; i++)
        highest = shared[i * DCK_LANES + lane] > highest ? shared[i * DCK_LANES + lane] : highest;
    return highest;
}

static __device__ inline float team_sum(float x, float *shared)
{
    const unsigned lane = threadIdx.x % DCK_LANES;
    shared[threadIdx.x] = x;
    __syncthreads();
    float total = 0;
    for (unsigned i = 0; i < TEAM; i++)
        total += shared[i * DCK_LANES + lane];
    return total;
}

/* Of one image; as stored, an array of each for all images. */
struct image_figures {
    float *loss, *top1, *top5;
};

static image_figures figures_in(void *scratch, unsigned images)
{
    float *floats = static_cast<float *>(scratch);
    return {floats, floats + images, floats + 2 * (size_t)images};
}

/* saved: [blocks][classes][16] */
template <class T>
static __global__ void __launch_bounds__(THREADS)
    cross_entropy_kernel(dck_elements<T> logits, const int32_t *labels, float smoothing, int n, float *saved,
                         image_figures figures)
{
    SHARED_ARRAY(float, maxima, THREADS);
    SHARED_ARRAY(float, totals, THREADS);
    SHARED_ARRAY(float, sums, THREADS);
    SHARED_ARRAY(float, rivals, THREADS);
    const int lane = (int)(threadIdx.x % DCK_LANES), member = (int)(threadIdx.x / DCK_LANES), classes = logits.c;
    const bool present = lane < lanes_of(blockIdx.x, n);
    const size_t image = (size_t)blockIdx.x * DCK_LANES + (size_t)lane;
    const T *z = logits.data + blockIdx.x * logits.stride + lane;
    float *p = saved + (size_t)blockIdx.x * (size_t)classes * DCK_LANES + lane;
    const int label = present ? labels[image] : 0;
    const float own = to_float(z[(size_t)label * DCK_LANES]);
    float highest = own, total = 0, sum = 0, against = 0;
    for (int c = member; c < classes; c += TEAM) {
        const float value = to_float(z[(size_t)c * DCK_LANES]);
        highest = value > highest ? value : highest;
        sum += value;
        against += c != label && !(value < own) ? 1 : 0; /* what is not a number counts against */
    }
    highest = team_max(highest, maxima);
    for (int c = member; c < classes; c += TEAM)
        total += expf(to_float(z[(size_t)c * DCK_LANES]) - highest);
    total = team_sum(total, totals);
    for (int c = member; c < classes; c += TEAM)
        p[(size_t)c * DCK_LANES] = expf(to_float(z[(size_t)c * DCK_LANES]) - highest) / total;
    sum = team_sum(sum, sums);
    against = team_sum(against, rivals);
    if (member > 0)
        return;
    const float loss = highest - own + logf(total) + smoothing * (own - sum / (float)classes);
    figures.loss[image] = present ? loss : 0;
    figures.top1[image] = present && against == 0 ? 1 : 0;
    figures.top5[image] = present && against < 5 ? 1 : 0;
}

static __global__ void __launch_bounds__(THREADS)
    add_figures_kernel(image_figures figures, int images, int n, float *result)
{
    SHARED_ARRAY(float, losses, WARPS);
    SHARED_ARRAY(float, firsts, WARPS);
    SHARED_ARRAY(float, fifths, WARPS);
    float loss = 0, top1 = 0, top5 = 0;
    for (int i = (int)threadIdx.x; i < images; i += THREADS) {
        loss += figures.loss[i];
        top1 += figures.top1[i];
        top5 += figures.top5[i];
    }
    loss = block_sum(loss, losses);
    top1 = block_sum(top1, firsts);
    top5 = block_sum(top5, fifths);
    if (threadIdx.x > 0)
        return;
    result[0] = loss / (float)n;
    result[1] = top1;
    result[2] = top5;
    result[3] = (float)n;
}

cudaError_t dck_cuda_cross_entropy_forward(const dck_queue *queue, dck_view logits, const int32_t *labels,
                                           float smoothing, int n, float *saved, float *result, void *scratch)
{
    const unsigned blocks = blocks_of(n);
    const image_figures figures = figures_in(scratch, blocks * DCK_LANES);
    const cudaError_t error =
        DISPATCH_TYPE(queue, T,
                      launch(cross_entropy_kernel<T>, dim3(blocks), dim3(THREADS), 0, queue->stream,
                             elements<T>(logits), labels, smoothing, n, saved, figures));
    if (error != cudaSuccess)
        return error;
    return launch(add_figures_kernel, dim3(1), dim3(THREADS), 0, queue->stream, figures, (int)(blocks * DCK_LANES), n,
                  result);
}

template <class T>
static __global__ void __launch_bounds__(THREADS)
    cross_entropy_backward_kernel(const float *saved, const int32_t *labels, float smoothing, float scale, int n,
                                  dck_elements<T> dlogits, bool accumulate)
{
    const dck_piece piece = piece_of(dlogits);
    const unsigned lane = threadIdx.x % PIXEL_FOURS * 4;
    const int lanes = lanes_of(piece.block, n);
    const float everywhere = smoothing / (float)dlogits.c;
    const dck_elements<const float> probability = {saved, dlogits.c, 1, 1, (size_t)dlogits.c * DCK_LANES};
    dck_four v[EACH];
    load_piece(probability, piece, v);
    for (unsigned j = 0; j < 4; j++) {
        const bool present = (int)(lane + j) < lanes;
        const unsigned label = present ? (unsigned)labels[piece.block * DCK_LANES + lane + j] : 0;
        for (unsigned k = 0; k < EACH; k++) {
            const bool is_label = (piece.first + k * THREADS) / PIXEL_FOURS == label;
            const float d = scale * (v[k].v[j] - everywhere - (is_label ? 1 - smoothing : 0));
            v[k].v[j] = present ? d : 0;
        }
    }
    store_piece(dlogits, piece, v, accumulate);
}

cudaError_t dck_cuda_cross_entropy_backward(const dck_queue *queue, const float *saved, const int32_t *labels,
                                            float smoothing, float weight, int n, dck_view dlogits, bool accumulate)
{
    return DISPATCH_TYPE(queue, T,
                         launch(cross_entropy_backward_kernel<T>, piece_grid(dlogits, n), dim3(THREADS), 0,
                                queue->stream, saved, labels, smoothing, weight / (float)n, n, elements<T>(dlogits),
                                accumulate));
}
