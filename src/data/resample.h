/* Changing the size of a picture: bilinear, over all pixels that a new one covers where it shrinks (antialiased), as
 * PIL and torchvision do. */
#ifndef DC_DATA_RESAMPLE_H
#define DC_DATA_RESAMPLE_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

/* Memory for one picture at a time, that grows as needed: one thread's. */
typedef struct dc_resampler dc_resampler;

dc_status dc_resampler_create(dc_resampler **resampler);
void dc_resampler_destroy(dc_resampler *resampler); /* NULL is legal */

/* What is read: rows of w pixels of 1 or 3 bytes. */
typedef struct dc_pixels {
    const uint8_t *pixels;
    ptrdiff_t stride; /* bytes from one row to the next */
    int w, h, channels;
} dc_pixels;

/* A part of it, in pixels, whose sides may lie within them: 0 <= x < x + w <= the picture's. */
typedef struct dc_box {
    double x, y, w, h;
} dc_box;

/* Writes the box at out_h x out_w, as planes: out[channels][out_h][out_w], each to the nearest byte. */
dc_status dc_resample(dc_resampler *resampler, const dc_pixels *source, dc_box box, int out_w, int out_h, uint8_t *out);

#endif
