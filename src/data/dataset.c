#include "data/dataset_format.h"

#include "base/hash.h"
#include "base/state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

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

const char *dc_storage_name(dc_storage storage)
{
    return storage == DC_STORAGE_PIXELS ? "pixels" : "jpeg";
}

const char *dc_dataset_array(dc_split split, const char *what, char out[DC_ARRAY_NAME_CHARS])
{
    snprintf(out, DC_ARRAY_NAME_CHARS, "%s/%s", dc_split_name(split), what);
    return out;
}

/* ---- checks that reading and writing share ---- */

dc_status dc_dataset_check_shape(const char *path, int64_t c, int64_t h, int64_t w)
{
    if (c < 1 || c > DC_MAX_IMAGE_CHANNELS || h < 1 || h > DC_MAX_IMAGE_SIDE || w < 1 || w > DC_MAX_IMAGE_SIDE)
        return dc_fail(DC_ERR_INPUT,
                       "%s: images of %" PRId64 "x%" PRId64 "x%" PRId64 " (channels x height x width): at most "
                       "%dx%dx%d, at least 1x1x1",
                       path, c, h, w, DC_MAX_IMAGE_CHANNELS, DC_MAX_IMAGE_SIDE, DC_MAX_IMAGE_SIDE);
    return DC_OK;
}

dc_status dc_dataset_check_count(const char *path, const char *what, int64_t n, int64_t maximum)
{
    if (n < 1 || n > maximum)
        return dc_fail(DC_ERR_INPUT, "%s: %" PRId64 " %s: must be 1..%" PRId64, path, n, what, maximum);
    return DC_OK;
}

dc_status dc_dataset_check_images(const char *path, dc_split split, int64_t n)
{
    return dc_dataset_check_count(path, split == DC_SPLIT_TRAIN ? "training images" : "test images", n, INT32_MAX);
}

dc_status dc_dataset_check_labels(const char *path, dc_split split, uint32_t n, const int32_t *labels, int n_classes)
{
    for (uint32_t i = 0; i < n; i++)
        if (labels[i] < 0 || labels[i] >= n_classes)
            return dc_fail(DC_ERR_INPUT, "%s: %s/labels: label %d of image %u is outside 0..%d", path,
                           dc_split_name(split), (int)labels[i], i, n_classes - 1);
    return DC_OK;
}

dc_status dc_dataset_check_size(const char *path, dc_split split, uint32_t index, dc_picture_size size)
{
    if (size.height < 1 || size.height > DC_MAX_PICTURE_SIDE || size.width < 1 || size.width > DC_MAX_PICTURE_SIDE)
        return dc_fail(DC_ERR_INPUT, "%s: %s/sizes: picture %u of %dx%d: each side must be 1..%d", path,
                       dc_split_name(split), index, (int)size.height, (int)size.width, DC_MAX_PICTURE_SIDE);
    return DC_OK;
}

static uint64_t pixels_hash(dc_shape shape, const dc_images split[DC_SPLIT_COUNT])
{
    dc_hash hash;
    dc_hash_init(&hash);
    for (int s = 0; s < DC_SPLIT_COUNT; s++) {
        dc_hash_bytes(&hash, split[s].pixels, split[s].n * dc_dataset_image_bytes(shape));
        dc_hash_bytes(&hash, split[s].labels, split[s].n * sizeof *split[s].labels);
    }
    return dc_hash_end(&hash);
}

uint64_t dc_dataset_jpeg_hash(const dc_images split[DC_SPLIT_COUNT])
{
    dc_hash hash;
    dc_hash_init(&hash);
    for (int s = 0; s < DC_SPLIT_COUNT; s++) {
        const dc_images *images = &split[s];
        dc_hash_bytes(&hash, images->labels, images->n * sizeof *images->labels);
        dc_hash_bytes(&hash, images->offsets, (images->n + (size_t)1) * sizeof *images->offsets);
        dc_hash_bytes(&hash, images->sizes, images->n * sizeof *images->sizes);
        dc_hash_bytes(&hash, images->hashes, images->n * sizeof *images->hashes);
    }
    return dc_hash_end(&hash);
}

