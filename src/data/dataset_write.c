#include "data/dataset_format.h"

#include "base/hash.h"
#include "base/state.h"
#include "base/text.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define RULE "must be 1..%d bytes of UTF-8 without control characters"

/* JPEG files are gathered to pieces of this size. */
enum { PIECE_BYTES = 4 << 20 };

/* What is kept of each image until the end. */
typedef struct listing {
    int32_t *labels;
    uint64_t *offsets, *hashes;
    dc_picture_size *sizes;
} listing;

struct dc_dataset_writer {
    dc_state *state;
    dc_dataset_head head; /* its pointers are not used after creation */
    uint32_t put[DC_SPLIT_COUNT];
    listing listing[DC_SPLIT_COUNT];
    dc_hash pixels_hash;
    uint64_t (*counts)[256]; /* training pixels of each value, by channel */
    uint8_t *piece;
    size_t piece_used;
};

/* ---- creation ---- */

/* Tables, JSON and reports show them. */
static bool is_name(const char *s)
{
    return *s && strlen(s) < DC_CLASS_NAME_CHARS && dc_text_is_plain(s);
}

static dc_status check_names(const char *path, const dc_dataset_head *head)
{
    DC_TRY(dc_dataset_check_count(path, "classes", head->n_classes, DC_MAX_CLASSES));
    for (int i = 0; i < head->n_classes; i++)
        if (!is_name(head->classes[i]))
            return dc_fail(DC_ERR_INPUT, "%s: the name of class %d, '%s', " RULE, path, i, head->classes[i],
                           DC_CLASS_NAME_CHARS - 1);
    if (!is_name(head->name))
        return dc_fail(DC_ERR_INPUT, "%s: the data set's name, '%s', " RULE, path, head->name, DC_CLASS_NAME_CHARS - 1);
    return DC_OK;
}

static dc_status check_head(const char *path, const dc_dataset_head *head)
{
    if (head->storage == DC_STORAGE_PIXELS)
        DC_TRY(dc_dataset_check_shape(path, head->shape.c, head->shape.h, head->shape.w));
    DC_TRY(check_names(path, head));
    for (int s = 0; s < DC_SPLIT_COUNT; s++)
        DC_TRY(dc_dataset_check_images(path, (dc_split)s, head->n[s]));
    return DC_OK;
}

static dc_status allocate(dc_dataset_writer *writer)
{
    bool jpeg = writer->head.storage == DC_STORAGE_JPEG;
    for (int s = 0; s < DC_SPLIT_COUNT; s++) {
        size_t n = writer->head.n[s];
        listing *x = &writer->listing[s];
        if (!(x->labels = dc_alloc(n * sizeof *x->labels)))
            return DC_ERR_MEMORY;
        if (jpeg && (!(x->offsets = dc_alloc_zeroed((n + 1) * sizeof *x->offsets)) ||
                     !(x->hashes = dc_alloc(n * sizeof *x->hashes)) || !(x->sizes = dc_alloc(n * sizeof *x->sizes))))
            return DC_ERR_MEMORY;
    }
    if (jpeg && !(writer->piece = dc_alloc(PIECE_BYTES)))
        return DC_ERR_MEMORY;
    if (!jpeg && !(writer->counts = dc_alloc_zeroed((size_t)writer->head.shape.c * sizeof *writer->counts)))
        return DC_ERR_MEMORY;
    return DC_OK;
}

static dc_status put_head(dc_state *state, const dc_dataset_head *head)
{
    char(*classes)[DC_CLASS_NAME_CHARS] = dc_alloc_zeroed((size_t)head->n_classes * sizeof *classes);
    if (!classes)
        return DC_ERR_MEMORY;
    for (int i = 0; i < head->n_classes; i++)
        strcpy(classes[i], head->classes[i]);
    dc_state_put_text(state, "format", DC_DATASET_FORMAT);
    dc_state_put_i64(state, "version", DC_DATASET_VERSION);
    dc_state_put_text(state, "storage", dc_storage_name(head->storage));
    dc_state_put_text(state, "name", head->name);
    dc_state_put_bytes(state, "classes", 2, (int64_t[]){head->n_classes, DC_CLASS_NAME_CHARS},
                       (const uint8_t *)classes);
    free(classes);
    return DC_OK;
}

