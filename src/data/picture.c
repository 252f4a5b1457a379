#include "data/picture.h"

#include "data/dataset.h"
#include "data/resample.h"

#include <setjmp.h>
#include <stdio.h> /* jpeglib.h needs it */
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <png.h>

enum { PNG_MAGIC_BYTES = 8, FULL_COLOUR_QUALITY = 90 };

struct dc_picture_reader {
    dc_jpeg *jpeg;
    dc_resampler *resampler;
    uint8_t *rgba; /* of a PNG; grows */
    size_t rgba_bytes;
    uint8_t *scaled; /* grows */
    size_t scaled_bytes;
};

dc_status dc_picture_reader_create(dc_picture_reader **reader)
{
    if (!(*reader = dc_alloc_zeroed(sizeof **reader)))
        return DC_ERR_MEMORY;
    dc_status status = dc_jpeg_create(&(*reader)->jpeg);
    if (status == DC_OK)
        status = dc_resampler_create(&(*reader)->resampler);
    if (status != DC_OK) {
        dc_picture_reader_destroy(*reader);
        *reader = NULL;
    }
    return status;
}

void dc_picture_reader_destroy(dc_picture_reader *reader)
{
    if (!reader)
        return;
    dc_jpeg_destroy(reader->jpeg);
    dc_resampler_destroy(reader->resampler);
    free(reader->rgba);
    free(reader->scaled);
    free(reader);
}

/* Makes room, without what was there. */
static dc_status hold(uint8_t **memory, size_t *capacity, size_t bytes)
{
    if (bytes <= *capacity)
        return DC_OK;
    free(*memory);
    *capacity = 0;
    if (!(*memory = dc_alloc(bytes)))
        return DC_ERR_MEMORY;
    *capacity = bytes;
    return DC_OK;
}

/* ---- JPEG ---- */

static dc_status decode_jpeg(dc_picture_reader *reader, const uint8_t *bytes, size_t n_bytes, int least_side,
                             dc_picture *picture)
{
    DC_TRY(dc_jpeg_open(reader->jpeg, bytes, n_bytes, &picture->w, &picture->h));
    int shorter = picture->w < picture->h ? picture->w : picture->h, shrink = 1;
    while (least_side && shrink < 8 && dc_jpeg_shrunk(shorter, 2 * shrink) >= least_side)
        shrink *= 2;
    const dc_region all = {0, 0, dc_jpeg_shrunk(picture->w, shrink), dc_jpeg_shrunk(picture->h, shrink)};
    return dc_jpeg_decode(reader->jpeg, shrink, all, &picture->rgb);
}

/* ---- PNG ---- */

typedef struct png_job {
    const uint8_t *bytes;
    size_t left;
    png_structp codec;
    png_infop info;
    png_bytepp rows;
} png_job;

static void on_png_error(png_structp codec, png_const_charp text)
{
    dc_fail(DC_ERR_INPUT, "no readable PNG: %s", text);
    png_longjmp(codec, 1);
}

static void on_png_warning(png_structp codec, png_const_charp text)
{
    (void)codec;
    (void)text;
}

static void on_png_read(png_structp codec, png_bytep out, size_t n)
{
    png_job *job = png_get_io_ptr(codec);
    if (n > job->left)
        png_error(codec, "it ends too early");
    memcpy(out, job->bytes, n);
    job->bytes += n;
    job->left -= n;
}

/* Everything becomes RGBA of 8 bits. */
static void begin_png(png_job *job)
{
    png_structp codec = job->codec;
    png_set_read_fn(codec, job, on_png_read);
    png_set_user_limits(codec, DC_MAX_PICTURE_SIDE, DC_MAX_PICTURE_SIDE);
    png_read_info(codec, job->info);
    png_set_expand(codec);
    png_set_scale_16(codec);
    png_set_gray_to_rgb(codec);
    png_set_add_alpha(codec, 0xff, PNG_FILLER_AFTER);
    png_set_interlace_handling(codec);
    png_read_update_info(codec, job->info);
}

