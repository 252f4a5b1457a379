#include "data/dataset.h"

#include "base/hash.h"
#include "base/state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FORMAT "dcanas data set"
enum { FORMAT_VERSION = 1, ARRAY_NAME_CHARS = 32 };

/* Files up to this size are compared with their checksum whenever they are opened: some 0.1 s. */
static const int64_t verified_size_bytes = (int64_t)1 << 30;

struct dc_dataset_map {
    int fd;
    uint8_t *bytes;
    size_t size_bytes;
    struct timespec modified;
};

const char *dc_split_name(dc_split split)
{
    return split == DC_SPLIT_TRAIN ? "train" : "test";
}

static const char *array_name(dc_split split, const char *what, char out[ARRAY_NAME_CHARS])
{
    snprintf(out, ARRAY_NAME_CHARS, "%s/%s", dc_split_name(split), what);
    return out;
}

static size_t image_bytes(dc_shape shape)
{
    return (size_t)shape.c * (size_t)shape.h * (size_t)shape.w;
}

/* ---- checks that reading and writing share ---- */

static dc_status check_shape(const char *path, int64_t c, int64_t h, int64_t w)
{
    if (c < 1 || c > DC_MAX_IMAGE_CHANNELS || h < 1 || h > DC_MAX_IMAGE_SIDE || w < 1 || w > DC_MAX_IMAGE_SIDE)
        return dc_fail(DC_ERR_INPUT,
                       "%s: images of %" PRId64 "x%" PRId64 "x%" PRId64 " (channels x height x width): at most "
                       "%dx%dx%d, at least 1x1x1",
                       path, c, h, w, DC_MAX_IMAGE_CHANNELS, DC_MAX_IMAGE_SIDE, DC_MAX_IMAGE_SIDE);
    return DC_OK;
}

static dc_status check_count(const char *path, const char *what, int64_t n, int64_t maximum)
{
    if (n < 1 || n > maximum)
        return dc_fail(DC_ERR_INPUT, "%s: %" PRId64 " %s: must be 1..%" PRId64, path, n, what, maximum);
    return DC_OK;
}

static dc_status check_labels(const char *path, dc_split split, const dc_images *images, int n_classes)
{
    for (uint32_t i = 0; i < images->n; i++)
        if (images->labels[i] < 0 || images->labels[i] >= n_classes)
            return dc_fail(DC_ERR_INPUT, "%s: %s/labels: label %d of image %u is outside 0..%d", path,
                           dc_split_name(split), (int)images->labels[i], i, n_classes - 1);
    return DC_OK;
}

static uint64_t content_hash(dc_shape shape, const dc_images split[DC_SPLIT_COUNT])
{
    dc_hash hash;
    dc_hash_init(&hash);
    for (int s = 0; s < DC_SPLIT_COUNT; s++) {
        dc_hash_bytes(&hash, split[s].pixels, split[s].n * image_bytes(shape));
        dc_hash_bytes(&hash, split[s].labels, split[s].n * sizeof *split[s].labels);
    }
    return dc_hash_end(&hash);
}

/* ---- reading ---- */

/* Where the arrays lie in the file. */
typedef struct extents {
    int64_t images[DC_SPLIT_COUNT], labels[DC_SPLIT_COUNT];
} extents;

/* The offset of an array that must hold `expected` bytes inside the file at a multiple of `alignment`. */
static dc_status read_extent(dc_state *state, const char *name, int64_t expected, int64_t alignment, int64_t file_size,
                             int64_t *offset)
{
    int64_t size;
    DC_TRY(dc_state_offset(state, name, offset, &size));
    if (size != expected || *offset < 0 || *offset > file_size - size || *offset % alignment)
        return dc_fail(DC_ERR_INPUT,
                       "%s: %s: %" PRId64 " bytes at offset %" PRId64 " of a file of %" PRId64 ", expected %" PRId64
                       " bytes inside it at a multiple of %" PRId64,
                       dc_state_path(state), name, size, *offset, file_size, expected, alignment);
    return DC_OK;
}

static dc_status read_array_shape(dc_state *state, const char *name, dc_state_type wanted, const char *wanted_text,
                                  int wanted_rank, int64_t dims[DC_STATE_MAX_RANK])
{
    dc_state_type type;
    int rank;
    DC_TRY(dc_state_shape(state, name, &type, &rank, dims));
    if (type != wanted || rank != wanted_rank)
        return dc_fail(DC_ERR_INPUT, "%s: %s must be %s", dc_state_path(state), name, wanted_text);
    return DC_OK;
}

