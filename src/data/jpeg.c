#include "data/jpeg.h"

#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h> /* jpeglib.h needs it */
#include <stdlib.h>

#include <jpeglib.h>

#include <jerror.h>

/* Columns beside a region that are decoded with it: its outermost pixels take part of their colour from there. */
enum { MARGIN = 2 };
/* A progressive picture comes in some ten scans, each a pass over all of it. One of thousands would take hours. */
enum { MAX_SCANS = 100 };

struct dc_jpeg {
    struct jpeg_decompress_struct codec;
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    jmp_buf failed;
    bool has_codec;
    int shrink; /* operands of the call that runs now */
    dc_region region;
    uint8_t *rows; /* grows */
    size_t rows_bytes;
    dc_rgb out;
    bool no_memory;
};

/* ---- what the library calls ---- */

static void on_error(j_common_ptr codec)
{
    dc_jpeg *jpeg = codec->client_data;
    char text[JMSG_LENGTH_MAX];
    codec->err->format_message(codec, text);
    dc_fail(DC_ERR_INPUT, "no readable JPEG: %s", text);
    longjmp(jpeg->failed, 1);
}

/* Warnings are damage that the library would paint over with grey, or harmless. */
static void on_message(j_common_ptr codec, int level)
{
    switch (level < 0 ? codec->err->msg_code : 0) {
    case JWRN_JPEG_EOF:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_MUST_RESYNC:
    case JWRN_ARITH_BAD_CODE:
        on_error(codec);
    }
}

static void on_output(j_common_ptr codec)
{
    (void)codec;
}

static void on_progress(j_common_ptr codec)
{
    dc_jpeg *jpeg = codec->client_data;
    if (jpeg->codec.input_scan_number <= MAX_SCANS)
        return;
    dc_fail(DC_ERR_INPUT, "no readable JPEG: more than %d scans", MAX_SCANS);
    longjmp(jpeg->failed, 1);
}

static void on_source_begin(j_decompress_ptr codec)
{
    (void)codec;
}

static boolean on_source_end_of_bytes(j_decompress_ptr codec)
{
    ERREXIT(codec, JERR_INPUT_EOF);
    return FALSE;
}

static void on_source_skip(j_decompress_ptr codec, long n_bytes)
{
    if (n_bytes <= 0)
        return;
    if ((size_t)n_bytes > codec->src->bytes_in_buffer)
        ERREXIT(codec, JERR_INPUT_EOF);
    codec->src->next_input_byte += n_bytes;
    codec->src->bytes_in_buffer -= (size_t)n_bytes;
}

/* ---- what runs between its errors ---- */

/* Runs a body whose errors end it here. */
static dc_status guarded(dc_jpeg *jpeg, void (*body)(dc_jpeg *jpeg))
{
    if (setjmp(jpeg->failed)) {
        if (jpeg->has_codec)
            jpeg_abort_decompress(&jpeg->codec);
        return DC_ERR_INPUT;
    }
    body(jpeg);
    return DC_OK;
}

static void create(dc_jpeg *jpeg)
{
    jpeg_create_decompress(&jpeg->codec);
    jpeg->codec.progress = &jpeg->progress;
    jpeg->has_codec = true;
}

static void read_header(dc_jpeg *jpeg)
{
    jpeg_abort_decompress(&jpeg->codec); /* of a picture that was opened only */
    jpeg->codec.src = &jpeg->source;
    jpeg_read_header(&jpeg->codec, TRUE);
}

static bool hold_rows(dc_jpeg *jpeg, size_t bytes)
{
    if (bytes > jpeg->rows_bytes) {
        free(jpeg->rows);
        jpeg->rows_bytes = 0;
        if (!(jpeg->rows = dc_alloc(bytes)))
            return false;
        jpeg->rows_bytes = bytes;
    }
    return true;
}

static uint8_t ink_to_light(uint8_t ink, uint8_t black)
{
    unsigned product = (unsigned)ink * black + 128; /* / 255, rounded */
    return (uint8_t)((product + (product >> 8)) >> 8);
}

/* In place: three bytes for each four. */
static void cmyk_to_rgb(uint8_t *row, size_t w)
{
    for (size_t x = 0; x < w; x++) {
        uint8_t cyan = row[4 * x], magenta = row[4 * x + 1], yellow = row[4 * x + 2], black = row[4 * x + 3];
        row[3 * x] = ink_to_light(cyan, black);
        row[3 * x + 1] = ink_to_light(magenta, black);
        row[3 * x + 2] = ink_to_light(yellow, black);
    }
}

