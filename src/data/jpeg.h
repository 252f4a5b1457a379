/* JPEG pictures by libjpeg-turbo: as much of a picture as is wanted, as RGB.
 *
 * What lies beside and below a region is not transformed, what lies below is not even read; shrinking by 2, 4 or 8 is
 * done on the coefficients, for the price of the smaller picture. Greyscale and CMYK (Adobe's, inverted, which is what
 * there is) become RGB. */
#ifndef DC_DATA_JPEG_H
#define DC_DATA_JPEG_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

enum { DC_JPEG_MAX_PIXELS = 1 << 27 }; /* of one picture: what its decoding may cost in memory stays bounded */

/* A decoder: used by one thread at a time, for any number of pictures. */
typedef struct dc_jpeg dc_jpeg;

/* Pixels of a picture that was shrunk. */
typedef struct dc_region {
    int x, y, w, h;
} dc_region;

/* Rows of interleaved RGB. */
typedef struct dc_rgb {
    const uint8_t *pixels;
    ptrdiff_t stride; /* bytes from one row to the next */
    int w, h;
} dc_rgb;

dc_status dc_jpeg_create(dc_jpeg **jpeg);
void dc_jpeg_destroy(dc_jpeg *jpeg); /* NULL is legal */

/* Reads the header. bytes must stay until the picture is decoded or another one is opened. Errors of this and the next
 * function say what is wrong with the picture (DC_ERR_INPUT) but not which one it is. */
dc_status dc_jpeg_open(dc_jpeg *jpeg, const uint8_t *bytes, size_t n_bytes, int *w, int *h);

/* Sides of the opened picture after shrinking: ceil(side / shrink). */
int dc_jpeg_shrunk(int side, int shrink);

/* Decodes a region of the opened picture shrunk by 1, 2, 4 or 8, once. The same pixels as in a decoding of the whole
 * picture. out is the decoder's, valid until its next use. A picture that ends too early, or whose data are damaged, is
 * an error, as far as the region reaches. */
dc_status dc_jpeg_decode(dc_jpeg *jpeg, int shrink, dc_region region, dc_rgb *out);

#endif