static void reserve_split(dc_state *state, dc_split split, const dc_dataset_head *head)
{
    char name[DC_ARRAY_NAME_CHARS];
    int64_t n = head->n[split], dims[] = {n, head->shape.c, head->shape.h, head->shape.w};
    dc_state_reserve(state, dc_dataset_array(split, "labels", name), DC_STATE_INT32, 1, &n);
    if (head->storage == DC_STORAGE_PIXELS) {
        dc_state_reserve(state, dc_dataset_array(split, "images", name), DC_STATE_UINT8, 4, dims);
        return;
    }
    int64_t ends = n + 1, bytes = (int64_t)head->jpeg_bytes[split];
    dc_state_reserve(state, dc_dataset_array(split, "offsets", name), DC_STATE_UINT64, 1, &ends);
    dc_state_reserve(state, dc_dataset_array(split, "sizes", name), DC_STATE_INT32, 2, (int64_t[]){n, 2});
    dc_state_reserve(state, dc_dataset_array(split, "hashes", name), DC_STATE_UINT64, 1, &n);
    dc_state_reserve(state, dc_dataset_array(split, "jpegs", name), DC_STATE_UINT8, 1, &bytes);
}

static dc_status begin(dc_dataset_writer *writer, const char *path)
{
    DC_TRY(allocate(writer));
    DC_TRY(dc_state_create_large(path, &writer->state));
    DC_TRY(put_head(writer->state, &writer->head));
    for (int s = 0; s < DC_SPLIT_COUNT; s++)
        reserve_split(writer->state, (dc_split)s, &writer->head);
    dc_hash_init(&writer->pixels_hash);
    return dc_state_check(writer->state);
}

dc_status dc_dataset_writer_create(const char *path, const dc_dataset_head *head, dc_dataset_writer **out)
{
    DC_TRY(check_head(path, head));
    dc_dataset_writer *writer = dc_alloc_zeroed(sizeof *writer);
    if (!writer)
        return DC_ERR_MEMORY;
    writer->head = *head;
    dc_status status = begin(writer, path);
    if (status != DC_OK) {
        dc_dataset_writer_abandon(writer);
        return status;
    }
    *out = writer;
    return DC_OK;
}

/* ---- images ---- */

/* The split that the next image belongs to. */
static dc_split current(const dc_dataset_writer *writer)
{
    return writer->put[DC_SPLIT_TRAIN] < writer->head.n[DC_SPLIT_TRAIN] ? DC_SPLIT_TRAIN : DC_SPLIT_TEST;
}

static dc_status check_room(const dc_dataset_writer *writer, dc_split split, uint32_t n)
{
    if (n > writer->head.n[split] - writer->put[split])
        return dc_fail(DC_ERR_INTERNAL, "%s: more %s images than were announced", dc_state_path(writer->state),
                       dc_split_name(split));
    return DC_OK;
}

static void count_values(dc_dataset_writer *writer, uint32_t n, const uint8_t *pixels)
{
    dc_shape shape = writer->head.shape;
    size_t plane = (size_t)shape.h * (size_t)shape.w;
    for (uint32_t i = 0; i < n; i++)
        for (int c = 0; c < shape.c; c++, pixels += plane)
            for (size_t k = 0; k < plane; k++)
                writer->counts[c][pixels[k]]++;
}

