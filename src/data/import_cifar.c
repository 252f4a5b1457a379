/* CIFAR-10 and CIFAR-100 (https://www.cs.toronto.edu/~kriz/cifar.html), and ImageNet-16-120's batches, which have the
 * same form. Binary version: records of one label byte (100: a coarse and a fine one) and 3x32x32 bytes of pixels,
 * channel by channel. Python version: pickled dictionaries of a list of labels and an array of such rows. */
#include "data/imagenet_synsets.h"
#include "data/import.h"
#include "data/import_files.h"
#include "data/pickle.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILES = 10, N_WANTED = 2 * MAX_FILES + 1 };

/* One way in which a data set is distributed. */
typedef struct archive {
    const char *files[DC_SPLIT_COUNT][MAX_FILES]; /* end with NULL when fewer */
    const char *names;                            /* of the file of class names; NULL: it has none */
    const char *names_key;                        /* python: of the list in it */
    const char *labels_key;                       /* python: of the list in a batch */
    int first_label;                              /* labels count from here */
    int n_classes;
    bool other_classes; /* labels beyond these are left out, not wrong */
    int side;
    size_t label_bytes; /* binary: the label is the last of them; 0: python */
} archive;

static const archive cifar10[] = {
    {{{"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"},
      {"test_batch.bin"}},
     .names = "batches.meta.txt",
     .n_classes = 10,
     .side = 32,
     .label_bytes = 1},
    {{{"data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"}, {"test_batch"}},
     .names = "batches.meta",
     .names_key = "label_names",
     .labels_key = "labels",
     .n_classes = 10,
     .side = 32},
};

static const archive cifar100[] = {
    {{{"train.bin"}, {"test.bin"}}, .names = "fine_label_names.txt", .n_classes = 100, .side = 32, .label_bytes = 2},
    {{{"train"}, {"test"}},
     .names = "meta",
     .names_key = "fine_label_names",
     .labels_key = "fine_labels",
     .n_classes = 100,
     .side = 32},
};

static const archive imagenet16 = {
    {{"train_data_batch_1", "train_data_batch_2", "train_data_batch_3", "train_data_batch_4", "train_data_batch_5",
      "train_data_batch_6", "train_data_batch_7", "train_data_batch_8", "train_data_batch_9", "train_data_batch_10"},
     {"val_data"}},
    .labels_key = "labels",
    .first_label = 1,
    .n_classes = DC_IMAGENET16_CLASSES,
    .other_classes = true,
    .side = 16};

static size_t row_bytes(const archive *a)
{
    return 3 * (size_t)a->side * (size_t)a->side;
}

/* ---- images ---- */

/* Room for n more images of a split. */
static dc_status make_room(const archive *a, dc_split split, size_t n, const dc_dataset_content *content,
                           dc_import_store *store)
{
    size_t all = content->split[split].n + n;
    if (all > INT32_MAX)
        return dc_fail(DC_ERR_INPUT, "more than %d images", INT32_MAX);
    uint8_t *pixels = dc_realloc(store->pixels[split], all * row_bytes(a) + 1);
    store->pixels[split] = pixels ? pixels : store->pixels[split];
    int32_t *labels = dc_realloc(store->labels[split], all * sizeof *labels + 1);
    store->labels[split] = labels ? labels : store->labels[split];
    return pixels && labels ? DC_OK : DC_ERR_MEMORY;
}

static dc_status put_image(const archive *a, const dc_import_file *file, dc_split split, size_t i, int64_t label,
                           const uint8_t *pixels, dc_dataset_content *content, dc_import_store *store)
{
    int last = a->first_label + a->n_classes - 1;
    if (label > last && a->other_classes)
        return DC_OK;
    if (label < a->first_label || label > last)
        return dc_fail(DC_ERR_INPUT, "%s: label %lld of image %zu is outside %d..%d", file->path, (long long)label, i,
                       a->first_label, last);
    uint32_t at = content->split[split].n++;
    store->labels[split][at] = (int32_t)label - a->first_label;
    memcpy(store->pixels[split] + at * row_bytes(a), pixels, row_bytes(a));
    return DC_OK;
}

static dc_status append_binary(const archive *a, const dc_import_file *file, dc_split split,
                               dc_dataset_content *content, dc_import_store *store, size_t *n)
{
    size_t record = a->label_bytes + row_bytes(a);
    *n = file->n_bytes / record;
    if (!*n || file->n_bytes % record)
        return dc_fail(DC_ERR_INPUT, "%s: %zu bytes are not a whole number of records of %zu bytes: cut short?",
                       file->path, file->n_bytes, record);
    DC_TRY(make_room(a, split, *n, content, store));
    for (size_t i = 0; i < *n; i++) {
        const uint8_t *source = file->bytes + i * record;
        DC_TRY(put_image(a, file, split, i, source[a->label_bytes - 1], source + a->label_bytes, content, store));
    }
    return DC_OK;
}

