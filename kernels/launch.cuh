/* Included first by every .cu: launching, shared memory and element types, spelt so that the same source is compiled by
 * nvcc and, for the emulated device of the tests, by a C++ compiler (tests/emulator/device.h, forced in front).
 *
 * Rules for kernels: shared memory only through SHARED_ARRAY and DYN_SHARED; launches only through `launch`; warp
 * primitives only the _sync ones; loops unrolled by UNROLL; no double except where a comment says why. */
#ifndef DCK_LAUNCH_CUH
#define DCK_LAUNCH_CUH

#include "cuda.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#ifdef __CUDACC__
#define UNROLL                   _Pragma("unroll")
#define SHARED_ARRAY(T, name, n) __shared__ T name[n]
#define DYN_SHARED(T, name)                                                                                            \
    extern __shared__ __align__(16) unsigned char name##_raw[];                                                        \
    T *name = reinterpret_cast<T *>(name##_raw)

template <class... P, class... A>
static inline cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                                 A... arguments)
{
    kernel<<<grid, block, shared_bytes, stream>>>(static_cast<P>(arguments)...);
    return cudaGetLastError();
}
#else
#define UNROLL
#endif

/* Four neighbouring images of one element of a tensor, in float: the body of most kernels. T: float, __nv_bfloat16. */
struct dck_four {
    float v[4];
};

static __device__ inline dck_four load_four(const float *p)
{
    const float4 f = *reinterpret_cast<const float4 *>(p);
    return {{f.x, f.y, f.z, f.w}};
}

static __device__ inline void store_four(float *p, dck_four x)
{
    *reinterpret_cast<float4 *>(p) = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
}

static __device__ inline dck_four load_four(const __nv_bfloat16 *p)
{
    const uint2 raw = *reinterpret_cast<const uint2 *>(p);
    return {{__uint_as_float(raw.x << 16), __uint_as_float(raw.x & 0xffff0000u), __uint_as_float(raw.y << 16),
             __uint_as_float(raw.y & 0xffff0000u)}};
}

/* To the nearest, ties to even; NaN stays NaN. */
static __device__ inline unsigned bf16_bits(float x)
{
    const unsigned u = __float_as_uint(x);
    return (x != x ? 0x7fc00000u : u + 0x7fffu + (u >> 16 & 1)) >> 16;
}

static __device__ inline void store_four(__nv_bfloat16 *p, dck_four x)
{
    uint2 raw;
    raw.x = bf16_bits(x.v[0]) | bf16_bits(x.v[1]) << 16;
    raw.y = bf16_bits(x.v[2]) | bf16_bits(x.v[3]) << 16;
    *reinterpret_cast<uint2 *>(p) = raw;
}

/* DISPATCH_TYPE(queue, T, expression using T): the value of the expression for the queue's element type. */
#define DISPATCH_TYPE(queue, T, ...)                                                                                   \
    ((queue)->type == DCK_BF16 ? [&] { using T = __nv_bfloat16; return __VA_ARGS__; }()                                \
                               : [&] { using T = float; return __VA_ARGS__; }())

/* What a batch norm that is deferred to its readers (dck_view) does to a channel on load. */
struct __align__(8) dck_affine
{
    float scale, shift;
};

static __device__ inline dck_four seen_through(dck_affine f, dck_four x)
{
    UNROLL
    for (int i = 0; i < 4; i++)
        x.v[i] = f.scale * x.v[i] + f.shift;
    return x;
}

/* A view's elements and extents as kernels take them. */
template <class T> struct dck_elements {
    T *data;
    int c, h, w;
    size_t stride;                      /* elements from one block of images to the next */
    const dck_affine *affine = nullptr; /* of each channel; NULL: the tensor is what is stored */
};

template <class T> static inline dck_elements<T> elements(dck_view v)
{
    return {reinterpret_cast<T *>(v.data), v.c, v.h, v.w, v.stride, reinterpret_cast<const dck_affine *>(v.affine)};
}

static __device__ inline dck_affine affine_of(const dck_affine *affine, unsigned channel)
{
    return affine ? affine[channel] : dck_affine{1, 0};
}

static inline unsigned blocks_of(int n)
{
    return (unsigned)(n + DCK_LANES - 1) / DCK_LANES;
}

static inline unsigned ceil_div(size_t a, size_t b)
{
    return (unsigned)((a + b - 1) / b);
}

/* Every lane of the warp gets the sum. */
template <class T> static __device__ inline T warp_sum(T x)
{
    UNROLL
    for (int other = 16; other > 0; other /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, other);
    return x;
}

#endif