static void decode(dc_jpeg *jpeg)
{
    struct jpeg_decompress_struct *codec = &jpeg->codec;
    bool cmyk = codec->jpeg_color_space == JCS_CMYK || codec->jpeg_color_space == JCS_YCCK;
    codec->scale_num = 1;
    codec->scale_denom = (unsigned)jpeg->shrink;
    codec->out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    jpeg_start_decompress(codec);
    int x = jpeg->region.x > MARGIN ? jpeg->region.x - MARGIN : 0, end = jpeg->region.x + jpeg->region.w + MARGIN;
    int whole = (int)codec->output_width;
    JDIMENSION begin = (JDIMENSION)x, w = (JDIMENSION)((end < whole ? end : whole) - x);
    if ((int)w < whole)
        jpeg_crop_scanline(codec, &begin, &w);
    size_t stride = (size_t)codec->output_width * (size_t)codec->output_components;
    if (!hold_rows(jpeg, stride * (size_t)jpeg->region.h)) {
        jpeg->no_memory = true;
        return;
    }
    if (jpeg->region.y)
        jpeg_skip_scanlines(codec, (JDIMENSION)jpeg->region.y);
    for (JDIMENSION y = 0; y < (JDIMENSION)jpeg->region.h;) {
        JSAMPROW rows[16];
        JDIMENSION n = 0;
        for (; n < 16 && y + n < (JDIMENSION)jpeg->region.h; n++)
            rows[n] = jpeg->rows + (y + n) * stride;
        n = jpeg_read_scanlines(codec, rows, n);
        for (JDIMENSION i = 0; cmyk && i < n; i++)
            cmyk_to_rgb(rows[i], codec->output_width);
        y += n;
    }
    jpeg->out =
        (dc_rgb){jpeg->rows + 3 * (jpeg->region.x - (int)begin), (ptrdiff_t)stride, jpeg->region.w, jpeg->region.h};
    jpeg_abort_decompress(codec); /* what is below the region */
}

/* ---- the interface ---- */

dc_status dc_jpeg_create(dc_jpeg **out)
{
    *out = NULL;
    dc_jpeg *jpeg = dc_alloc_zeroed(sizeof *jpeg);
    if (!jpeg)
        return DC_ERR_MEMORY;
    jpeg->codec.err = jpeg_std_error(&jpeg->errors);
    jpeg->codec.client_data = jpeg;
    jpeg->errors.error_exit = on_error;
    jpeg->errors.emit_message = on_message;
    jpeg->errors.output_message = on_output;
    jpeg->progress.progress_monitor = on_progress;
    jpeg->source.init_source = on_source_begin;
    jpeg->source.fill_input_buffer = on_source_end_of_bytes;
    jpeg->source.skip_input_data = on_source_skip;
    jpeg->source.resync_to_restart = jpeg_resync_to_restart;
    jpeg->source.term_source = on_source_begin;
    dc_status status = guarded(jpeg, create);
    if (status != DC_OK) {
        dc_jpeg_destroy(jpeg);
        return status;
    }
    *out = jpeg;
    return DC_OK;
}

void dc_jpeg_destroy(dc_jpeg *jpeg)
{
    if (!jpeg)
        return;
    if (jpeg->has_codec)
        jpeg_destroy_decompress(&jpeg->codec);
    free(jpeg->rows);
    free(jpeg);
}

dc_status dc_jpeg_open(dc_jpeg *jpeg, const uint8_t *bytes, size_t n_bytes, int *w, int *h)
{
    jpeg->source.next_input_byte = bytes;
    jpeg->source.bytes_in_buffer = n_bytes;
    DC_TRY(guarded(jpeg, read_header));
    const struct jpeg_decompress_struct *codec = &jpeg->codec;
    if ((uint64_t)codec->image_width * codec->image_height > DC_JPEG_MAX_PIXELS)
        return dc_fail(DC_ERR_INPUT, "a JPEG of %ux%u pixels: at most %d million", codec->image_width,
                       codec->image_height, DC_JPEG_MAX_PIXELS / 1000000);
    *w = (int)codec->image_width;
    *h = (int)codec->image_height;
    return DC_OK;
}

int dc_jpeg_shrunk(int side, int shrink)
{
    return (side + shrink - 1) / shrink;
}

dc_status dc_jpeg_decode(dc_jpeg *jpeg, int shrink, dc_region region, dc_rgb *out)
{
    int w = dc_jpeg_shrunk((int)jpeg->codec.image_width, shrink),
        h = dc_jpeg_shrunk((int)jpeg->codec.image_height, shrink);
    if ((shrink != 1 && shrink != 2 && shrink != 4 && shrink != 8) || region.x < 0 || region.y < 0 || region.w < 1 ||
        region.h < 1 || region.x > w - region.w || region.y > h - region.h)
        return dc_fail(DC_ERR_INTERNAL, "jpeg: %dx%d at %d, %d of %dx%d, shrunk by %d", region.w, region.h, region.x,
                       region.y, w, h, shrink);
    jpeg->shrink = shrink;
    jpeg->region = region;
    jpeg->no_memory = false;
    DC_TRY(guarded(jpeg, decode));
    if (jpeg->no_memory)
        return DC_ERR_MEMORY;
    *out = jpeg->out;
    return DC_OK;
}
