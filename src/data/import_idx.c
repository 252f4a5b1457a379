#include "base/files.h"
#include "data/import.h"
#include "data/import_files.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

static const char *const file_names[DC_IDX_FILES] = {"train-images-idx3-ubyte", "train-labels-idx1-ubyte",
                                                     "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"};

enum { N_NAMED_CLASSES = 10, DEFAULT_CLASSES = 10, DEFLATE_MAX_RATIO = 1032 };

typedef struct named_classes {
    const char *name;
    const char *classes[N_NAMED_CLASSES];
} named_classes;

static const named_classes known_classes[] = {
    {"fashion-mnist",
     {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"}},
    {"mnist", {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}},
};

/* ---- one file: plain or compressed bytes as a stream ---- */

typedef struct stream {
    const uint8_t *bytes;
    size_t left;
    bool gzip, ended; /* ended: gzip only */
    z_stream z;
    const char *where;
} stream;

static dc_status stream_open(stream *s, const uint8_t *bytes, size_t n_bytes, const char *where)
{
    *s = (stream){.bytes = bytes, .left = n_bytes, .where = where};
    s->gzip = n_bytes >= 2 && bytes[0] == 0x1f && bytes[1] == 0x8b;
    if (s->gzip && inflateInit2(&s->z, MAX_WBITS + 16) != Z_OK) /* 16: with a gzip header, checksum verified */
        return dc_fail(DC_ERR_MEMORY, "%s: cannot start decompression", where);
    return DC_OK;
}

static void stream_close(stream *s)
{
    if (s->gzip)
        inflateEnd(&s->z);
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Up to n bytes; *got < n at the end of the data only. */
static dc_status stream_inflate(stream *s, uint8_t *out, size_t n, size_t *got)
{
    *got = 0;
    while (*got < n && !s->ended) {
        uInt in = (uInt)least(s->left, (size_t)1 << 30), room = (uInt)least(n - *got, (size_t)1 << 30);
        s->z.next_in = (Bytef *)s->bytes; /* zlib does not write there */
        s->z.avail_in = in;
        s->z.next_out = out + *got;
        s->z.avail_out = room;
        int result = inflate(&s->z, Z_NO_FLUSH);
        s->bytes += in - s->z.avail_in;
        s->left -= in - s->z.avail_in;
        *got += room - s->z.avail_out;
        s->ended = result == Z_STREAM_END;
        if (result == Z_BUF_ERROR)
            return dc_fail(DC_ERR_INPUT, "%s: the gzip file is cut short", s->where);
        if (result != Z_OK && result != Z_STREAM_END)
            return dc_fail(DC_ERR_INPUT, "%s: the gzip file is damaged: %s", s->where,
                           s->z.msg ? s->z.msg : "decompression failed");
    }
    return DC_OK;
}

static dc_status stream_read(stream *s, uint8_t *out, size_t n, size_t *got)
{
    if (s->gzip)
        return stream_inflate(s, out, n, got);
    *got = least(s->left, n);
    memcpy(out, s->bytes, *got);
    s->bytes += *got;
    s->left -= *got;
    return DC_OK;
}

/* Fails unless all has been read; for gzip this is also what verifies the checksum at its end. */
static dc_status stream_finish(stream *s)
{
    uint8_t extra;
    size_t got;
    DC_TRY(stream_read(s, &extra, 1, &got));
    if (got)
        return dc_fail(DC_ERR_INPUT, "%s: more data than the header's dimensions ask for", s->where);
    if (s->left)
        return dc_fail(DC_ERR_INPUT, "%s: %zu bytes after the end of the gzip data", s->where, s->left);
    return DC_OK;
}

/* ---- IDX ---- */

static uint32_t big_endian(const uint8_t b[4])
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | (uint32_t)b[3];
}

static dc_status read_header(stream *s, int n_dims, uint32_t dims[3], size_t *n_bytes)
{
    uint8_t header[16];
    size_t n_header = 4 + 4 * (size_t)n_dims, got;
    DC_TRY(stream_read(s, header, n_header, &got));
    if (got < 4 || header[0] || header[1] || header[2] != 8 || header[3] != n_dims)
        return dc_fail(DC_ERR_INPUT, "%s: not an IDX file of %s: must begin with the bytes 00 00 08 %02x", s->where,
                       n_dims == 1 ? "labels" : "images", (unsigned)n_dims);
    if (got < n_header)
        return dc_fail(DC_ERR_INPUT, "%s: the IDX header is cut short", s->where);
    *n_bytes = 1;
    for (int d = 0; d < 3; d++) {
        dims[d] = d < n_dims ? big_endian(header + 4 + 4 * d) : 1;
        uint32_t maximum = d ? DC_MAX_IMAGE_SIDE : INT32_MAX;
        if (dims[d] < 1 || dims[d] > maximum)
            return dc_fail(DC_ERR_INPUT, "%s: the IDX header's dimension %d is %u: must be 1..%u", s->where, d, dims[d],
                           maximum);
        *n_bytes *= dims[d];
    }
    return DC_OK;
}

static dc_status read_body(stream *s, int n_dims, dc_idx *idx)
{
    size_t n_bytes = 0, got;
    DC_TRY(read_header(s, n_dims, idx->dims, &n_bytes));
    /* before memory is asked for: can so much be there at all? */
    size_t possible = s->gzip ? (s->left + 1) * DEFLATE_MAX_RATIO + ((size_t)1 << 16) : s->left;
    if (n_bytes > possible)
        return dc_fail(DC_ERR_INPUT, "%s: cut short: the header asks for %zu bytes of data", s->where, n_bytes);
    if (!(idx->data = dc_alloc(n_bytes)))
        return DC_ERR_MEMORY;
    DC_TRY(stream_read(s, idx->data, n_bytes, &got));
    if (got < n_bytes)
        return dc_fail(DC_ERR_INPUT, "%s: cut short: %zu of the %zu bytes that its header asks for", s->where, got,
                       n_bytes);
    return stream_finish(s);
}

dc_status dc_idx_parse(const uint8_t *bytes, size_t n_bytes, int n_dims, const char *where, dc_idx *idx)
{
    *idx = (dc_idx){0};
    stream s;
    DC_TRY(stream_open(&s, bytes, n_bytes, where));
    dc_status status = read_body(&s, n_dims, idx);
    stream_close(&s);
    if (status != DC_OK) {
        free(idx->data);
        *idx = (dc_idx){0};
    }
    return status;
}

/* ---- the four files ---- */

static bool is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* The path of a standard file in a folder, plain or with .gz. */
static dc_status find_file(const char *folder, int file, char path[DC_PATH_CHARS])
{
    DC_TRY(dc_path_join(folder, file_names[file], path));
    if (dc_file_exists(path))
        return DC_OK;
    size_t length = strlen(path);
    if (length + sizeof ".gz" <= DC_PATH_CHARS)
        strcpy(path + length, ".gz");
    if (dc_file_exists(path))
        return DC_OK;
    return dc_fail(DC_ERR_IO, "%s: neither %s nor %s.gz is there", folder, file_names[file], file_names[file]);
}

static dc_status load_labels(const dc_import_file *file, uint32_t n_images, int n_classes, int32_t **labels)
{
    dc_idx idx;
    const char *path = file->path;
    DC_TRY(dc_idx_parse(file->bytes, file->n_bytes, 1, path, &idx));
    dc_status status = DC_OK;
    if (idx.dims[0] != n_images)
        status = dc_fail(DC_ERR_INPUT, "%s: %u labels for %u images", path, idx.dims[0], n_images);
    else if (!(*labels = dc_alloc(n_images * sizeof **labels)))
        status = DC_ERR_MEMORY;
    for (uint32_t i = 0; status == DC_OK && i < n_images; i++) {
        (*labels)[i] = idx.data[i];
        if (idx.data[i] >= n_classes)
            status = dc_fail(DC_ERR_INPUT,
                             "%s: label %d of image %u is outside 0..%d; --classes tells how many classes there are",
                             path, idx.data[i], i, n_classes - 1);
    }
    free(idx.data);
    return status;
}

static dc_status load_split(dc_split split, const dc_import_file *images, const dc_import_file *labels,
                            dc_dataset_content *content, dc_import_store *store)
{
    dc_idx idx;
    DC_TRY(dc_idx_parse(images->bytes, images->n_bytes, 3, images->path, &idx));
    store->pixels[split] = idx.data;
    dc_shape shape = {1, (int)idx.dims[1], (int)idx.dims[2]};
    if (split == DC_SPLIT_TRAIN)
        content->shape = shape;
    else if (memcmp(&shape, &content->shape, sizeof shape) != 0)
        return dc_fail(DC_ERR_INPUT, "%s: images of %dx%d, but the training images are %dx%d", images->path, shape.h,
                       shape.w, content->shape.h, content->shape.w);
    content->split[split].n = idx.dims[0];
    return load_labels(labels, idx.dims[0], content->n_classes, &store->labels[split]);
}

/* Class names: those of a known data set, else numbers. */
static dc_status name_classes(const char *folder, const dc_import_options *options, dc_dataset_content *content,
                              dc_import_store *store)
{
    const named_classes *known = NULL;
    const char *wanted = options->classes_from ? options->classes_from : options->n_classes ? "" : folder;
    for (size_t i = 0; i < sizeof known_classes / sizeof *known_classes; i++)
        if (strcmp(known_classes[i].name, wanted) == 0)
            known = &known_classes[i];
    if (options->classes_from && !known)
        return dc_fail(DC_ERR_INPUT, "no class names are known for '%s': fashion-mnist and mnist have them", wanted);
    if (options->classes_from && options->n_classes && options->n_classes != N_NAMED_CLASSES)
        return dc_fail(DC_ERR_INPUT, "%s has %d classes, not %d", wanted, N_NAMED_CLASSES, options->n_classes);
    int n = known ? N_NAMED_CLASSES : options->n_classes ? options->n_classes : DEFAULT_CLASSES;
    if (n < 1 || n > 256)
        return dc_fail(DC_ERR_INPUT, "%d classes: the labels of an IDX file are bytes, so 1..256", n);
    content->n_classes = n;
    if (!(store->classes = dc_alloc_zeroed(((size_t)n + 1) * sizeof *store->classes)))
        return DC_ERR_MEMORY;
    for (int i = 0; i < n; i++) {
        if (!(store->classes[i] = dc_alloc(DC_CLASS_NAME_CHARS)))
            return DC_ERR_MEMORY;
        if (known)
            strcpy(store->classes[i], known->classes[i]);
        else
            snprintf(store->classes[i], DC_CLASS_NAME_CHARS, "%d", i);
    }
    return DC_OK;
}

/* Reads one file by its path. */
static dc_status read_file(const char *path, dc_import_file *file)
{
    char *bytes;
    if (!(file->path = dc_alloc(strlen(path) + 1)))
        return DC_ERR_MEMORY;
    strcpy(file->path, path);
    DC_TRY(dc_file_read(path, &bytes, &file->n_bytes));
    file->bytes = (uint8_t *)bytes;
    return DC_OK;
}

/* Those of a folder (where a plain file goes before a compressed one), or one by one. */
static dc_status read_files(const char *folder, const dc_import_options *options, dc_import_file files[DC_IDX_FILES])
{
    for (int i = 0; i < DC_IDX_FILES; i++) {
        char path[DC_PATH_CHARS];
        if (!folder && !options->files[i])
            return dc_fail(DC_ERR_INPUT, "no source folder and no file of %s was given", file_names[i]);
        if (folder && options->files[i])
            return dc_fail(DC_ERR_INPUT, "give either the source folder %s or four files, not both", folder);
        if (folder)
            DC_TRY(find_file(folder, i, path));
        DC_TRY(read_file(folder ? path : options->files[i], &files[i]));
    }
    return DC_OK;
}

static dc_status read_archive(const char *path, dc_import_file files[DC_IDX_FILES])
{
    for (int i = 0; i < DC_IDX_FILES; i++)
        files[i] = (dc_import_file){.wanted = file_names[i], .or_gz = true};
    DC_TRY(dc_import_files_collect(path, DC_IDX_FILES, files));
    for (int i = 0; i < DC_IDX_FILES; i++)
        if (!files[i].path)
            return dc_fail(DC_ERR_INPUT, "%s: neither %s nor %s.gz is there", path, file_names[i], file_names[i]);
    return DC_OK;
}

/* By the folder, or by the archive without its ending. */
static dc_status name_set(const char *source, const char *first_file, char name[DC_CLASS_NAME_CHARS])
{
    char folder[DC_PATH_CHARS];
    DC_TRY(dc_path_directory(first_file, folder));
    char *resolved = realpath(source ? source : folder, NULL); /* names the folder also when it was given as "." */
    if (!resolved)
        return dc_fail(DC_ERR_IO, "%s: %s", folder, strerror(errno));
    const char *base = strrchr(resolved, '/') + 1;
    snprintf(name, DC_CLASS_NAME_CHARS, "%s", *base ? base : "idx");
    free(resolved);
    char *ending = is_folder(source ? source : folder) ? NULL : strchr(name + 1, '.');
    if (ending)
        *ending = '\0';
    return DC_OK;
}

dc_status dc_import_idx(const char *source, const dc_import_options *options, dc_dataset_content *content,
                        dc_import_store *store)
{
    dc_import_file files[DC_IDX_FILES] = {{0}};
    bool archive = source && dc_file_exists(source) && !is_folder(source);
    dc_status status = archive ? read_archive(source, files) : read_files(source, options, files);
    if (status == DC_OK)
        status = name_set(source, files[DC_IDX_TRAIN_IMAGES].path, store->name);
    content->name = store->name;
    if (status == DC_OK)
        status = name_classes(store->name, options, content, store);
    if (status == DC_OK)
        status = load_split(DC_SPLIT_TRAIN, &files[DC_IDX_TRAIN_IMAGES], &files[DC_IDX_TRAIN_LABELS], content, store);
    if (status == DC_OK)
        status = load_split(DC_SPLIT_TEST, &files[DC_IDX_TEST_IMAGES], &files[DC_IDX_TEST_LABELS], content, store);
    dc_import_files_clear(DC_IDX_FILES, files);
    return status;
}
