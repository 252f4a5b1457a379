/* From stored bytes to a batch: crop of the padded image, flip, normalisation by a table, cutout. Reads a byte an
 * element and writes 4 (2 of bfloat16): bound by memory. Bytes are read along rows of images and written along lanes,
 * by way of a tile in shared memory. */
#include "tile.cuh"

/* The normalised value of one element of an image. */
static __device__ inline float element(const uint8_t *image, const dck_augment_draw &draw, const float *table, int pad,
                                       int h, int w, size_t feature)
{
    const int plane = h * w, c = (int)(feature / (size_t)plane), pixel = (int)(feature % (size_t)plane);
    const int y = pixel / w, x = pixel % w;
    const int from_y = y + draw.offset_y - pad, from_x = (draw.flip ? w - 1 - x : x) + draw.offset_x - pad;
    if (y >= draw.cut_y0 && y < draw.cut_y1 && x >= draw.cut_x0 && x < draw.cut_x1)
        return 0;
    const bool inside = from_y >= 0 && from_y < h && from_x >= 0 && from_x < w;
    const int byte = inside ? image[(size_t)c * (size_t)plane + (size_t)(from_y * w + from_x)] : 0; /* black */
    return table[c * 256 + byte];
}

template <class T>
static __global__ void __launch_bounds__(THREADS) augment_kernel(const uint8_t *bytes, const dck_augment_draw *draws,
                                                                 const float *table, int pad, dck_elements<T> y, int n)
{
    SHARED_ARRAY(float, tile, TILE_FLOATS);
    const size_t features = (size_t)y.c * (size_t)y.h * (size_t)y.w;
    const size_t first = (size_t)blockIdx.x * TILE_FEATURES, feature = first + threadIdx.x % TILE_FEATURES;
    for (unsigned lane = threadIdx.x / TILE_FEATURES; lane < DCK_LANES; lane += THREADS / TILE_FEATURES) {
        const size_t image = (size_t)blockIdx.y * DCK_LANES + lane;
        float value = 0;
        if (image < (size_t)n && feature < features)
            value = element(bytes + image * features, draws[image], table, pad, y.h, y.w, feature);
        tile_at(tile, lane, threadIdx.x % TILE_FEATURES) = value;
    }
    __syncthreads();
    store_tile(tile, y.data + blockIdx.y * y.stride, first, features);
}

cudaError_t dck_cuda_augment(const dck_queue *queue, const uint8_t *bytes, const dck_augment_draw *draws,
                             const float *table, int pad, dck_view y, int n)
{
    return DISPATCH_TYPE(queue, T,
                         launch(augment_kernel<T>, tile_grid(y, n), dim3(THREADS), 0, queue->stream, bytes, draws,
                                table, pad, elements<T>(y), n));
}
