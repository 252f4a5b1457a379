/* What nvcc gives a .cu and a C++ compiler does not, for the emulated device: forced in front of every kernel source
 * that the tests compile for the CPU. Types and prototypes are those of the real headers.
 *
 * One block runs at a time, its threads as fibers that give way only at barriers and warp primitives (kernels.cpp), so
 * "the current thread" is a global. What is missing here is missing on purpose: atomics on floats, primitives without
 * _sync, double-precision intrinsics. */
#ifndef EMULATED_DEVICE_H
#define EMULATED_DEVICE_H

#ifdef __CUDACC__
#error "device.h is for C++ compilers; nvcc has the real thing"
#endif

#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__    __attribute__((noinline))

#include <cuda_runtime.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>
#include <type_traits>

namespace emulator
{

struct site { /* of a source, for messages */
    const char *file;
    int line;
};

struct coordinates {
    uint3 thread, block;
    dim3 block_size, grid_size;
    int lane;
};
extern coordinates current;

void barrier(site at);
/* Every lane of mask calls it at the same place; returns the value of lane `source`, or the ballot of all values. */
uint64_t exchange(unsigned mask, uint64_t value, int source, site at);
unsigned ballot(unsigned mask, bool value, site at);

/* A declaration of shared memory; one static object for each. */
struct shared_slot {
    uint64_t block; /* for which `memory` holds */
    void *memory;
};
extern uint64_t block_serial;
void *new_shared(shared_slot *slot, size_t bytes, size_t alignment, site at);
void *dynamic_shared(site at);

static inline void *shared(shared_slot *slot, size_t bytes, size_t alignment, site at)
{
    return slot->block == block_serial ? slot->memory : new_shared(slot, bytes, alignment, at);
}

struct call {
    const char *text; /* of the launch's arguments, the kernel first */
    site at;
};
cudaError_t enqueue_kernel(call where, std::function<void()> thread, dim3 grid, dim3 block, size_t shared_bytes,
                           cudaStream_t stream);
void check_argument(call where, const void *pointer);

template <class P> static inline void check(call where, const P &argument)
{
    if constexpr (std::is_pointer_v<P>)
        check_argument(where, (const void *)argument);
}

template <class... P, class... A>
static inline cudaError_t launch_at(call where, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                                    cudaStream_t stream, A... arguments)
{
    (check<P>(where, static_cast<P>(arguments)), ...);
    return enqueue_kernel(
        where, [=] { kernel(static_cast<P>(arguments)...); }, grid, block, shared_bytes, stream);
}

template <class T> static inline T shuffle(unsigned mask, T value, int source, site at)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles are of 4 or 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = exchange(mask, bits, source, at);
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline void sync_warp(site at, unsigned mask = 0xffffffffu)
{
    ballot(mask, true, at);
}

/* The lane itself where the other would lie outside of its part of the warp, which is `width` lanes wide. */
static inline int lane_up(unsigned delta, int width = 32)
{
    return current.lane % width < (int)delta ? current.lane : current.lane - (int)delta;
}

static inline int lane_down(unsigned delta, int width = 32)
{
    return current.lane % width + (int)delta >= width ? current.lane : current.lane + (int)delta;
}

static inline int lane_xor(int bits, int width = 32)
{
    const int other = current.lane ^ bits;
    return other / width > current.lane / width ? current.lane : other;
}

static inline int lane_of(int source, int width = 32)
{
    return (current.lane & ~(width - 1)) + (source & (width - 1));
}

} // namespace emulator

/* A macro, so that messages can say where the launch is. */
#define launch(...) emulator::launch_at({#__VA_ARGS__, EMULATOR_HERE}, __VA_ARGS__)

#define EMULATOR_HERE                                                                                                  \
    emulator::site                                                                                                     \
    {                                                                                                                  \
        __FILE__, __LINE__                                                                                             \
    }
