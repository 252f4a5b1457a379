#include "data/crop.h"

#include "base/rng.h"
#include "data/jpeg.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TRIES = 10, MAX_SHRINK = 8 };

static const double narrowest = 3.0 / 4, widest = 4.0 / 3;

struct dc_cropper {
    dc_jpeg *jpeg;
    dc_resampler *resampler;
};

static bool changes_colour(const dc_augment *a)
{
    return a->brightness > 0 || a->contrast > 0 || a->saturation > 0 || a->hue > 0 || a->lighting > 0;
}

bool dc_crop_needed(const dc_dataset *dataset, const dc_augment *augment)
{
    return dataset->storage == DC_STORAGE_JPEG || augment->resized_crop || changes_colour(augment);
}

dc_status dc_cropper_create(dc_cropper **out)
{
    *out = NULL;
    dc_cropper *cropper = dc_alloc_zeroed(sizeof *cropper);
    if (!cropper)
        return DC_ERR_MEMORY;
    dc_status status = dc_jpeg_create(&cropper->jpeg);
    if (status == DC_OK)
        status = dc_resampler_create(&cropper->resampler);
    if (status != DC_OK) {
        dc_cropper_destroy(cropper);
        return status;
    }
    *out = cropper;
    return DC_OK;
}

void dc_cropper_destroy(dc_cropper *cropper)
{
    if (!cropper)
        return;
    dc_jpeg_destroy(cropper->jpeg);
    dc_resampler_destroy(cropper->resampler);
    free(cropper);
}

/* ---- where ---- */

static double uniform(uint32_t word)
{
    return word / 4294967296.0;
}

/* Uniform in 0..n. */
static int up_to(uint32_t word, int n)
{
    return (int)((uint64_t)word * ((uint64_t)n + 1) >> 32);
}

/* After TRIES parts that would not fit: the largest middle part of a shape that is allowed. */
static dc_box middle_part(int w, int h)
{
    double part_w = w, part_h = h;
    if (part_w / part_h < narrowest)
        part_h = nearbyint(w / narrowest);
    else if (part_w / part_h > widest)
        part_w = nearbyint(h * widest);
    return (dc_box){floor((w - part_w) / 2), floor((h - part_h) / 2), part_w, part_h};
}

static dc_box random_part(double smallest, int w, int h, uint64_t seed, uint32_t epoch, uint32_t index)
{
    const dc_rng_key key = {seed, dc_rng_stream("crop")};
    for (uint64_t try = 0; try < TRIES; try++) {
        uint32_t word[4];
        dc_rng_block(key, epoch, try << 32 | index, word);
        double area = (smallest + (1 - smallest) * uniform(word[0])) * w * h;
        double shape = exp(log(narrowest) + (log(widest) - log(narrowest)) * uniform(word[1]));
        double part_w = nearbyint(sqrt(area * shape)), part_h = nearbyint(sqrt(area / shape));
        if (part_w >= 1 && part_w <= w && part_h >= 1 && part_h <= h)
            return (dc_box){up_to(word[2], w - (int)part_w), up_to(word[3], h - (int)part_h), part_w, part_h};
    }
    return middle_part(w, h);
}

/* torchvision's Resize(shorter) and CenterCrop(side), in the original's pixels. */
static dc_box middle(int w, int h, int side)
{
    int shorter = (int)((int64_t)side * 256 / 224), resized_w = shorter, resized_h = shorter;
    if (w <= h)
        resized_h = (int)((int64_t)shorter * h / w);
    else
        resized_w = (int)((int64_t)shorter * w / h);
    double scale_x = (double)w / resized_w, scale_y = (double)h / resized_h;
    double left = nearbyint((resized_w - side) / 2.0), top = nearbyint((resized_h - side) / 2.0);
    return (dc_box){left * scale_x, top * scale_y, side * scale_x, side * scale_y};
}

dc_box dc_crop_draw(const dc_augment *augment, int w, int h, int out_side, uint64_t seed, uint32_t epoch,
                    uint32_t index)
{
    if (augment && augment->resized_crop)
        return random_part(augment->smallest_crop, w, h, seed, epoch, index);
    return middle(w, h, out_side);
}

/* ---- making ---- */