static dc_status read_split(dc_state *state, dc_split split, int64_t file_size, dc_dataset *dataset, extents *at)
{
    char images[ARRAY_NAME_CHARS], labels[ARRAY_NAME_CHARS];
    array_name(split, "images", images);
    array_name(split, "labels", labels);
    int64_t dims[DC_STATE_MAX_RANK], label_dims[DC_STATE_MAX_RANK];
    DC_TRY(read_array_shape(state, images, DC_STATE_UINT8, "uint8 [images][channels][height][width]", 4, dims));
    DC_TRY(read_array_shape(state, labels, DC_STATE_INT32, "int32 [images]", 1, label_dims));
    const char *path = dataset->path;
    DC_TRY(check_shape(path, dims[1], dims[2], dims[3]));
    DC_TRY(check_count(path, split == DC_SPLIT_TRAIN ? "training images" : "test images", dims[0], INT32_MAX));
    if (label_dims[0] != dims[0])
        return dc_fail(DC_ERR_INPUT, "%s: %s has %" PRId64 " entries for %" PRId64 " images", path, labels,
                       label_dims[0], dims[0]);
    dc_shape shape = {(int)dims[1], (int)dims[2], (int)dims[3]};
    if (split == DC_SPLIT_TRAIN)
        dataset->shape = shape;
    else if (memcmp(&shape, &dataset->shape, sizeof shape) != 0)
        return dc_fail(DC_ERR_INPUT, "%s: test images are %dx%dx%d, training images %dx%dx%d", path, shape.c, shape.h,
                       shape.w, dataset->shape.c, dataset->shape.h, dataset->shape.w);
    dataset->split[split].n = (uint32_t)dims[0];
    DC_TRY(read_extent(state, images, dims[0] * (int64_t)image_bytes(shape), 1, file_size, &at->images[split]));
    return read_extent(state, labels, dims[0] * (int64_t)sizeof(int32_t), sizeof(int32_t), file_size,
                       &at->labels[split]);
}

static dc_status read_classes(dc_state *state, dc_dataset *dataset)
{
    int64_t dims[DC_STATE_MAX_RANK];
    DC_TRY(read_array_shape(state, "classes", DC_STATE_UINT8, "uint8 [classes][64]: names", 2, dims));
    DC_TRY(check_count(dataset->path, "classes", dims[0], DC_MAX_CLASSES));
    if (dims[1] != DC_CLASS_NAME_CHARS)
        return dc_fail(DC_ERR_INPUT, "%s: classes: names of %" PRId64 " characters, expected %d", dataset->path,
                       dims[1], DC_CLASS_NAME_CHARS);
    dataset->n_classes = (int)dims[0];
    if (!(dataset->classes = dc_alloc_zeroed((size_t)dims[0] * sizeof *dataset->classes)))
        return DC_ERR_MEMORY;
    DC_TRY(dc_state_get_bytes(state, "classes", 2, dims, (uint8_t *)dataset->classes));
    for (int i = 0; i < dataset->n_classes; i++)
        if (!dataset->classes[i][0] || dataset->classes[i][DC_CLASS_NAME_CHARS - 1])
            return dc_fail(DC_ERR_INPUT, "%s: classes: the name of class %d is empty or has no end", dataset->path, i);
    return DC_OK;
}

static dc_status read_statistics(dc_state *state, dc_dataset *dataset)
{
    int64_t channels = dataset->shape.c;
    DC_TRY(dc_state_get_doubles(state, "mean", 1, &channels, dataset->mean));
    DC_TRY(dc_state_get_doubles(state, "std", 1, &channels, dataset->deviation));
    for (int c = 0; c < dataset->shape.c; c++)
        if (!(dataset->mean[c] >= 0 && dataset->mean[c] <= 1 && dataset->deviation[c] >= 0 &&
              dataset->deviation[c] <= 1))
            return dc_fail(DC_ERR_INPUT, "%s: mean %g and std %g of channel %d must lie in 0..1", dataset->path,
                           dataset->mean[c], dataset->deviation[c], c);
    return dc_state_get_u64(state, "hash", &dataset->hash);
}

static dc_status read_contents(dc_state *state, int64_t file_size, dc_dataset *dataset, extents *at)
{
    if (!dc_state_has(state, "format") || !dc_state_has(state, "version"))
        return dc_fail(DC_ERR_INPUT, "%s: no data set (made by dcanas data import)", dataset->path);
    char *text;
    DC_TRY(dc_state_get_text(state, "format", &text));
    bool right = strcmp(text, FORMAT) == 0;
    free(text);
    if (!right)
        return dc_fail(DC_ERR_INPUT, "%s: no data set (made by dcanas data import)", dataset->path);
    int64_t version;
    DC_TRY(dc_state_get_i64(state, "version", &version));
    if (version != FORMAT_VERSION)
        return dc_fail(DC_ERR_INPUT, "%s: format version %" PRId64 ", this program reads %d: import it again",
                       dataset->path, version, FORMAT_VERSION);
    DC_TRY(dc_state_get_text(state, "name", &text));
    snprintf(dataset->name, sizeof dataset->name, "%s", text);
    free(text);
    DC_TRY(read_split(state, DC_SPLIT_TRAIN, file_size, dataset, at));
    DC_TRY(read_split(state, DC_SPLIT_TEST, file_size, dataset, at));
    DC_TRY(read_classes(state, dataset));
    return read_statistics(state, dataset);
}

