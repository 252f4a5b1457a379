/* Whole pictures for the importers: JPEG or PNG in, RGB or JPEG out.
 *
 * Of PNG everything becomes 8 bits of RGB: palettes, greyscale, 16 bits; what is transparent shows white below. JPEG:
 * see data/jpeg.h. */
#ifndef DC_DATA_PICTURE_H
#define DC_DATA_PICTURE_H

#include "base/status.h"
#include "data/jpeg.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Memory and decoder of one thread. */
typedef struct dc_picture_reader dc_picture_reader;
dc_status dc_picture_reader_create(dc_picture_reader **reader);
void dc_picture_reader_destroy(dc_picture_reader *reader); /* NULL is legal */

typedef struct dc_picture {
    bool png;   /* else JPEG */
    int w, h;   /* of the file */
    dc_rgb rgb; /* the reader's, until its next use; smaller than w x h when it was shrunk */
} dc_picture;

/* Decodes all of a picture, so that any damage shows. A JPEG is shrunk by 2, 4 or 8 where its shorter side stays at
 * least `least_side` then; 0: never. Errors say what is wrong but not with which picture: DC_ERR_INPUT. */
dc_status dc_picture_decode(dc_picture_reader *reader, const uint8_t *bytes, size_t n_bytes, int least_side,
                            dc_picture *picture);

/* Writes the picture at side x side as planes [3][side][side], whatever its shape was: each new pixel is the mean of
 * those whose centres it covers ("box", PIL's, with which downsampled ImageNet was made), or the nearest one where that
 * is none. */
dc_status dc_picture_box(const dc_rgb *rgb, int side, uint8_t *planes);

/* Scales with a triangle filter to w x h; the result is the reader's, until its next use. */
dc_status dc_picture_scale(dc_picture_reader *reader, const dc_rgb *rgb, int w, int h, dc_rgb *out);

/* Encodes as JPEG of a quality of 1..100, colours at full resolution from 90 on. *bytes: caller frees. */
dc_status dc_picture_encode(const dc_rgb *rgb, int quality, uint8_t **bytes, size_t *n_bytes);

#endif