static dc_status append_batch(const archive *a, const dc_import_file *file, dc_split split,
                              const dc_pickle_value *batch, dc_dataset_content *content, dc_import_store *store,
                              size_t *n)
{
    const dc_pickle_value *data = dc_pickle_get(batch, "data"), *labels = dc_pickle_get(batch, a->labels_key);
    int64_t rows = 0, columns = 0, label = 0;
    const uint8_t *pixels = NULL;
    if (!data || !labels || dc_pickle_length(labels) < 0)
        return dc_fail(DC_ERR_INPUT, "%s: a dictionary of 'data' and a list of '%s' expected", file->path,
                       a->labels_key);
    if (dc_pickle_matrix(data, &rows, &columns, &pixels) != DC_OK)
        return dc_fail_within(DC_ERR_INPUT, "%s: 'data'", file->path);
    if (rows < 1 || columns != (int64_t)row_bytes(a) || dc_pickle_length(labels) != rows)
        return dc_fail(DC_ERR_INPUT, "%s: %lld labels for %lldx%lld bytes of data, expected rows of %zu", file->path,
                       (long long)dc_pickle_length(labels), (long long)rows, (long long)columns, row_bytes(a));
    *n = (size_t)rows;
    DC_TRY(make_room(a, split, *n, content, store));
    for (size_t i = 0; i < *n; i++) {
        if (dc_pickle_integer(dc_pickle_item(labels, (int64_t)i), &label) != DC_OK)
            return dc_fail_within(DC_ERR_INPUT, "%s: label of image %zu", file->path, i);
        DC_TRY(put_image(a, file, split, i, label, pixels + i * row_bytes(a), content, store));
    }
    return DC_OK;
}

static dc_status append_python(const archive *a, const dc_import_file *file, dc_split split,
                               dc_dataset_content *content, dc_import_store *store, size_t *n)
{
    dc_pickle *pickle;
    DC_TRY(dc_pickle_parse(file->bytes, file->n_bytes, file->path, &pickle));
    dc_status status = append_batch(a, file, split, dc_pickle_root(pickle), content, store, n);
    dc_pickle_destroy(pickle);
    return status;
}

/* ---- names ---- */

static dc_status add_name(const char *name, size_t length, int n, dc_import_store *store)
{
    if (!(store->classes[n] = dc_alloc(length + 1)))
        return DC_ERR_MEMORY;
    memcpy(store->classes[n], name, length);
    store->classes[n][length] = '\0';
    return DC_OK;
}

/* One name a line, without the white space around it; empty lines do not count. */
static dc_status split_names(const dc_import_file *file, int n_classes, dc_import_store *store)
{
    int n = 0;
    char *rest = (char *)file->bytes;
    for (char *line; (line = strsep(&rest, "\n"));) {
        size_t length = strlen(line);
        while (length && isspace((unsigned char)line[length - 1]))
            line[--length] = '\0';
        if (!length)
            continue;
        if (n == n_classes || length >= DC_CLASS_NAME_CHARS)
            return dc_fail(DC_ERR_INPUT, "%s: must hold %d class names, one a line, of at most %d characters",
                           file->path, n_classes, DC_CLASS_NAME_CHARS - 1);
        DC_TRY(add_name(line, length, n++, store));
    }
    if (n != n_classes)
        return dc_fail(DC_ERR_INPUT, "%s: %d class names, one a line, expected %d", file->path, n, n_classes);
    return DC_OK;
}

static dc_status take_names(const archive *a, const dc_import_file *file, const dc_pickle_value *names,
                            dc_import_store *store)
{
    const char *text = NULL;
    size_t length = 0;
    if (!names || dc_pickle_length(names) != a->n_classes)
        return dc_fail(DC_ERR_INPUT, "%s: a list '%s' of %d class names expected", file->path, a->names_key,
                       a->n_classes);
    for (int i = 0; i < a->n_classes; i++) {
        if (dc_pickle_text(dc_pickle_item(names, i), &text, &length) != DC_OK || length >= DC_CLASS_NAME_CHARS ||
            memchr(text, 0, length))
            return dc_fail(DC_ERR_INPUT, "%s: name %d is no text of at most %d characters", file->path, i,
                           DC_CLASS_NAME_CHARS - 1);
        DC_TRY(add_name(text, length, i, store));
    }
    return DC_OK;
}