/* ---- reading ---- */

/* The arrays of a split, each with what it must be. */
typedef enum array { LABELS, IMAGES, JPEGS, OFFSETS, SIZES, HASHES, ARRAYS } array;

typedef struct array_form {
    const char *name;
    dc_state_type type;
    int rank;
    int64_t item_bytes;
    const char *text;
} array_form;

static const array_form forms[ARRAYS] = {
    [LABELS] = {"labels", DC_STATE_INT32, 1, 4, "int32 [images]"},
    [IMAGES] = {"images", DC_STATE_UINT8, 4, 1, "uint8 [images][channels][height][width]"},
    [JPEGS] = {"jpegs", DC_STATE_UINT8, 1, 1, "uint8 [bytes]"},
    [OFFSETS] = {"offsets", DC_STATE_UINT64, 1, 8, "uint64 [images + 1]"},
    [SIZES] = {"sizes", DC_STATE_INT32, 2, 4, "int32 [images][2]"},
    [HASHES] = {"hashes", DC_STATE_UINT64, 1, 8, "uint64 [images]"},
};

/* Where the arrays lie in the file. */
typedef struct extents {
    int64_t at[DC_SPLIT_COUNT][ARRAYS];
    int64_t jpeg_bytes[DC_SPLIT_COUNT];
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

/* The shape and the place of an array, whose size along its first dimension must be n unless n is negative. */
static dc_status read_array(dc_state *state, dc_split split, array which, int64_t n, int64_t file_size,
                            int64_t dims[DC_STATE_MAX_RANK], extents *found)
{
    const array_form *form = &forms[which];
    char name[DC_ARRAY_NAME_CHARS];
    dc_dataset_array(split, form->name, name);
    DC_TRY(read_array_shape(state, name, form->type, form->text, form->rank, dims));
    if (n >= 0 && dims[0] != n)
        return dc_fail(DC_ERR_INPUT, "%s: %s has %" PRId64 " entries, expected %" PRId64, dc_state_path(state), name,
                       dims[0], n);
    int64_t bytes = form->item_bytes;
    for (int i = 0; i < form->rank; i++) {
        if (dims[i] && bytes > file_size / dims[i]) /* no overflow below */
            return dc_fail(DC_ERR_INPUT, "%s: %s is larger than the file", dc_state_path(state), name);
        bytes *= dims[i];
    }
    return read_extent(state, name, bytes, form->item_bytes, file_size, &found->at[split][which]);
}

static dc_status read_pixels(dc_state *state, dc_split split, int64_t file_size, dc_dataset *dataset, extents *found)
{
    int64_t dims[DC_STATE_MAX_RANK];
    DC_TRY(read_array(state, split, IMAGES, dataset->split[split].n, file_size, dims, found));
    DC_TRY(dc_dataset_check_shape(dataset->path, dims[1], dims[2], dims[3]));
    dc_shape shape = {(int)dims[1], (int)dims[2], (int)dims[3]};
    if (split == DC_SPLIT_TRAIN)
        dataset->shape = shape;
    else if (memcmp(&shape, &dataset->shape, sizeof shape) != 0)
        return dc_fail(DC_ERR_INPUT, "%s: test images are %dx%dx%d, training images %dx%dx%d", dataset->path, shape.c,
                       shape.h, shape.w, dataset->shape.c, dataset->shape.h, dataset->shape.w);
    return DC_OK;
}

static dc_status read_jpegs(dc_state *state, dc_split split, int64_t file_size, dc_dataset *dataset, extents *found)
{
    int64_t dims[DC_STATE_MAX_RANK], n = dataset->split[split].n;
    dataset->shape = (dc_shape){3, DC_DEFAULT_IMAGE_SIZE, DC_DEFAULT_IMAGE_SIZE};
    DC_TRY(read_array(state, split, OFFSETS, n + 1, file_size, dims, found));
    DC_TRY(read_array(state, split, HASHES, n, file_size, dims, found));
    DC_TRY(read_array(state, split, SIZES, n, file_size, dims, found));
    if (dims[1] != 2)
        return dc_fail(DC_ERR_INPUT, "%s: %s/sizes must be %s", dataset->path, dc_split_name(split), forms[SIZES].text);
    DC_TRY(read_array(state, split, JPEGS, -1, file_size, dims, found));
    found->jpeg_bytes[split] = dims[0];
    return DC_OK;
}

static dc_status read_split(dc_state *state, dc_split split, int64_t file_size, dc_dataset *dataset, extents *found)
{
    int64_t dims[DC_STATE_MAX_RANK];
    DC_TRY(read_array(state, split, LABELS, -1, file_size, dims, found));
    DC_TRY(dc_dataset_check_images(dataset->path, split, dims[0]));
    dataset->split[split].n = (uint32_t)dims[0];
    return (dataset->storage == DC_STORAGE_PIXELS ? read_pixels : read_jpegs)(state, split, file_size, dataset, found);
}

static dc_status read_classes(dc_state *state, dc_dataset *dataset)
{
    int64_t dims[DC_STATE_MAX_RANK];
    DC_TRY(read_array_shape(state, "classes", DC_STATE_UINT8, "uint8 [classes][64]: names", 2, dims));
    DC_TRY(dc_dataset_check_count(dataset->path, "classes", dims[0], DC_MAX_CLASSES));
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

/* Kind, version and storage. */
static dc_status read_format(dc_state *state, dc_dataset *dataset)
{
    if (!dc_state_has(state, "format") || !dc_state_has(state, "version"))
        return dc_fail(DC_ERR_INPUT, "%s: no data set (made by dcanas data import)", dataset->path);
    char *text;
    DC_TRY(dc_state_get_text(state, "format", &text));
    bool right = strcmp(text, DC_DATASET_FORMAT) == 0;
    free(text);
    if (!right)
        return dc_fail(DC_ERR_INPUT, "%s: no data set (made by dcanas data import)", dataset->path);
    int64_t version;
    DC_TRY(dc_state_get_i64(state, "version", &version));
    if (version == DC_DATASET_VERSION_PIXELS_ONLY)
        return DC_OK;
    if (version != DC_DATASET_VERSION)
        return dc_fail(DC_ERR_INPUT, "%s: format version %" PRId64 ", this program reads up to %d: import it again",
                       dataset->path, version, DC_DATASET_VERSION);
    DC_TRY(dc_state_get_text(state, "storage", &text));
    bool jpeg = strcmp(text, dc_storage_name(DC_STORAGE_JPEG)) == 0;
    dataset->storage = jpeg ? DC_STORAGE_JPEG : DC_STORAGE_PIXELS;
    right = jpeg || strcmp(text, dc_storage_name(DC_STORAGE_PIXELS)) == 0;
    dc_status status =
        right ? DC_OK : dc_fail(DC_ERR_INPUT, "%s: storage '%.32s': pixels or jpeg expected", dataset->path, text);
    free(text);
    return status;
}

static dc_status read_contents(dc_state *state, int64_t file_size, dc_dataset *dataset, extents *found)
{
    DC_TRY(read_format(state, dataset));
    char *text;
    DC_TRY(dc_state_get_text(state, "name", &text));
    snprintf(dataset->name, sizeof dataset->name, "%s", text);
    free(text);
    DC_TRY(read_split(state, DC_SPLIT_TRAIN, file_size, dataset, found));
    DC_TRY(read_split(state, DC_SPLIT_TEST, file_size, dataset, found));
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

/* The index of a jpeg split: no file may lie outside the array, none may be empty. */
static dc_status check_index(const dc_dataset *dataset, dc_split split, int64_t jpeg_bytes)
{
    const dc_images *images = &dataset->split[split];
    for (uint32_t i = 0; i < images->n; i++) {
        DC_TRY(dc_dataset_check_size(dataset->path, split, i, images->sizes[i]));
        if (images->offsets[i + 1] <= images->offsets[i])
            return dc_fail(DC_ERR_INPUT, "%s: %s/offsets: picture %u has no bytes", dataset->path, dc_split_name(split),
                           i);
    }
    if (images->offsets[0] != 0 || images->offsets[images->n] != (uint64_t)jpeg_bytes)
        return dc_fail(DC_ERR_INPUT, "%s: %s/offsets must go from 0 to the %" PRId64 " bytes of %s/jpegs",
                       dataset->path, dc_split_name(split), jpeg_bytes, dc_split_name(split));
    return DC_OK;
}

static dc_status map_split(dc_dataset *dataset, dc_split split, const extents *found)
{
    const uint8_t *bytes = dataset->map->bytes;
    const int64_t *at = found->at[split];
    dc_images *images = &dataset->split[split];
    images->labels = (const int32_t *)(const void *)(bytes + at[LABELS]);
    DC_TRY(dc_dataset_check_labels(dataset->path, split, images->n, images->labels, dataset->n_classes));
    if (dataset->storage == DC_STORAGE_PIXELS) {
        images->pixels = bytes + at[IMAGES];
        return DC_OK;
    }
    images->jpegs = bytes + at[JPEGS];
    images->offsets = (const uint64_t *)(const void *)(bytes + at[OFFSETS]);
    images->sizes = (const dc_picture_size *)(const void *)(bytes + at[SIZES]);
    images->hashes = (const uint64_t *)(const void *)(bytes + at[HASHES]);
    return check_index(dataset, split, found->jpeg_bytes[split]);
}

static dc_status open_into(dc_dataset *dataset)
{
    DC_TRY(open_file(dataset->path, dataset->map));
    int64_t file_size = (int64_t)dataset->map->size_bytes;
    dc_state *state;
    DC_TRY(dc_state_open_large(dataset->path, file_size <= verified_size_bytes, &state));
    extents found;
    dc_status status = read_contents(state, file_size, dataset, &found);
    dc_status closed = dc_state_close(state);
    DC_TRY(status);
    DC_TRY(closed);
    DC_TRY(map_file(dataset->path, dataset->map));
    for (int s = 0; s < DC_SPLIT_COUNT; s++)
        DC_TRY(map_split(dataset, (dc_split)s, &found));
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

dc_status dc_dataset_set_image_size(dc_dataset *dataset, int side)
{
    dc_shape own = dataset->shape;
    if (dataset->storage == DC_STORAGE_PIXELS && side && (side != own.h || side != own.w))
        return dc_fail(DC_ERR_INPUT, "%s: an image size of %d: its images are stored as %dx%d pixels", dataset->path,
                       side, own.h, own.w);
    if (side < 0 || side > DC_MAX_IMAGE_SIDE)
        return dc_fail(DC_ERR_INPUT, "%s: an image size of %d: must be 1..%d", dataset->path, side, DC_MAX_IMAGE_SIDE);
    if (dataset->storage == DC_STORAGE_JPEG)
        dataset->shape.h = dataset->shape.w = side ? side : DC_DEFAULT_IMAGE_SIZE;
    return DC_OK;
}

static dc_status verify_jpegs(const dc_dataset *dataset, dc_split split)
{
    const dc_images *images = &dataset->split[split];
    for (uint32_t i = 0; i < images->n; i++) {
        uint64_t begin = images->offsets[i];
        if (dc_hash_of(images->jpegs + begin, images->offsets[i + 1] - begin) != images->hashes[i])
            return dc_fail(DC_ERR_INPUT, "%s: %s picture %u (of class %s) is damaged: import it again", dataset->path,
                           dc_split_name(split), i, dataset->classes[images->labels[i]]);
    }
    return DC_OK;
}

dc_status dc_dataset_verify(const dc_dataset *dataset)
{
    bool jpeg = dataset->storage == DC_STORAGE_JPEG;
    for (int s = 0; jpeg && s < DC_SPLIT_COUNT; s++)
        DC_TRY(verify_jpegs(dataset, (dc_split)s));
    uint64_t hash = jpeg ? dc_dataset_jpeg_hash(dataset->split) : pixels_hash(dataset->shape, dataset->split);
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
