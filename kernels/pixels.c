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
typedef uint8_t bytes __attribute__((vector_size(16)));
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
    const bytes all = (bytes) __builtin_convertvector(x, four_ints);
    const bytes lowest = __builtin_shufflevector(all, all, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
    memcpy(out, &lowest, 4);
}

/* Four pixels at a time become four bytes of each plane. */
DCK_INLINE void blend_colour_columns(const float *row, const int *first, int taps, const float *weight, int w,
                                     uint8_t *out, size_t plane)
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
        switch (taps) {
        case 2: /* larger, and */
            blend_colour_columns(row, first, 2, weight, w, out, plane);
            break;
        case 3: /* not much smaller: most crops */
            blend_colour_columns(row, first, 3, weight, w, out, plane);
            break;
        default:
            blend_colour_columns(row, first, taps, weight, w, out, plane);
        }
        return;
    }
    for (int x = 0; x < w; x++) {
        float sum = 0.5f;
        for (int k = 0; k < taps; k++)
            sum += weight[x * taps + k] * row[first[x] + k];
        out[x] = (uint8_t)sum;
    }
}

/* ---- colours: bytes in planes, changed in place; what becomes a byte is cut, not rounded, as PIL does ---- */

DCK_INLINE uint8_t to_byte(float x)
{
    x = x > 0 ? x : 0;
    return (uint8_t)(int)(x < 255 ? x : 255);
}

void DCK(scale_bytes)(uint8_t *x, size_t n, float centre, float factor, float offset)
{
    for (size_t i = 0; i < n; i++)
        x[i] = to_byte(((float)x[i] - centre) * factor + offset);
}

/* PIL's grey. */
DCK_INLINE int grey_of(int red, int green, int blue)
{
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
}

uint64_t DCK(sum_grey)(const uint8_t *planes, size_t n)
{
    enum { RUN = 4096 }; /* whose sum fits 32 bits */
    uint64_t sum = 0;
    for (size_t begin = 0; begin < n; begin += RUN) {
        uint32_t part = 0;
        const size_t end = n - begin < RUN ? n : begin + RUN;
        for (size_t i = begin; i < end; i++)
            part += (uint32_t)grey_of(planes[i], planes[n + i], planes[2 * n + i]);
        sum += part;
    }
    return sum;
}

void DCK(saturate)(uint8_t *planes, size_t n, float factor)
{
    uint8_t *restrict red = planes, *restrict green = planes + n, *restrict blue = planes + 2 * n;
    for (size_t i = 0; i < n; i++) {
        const int r = red[i], g = green[i], b = blue[i], grey = grey_of(r, g, b);
        red[i] = to_byte((float)grey + factor * (float)(r - grey));
        green[i] = to_byte((float)grey + factor * (float)(g - grey));
        blue[i] = to_byte((float)grey + factor * (float)(b - grey));
    }
}

/* The channel whose place on the wheel of six is `place` before the hue's: value less chroma where it does not shine.
 */
DCK_INLINE uint8_t hue_channel(float hue, float place, float value, float chroma)
{
    float k = hue + place;
    k -= 6 * (float)(int)(k * (1 / 6.0f));
    float dark = k < 4 - k ? k : 4 - k;
    dark = dark < 1 ? dark : 1;
    dark = dark > 0 ? dark : 0;
    return (uint8_t)(int)(value - chroma * dark + 0.5f);
}

/* Value and saturation stay; the hue is never stored, so nothing but the result is rounded. */
void DCK(shift_hue)(uint8_t *planes, size_t n, float turns)
{
    uint8_t *restrict red = planes, *restrict green = planes + n, *restrict blue = planes + 2 * n;
    const float shift = 6 * turns + 6; /* positive: conversion to int is then the floor */
    for (size_t i = 0; i < n; i++) {
        const float r = red[i], g = green[i], b = blue[i];
        const float gb = g > b ? g : b, low_gb = g < b ? g : b;
        const float value = r > gb ? r : gb, chroma = value - (r < low_gb ? r : low_gb);
        const float scale = 1 / (chroma > 0 ? chroma : 1);
        float hue = value == r ? g - b : value == g ? b - r : r - g;
        hue = hue * scale + (value == r ? 0.0f : value == g ? 2.0f : 4.0f) + shift;
        red[i] = hue_channel(hue, 5, value, chroma);
        green[i] = hue_channel(hue, 3, value, chroma);
        blue[i] = hue_channel(hue, 1, value, chroma);
    }
}
