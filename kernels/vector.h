/* The vector that every kernel is written in, compiled once per instruction set.
 *
 * The Makefile defines DCK_ISA (the suffix of every name) and DCK_VECTOR (floats in a native register). A pixel is the
 * 16 images of a block: DCK_PER_PIXEL vectors, 64 bytes, one cache line. Elementwise work treats a plane as
 * h * w * DCK_PER_PIXEL vectors. Only GCC's vector extensions are used, no intrinsics. */
#ifndef DCK_VECTOR_H
#define DCK_VECTOR_H

#include "kernels.h"

#define DCK_JOIN_(name, isa) dck_##name##_##isa
#define DCK_JOIN(name, isa)  DCK_JOIN_(name, isa)
#define DCK(name)            DCK_JOIN(name, DCK_ISA) /* dck_<name>_<isa>: every function that is not static */

#define DCK_INLINE           static inline __attribute__((always_inline))

/* Before a loop over a tile: only fully unrolled do its sums stay in registers. */
#define DCK_UNROLL _Pragma("GCC unroll 16")

typedef float dck_vec __attribute__((vector_size(4 * DCK_VECTOR), may_alias));
typedef int32_t dck_mask __attribute__((vector_size(4 * DCK_VECTOR), may_alias)); /* a lane is 0 or -1 */
typedef float dck_four __attribute__((vector_size(16), may_alias, aligned(4)));   /* any address */

enum {
    DCK_PER_PIXEL = DCK_LANES / DCK_VECTOR,
    DCK_PIXEL_BYTES = 4 * DCK_LANES,
};

DCK_INLINE dck_vec dck_set(float x)
{
    return x - (dck_vec){0};
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

#endif