static dc_status read_png(dc_picture_reader *reader, png_job *job, dc_picture *picture)
{
    if (setjmp(png_jmpbuf(job->codec)))
        return DC_ERR_INPUT;
    begin_png(job);
    picture->w = (int)png_get_image_width(job->codec, job->info);
    picture->h = (int)png_get_image_height(job->codec, job->info);
    if ((int64_t)picture->w * picture->h > DC_JPEG_MAX_PIXELS)
        return dc_fail(DC_ERR_INPUT, "a PNG of %dx%d pixels: at most %d million", picture->w, picture->h,
                       DC_JPEG_MAX_PIXELS / 1000000);
    size_t stride = 4 * (size_t)picture->w;
    DC_TRY(hold(&reader->rgba, &reader->rgba_bytes, stride * (size_t)picture->h));
    if (!(job->rows = dc_alloc((size_t)picture->h * sizeof *job->rows)))
        return DC_ERR_MEMORY;
    for (int y = 0; y < picture->h; y++)
        job->rows[y] = reader->rgba + (size_t)y * stride;
    png_read_image(job->codec, job->rows);
    png_read_end(job->codec, NULL);
    return DC_OK;
}

/* In place: over white, three bytes for each four. */
static void drop_alpha(uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (int c = 0; c < 3; c++) {
            unsigned alpha = p[4 * i + 3], mixed = p[4 * i + (size_t)c] * alpha + 255 * (255 - alpha);
            p[3 * i + (size_t)c] = (uint8_t)((mixed + 127) / 255);
        }
}

static dc_status decode_png(dc_picture_reader *reader, const uint8_t *bytes, size_t n_bytes, dc_picture *picture)
{
    png_job job = {.bytes = bytes, .left = n_bytes};
    job.codec = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, on_png_error, on_png_warning);
    job.info = job.codec ? png_create_info_struct(job.codec) : NULL;
    dc_status status =
        job.info ? read_png(reader, &job, picture) : dc_fail(DC_ERR_MEMORY, "cannot start decoding a PNG");
    png_destroy_read_struct(&job.codec, &job.info, NULL);
    free(job.rows);
    if (status != DC_OK)
        return status;
    drop_alpha(reader->rgba, (size_t)picture->w * (size_t)picture->h);
    picture->rgb = (dc_rgb){reader->rgba, 3 * (ptrdiff_t)picture->w, picture->w, picture->h};
    return DC_OK;
}

/* ---- either ---- */

dc_status dc_picture_decode(dc_picture_reader *reader, const uint8_t *bytes, size_t n_bytes, int least_side,
                            dc_picture *picture)
{
    *picture = (dc_picture){0};
    if (!n_bytes)
        return dc_fail(DC_ERR_INPUT, "an empty file");
    picture->png = n_bytes >= PNG_MAGIC_BYTES && png_sig_cmp(bytes, 0, PNG_MAGIC_BYTES) == 0;
    if (picture->png)
        return decode_png(reader, bytes, n_bytes, picture);
    if (n_bytes < 3 || bytes[0] != 0xff || bytes[1] != 0xd8 || bytes[2] != 0xff)
        return dc_fail(DC_ERR_INPUT, "neither JPEG nor PNG");
    return decode_jpeg(reader, bytes, n_bytes, least_side, picture);
}

/* ---- other sizes ---- */

dc_status dc_picture_scale(dc_picture_reader *reader, const dc_rgb *rgb, int w, int h, dc_rgb *out)
{
    size_t plane = (size_t)w * (size_t)h;
    DC_TRY(hold(&reader->scaled, &reader->scaled_bytes, 6 * plane)); /* planes, then pixels */
    const dc_pixels source = {rgb->pixels, rgb->stride, rgb->w, rgb->h, 3};
    uint8_t *planes = reader->scaled, *pixels = planes + 3 * plane;
    DC_TRY(dc_resample(reader->resampler, &source, (dc_box){0, 0, rgb->w, rgb->h}, w, h, planes));
    for (size_t i = 0; i < plane; i++)
        for (size_t c = 0; c < 3; c++)
            pixels[3 * i + c] = planes[c * plane + i];
    *out = (dc_rgb){pixels, 3 * (ptrdiff_t)w, w, h};
    return DC_OK;
}

/* The old pixels that new pixel i takes the mean of. */
static void covered(int i, int side, int new_side, int *begin, int *end)
{
    double scale = (double)side / new_side, centre = (i + 0.5) * scale, half = scale > 1 ? 0.5 * scale : 0.5;
    *begin = (int)(centre - half + 0.5);
    *end = (int)(centre + half + 0.5);
    *end = *end > side ? side : *end;
    *begin = *begin >= *end ? *end - 1 : *begin;
}