static dc_status name_synsets(const archive *a, dc_import_store *store)
{
    for (int i = 0; i < a->n_classes; i++) {
        char name[16];
        int length = snprintf(name, sizeof name, "n%08d", dc_imagenet_synsets[i]);
        DC_TRY(add_name(name, (size_t)length, i, store));
    }
    return DC_OK;
}

/* file: NULL without names. */
static dc_status read_names(const archive *a, const dc_import_file *file, dc_import_store *store)
{
    if (!(store->classes = dc_alloc_zeroed(((size_t)a->n_classes + 1) * sizeof *store->classes)))
        return DC_ERR_MEMORY;
    if (!a->names)
        return name_synsets(a, store);
    if (!a->names_key)
        return split_names(file, a->n_classes, store);
    dc_pickle *pickle;
    DC_TRY(dc_pickle_parse(file->bytes, file->n_bytes, file->path, &pickle));
    dc_status status = take_names(a, file, dc_pickle_get(dc_pickle_root(pickle), a->names_key), store);
    dc_pickle_destroy(pickle);
    return status;
}

/* ---- the whole ---- */

/* What to look for: the files of each split, then that of names. */
static int want(const archive *a, dc_import_file *files)
{
    int n = 0;
    for (int s = 0; s < DC_SPLIT_COUNT; s++)
        for (int i = 0; i < MAX_FILES && a->files[s][i]; i++)
            files[n++] = (dc_import_file){.wanted = a->files[s][i]};
    if (a->names)
        files[n++] = (dc_import_file){.wanted = a->names};
    return n;
}

/* All files of a split hold equally many, which finds one that was cut at a record's end; not ImageNet's, the last of
 * which is shorter. */
static dc_status read_all(const char *source, const archive *a, int n, const dc_import_file *files,
                          dc_dataset_content *content, dc_import_store *store)
{
    content->shape = (dc_shape){3, a->side, a->side};
    content->n_classes = a->n_classes;
    for (int i = 0; i < n; i++)
        if (!files[i].path)
            return dc_fail(DC_ERR_INPUT, "%s: there is no file %s", source, files[i].wanted);
    DC_TRY(read_names(a, &files[n - 1], store));
    for (int s = 0, k = 0; s < DC_SPLIT_COUNT; s++) {
        size_t n_first = 0, n_images = 0;
        for (int i = 0; i < MAX_FILES && a->files[s][i]; i++, k++) {
            DC_TRY(
                (a->label_bytes ? append_binary : append_python)(a, &files[k], (dc_split)s, content, store, &n_images));
            n_first = i ? n_first : n_images;
            if (n_images != n_first && !a->other_classes)
                return dc_fail(DC_ERR_INPUT, "%s: %zu images, the files before it have %zu each: cut short?",
                               files[k].path, n_images, n_first);
        }
    }
    return DC_OK;
}

/* *found: whether the first of its files is there; if not, nothing is done. */
static dc_status try_archive(const char *source, const archive *a, dc_dataset_content *content, dc_import_store *store,
                             bool *found)
{
    dc_import_file files[N_WANTED];
    int n = want(a, files);
    dc_status status = dc_import_files_collect(source, n, files);
    *found = false;
    for (int i = 0; i < n; i++)
        *found |= files[i].path != NULL;
    if (status == DC_OK && *found)
        status = read_all(source, a, n, files, content, store);
    dc_import_files_clear(n, files);
    return status;
}

/* Binary or python, whichever is there. */
static dc_status import_either(const char *source, const archive archives[2], dc_dataset_content *content,
                               dc_import_store *store)
{
    bool found = false;
    for (int i = 0; i < 2 && !found; i++)
        DC_TRY(try_archive(source, &archives[i], content, store, &found));
    if (!found)
        return dc_fail(DC_ERR_INPUT, "%s: neither %s (the binary version) nor %s (the python version) is there", source,
                       archives[0].files[DC_SPLIT_TRAIN][0], archives[1].files[DC_SPLIT_TRAIN][0]);
    return DC_OK;
}

dc_status dc_import_cifar10(const char *source, const dc_import_options *options, dc_dataset_content *content,
                            dc_import_store *store)
{
    (void)options;
    return import_either(source, cifar10, content, store);
}

dc_status dc_import_cifar100(const char *source, const dc_import_options *options, dc_dataset_content *content,
                             dc_import_store *store)
{
    (void)options;
    return import_either(source, cifar100, content, store);
}

dc_status dc_import_imagenet16(const char *source, const dc_import_options *options, dc_dataset_content *content,
                               dc_import_store *store)
{
    bool found;
    (void)options;
    return try_archive(source, &imagenet16, content, store, &found);
}
