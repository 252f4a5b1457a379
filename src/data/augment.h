/* From stored bytes to network input: normalisation, and the random changes of training images, in two steps. First
 * (data/crop.h), for JPEG files always and for pixels where it is asked for, a crop of the network's size and its
 * colours (ImageNet's usual recipe: Szegedy et al. 2015; PCA noise: Krizhevsky et al. 2012). Then, of a whole batch
 * (DARTS: Liu et al. 2019, section A.1; cutout: DeVries & Taylor 2017), in the order of the original: pad and crop,
 * flip, normalise, cutout.
 *
 * The random numbers of an image are a function of (seed, epoch, its index in the split): they depend on no batch, rank
 * or thread. */
#ifndef DC_DATA_AUGMENT_H
#define DC_DATA_AUGMENT_H

#include "data/dataset.h"
#include "kernels.h"

enum { DC_MAX_LANE = 64 };

typedef struct dc_augment {
    int pad;    /* pad by this many zero (black) pixels on each side, then crop back at a random offset; 0: no */
    bool flip;  /* mirror left-right with probability 1/2 */
    int cutout; /* zero (after normalisation: the mean) a square of this side, its centre anywhere, clipped at the
                   borders; 0: no */
    bool resized_crop;                            /* a random part of the picture, resized */
    double smallest_crop;                         /* its least share of the picture's area, up to 1 */
    double brightness, contrast, saturation, hue; /* strengths of random changes, as torchvision's ColorJitter */
    double lighting;                              /* standard deviation of PCA noise */
} dc_augment;

/* Draws for the image with this index in its split. */
dck_augment_draw dc_augment_image_draw(const dc_augment *augment, dc_shape shape, uint64_t seed, uint32_t epoch,
                                       uint32_t index);

/* Normalised value of each stored byte, per channel: (byte / 255 - mean) / deviation. */
typedef struct dc_normalise {
    float value[DC_MAX_IMAGE_CHANNELS][256];
} dc_normalise;

void dc_normalise_init(dc_normalise *normalise, const dc_dataset *dataset);

/* Writes one block of n <= lane images as [C][H][W][lane] floats: lane 16 is the CPU's layout, lane 1 is NCHW (at most
 * DC_MAX_LANE). Lanes from n on are zeroed. indices: of the images in their split; images: their bytes, [C][H][W] each.
 */
typedef struct dc_assembly {
    dc_shape shape;
    const dc_normalise *normalise;
    const dc_augment *augment;
    uint64_t seed;
    uint32_t epoch;
    int lane;
} dc_assembly;

void dc_augment_assemble(const dc_assembly *assembly, int n, const uint32_t *indices, const uint8_t *const *images,
                         float *block);

#endif
