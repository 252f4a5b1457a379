/* What the kernels over planes share. A thread has four neighbouring images of a pixel (a quad), neighbouring threads
 * the other quads and then the next column: a warp reads eight columns at once, 512 bytes in float. */
#ifndef DCK_SPATIAL_CUH
#define DCK_SPATIAL_CUH

#include "launch.cuh"

#include <math.h>

enum { SPATIAL_THREADS = 128, WARP = 32, QUADS = DCK_LANES / 4 };

/* The plane of a channel of a block, from a thread's quad of images on. */
template <class T>
static __device__ inline T *plane_at(const dck_elements<T> &v, unsigned channel, unsigned block, int quad)
{
    return v.data + block * v.stride + (size_t)channel * v.h * v.w * DCK_LANES + quad * 4;
}

/* The larger of two; not a number where either is none: a network that diverges must be seen to. */
static __device__ inline float larger(float a, float b)
{
#ifdef __CUDACC__
    float c;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(c) : "f"(a), "f"(b)); /* one instruction, which C++ has no name for */
    return c;
#else
    return a > b || a != a ? a : b;
#endif
}

/* A pixel of a plane, zeros outside. */
template <class T> static __device__ inline dck_four load_inside(const T *plane, int row, int column, int h, int w)
{
    dck_four x = {{0, 0, 0, 0}};
    if ((unsigned)row < (unsigned)h && (unsigned)column < (unsigned)w)
        x = load_four(plane + (row * w + column) * DCK_LANES);
    return x;
}

/* The same of what is seen through f, what lies below floor raised to it: 0 is relu, none -infinity. Written out:
 * calling the other makes 5x5 convolutions a fifth longer. */
template <class T>
static __device__ inline dck_four load_raised(const T *plane, int row, int column, int h, int w, dck_affine f,
                                              float floor)
{
    dck_four x = {{0, 0, 0, 0}};
    if ((unsigned)row < (unsigned)h && (unsigned)column < (unsigned)w)
        x = seen_through(f, load_four(plane + (row * w + column) * DCK_LANES));
    UNROLL
    for (int i = 0; i < 4; i++)
        x.v[i] = larger(x.v[i], floor);
    return x;
}

static inline float floor_of(bool relu)
{
    return relu ? 0 : -INFINITY;
}

static __device__ inline void add_product(dck_four *sum, float factor, dck_four x)
{
    UNROLL
    for (int i = 0; i < 4; i++)
        sum->v[i] += factor * x.v[i];
}

template <class T> static __device__ inline void put_four(T *to, dck_four x, bool accumulate)
{
    if (accumulate) {
        const dck_four old = load_four(to);
        add_product(&x, 1, old);
    }
    store_four(to, x);
}

/* A gradient that passes where x, as it was read, is above zero. */
template <class T> static __device__ inline dck_four pass_above_zero(const T *x, dck_affine f, dck_four gradient)
{
    const dck_four at = seen_through(f, load_four(x));
    UNROLL
    for (int i = 0; i < 4; i++)
        gradient.v[i] = at.v[i] > 0 ? gradient.v[i] : 0;
    return gradient;
}

/* A grid of a thread for each quad of `pixels` pixels of each plane: (pixels, channel, block). */
static inline dim3 spatial_grid(int pixels, int channels, int n)
{
    return dim3(ceil_div((size_t)pixels * QUADS, SPATIAL_THREADS), (unsigned)channels, blocks_of(n));
}

/* Where a thread of that grid is. */
struct spatial_place {
    int quad, row, column;
};

static __device__ inline spatial_place spatial_place_of(int columns)
{
    const int thread = (int)(blockIdx.x * SPATIAL_THREADS + threadIdx.x), pixel = thread / QUADS;
    return {thread % QUADS, pixel / columns, pixel % columns};
}

#endif
