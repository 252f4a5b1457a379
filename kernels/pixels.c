/* Pictures on their way to the network: bytes in planes or interleaved, one thread's work at a time (a loader has a
 * thread for each picture). Bound: of a 224x224 picture's 150 kB all lies in the second-level cache; what counts are
 * instructions, so that bytes are widened to float once and go through one multiply-add a tap: an integer product of
 * the same width costs x86 two.
 *
 * Resampling goes row by row: the rows under a new row are blended into one row of floats (4 bytes times 3 w), from
 * which its pixels are taken, a pixel's channels side by side in one vector. */
#include "internal.h"

#include <string.h>

typedef int32_t four_ints __attribute__((vector_size(16)));
typedef uint8_t four_bytes __attribute__((vector_size(4)));
typedef float four __attribute__((vector_size(16)));

/* A constant number of taps lets the compiler keep the sums in registers. */
DCK_INLINE void blend_taps(const uint8_t *rows, ptrdiff_t stride, int taps, const float *weight, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        float sum = 0;
        for (int k = 0; k < taps; k++)
            sum += weight[k] * (float)rows[k * stride + (ptrdiff_t)i];
        out[i] = sum;
    }
}

void DCK(resample_rows)(const uint8_t *rows, ptrdiff_t stride, int taps, const float *weight, size_t n, float *out)
{
    for (; taps > 1 && weight[0] == 0; taps--, weight++) /* filters are as wide as their widest place */
        rows += stride;
    for (; taps > 1 && weight[taps - 1] == 0;)
        taps--;
    switch (taps) {
    case 1:
        blend_taps(rows, stride, 1, weight, n, out);
        break;
    case 2:
        blend_taps(rows, stride, 2, weight, n, out);
        break;
    case 3:
        blend_taps(rows, stride, 3, weight, n, out);
        break;
    case 4:
        blend_taps(rows, stride, 4, weight, n, out);
        break;
    default:
        blend_taps(rows, stride, 4, weight, n, out);
        for (int k = 4; k < taps; k++)
            for (size_t i = 0; i < n; i++)
                out[i] += weight[k] * (float)rows[k * stride + (ptrdiff_t)i];
    }
}

DCK_INLINE four blend_pixel(const float *pixel, int taps, const float *weight)
{
    four sum = {0.5f, 0.5f, 0.5f, 0.5f}; /* to the nearest */
    for (int k = 0; k < taps; k++)
        sum += weight[k] * (four) * (const dck_four *)(pixel + 3 * k);
    return sum;
}

DCK_INLINE void store_four(four x, uint8_t *out)
{
    four_bytes bytes = __builtin_convertvector(__builtin_convertvector(x, four_ints), four_bytes);
    memcpy(out, &bytes, sizeof bytes);
}

/* Four pixels at a time become four bytes of each plane. */
static void blend_colour_columns(const float *row, const int *first, int taps, const float *weight, int w, uint8_t *out,
                                 size_t plane)
{
    int x = 0;
    for (; x + 4 <= w; x += 4) {
        four p[4];
        for (int i = 0; i < 4; i++)
            p[i] = blend_pixel(row + 3 * first[x + i], taps, weight + (x + i) * taps);
        four rg_low = __builtin_shufflevector(p[0], p[1], 0, 4, 1, 5),
             rg_high = __builtin_shufflevector(p[2], p[3], 0, 4, 1, 5),
             b_low = __builtin_shufflevector(p[0], p[1], 2, 6, 3, 7),
             b_high = __builtin_shufflevector(p[2], p[3], 2, 6, 3, 7);
        store_four(__builtin_shufflevector(rg_low, rg_high, 0, 1, 4, 5), out + x);
        store_four(__builtin_shufflevector(rg_low, rg_high, 2, 3, 6, 7), out + plane + x);
        store_four(__builtin_shufflevector(b_low, b_high, 0, 1, 4, 5), out + 2 * plane + x);
    }
    for (; x < w; x++) {
        four p = blend_pixel(row + 3 * first[x], taps, weight + x * taps);
        for (int c = 0; c < 3; c++)
            out[(size_t)c * plane + (size_t)x] = (uint8_t)p[c];
    }
}

void DCK(resample_columns)(const float *row, int channels, const int *first, int taps, const float *weight, int w,
                           uint8_t *out, size_t plane)
{
    if (channels == 3) {
        blend_colour_columns(row, first, taps, weight, w, out, plane);
        return;
    }
    for (int x = 0; x < w; x++) {
        float sum = 0.5f;
        for (int k = 0; k < taps; k++)
            sum += weight[x * taps + k] * row[first[x] + k];
        out[x] = (uint8_t)sum;
    }
}
