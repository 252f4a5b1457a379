/* A data set: one HDF5 file, validated once and then read through a read-only memory map, so that all ranks of a
 * machine share one copy in the page cache and nothing is read before it is needed.
 *
 * File (a state file, see base/state.h; format version 1): train/images and test/images uint8 [N][C][H][W],
 * train/labels and test/labels int32 [N], all contiguous; classes uint8 [classes][64], names ending with zeros; mean[C]
 * and std[C] double, of the training images scaled to 0..1; attributes format, version, name, hash. Files of up to
 * 1 GiB are compared with their checksum when they are opened. */
#ifndef DC_DATA_DATASET_H
#define DC_DATA_DATASET_H

#include "base/status.h"
#include "graph/graph.h"

#include <stdint.h>

enum { DC_MAX_IMAGE_CHANNELS = 16, DC_MAX_IMAGE_SIDE = 4096, DC_MAX_CLASSES = 65536, DC_CLASS_NAME_CHARS = 64 };

typedef enum dc_split { DC_SPLIT_TRAIN, DC_SPLIT_TEST, DC_SPLIT_COUNT } dc_split;

typedef struct dc_images {
    uint32_t n;
    const uint8_t *pixels; /* [n][C][H][W] */
    const int32_t *labels; /* [n], each in 0..n_classes-1 */
} dc_images;

typedef struct dc_dataset {
    char *path;
    char name[DC_CLASS_NAME_CHARS];
    dc_shape shape; /* of one image */
    int n_classes;
    char (*classes)[DC_CLASS_NAME_CHARS];
    double mean[DC_MAX_IMAGE_CHANNELS]; /* per channel, training images, pixel values scaled to 0..1 */
    double deviation[DC_MAX_IMAGE_CHANNELS];
    uint64_t hash; /* XXH3-64 of all images and labels: the identity that lookup graphs and checkpoints store */
    dc_images split[DC_SPLIT_COUNT];
    struct dc_dataset_map *map; /* private: the mapped file */
} dc_dataset;

/* Opens and validates a data set file: types, shapes, counts, labels, extents inside the file. Errors name the file and
 * the part of it. The file must not be changed while open. Owned by the caller; not collective. */
dc_status dc_dataset_open(const char *path, dc_dataset **dataset);
void dc_dataset_close(dc_dataset *dataset);

/* Reads everything and compares with the stored hash (seconds per 10 GB). */
dc_status dc_dataset_verify(const dc_dataset *dataset);

/* Fails when the file was changed since it was opened (one fstat: cheap enough for every batch). */
dc_status dc_dataset_check_unchanged(const dc_dataset *dataset);

/* "train", "test" */
const char *dc_split_name(dc_split split);

/* What a data set file is made of; memory stays the caller's. */
typedef struct dc_dataset_content {
    const char *name;
    dc_shape shape;
    int n_classes;
    const char *const *classes; /* names, shorter than DC_CLASS_NAME_CHARS */
    dc_images split[DC_SPLIT_COUNT];
} dc_dataset_content;

/* Validates the content, computes mean, deviation and hash and writes the file: under another name first, flushed to
 * disk and then renamed, so that `path` is never half a file. Replaces an existing file. */
dc_status dc_dataset_write(const char *path, const dc_dataset_content *content);

/* ---- choosing images ---- */

typedef struct dc_indices {
    uint32_t n;
    uint32_t *items; /* positions in the split, ascending */
} dc_indices;

/* What goes into a list: this fraction of each class, and at most max_count images in all (0: no limit), spread
 * evenly over the classes. */
typedef struct dc_portion {
    double fraction;
    uint32_t max_count;
} dc_portion;

/* Two disjoint lists of training images, each holding its portion of every class: 0.5/0.5 (DARTS), 0.1/0.025 (ImageNet,
 * DCA-NAS). Which images: by (seed, class) only. Clear each with dc_indices_clear. Fails when fractions are outside
 * 0..1 or add up to more than 1, or when a list would be empty. */
dc_status dc_split_indices(const dc_dataset *dataset, uint64_t seed, dc_portion portion_a, dc_portion portion_b,
                           dc_indices *list_a, dc_indices *list_b);
void dc_indices_clear(dc_indices *indices);

#endif
