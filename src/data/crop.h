/* From what a data set stores to the bytes of one image of the network's size: a random part of the picture for
 * training, or its middle; and its colours. The random numbers are a function of (seed, epoch, index). */
#ifndef DC_DATA_CROP_H
#define DC_DATA_CROP_H

#include "data/augment.h"
#include "data/dataset.h"
#include "data/resample.h"

/* Whether images are made here: else a data set's stored pixels are the image. */
bool dc_crop_needed(const dc_dataset *dataset, const dc_augment *augment);

/* The memory for it: one thread's. */
typedef struct dc_cropper dc_cropper;

dc_status dc_cropper_create(dc_cropper **cropper);
void dc_cropper_destroy(dc_cropper *cropper); /* NULL is legal */

/* Makes the image with this index in its split: out[C][H][W], of dataset->shape. Errors name the file and the picture.
 */
dc_status dc_crop_make(dc_cropper *cropper, const dc_dataset *dataset, dc_split split, uint32_t index,
                       const dc_augment *augment, uint64_t seed, uint32_t epoch, uint8_t *out);

/* The part of a w x h picture that becomes the image: for training as torchvision's RandomResizedCrop (smallest_crop to
 * all of the area, sides 3:4 to 4:3); else (augment NULL or without it) what a shorter side of 8/7 out_side (256 for
 * 224) and then the middle out_side x out_side show of it. */
dc_box dc_crop_draw(const dc_augment *augment, int w, int h, int out_side, uint64_t seed, uint32_t epoch,
                    uint32_t index);

/* Random changes of colour. */
typedef enum dc_colour_change { DC_BRIGHTNESS, DC_CONTRAST, DC_SATURATION, DC_HUE, DC_COLOUR_CHANGES } dc_colour_change;

typedef struct dc_colour_draw {
    int order[DC_COLOUR_CHANGES];    /* of dc_colour_change */
    float amount[DC_COLOUR_CHANGES]; /* factors; of the hue a shift in turns; 1 and 0: none */
    float light[3];                  /* added to red, green and blue, in levels */
} dc_colour_draw;

dc_colour_draw dc_colour_image_draw(const dc_augment *augment, uint64_t seed, uint32_t epoch, uint32_t index);

/* Changes an image [channels][pixels] in place, as PIL (hue: torchvision on tensors) rounds. Of one channel, grey:
 * saturation and hue are none; of others but 3 there is no colour to change (DC_ERR_INTERNAL). */
dc_status dc_colour_apply(const dc_colour_draw *draw, int channels, size_t n_pixels, uint8_t *image);

#endif
