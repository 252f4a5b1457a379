/* Private to dataset*.c: what reading and writing a data set file share. */
#ifndef DC_DATA_DATASET_FORMAT_H
#define DC_DATA_DATASET_FORMAT_H

#include "data/dataset.h"

#define DC_DATASET_FORMAT "dcanas data set"
enum { DC_DATASET_VERSION = 2, DC_DATASET_VERSION_PIXELS_ONLY = 1, DC_ARRAY_NAME_CHARS = 32 };

/* "train/labels" into out; returns out. */
const char *dc_dataset_array(dc_split split, const char *what, char out[DC_ARRAY_NAME_CHARS]);

static inline size_t dc_dataset_image_bytes(dc_shape shape)
{
    return (size_t)shape.c * (size_t)shape.h * (size_t)shape.w;
}

/* Checks with messages that begin with the path. */
dc_status dc_dataset_check_shape(const char *path, int64_t c, int64_t h, int64_t w);
dc_status dc_dataset_check_count(const char *path, const char *what, int64_t n, int64_t maximum);
dc_status dc_dataset_check_images(const char *path, dc_split split, int64_t n);
dc_status dc_dataset_check_labels(const char *path, dc_split split, uint32_t n, const int32_t *labels, int n_classes);
dc_status dc_dataset_check_size(const char *path, dc_split split, uint32_t index, dc_picture_size size);

/* The `hash` of a jpeg set. */
uint64_t dc_dataset_jpeg_hash(const dc_images split[DC_SPLIT_COUNT]);

#endif