static dc_status open_file(const char *path, struct dc_dataset_map *map)
{
    map->fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    if (map->fd < 0 || fstat(map->fd, &info) != 0)
        return dc_fail(DC_ERR_IO, "%s: cannot read the data set: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return dc_fail(DC_ERR_INPUT, "%s: no data set file", path);
    map->size_bytes = (size_t)info.st_size;
    map->modified = info.st_mtim;
    return DC_OK;
}

/* The file that was validated by name must be the one that is mapped. */
static dc_status map_file(const char *path, struct dc_dataset_map *map)
{
    struct stat by_name, by_fd;
    if (stat(path, &by_name) != 0 || fstat(map->fd, &by_fd) != 0 || by_name.st_ino != by_fd.st_ino ||
        by_name.st_dev != by_fd.st_dev)
        return dc_fail(DC_ERR_IO, "%s: replaced by another file while it was opened", path);
    void *bytes = mmap(NULL, map->size_bytes, PROT_READ, MAP_SHARED, map->fd, 0);
    if (bytes == MAP_FAILED)
        return dc_fail(DC_ERR_IO, "%s: cannot map the data set: %s", path, strerror(errno));
    map->bytes = bytes;
    return DC_OK;
}

static dc_status open_into(dc_dataset *dataset)
{
    DC_TRY(open_file(dataset->path, dataset->map));
    int64_t file_size = (int64_t)dataset->map->size_bytes;
    dc_state *state;
    DC_TRY(dc_state_open_large(dataset->path, file_size <= verified_size_bytes, &state));
    extents at;
    dc_status status = read_contents(state, file_size, dataset, &at);
    dc_status closed = dc_state_close(state);
    DC_TRY(status);
    DC_TRY(closed);
    DC_TRY(map_file(dataset->path, dataset->map));
    for (int s = 0; s < DC_SPLIT_COUNT; s++) {
        dataset->split[s].pixels = dataset->map->bytes + at.images[s];
        dataset->split[s].labels = (const int32_t *)(const void *)(dataset->map->bytes + at.labels[s]);
        DC_TRY(check_labels(dataset->path, (dc_split)s, &dataset->split[s], dataset->n_classes));
    }
    return dc_dataset_check_unchanged(dataset);
}

dc_status dc_dataset_open(const char *path, dc_dataset **out)
{
    *out = NULL;
    dc_dataset *dataset = dc_alloc_zeroed(sizeof *dataset);
    if (!dataset)
        return DC_ERR_MEMORY;
    dataset->path = dc_alloc(strlen(path) + 1);
    dataset->map = dc_alloc_zeroed(sizeof *dataset->map);
    dc_status status = dataset->path && dataset->map ? DC_OK : DC_ERR_MEMORY;
    if (dataset->map)
        dataset->map->fd = -1;
    if (status == DC_OK) {
        strcpy(dataset->path, path);
        status = open_into(dataset);
    }
    if (status != DC_OK) {
        dc_dataset_close(dataset);
        return status;
    }
    *out = dataset;
    return DC_OK;
}

void dc_dataset_close(dc_dataset *dataset)
{
    if (!dataset)
        return;
    if (dataset->map) {
        if (dataset->map->bytes)
            munmap(dataset->map->bytes, dataset->map->size_bytes);
        if (dataset->map->fd >= 0)
            close(dataset->map->fd);
    }
    free(dataset->map);
    free(dataset->classes);
    free(dataset->path);
    free(dataset);
}

dc_status dc_dataset_verify(const dc_dataset *dataset)
{
    uint64_t hash = content_hash(dataset->shape, dataset->split);
    if (hash != dataset->hash)
        return dc_fail(DC_ERR_INPUT,
                       "%s: images or labels are damaged: their hash is %016" PRIx64 ", %016" PRIx64
                       " was stored: import it again",
                       dataset->path, hash, dataset->hash);
    return DC_OK;
}

dc_status dc_dataset_check_unchanged(const dc_dataset *dataset)
{
    const struct dc_dataset_map *map = dataset->map;
    struct stat info;
    if (fstat(map->fd, &info) != 0)
        return dc_fail(DC_ERR_IO, "%s: cannot read the data set: %s", dataset->path, strerror(errno));
    if ((size_t)info.st_size != map->size_bytes || info.st_mtim.tv_sec != map->modified.tv_sec ||
        info.st_mtim.tv_nsec != map->modified.tv_nsec)
        return dc_fail(DC_ERR_IO, "%s: the data set was changed while in use", dataset->path);
    return DC_OK;
}

/* ---- writing ---- */

/* Exact: from the number of pixels of each value. */
static void statistics(dc_shape shape, const dc_images *train, double *mean, double *deviation)
{
    size_t plane = (size_t)shape.h * (size_t)shape.w;
    for (int c = 0; c < shape.c; c++) {
        uint64_t count[256] = {0};
        for (uint32_t i = 0; i < train->n; i++) {
            const uint8_t *pixels = train->pixels + ((size_t)i * (size_t)shape.c + (size_t)c) * plane;
            for (size_t k = 0; k < plane; k++)
                count[pixels[k]]++;
        }
        double n = (double)train->n * (double)plane, sum = 0, squares = 0;
        for (int value = 0; value < 256; value++)
            sum += (double)count[value] * value;
        mean[c] = sum / n;
        for (int value = 0; value < 256; value++)
            squares += (double)count[value] * (value - mean[c]) * (value - mean[c]);
        mean[c] /= 255;
        deviation[c] = sqrt(squares / n) / 255;
    }
}

static dc_status check_content(const char *path, const dc_dataset_content *content)
{
    DC_TRY(check_shape(path, content->shape.c, content->shape.h, content->shape.w));
    DC_TRY(check_count(path, "classes", content->n_classes, DC_MAX_CLASSES));
    for (int i = 0; i < content->n_classes; i++)
        if (!content->classes[i][0] || strlen(content->classes[i]) >= DC_CLASS_NAME_CHARS)
            return dc_fail(DC_ERR_INPUT, "%s: the name of class %d, '%s', must have 1..%d characters", path, i,
                           content->classes[i], DC_CLASS_NAME_CHARS - 1);
    if (!content->name[0] || strlen(content->name) >= DC_CLASS_NAME_CHARS)
        return dc_fail(DC_ERR_INPUT, "%s: the data set's name, '%s', must have 1..%d characters", path, content->name,
                       DC_CLASS_NAME_CHARS - 1);
    for (int s = 0; s < DC_SPLIT_COUNT; s++) {
        DC_TRY(
            check_count(path, s == DC_SPLIT_TRAIN ? "training images" : "test images", content->split[s].n, INT32_MAX));
        DC_TRY(check_labels(path, (dc_split)s, &content->split[s], content->n_classes));
    }
    return DC_OK;
}

static void put_split(dc_state *state, dc_split split, dc_shape shape, const dc_images *images)
{
    char name[ARRAY_NAME_CHARS];
    int64_t dims[] = {images->n, shape.c, shape.h, shape.w};
    dc_state_reserve(state, array_name(split, "images", name), DC_STATE_UINT8, 4, dims);
    dc_state_put_rows(state, name, 0, images->n, images->pixels);
    dc_state_reserve(state, array_name(split, "labels", name), DC_STATE_INT32, 1, dims);
    dc_state_put_rows(state, name, 0, images->n, images->labels);
}

dc_status dc_dataset_write(const char *path, const dc_dataset_content *content)
{
    DC_TRY(check_content(path, content));
    double mean[DC_MAX_IMAGE_CHANNELS], deviation[DC_MAX_IMAGE_CHANNELS];
    statistics(content->shape, &content->split[DC_SPLIT_TRAIN], mean, deviation);
    char(*classes)[DC_CLASS_NAME_CHARS] = dc_alloc_zeroed((size_t)content->n_classes * sizeof *classes);
    if (!classes)
        return DC_ERR_MEMORY;
    for (int i = 0; i < content->n_classes; i++)
        strcpy(classes[i], content->classes[i]);
    dc_state *state;
    dc_status status = dc_state_create_large(path, &state);
    if (status == DC_OK) {
        dc_state_put_text(state, "format", FORMAT);
        dc_state_put_i64(state, "version", FORMAT_VERSION);
        dc_state_put_text(state, "name", content->name);
        dc_state_put_u64(state, "hash", content_hash(content->shape, content->split));
        dc_state_put_doubles(state, "mean", 1, (int64_t[]){content->shape.c}, mean);
        dc_state_put_doubles(state, "std", 1, (int64_t[]){content->shape.c}, deviation);
        dc_state_put_bytes(state, "classes", 2, (int64_t[]){content->n_classes, DC_CLASS_NAME_CHARS},
                           (const uint8_t *)classes);
        for (int s = 0; s < DC_SPLIT_COUNT; s++)
            put_split(state, (dc_split)s, content->shape, &content->split[s]);
        status = dc_state_commit(state, false);
    }
    free(classes);
    return status;
}