#define SHARED_ARRAY(T, name, n)                                                                                       \
    static emulator::shared_slot name##_slot;                                                                          \
    T(&name)[n] = *reinterpret_cast<T(*)[n]>(emulator::shared(&name##_slot, sizeof(T) * (n), alignof(T), EMULATOR_HERE))
#define DYN_SHARED(T, name)              T *name = static_cast<T *>(emulator::dynamic_shared(EMULATOR_HERE))

#define threadIdx                        (emulator::current.thread)
#define blockIdx                         (emulator::current.block)
#define blockDim                         (emulator::current.block_size)
#define gridDim                          (emulator::current.grid_size)
#define warpSize                         32

#define __syncthreads()                  emulator::barrier(EMULATOR_HERE)
#define __syncwarp(...)                  emulator::sync_warp(EMULATOR_HERE __VA_OPT__(, ) __VA_ARGS__)
#define __shfl_sync(mask, value, ...)    emulator::shuffle(mask, value, emulator::lane_of(__VA_ARGS__), EMULATOR_HERE)
#define __shfl_up_sync(mask, value, ...) emulator::shuffle(mask, value, emulator::lane_up(__VA_ARGS__), EMULATOR_HERE)
#define __shfl_down_sync(mask, value, ...)                                                                             \
    emulator::shuffle(mask, value, emulator::lane_down(__VA_ARGS__), EMULATOR_HERE)
#define __shfl_xor_sync(mask, value, ...) emulator::shuffle(mask, value, emulator::lane_xor(__VA_ARGS__), EMULATOR_HERE)
#define __ballot_sync(mask, value)        emulator::ballot(mask, (value) != 0, EMULATOR_HERE)
#define __any_sync(mask, value)           ((int)(emulator::ballot(mask, (value) != 0, EMULATOR_HERE) != 0))
#define __all_sync(mask, value)           ((int)(emulator::ballot(mask, (value) != 0, EMULATOR_HERE) == (mask)))

/* ---- arithmetic ---- */

template <class T> static inline T __ldg(const T *p)
{
    return *p;
}

template <class T> static inline T __ldcs(const T *p)
{
    return *p;
}

template <class T> static inline void __stcs(T *p, T value)
{
    *p = value;
}

template <class To, class From> static inline To emulated_bits(From value)
{
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To result;
    memcpy(&result, &value, sizeof result);
    return result;
}

static inline float __uint_as_float(unsigned x)
{
    return emulated_bits<float>(x);
}

static inline unsigned __float_as_uint(float x)
{
    return emulated_bits<unsigned>(x);
}

static inline float __int_as_float(int x)
{
    return emulated_bits<float>(x);
}

static inline int __float_as_int(float x)
{
    return emulated_bits<int>(x);
}

static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}

/* glibc has functions of these names. */
#define __expf(x) expf(x)
#define __logf(x) logf(x)

static inline float __fdividef(float a, float b)
{
    return a / b;
}

static inline float __fadd_rn(float a, float b)
{
    return a + b;
}

static inline float __fsub_rn(float a, float b)
{
    return a - b;
}

static inline float __fmul_rn(float a, float b)
{
    return a * b;
}

static inline float __fdiv_rn(float a, float b)
{
    return a / b;
}

static inline float __fsqrt_rn(float a)
{
    return sqrtf(a);
}

static inline float __frcp_rn(float a)
{
    return 1.0f / a;
}

static inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}

static inline float __saturatef(float x)
{
    return fminf(fmaxf(x, 0.0f), 1.0f);
}

static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}

static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}

static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}

static inline int __clz(int x)
{
    return x == 0 ? 32 : __builtin_clz((unsigned)x);
}

template <class T> static inline T emulated_atomic_add(T *p, T value)
{
    const T old = *p;
    *p = old + value;
    return old;
}

static inline int atomicAdd(int *p, int value)
{
    return emulated_atomic_add(p, value);
}

static inline unsigned atomicAdd(unsigned *p, unsigned value)
{
    return emulated_atomic_add(p, value);
}

static inline unsigned long long atomicAdd(unsigned long long *p, unsigned long long value)
{
    return emulated_atomic_add(p, value);
}

/* Other blocks have run to their ends or not begun. */
#define __threadfence()       ((void)0)
#define __threadfence_block() ((void)0)

#define EMULATED_MIN_MAX(T)                                                                                            \
    static inline T min(T a, T b)                                                                                      \
    {                                                                                                                  \
        return b < a ? b : a;                                                                                          \
    }                                                                                                                  \
    static inline T max(T a, T b)                                                                                      \
    {                                                                                                                  \
        return a < b ? b : a;                                                                                          \
    }
EMULATED_MIN_MAX(int)
EMULATED_MIN_MAX(unsigned)
EMULATED_MIN_MAX(long)
EMULATED_MIN_MAX(unsigned long)
EMULATED_MIN_MAX(long long)
EMULATED_MIN_MAX(unsigned long long)
#undef EMULATED_MIN_MAX

static inline float min(float a, float b)
{
    return fminf(a, b);
}

static inline float max(float a, float b)
{
    return fmaxf(a, b);
}

#endif