dc_status dc_dataset_writer_put_pixels(dc_dataset_writer *writer, uint32_t n, const int32_t *labels,
                                       const uint8_t *pixels)
{
    dc_split split = current(writer);
    uint32_t at = writer->put[split];
    listing *x = &writer->listing[split];
    DC_TRY(check_room(writer, split, n));
    DC_TRY(dc_dataset_check_labels(dc_state_path(writer->state), split, n, labels, writer->head.n_classes));
    memcpy(x->labels + at, labels, n * sizeof *labels);
    writer->put[split] += n;
    char name[DC_ARRAY_NAME_CHARS];
    dc_state_put_rows(writer->state, dc_dataset_array(split, "images", name), at, n, pixels);
    dc_hash_bytes(&writer->pixels_hash, pixels, n * dc_dataset_image_bytes(writer->head.shape));
    if (writer->put[split] == writer->head.n[split])
        dc_hash_bytes(&writer->pixels_hash, x->labels, writer->put[split] * sizeof *x->labels);
    if (split == DC_SPLIT_TRAIN)
        count_values(writer, n, pixels);
    return dc_state_check(writer->state);
}

/* Writes what has been gathered of a split, whose bytes end at `end`. */
static void flush_piece(dc_dataset_writer *writer, dc_split split, uint64_t end)
{
    char name[DC_ARRAY_NAME_CHARS];
    dc_state_put_rows(writer->state, dc_dataset_array(split, "jpegs", name), (int64_t)(end - writer->piece_used),
                      (int64_t)writer->piece_used, writer->piece);
    writer->piece_used = 0;
}

static void gather(dc_dataset_writer *writer, dc_split split, uint64_t at, const uint8_t *bytes, size_t n_bytes)
{
    while (n_bytes) {
        size_t room = PIECE_BYTES - writer->piece_used, n = n_bytes < room ? n_bytes : room;
        memcpy(writer->piece + writer->piece_used, bytes, n);
        writer->piece_used += n;
        bytes += n;
        n_bytes -= n;
        at += n;
        if (writer->piece_used == PIECE_BYTES)
            flush_piece(writer, split, at);
    }
}

dc_status dc_dataset_writer_put_jpeg(dc_dataset_writer *writer, int32_t label, dc_picture_size size, const void *bytes,
                                     size_t n_bytes)
{
    dc_split split = current(writer);
    uint32_t at = writer->put[split];
    listing *x = &writer->listing[split];
    const char *path = dc_state_path(writer->state);
    DC_TRY(check_room(writer, split, 1));
    DC_TRY(dc_dataset_check_labels(path, split, 1, &label, writer->head.n_classes));
    DC_TRY(dc_dataset_check_size(path, split, at, size));
    if (!n_bytes || n_bytes > writer->head.jpeg_bytes[split] - x->offsets[at])
        return dc_fail(DC_ERR_INTERNAL, "%s: %s picture %u has no bytes, or more than were announced", path,
                       dc_split_name(split), at);
    x->labels[at] = label;
    x->sizes[at] = size;
    x->hashes[at] = dc_hash_of(bytes, n_bytes);
    x->offsets[at + 1] = x->offsets[at] + n_bytes;
    gather(writer, split, x->offsets[at], bytes, n_bytes);
    if (++writer->put[split] == writer->head.n[split])
        flush_piece(writer, split, x->offsets[at + 1]);
    return dc_state_check(writer->state);
}

/* ---- the end ---- */

/* Exact: from the number of pixels of each value. */
static void statistics(dc_dataset_writer *writer)
{
    dc_dataset_head *head = &writer->head;
    double n = (double)head->n[DC_SPLIT_TRAIN] * head->shape.h * head->shape.w;
    for (int c = 0; c < head->shape.c; c++) {
        const uint64_t *count = writer->counts[c];
        double sum = 0, squares = 0;
        for (int value = 0; value < 256; value++)
            sum += (double)count[value] * value;
        double mean = sum / n;
        for (int value = 0; value < 256; value++)
            squares += (double)count[value] * (value - mean) * (value - mean);
        head->mean[c] = mean / 255;
        head->deviation[c] = sqrt(squares / n) / 255;
    }
}

