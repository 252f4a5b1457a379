#include "data/augment.h"

#include "base/rng.h"

#include <string.h>

enum { BLACK = 0 };

/* Uniform in 0..n-1 from one word (bias below n / 2^32). */
static int below(uint32_t word, int n)
{
    return (int)((uint64_t)word * (uint64_t)n >> 32);
}

static int clamp(int x, int low, int high)
{
    return x < low ? low : x > high ? high : x;
}

dck_augment_draw dc_augment_image_draw(const dc_augment *augment, dc_shape shape, uint64_t seed, uint32_t epoch,
                                       uint32_t index)
{
    dck_augment_draw draw = {.offset_y = augment->pad, .offset_x = augment->pad};
    if (!augment->pad && !augment->flip && !augment->cutout)
        return draw;
    uint32_t word[4];
    dc_rng_block((dc_rng_key){seed, dc_rng_stream("augment")}, epoch, index, word);
    draw.offset_y = below(word[0], 2 * augment->pad + 1);
    draw.offset_x = below(word[1], 2 * augment->pad + 1);
    draw.flip = augment->flip && (word[0] & 1); /* the offsets come from the upper bits */
    if (augment->cutout) {
        int y = below(word[2], shape.h) - augment->cutout / 2, x = below(word[3], shape.w) - augment->cutout / 2;
        draw.cut_y0 = clamp(y, 0, shape.h);
        draw.cut_y1 = clamp(y + augment->cutout, 0, shape.h);
        draw.cut_x0 = clamp(x, 0, shape.w);
        draw.cut_x1 = clamp(x + augment->cutout, 0, shape.w);
    }
    return draw;
}

void dc_normalise_init(dc_normalise *normalise, const dc_dataset *dataset)
{
    for (int c = 0; c < dataset->shape.c; c++) {
        double deviation = dataset->deviation[c] > 0 ? dataset->deviation[c] : 1; /* a channel of one value */
        for (int byte = 0; byte < 256; byte++)
            normalise->value[c][byte] = (float)((byte / 255.0 - dataset->mean[c]) / deviation);
    }
}

/* One output row of one image: pixels `lane` floats apart. source: the stored row, NULL above and below the image;
 * shift: the stored column that comes first. */
static void write_row(const uint8_t *source, int w, int shift, bool flip, const float *table, float *out, int lane)
{
    int begin = clamp(-shift, 0, w), end = source ? clamp(w - shift, begin, w) : begin;
    float *p = flip ? out + (size_t)(w - 1) * (size_t)lane : out;
    ptrdiff_t step = flip ? -lane : lane;
    int x = 0;
    for (; x < begin; x++, p += step)
        *p = table[BLACK];
    for (; x < end; x++, p += step)
        *p = table[source[x + shift]];
    for (; x < w; x++, p += step)
        *p = table[BLACK];
}

static void write_zeros(float *out, int n, int lane)
{
    for (int i = 0; i < n; i++)
        out[(size_t)i * (size_t)lane] = 0;
}

/* A row of the block stays in the first-level cache while its lanes are written one by one. */
void dc_augment_assemble(const dc_assembly *a, int n, const uint32_t *indices, const uint8_t *const *images,
                         float *block)
{
    dc_shape shape = a->shape;
    dck_augment_draw draw[DC_MAX_LANE];
    float *out = block;
    for (int i = 0; i < n; i++)
        draw[i] = dc_augment_image_draw(a->augment, shape, a->seed, a->epoch, indices[i]);
    for (int c = 0; c < shape.c; c++) {
        const float *table = a->normalise->value[c];
        for (int y = 0; y < shape.h; y++, out += shape.w * a->lane) {
            for (int i = 0; i < n; i++) {
                const dck_augment_draw *d = &draw[i];
                int source_y = y + d->offset_y - a->augment->pad;
                const uint8_t *source = NULL;
                if (source_y >= 0 && source_y < shape.h)
                    source = images[i] + ((size_t)c * (size_t)shape.h + (size_t)source_y) * (size_t)shape.w;
                write_row(source, shape.w, d->offset_x - a->augment->pad, d->flip, table, out + i, a->lane);
                if (y >= d->cut_y0 && y < d->cut_y1)
                    write_zeros(out + i + d->cut_x0 * a->lane, d->cut_x1 - d->cut_x0, a->lane);
            }
            for (int i = n; i < a->lane; i++)
                write_zeros(out + i, shape.w, a->lane);
        }
    }
}
