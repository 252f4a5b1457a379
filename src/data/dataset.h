/* A data set: one HDF5 file, validated once and then read through a read-only memory map, so that all ranks of a
 * machine share one copy in the page cache and nothing is read before it is needed.
 *
 * It stores its images in one of two ways. `pixels`: decoded, all of one size (MNIST, CIFAR, Tiny-ImageNet). `jpeg`: as
 * JPEG files of any size (ImageNet), which the loader decodes to crops of the side that the network is to see.
 *
 * File (a state file, see base/state.h), format version 2, all arrays contiguous, SPLIT = train, test:
 *
 *     both     SPLIT/labels int32 [N]; classes uint8 [classes][64], names ending with zeros; mean[C] and std[C] double,
 *              of the training images scaled to 0..1 (jpeg: see data/import.h); attributes format, version, storage
 * ("pixels", "jpeg"), name, hash pixels   SPLIT/images uint8 [N][C][H][W] jpeg     SPLIT/jpegs uint8 [bytes]: N JPEG
 * files (greyscale or colour, never CMYK) end to end; SPLIT/offsets uint64 [N + 1]: file i is jpegs[offsets[i]] up to
 * jpegs[offsets[i + 1]]; SPLIT/sizes int32 [N][2]: height and width of each; SPLIT/hashes uint64 [N]: XXH3-64 of each
 * file
 *
 * Version 1 had no `storage` and only pixels; it is still read. `hash`: XXH3-64, of pixels and labels of both splits,
 * or of labels, offsets, sizes and hashes of both splits, so that it never takes another pass over the pictures. Files
 * of up to 1 GiB are compared with their checksum when they are opened; dc_dataset_verify reads larger ones. */
#ifndef DC_DATA_DATASET_H
#define DC_DATA_DATASET_H

#include "base/status.h"
#include "graph/graph.h"

#include <stdint.h>

enum { DC_MAX_IMAGE_CHANNELS = 16, DC_MAX_IMAGE_SIDE = 4096, DC_MAX_CLASSES = 65536, DC_CLASS_NAME_CHARS = 64 };
enum { DC_MAX_PICTURE_SIDE = 65500, DC_DEFAULT_IMAGE_SIZE = 224 }; /* JPEG's own limit; ImageNet's crops */

typedef enum dc_split { DC_SPLIT_TRAIN, DC_SPLIT_TEST, DC_SPLIT_COUNT } dc_split;

typedef enum dc_storage { DC_STORAGE_PIXELS, DC_STORAGE_JPEG } dc_storage;

typedef struct dc_picture_size {
    int32_t height, width;
} dc_picture_size;

/* What does not belong to the data set's storage is NULL. */
typedef struct dc_images {
    uint32_t n;
    const uint8_t *pixels;        /* [n][C][H][W] */
    const int32_t *labels;        /* [n], each in 0..n_classes-1 */
    const uint8_t *jpegs;         /* [offsets[n]] */
    const uint64_t *offsets;      /* [n + 1], ascending from 0 */
    const dc_picture_size *sizes; /* [n], each side in 1..DC_MAX_PICTURE_SIDE */
    const uint64_t *hashes;       /* [n] */
} dc_images;

typedef struct dc_dataset {
    char *path;
    char name[DC_CLASS_NAME_CHARS];
    dc_storage storage;
    dc_shape shape; /* of one image as the network gets it; jpeg: see dc_dataset_set_image_size */
    int n_classes;
    char (*classes)[DC_CLASS_NAME_CHARS];
    double mean[DC_MAX_IMAGE_CHANNELS]; /* per channel, training images, pixel values scaled to 0..1 */
    double deviation[DC_MAX_IMAGE_CHANNELS];
    uint64_t hash; /* the identity that lookup graphs and checkpoints store */
    dc_images split[DC_SPLIT_COUNT];
    struct dc_dataset_map *map; /* private: the mapped file */
} dc_dataset;

/* Opens and validates a data set file: types, shapes, counts, labels, extents inside the file. The JPEG files
 * themselves are not looked at. Errors name the file and the part of it. The file must not be changed while open. Owned
 * by the caller; not collective. */
dc_status dc_dataset_open(const char *path, dc_dataset **dataset);
void dc_dataset_close(dc_dataset *dataset);

/* The side of the square images that the network gets of a jpeg set; 0: DC_DEFAULT_IMAGE_SIZE, as after opening. A set
 * of pixels has its own size: DC_ERR_INPUT for any side but 0 and that. To be called before `shape` is used. */
dc_status dc_dataset_set_image_size(dc_dataset *dataset, int side);

/* Reads everything and compares with the stored hashes (seconds per 10 GB); names the picture that is damaged. */
dc_status dc_dataset_verify(const dc_dataset *dataset);

/* Fails when the file was changed since it was opened (one fstat: cheap enough for every batch). */
dc_status dc_dataset_check_unchanged(const dc_dataset *dataset);

/* "train", "test"; "pixels", "jpeg" */
const char *dc_split_name(dc_split split);
const char *dc_storage_name(dc_storage storage);

/* ---- writing ---- */

/* What must be known before the images; memory stays the caller's. */
typedef struct dc_dataset_head {
    const char *name;
    dc_storage storage;
    dc_shape shape; /* pixels: of the images; jpeg: not used */
    int n_classes;
    const char *const *classes; /* names, shorter than DC_CLASS_NAME_CHARS */
    uint32_t n[DC_SPLIT_COUNT];
    uint64_t jpeg_bytes[DC_SPLIT_COUNT];                                  /* jpeg: of all files together */
    double mean[DC_MAX_IMAGE_CHANNELS], deviation[DC_MAX_IMAGE_CHANNELS]; /* jpeg: red, green, blue */
} dc_dataset_head;

/* Writes a data set of any size image by image: first all of training, then all of testing. The file is made under
 * another name, flushed to disk and then renamed, so that `path` is never half a file; an existing file is replaced. Of
 * pixels mean and deviation are computed on the way, exactly. The first error sticks. */
typedef struct dc_dataset_writer dc_dataset_writer;
dc_status dc_dataset_writer_create(const char *path, const dc_dataset_head *head, dc_dataset_writer **writer);

/* The next n images of one split: labels [n], pixels [n][C][H][W]. */
dc_status dc_dataset_writer_put_pixels(dc_dataset_writer *writer, uint32_t n, const int32_t *labels,
                                       const uint8_t *pixels);

/* The next JPEG file. */
dc_status dc_dataset_writer_put_jpeg(dc_dataset_writer *writer, int32_t label, dc_picture_size size, const void *bytes,
                                     size_t n_bytes);

/* Fails unless all that the head promised has come. Frees the writer in any case. */
dc_status dc_dataset_writer_commit(dc_dataset_writer *writer);
void dc_dataset_writer_abandon(dc_dataset_writer *writer); /* leaves nothing behind; NULL is legal */

/* A data set of pixels that lies in memory; memory stays the caller's. */
typedef struct dc_dataset_content {
    const char *name;
    dc_shape shape;
    int n_classes;
    const char *const *classes;
    dc_images split[DC_SPLIT_COUNT];
} dc_dataset_content;

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