/* How much smaller a side may be decoded, that is still no smaller than wanted. */
static int shrink_for(dc_box box, int out_w, int out_h)
{
    int shrink = 1;
    while (shrink < MAX_SHRINK && box.w >= 2.0 * shrink * out_w && box.h >= 2.0 * shrink * out_h)
        shrink *= 2;
    return shrink;
}

/* The pixels of one side that a box needs: a random part only itself, as if it had been cut out first; a middle also
 * those beside it, as if the whole picture had been resized first. */
static void reach_of(double begin, double length, int out_side, int whole, bool alone, int *first, int *count)
{
    double scale = length / out_side, reach = alone ? 0 : ceil(scale > 1 ? scale : 1) + 1;
    double low = floor(begin - reach), high = ceil(begin + length + reach - 1e-9);
    *first = low < 0 ? 0 : (int)low;
    *count = (high > whole ? whole : (int)high) - *first;
}

static dc_status crop_jpeg(dc_cropper *cropper, const dc_dataset *dataset, dc_split split, uint32_t index,
                           const dc_augment *augment, uint64_t seed, uint32_t epoch, uint8_t *out)
{
    const dc_images *images = &dataset->split[split];
    const int out_w = dataset->shape.w, out_h = dataset->shape.h;
    int w, h;
    DC_TRY(dc_jpeg_open(cropper->jpeg, images->jpegs + images->offsets[index],
                        images->offsets[index + 1] - images->offsets[index], &w, &h));
    dc_box box = dc_crop_draw(augment, w, h, out_w, seed, epoch, index);
    const int shrink = shrink_for(box, out_w, out_h);
    box = (dc_box){box.x / shrink, box.y / shrink, box.w / shrink, box.h / shrink};
    dc_region region;
    reach_of(box.x, box.w, out_w, dc_jpeg_shrunk(w, shrink), augment->resized_crop, &region.x, &region.w);
    reach_of(box.y, box.h, out_h, dc_jpeg_shrunk(h, shrink), augment->resized_crop, &region.y, &region.h);
    dc_rgb rgb;
    DC_TRY(dc_jpeg_decode(cropper->jpeg, shrink, region, &rgb));
    box.x -= region.x;
    box.y -= region.y;
    const dc_pixels source = {rgb.pixels, rgb.stride, rgb.w, rgb.h, 3};
    return dc_resample(cropper->resampler, &source, box, out_w, out_h, out);
}

static dc_status crop_pixels(dc_cropper *cropper, const dc_dataset *dataset, dc_split split, uint32_t index,
                             const dc_augment *augment, uint64_t seed, uint32_t epoch, uint8_t *out)
{
    const dc_shape shape = dataset->shape;
    const size_t plane = (size_t)shape.h * (size_t)shape.w, bytes = (size_t)shape.c * plane;
    const uint8_t *stored = dataset->split[split].pixels + index * bytes;
    if (!augment->resized_crop) {
        memcpy(out, stored, bytes);
        return DC_OK;
    }
    const dc_box box = dc_crop_draw(augment, shape.w, shape.h, shape.w, seed, epoch, index);
    for (int c = 0; c < shape.c; c++) {
        const dc_pixels part = {stored + (size_t)c * plane + (size_t)box.y * (size_t)shape.w + (size_t)box.x, shape.w,
                                (int)box.w, (int)box.h, 1};
        const dc_box all = {0, 0, box.w, box.h};
        DC_TRY(dc_resample(cropper->resampler, &part, all, shape.w, shape.h, out + (size_t)c * plane));
    }
    return DC_OK;
}

dc_status dc_crop_make(dc_cropper *cropper, const dc_dataset *dataset, dc_split split, uint32_t index,
                       const dc_augment *augment, uint64_t seed, uint32_t epoch, uint8_t *out)
{
    dc_status status = dataset->storage == DC_STORAGE_JPEG
                           ? crop_jpeg(cropper, dataset, split, index, augment, seed, epoch, out)
                           : crop_pixels(cropper, dataset, split, index, augment, seed, epoch, out);
    if (status == DC_OK && changes_colour(augment)) {
        const dc_colour_draw draw = dc_colour_image_draw(augment, seed, epoch, index);
        status = dc_colour_apply(&draw, dataset->shape.c, (size_t)dataset->shape.h * (size_t)dataset->shape.w, out);
    }
    return status == DC_OK ? DC_OK
                           : dc_fail_within(status, "%s: %s picture %u", dataset->path, dc_split_name(split), index);
}
