/* The vector that every kernel is written in, compiled once per instruction set.
 *
 * The Makefile defines DCK_ISA (the suffix of every name) and DCK_VECTOR (floats in a native register). A pixel is the
 * 16 images of a block: DCK_PER_PIXEL vectors, 64 bytes, one cache line. Elementwise work treats a plane as
 * h * w * DCK_PER_PIXEL vectors. Only GCC's vector extensions are used, and no intrinsics but for bfloat16 and stores
 * past the caches. */
#ifndef DCK_VECTOR_H
#define DCK_VECTOR_H

#include "kernels.h"

#if DCK_VECTOR == 16
#include <immintrin.h>
#endif

/* Instructions for bfloat16. (A compiler told -march=native has them for narrower vectors, too.) */
#if DCK_VECTOR == 16 && defined __AVX512BF16__
#define DCK_HAS_DOT
#endif

#define DCK_JOIN_(name, isa) dck_##name##_##isa
#define DCK_JOIN(name, isa)  DCK_JOIN_(name, isa)
#define DCK(name)            DCK_JOIN(name, DCK_ISA) /* dck_<name>_<isa>: every function that is not static */

#define DCK_INLINE           static inline __attribute__((always_inline))

/* Before a loop over a tile: only fully unrolled do its sums stay in registers. */
#define DCK_UNROLL _Pragma("GCC unroll 16")

typedef float dck_vec __attribute__((vector_size(4 * DCK_VECTOR), may_alias));
typedef int32_t dck_mask __attribute__((vector_size(4 * DCK_VECTOR), may_alias));   /* a lane is 0 or -1 */
typedef uint32_t dck_pairs __attribute__((vector_size(4 * DCK_VECTOR), may_alias)); /* a lane is two bfloat16 */
typedef float dck_four __attribute__((vector_size(16), may_alias, aligned(4)));     /* any address */

enum {
    DCK_PER_PIXEL = DCK_LANES / DCK_VECTOR,
    DCK_PIXEL_BYTES = 4 * DCK_LANES,
};

DCK_INLINE dck_vec dck_set(float x)
{
    return x - (dck_vec){0};
}

/* Past the caches: what is there need not be read first, and nothing is driven out. Only where a vector is a whole
 * line. Other threads may see it late: dck_settle before they are told that it is there. */
DCK_INLINE void dck_stream(dck_vec *to, dck_vec x)
{
#if DCK_VECTOR == 16
    _mm512_stream_ps((float *)to, (__m512)x);
#else
    *to = x;
#endif
}

DCK_INLINE void dck_settle(void)
{
#if DCK_VECTOR == 16
    _mm_sfence();
#endif
}

/* x where mask, else 0. */
DCK_INLINE dck_vec dck_where(dck_mask mask, dck_vec x)
{
    return (dck_vec)(mask & (dck_mask)x);
}

DCK_INLINE dck_vec dck_select(dck_mask mask, dck_vec yes, dck_vec no)
{
    return (dck_vec)((mask & (dck_mask)yes) | (~mask & (dck_mask)no));
}

DCK_INLINE dck_vec dck_max(dck_vec a, dck_vec b)
{
    return dck_select(a > b, a, b);
}

/* Not a number stays so: a network that diverges must be seen to. */
DCK_INLINE dck_vec dck_relu(dck_vec x)
{
    return dck_where(~(x <= (dck_vec){0}), x);
}

/* Sums of the lanes of four vectors, in an order that depends on nothing but DCK_VECTOR. */
DCK_INLINE dck_four dck_sum_lanes4(dck_vec a, dck_vec b, dck_vec c, dck_vec d)
{
    typedef float four __attribute__((vector_size(16)));
    union {
        dck_vec whole;
        four part[DCK_VECTOR / 4];
    } in[4] = {{a}, {b}, {c}, {d}};
    four s[4];
    for (int i = 0; i < 4; i++) {
        s[i] = in[i].part[0];
        for (int j = 1; j < DCK_VECTOR / 4; j++)
            s[i] += in[i].part[j];
    }
    four ab = __builtin_shufflevector(s[0], s[1], 0, 4, 1, 5) + __builtin_shufflevector(s[0], s[1], 2, 6, 3, 7);
    four cd = __builtin_shufflevector(s[2], s[3], 0, 4, 1, 5) + __builtin_shufflevector(s[2], s[3], 2, 6, 3, 7);
    return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

DCK_INLINE float dck_sum_lanes(dck_vec x)
{
    for (int step = DCK_VECTOR / 2; step > 0; step /= 2)
        for (int i = 0; i < step; i++)
            x[i] += x[i + step];
    return x[0];
}

/* ---- bfloat16 ----
 * The upper half of a float, rounded to even. The first of a lane's two is in its lower half, as in an array of them.
 */

/* In the upper halves; what is below them is of no account. */
DCK_INLINE dck_pairs dck_round_bits(dck_vec x)
{
    const dck_pairs bits = (dck_pairs)x, number = (dck_pairs)(x == x);
    return (number & (bits + 0x7fff + (bits >> 16 & 1))) | (~number & (bits | 0x400000));
}

DCK_INLINE uint16_t dck_to_bf16(float x)
{
    uint32_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((x == x ? bits + 0x7fff + (bits >> 16 & 1) : bits | 0x400000) >> 16);
}

DCK_INLINE dck_pairs dck_pair(dck_vec first, dck_vec second)
{
#ifdef DCK_HAS_DOT
    static const uint16_t alternate[32]
        __attribute__((aligned(64))) = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return (dck_pairs)_mm512_permutexvar_epi16(*(const __m512i *)alternate,
                                               (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first));
#else
    return dck_round_bits(first) >> 16 | (dck_round_bits(second) & 0xffff0000);
#endif
}

DCK_INLINE dck_vec dck_first(dck_pairs p)
{
    return (dck_vec)(p << 16);
}

DCK_INLINE dck_vec dck_second(dck_pairs p)
{
    return (dck_vec)(p & 0xffff0000);
}

/* sum + the product of the first numbers + that of the second ones. */
DCK_INLINE dck_vec dck_dot(dck_vec sum, dck_pairs a, dck_pairs b)
{
#ifdef DCK_HAS_DOT
    return (dck_vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
    return sum + dck_first(a) * dck_first(b) + dck_second(a) * dck_second(b);
#endif
}

#endif
