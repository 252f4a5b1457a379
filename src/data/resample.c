#include "data/resample.h"

#include "kernels.h"

#include <math.h>
#include <stdlib.h>

/* How one side becomes another: out[i] = sum over k < taps of weight[i * taps + k] * in[first[i] + k]. */
typedef struct filter {
    int taps;
    int *first;
    float *weight;
    size_t capacity; /* numbers that either has room for */
} filter;

struct dc_resampler {
    const dck_kernels *kernels;
    filter columns, rows;
    float *row;
    size_t row_capacity;
};

static dc_status grow(void *memory, size_t *capacity, size_t n, size_t item_bytes)
{
    void **at = memory;
    if (n <= *capacity)
        return DC_OK;
    free(*at);
    *capacity = 0;
    if (!(*at = dc_alloc(n * item_bytes)))
        return DC_ERR_MEMORY;
    *capacity = n;
    return DC_OK;
}

/* The triangle of PIL: its half base is the distance of two new pixels in old ones, one old pixel at least. */
static dc_status make_filter(filter *f, int side, double begin, double length, int out_side)
{
    double scale = length / out_side, reach = scale > 1 ? scale : 1;
    f->taps = (int)ceil(2 * reach); /* no more centres of pixels lie under the triangle */
    if (f->taps > side)
        f->taps = side;
    size_t n = (size_t)out_side * (size_t)f->taps, first_capacity = f->capacity;
    DC_TRY(grow(&f->first, &first_capacity, n, sizeof *f->first));
    DC_TRY(grow(&f->weight, &f->capacity, n, sizeof *f->weight));
    for (int i = 0; i < out_side; i++) {
        double centre = begin + (i + 0.5) * scale, sum = 0;
        int first = (int)floor(centre - reach + 0.5); /* the first whose centre does */
        first = first < 0 ? 0 : first > side - f->taps ? side - f->taps : first;
        float *weight = f->weight + (size_t)i * (size_t)f->taps;
        for (int k = 0; k < f->taps; k++) {
            double distance = fabs((first + k + 0.5 - centre) / reach);
            weight[k] = distance < 1 ? (float)(1 - distance) : 0;
            sum += (double)weight[k];
        }
        for (int k = 0; k < f->taps; k++)
            weight[k] = (float)((double)weight[k] / sum);
        f->first[i] = first;
    }
    return DC_OK;
}

dc_status dc_resampler_create(dc_resampler **resampler)
{
    if (!(*resampler = dc_alloc_zeroed(sizeof **resampler)))
        return DC_ERR_MEMORY;
    (*resampler)->kernels = dck_kernels_for(NULL);
    return DC_OK;
}

void dc_resampler_destroy(dc_resampler *resampler)
{
    if (!resampler)
        return;
    free(resampler->columns.first);
    free(resampler->columns.weight);
    free(resampler->rows.first);
    free(resampler->rows.weight);
    free(resampler->row);
    free(resampler);
}

dc_status dc_resample(dc_resampler *r, const dc_pixels *source, dc_box box, int out_w, int out_h, uint8_t *out)
{
    int channels = source->channels;
    if ((channels != 1 && channels != 3) || !(box.x >= 0 && box.y >= 0 && box.w > 0 && box.h > 0) ||
        box.x + box.w > source->w + 1e-6 || box.y + box.h > source->h + 1e-6)
        return dc_fail(DC_ERR_INTERNAL, "resample: %gx%g at %g, %g of %dx%dx%d", box.w, box.h, box.x, box.y, channels,
                       source->w, source->h);
    DC_TRY(make_filter(&r->columns, source->w, box.x, box.w, out_w));
    DC_TRY(make_filter(&r->rows, source->h, box.y, box.h, out_h));
    size_t n = (size_t)source->w * (size_t)channels;
    DC_TRY(grow(&r->row, &r->row_capacity, n + DCK_PIXEL_SLACK, sizeof *r->row));
    for (int y = 0; y < out_h; y++) {
        const uint8_t *rows = source->pixels + r->rows.first[y] * source->stride;
        r->kernels->resample_rows(rows, source->stride, r->rows.taps, r->rows.weight + (size_t)y * (size_t)r->rows.taps,
                                  n, r->row);
        r->kernels->resample_columns(r->row, channels, r->columns.first, r->columns.taps, r->columns.weight, out_w,
                                     out + (size_t)y * (size_t)out_w, (size_t)out_w * (size_t)out_h);
    }
    return DC_OK;
}
