/* What the kernels that stream through memory share: the piece of a block of images that a thread has, and sums over a
 * warp and a block of threads, whose order is fixed. */
#ifndef DCK_PLANE_CUH
#define DCK_PLANE_CUH

#include "launch.cuh"

enum {
    THREADS = 256,
    WARPS = THREADS / 32,
    PIXEL_FOURS = DCK_LANES / 4,
    EACH = 2 /* fours of a thread, loaded before any is stored: enough bytes in flight, also of bfloat16 */
};

/* The fours of a view in a block of images, which lie side by side whatever its range of channels. */
template <class T> static __host__ __device__ inline unsigned block_fours(dck_elements<T> x)
{
    return (unsigned)(x.c * x.h * x.w * PIXEL_FOURS);
}

template <class T> static __host__ __device__ inline unsigned plane_fours(dck_elements<T> x)
{
    return (unsigned)(x.h * x.w * PIXEL_FOURS);
}

/* One thread for EACH fours of each block of images. */
static inline dim3 piece_grid(dck_view y, int n)
{
    return dim3(ceil_div((size_t)y.c * (size_t)y.h * (size_t)y.w * PIXEL_FOURS, THREADS * EACH), blocks_of(n));
}

/* What a thread has: fours first, first + THREADS ... below end, of a block of images. */
struct dck_piece {
    unsigned block, first, end;
};

template <class T> static __device__ inline dck_piece piece_of(dck_elements<T> y)
{
    return {blockIdx.y, blockIdx.x * (THREADS * EACH) + threadIdx.x, block_fours(y)};
}

template <class T, size_t N>
static __device__ inline void load_piece(dck_elements<T> x, dck_piece piece, dck_four (&v)[N])
{
    const T *from = x.data + piece.block * x.stride;
    UNROLL
    for (unsigned k = 0; k < N; k++) {
        const unsigned i = piece.first + k * THREADS;
        v[k] = i < piece.end ? load_four(from + 4 * (size_t)i) : dck_four{{0, 0, 0, 0}};
    }
}

/* The channel of a piece's k-th four; of one past the end, some channel. */
template <class T>
static __device__ inline unsigned piece_channel(const dck_elements<T> &x, dck_piece piece, unsigned k)
{
    const unsigned i = piece.first + k * THREADS;
    return i < piece.end ? i / plane_fours(x) : 0;
}

/* What is stored seen through a deferred batch norm, where there is one. */
template <class T, size_t N>
static __device__ inline void load_seen(dck_elements<T> x, dck_piece piece, dck_four (&v)[N])
{
    load_piece(x, piece, v);
    if (!x.affine)
        return;
    UNROLL
    for (unsigned k = 0; k < N; k++)
        v[k] = seen_through(x.affine[piece_channel(x, piece, k)], v[k]);
}

template <class T, size_t N>
static __device__ inline void store_piece(dck_elements<T> y, dck_piece piece, dck_four (&v)[N], bool accumulate)
{
    if (accumulate) {
        dck_four before[N];
        load_piece(y, piece, before);
        UNROLL
        for (unsigned k = 0; k < N; k++)
            for (int j = 0; j < 4; j++)
                v[k].v[j] += before[k].v[j];
    }
    T *to = y.data + piece.block * y.stride;
    UNROLL
    for (unsigned k = 0; k < N; k++) {
        const unsigned i = piece.first + k * THREADS;
        if (i < piece.end)
            store_four(to + 4 * (size_t)i, v[k]);
    }
}

/* How many lanes of a block hold images, of n in all. */
static __device__ inline int lanes_of(unsigned block, int n)
{
    const int left = n - (int)block * DCK_LANES;
    return left < DCK_LANES ? left : DCK_LANES;
}

/* Every thread of a block of THREADS gets the sum. shared: WARPS numbers that nothing else uses. */
template <class T> static __device__ inline T block_sum(T x, T *shared)
{
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = x;
    __syncthreads();
    T total = 0;
    for (int i = 0; i < WARPS; i++)
        total += shared[i];
    return total;
}

#endif
