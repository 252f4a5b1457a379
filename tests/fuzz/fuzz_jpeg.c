/* Any bytes as a JPEG: as they come, and a whole one of which some were changed. What is taken for one is decoded
 * completely, and a part of it at each size, as importers and the loader do. */
#include "data/jpeg.h"

#include <stdio.h> /* jpeglib.h needs it */
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SIDE_W = 45, SIDE_H = 37, LARGEST = 1 << 20 };

static dc_jpeg *jpeg;
static unsigned char *whole[2]; /* in one scan, and progressive */
static unsigned long n_whole[2];

static void encode(int progressive)
{
    struct jpeg_compress_struct codec;
    struct jpeg_error_mgr errors;
    uint8_t row[3 * SIDE_W];
    JSAMPROW rows = row;
    codec.err = jpeg_std_error(&errors);
    jpeg_create_compress(&codec);
    jpeg_mem_dest(&codec, &whole[progressive], &n_whole[progressive]);
    codec.image_width = SIDE_W;
    codec.image_height = SIDE_H;
    codec.input_components = 3;
    codec.in_color_space = JCS_RGB;
    jpeg_set_defaults(&codec);
    if (progressive)
        jpeg_simple_progression(&codec);
    jpeg_start_compress(&codec, TRUE);
    for (int y = 0; y < SIDE_H; y++) {
        for (int i = 0; i < 3 * SIDE_W; i++)
            row[i] = (uint8_t)(y * y * i / 7);
        jpeg_write_scanlines(&codec, &rows, 1);
    }
    jpeg_finish_compress(&codec);
    jpeg_destroy_compress(&codec);
}

/* A refusal is one line. */
static void check(dc_status status, const dc_rgb *rgb)
{
    uint64_t sum = 0;
    if (status != DC_OK && (!dc_status_message()[0] || strchr(dc_status_message(), '\n')))
        abort();
    for (int y = 0; status == DC_OK && y < rgb->h; y++)
        for (int x = 0; x < 3 * rgb->w; x++)
            sum += rgb->pixels[y * rgb->stride + x];
    if (status == DC_OK && sum > (uint64_t)rgb->w * (uint64_t)rgb->h * 3 * 255)
        abort();
}

static void try(const uint8_t *bytes, size_t n)
{
    dc_rgb rgb = {0};
    for (int shrink = 1, w, h; shrink <= 8; shrink *= 2)
        for (int part = 1; part <= 3; part += 2) {
            dc_status status = dc_jpeg_open(jpeg, bytes, n, &w, &h);
            if (status == DC_OK && (int64_t)w * h > LARGEST) /* only costs time */
                return;
            if (status == DC_OK) {
                int all_w = dc_jpeg_shrunk(w, shrink), all_h = dc_jpeg_shrunk(h, shrink);
                const dc_region region = {all_w - (all_w + part - 1) / part, all_h - (all_h + part - 1) / part,
                                          (all_w + part - 1) / part, (all_h + part - 1) / part};
                status = dc_jpeg_decode(jpeg, shrink, region, &rgb);
            }
            check(status, &rgb);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t changed[1 << 16];
    if (!jpeg) {
        if (dc_jpeg_create(&jpeg) != DC_OK)
            abort();
        encode(0);
        encode(1);
    }
    try(data, size);
    const size_t which = size % 2, n = n_whole[which];
    memcpy(changed, whole[which], n);
    for (size_t i = 0; i + 2 < size; i += 3)
        changed[(size_t)(data[i] << 8 | data[i + 1]) % n] = data[i + 2];
    try(changed, n);
    return 0;
}