static void put_index(dc_dataset_writer *writer, dc_split split, dc_images *images)
{
    const listing *x = &writer->listing[split];
    char name[DC_ARRAY_NAME_CHARS];
    int64_t n = writer->head.n[split];
    *images = (dc_images){
        .n = (uint32_t)n, .labels = x->labels, .offsets = x->offsets, .sizes = x->sizes, .hashes = x->hashes};
    dc_state_put_rows(writer->state, dc_dataset_array(split, "labels", name), 0, n, x->labels);
    if (writer->head.storage == DC_STORAGE_PIXELS)
        return;
    dc_state_put_rows(writer->state, dc_dataset_array(split, "offsets", name), 0, n + 1, x->offsets);
    dc_state_put_rows(writer->state, dc_dataset_array(split, "sizes", name), 0, n, x->sizes);
    dc_state_put_rows(writer->state, dc_dataset_array(split, "hashes", name), 0, n, x->hashes);
}

static dc_status check_complete(const dc_dataset_writer *writer)
{
    bool jpeg = writer->head.storage == DC_STORAGE_JPEG;
    for (int s = 0; s < DC_SPLIT_COUNT; s++) {
        uint32_t n = writer->head.n[s];
        if (writer->put[s] != n || (jpeg && writer->listing[s].offsets[n] != writer->head.jpeg_bytes[s]))
            return dc_fail(DC_ERR_INTERNAL, "%s: fewer %s images or bytes than were announced",
                           dc_state_path(writer->state), dc_split_name((dc_split)s));
    }
    return DC_OK;
}

static void put_rest(dc_dataset_writer *writer)
{
    bool jpeg = writer->head.storage == DC_STORAGE_JPEG;
    dc_images images[DC_SPLIT_COUNT];
    for (int s = 0; s < DC_SPLIT_COUNT; s++)
        put_index(writer, (dc_split)s, &images[s]);
    if (!jpeg)
        statistics(writer);
    int64_t channels = jpeg ? 3 : writer->head.shape.c;
    dc_state_put_doubles(writer->state, "mean", 1, &channels, writer->head.mean);
    dc_state_put_doubles(writer->state, "std", 1, &channels, writer->head.deviation);
    dc_state_put_u64(writer->state, "hash", jpeg ? dc_dataset_jpeg_hash(images) : dc_hash_end(&writer->pixels_hash));
}

/* All but the state. */
static void clear(dc_dataset_writer *writer)
{
    for (int s = 0; s < DC_SPLIT_COUNT; s++) {
        free(writer->listing[s].labels);
        free(writer->listing[s].offsets);
        free(writer->listing[s].hashes);
        free(writer->listing[s].sizes);
    }
    free(writer->counts);
    free(writer->piece);
    free(writer);
}

dc_status dc_dataset_writer_commit(dc_dataset_writer *writer)
{
    dc_status status = check_complete(writer);
    if (status != DC_OK) {
        dc_dataset_writer_abandon(writer);
        return status;
    }
    put_rest(writer);
    status = dc_state_commit(writer->state, false);
    clear(writer);
    return status;
}

void dc_dataset_writer_abandon(dc_dataset_writer *writer)
{
    if (!writer)
        return;
    dc_state_abandon(writer->state);
    clear(writer);
}

dc_status dc_dataset_write(const char *path, const dc_dataset_content *content)
{
    dc_dataset_head head = {.name = content->name,
                            .storage = DC_STORAGE_PIXELS,
                            .shape = content->shape,
                            .n_classes = content->n_classes,
                            .classes = content->classes,
                            .n = {content->split[DC_SPLIT_TRAIN].n, content->split[DC_SPLIT_TEST].n}};
    dc_dataset_writer *writer;
    DC_TRY(dc_dataset_writer_create(path, &head, &writer));
    for (int s = 0; s < DC_SPLIT_COUNT; s++) {
        const dc_images *images = &content->split[s];
        dc_status status = dc_dataset_writer_put_pixels(writer, images->n, images->labels, images->pixels);
        if (status != DC_OK) {
            dc_dataset_writer_abandon(writer);
            return status;
        }
    }
    return dc_dataset_writer_commit(writer);
}