/* Along rows first, then along columns, rounded between, as PIL does. */
dc_status dc_picture_box(const dc_rgb *rgb, int side, uint8_t *planes)
{
    uint8_t *narrow = dc_alloc(3 * (size_t)rgb->h * (size_t)side);
    if (!narrow)
        return DC_ERR_MEMORY;
    for (int y = 0; y < rgb->h; y++)
        for (int x = 0; x < side; x++) {
            int begin, end;
            covered(x, rgb->w, side, &begin, &end);
            for (int c = 0; c < 3; c++) {
                unsigned sum = 0, n = (unsigned)(end - begin);
                for (int k = begin; k < end; k++)
                    sum += rgb->pixels[y * rgb->stride + 3 * k + c];
                narrow[((size_t)y * (size_t)side + (size_t)x) * 3 + (size_t)c] = (uint8_t)((sum + n / 2) / n);
            }
        }
    for (int y = 0; y < side; y++) {
        int begin, end;
        covered(y, rgb->h, side, &begin, &end);
        for (int x = 0; x < side; x++)
            for (int c = 0; c < 3; c++) {
                unsigned sum = 0, n = (unsigned)(end - begin);
                for (int k = begin; k < end; k++)
                    sum += narrow[((size_t)k * (size_t)side + (size_t)x) * 3 + (size_t)c];
                planes[((size_t)c * (size_t)side + (size_t)y) * (size_t)side + (size_t)x] =
                    (uint8_t)((sum + n / 2) / n);
            }
    }
    free(narrow);
    return DC_OK;
}

/* ---- encoding ---- */

typedef struct encoder {
    struct jpeg_compress_struct codec;
    struct jpeg_error_mgr errors;
    jmp_buf failed;
    unsigned char *bytes; /* the library's malloc */
    unsigned long n_bytes;
} encoder;

static void on_encoder_error(j_common_ptr codec)
{
    encoder *e = codec->client_data;
    char text[JMSG_LENGTH_MAX];
    codec->err->format_message(codec, text);
    dc_fail(DC_ERR_INPUT, "cannot be written as JPEG: %s", text);
    longjmp(e->failed, 1);
}

static void encode(encoder *e, const dc_rgb *rgb, int quality)
{
    struct jpeg_compress_struct *codec = &e->codec;
    jpeg_create_compress(codec);
    jpeg_mem_dest(codec, &e->bytes, &e->n_bytes);
    codec->image_width = (JDIMENSION)rgb->w;
    codec->image_height = (JDIMENSION)rgb->h;
    codec->input_components = 3;
    codec->in_color_space = JCS_RGB;
    jpeg_set_defaults(codec);
    jpeg_set_quality(codec, quality, TRUE);
    codec->optimize_coding = TRUE;
    if (quality >= FULL_COLOUR_QUALITY)
        codec->comp_info[0].h_samp_factor = codec->comp_info[0].v_samp_factor = 1;
    jpeg_start_compress(codec, TRUE);
    for (int y = 0; y < rgb->h; y++) {
        JSAMPROW row = (JSAMPROW)(rgb->pixels + y * rgb->stride); /* not written to */
        jpeg_write_scanlines(codec, &row, 1);
    }
    jpeg_finish_compress(codec);
}

dc_status dc_picture_encode(const dc_rgb *rgb, int quality, uint8_t **bytes, size_t *n_bytes)
{
    encoder *e = dc_alloc_zeroed(sizeof *e);
    if (!e)
        return DC_ERR_MEMORY;
    e->codec.err = jpeg_std_error(&e->errors);
    e->codec.client_data = e;
    e->errors.error_exit = on_encoder_error;
    volatile dc_status status = DC_ERR_INPUT; /* kept over a longjmp */
    if (!setjmp(e->failed)) {
        encode(e, rgb, quality);
        status = DC_OK;
    }
    jpeg_destroy_compress(&e->codec);
    if (status == DC_OK) {
        *bytes = e->bytes;
        *n_bytes = e->n_bytes;
    } else {
        free(e->bytes);
    }
    free(e);
    return status;
}
