/* CIFAR-10 and CIFAR-100, binary version (https://www.cs.toronto.edu/~kriz/cifar.html): records of one label byte (100:
 * a coarse and a fine one) and 3x32x32 bytes of pixels, channel by channel. */
#include "base/files.h"
#include "data/import.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { PIXELS = 3 * 32 * 32, MAX_FILES = 5 };

typedef struct cifar {
    const char *files[DC_SPLIT_COUNT][MAX_FILES]; /* ends with NULL when fewer */
    const char *names;
    int n_classes;
    size_t label_bytes; /* the label is the last of them */
} cifar;

static const cifar archives[] = {
    {{{"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"},
      {"test_batch.bin"}},
     "batches.meta.txt",
     10,
     1},
    {{{"train.bin"}, {"test.bin"}}, "fine_label_names.txt", 100, 2},
};

/* Appends a file's records to a split. All files of a split hold equally many, which finds one cut at a record's end.
 */
static dc_status append_file(const cifar *archive, const char *path, dc_split split, uint32_t *n_per_file,
                             dc_dataset_content *content, dc_import_store *store)
{
    char *bytes = NULL;
    size_t size, record = archive->label_bytes + PIXELS;
    DC_TRY(dc_file_read(path, &bytes, &size));
    dc_status status = DC_OK;
    uint32_t n = (uint32_t)(size / record), before = content->split[split].n;
    if (!n || size % record || size / record > INT32_MAX / MAX_FILES)
        status = dc_fail(DC_ERR_INPUT, "%s: %zu bytes are not a whole number of records of %zu bytes: cut short?", path,
                         size, record);
    else if (*n_per_file && n != *n_per_file)
        status =
            dc_fail(DC_ERR_INPUT, "%s: %u images, the files before it have %u each: cut short?", path, n, *n_per_file);
    if (status == DC_OK) {
        *n_per_file = n;
        uint8_t *pixels = dc_realloc(store->pixels[split], (size_t)(before + n) * PIXELS);
        store->pixels[split] = pixels ? pixels : store->pixels[split];
        int32_t *labels = dc_realloc(store->labels[split], (size_t)(before + n) * sizeof *labels);
        store->labels[split] = labels ? labels : store->labels[split];
        status = pixels && labels ? DC_OK : DC_ERR_MEMORY;
    }
    for (uint32_t i = 0; status == DC_OK && i < n; i++) {
        const uint8_t *source = (const uint8_t *)bytes + i * record;
        int label = source[archive->label_bytes - 1];
        if (label >= archive->n_classes)
            status = dc_fail(DC_ERR_INPUT, "%s: label %d of image %u is outside 0..%d", path, label, i,
                             archive->n_classes - 1);
        store->labels[split][before + i] = label;
        memcpy(store->pixels[split] + (size_t)(before + i) * PIXELS, source + archive->label_bytes, PIXELS);
    }
    if (status == DC_OK)
        content->split[split].n = before + n;
    free(bytes);
    return status;
}

/* One name a line, without the white space around it; empty lines do not count. */
static dc_status split_names(const char *path, char *text, int n_classes, dc_import_store *store)
{
    int n = 0;
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));) {
        size_t length = strlen(line);
        while (length && isspace((unsigned char)line[length - 1]))
            line[--length] = '\0';
        if (!length)
            continue;
        if (n == n_classes || length >= DC_CLASS_NAME_CHARS)
            return dc_fail(DC_ERR_INPUT, "%s: must hold %d class names, one a line, of at most %d characters", path,
                           n_classes, DC_CLASS_NAME_CHARS - 1);
        if (!(store->classes[n] = dc_alloc(DC_CLASS_NAME_CHARS)))
            return DC_ERR_MEMORY;
        memcpy(store->classes[n++], line, length + 1);
    }
    if (n != n_classes)
        return dc_fail(DC_ERR_INPUT, "%s: %d class names, one a line, expected %d", path, n, n_classes);
    return DC_OK;
}

static dc_status read_names(const char *path, int n_classes, dc_import_store *store)
{
    if (!(store->classes = dc_alloc_zeroed(((size_t)n_classes + 1) * sizeof *store->classes)))
        return DC_ERR_MEMORY;
    char *text;
    DC_TRY(dc_file_read(path, &text, NULL));
    dc_status status = split_names(path, text, n_classes, store);
    free(text);
    return status;
}

static dc_status import_cifar(const char *source, const cifar *archive, dc_dataset_content *content,
                              dc_import_store *store)
{
    char path[DC_PATH_CHARS];
    content->shape = (dc_shape){3, 32, 32};
    content->n_classes = archive->n_classes;
    DC_TRY(dc_path_join(source, archive->names, path));
    DC_TRY(read_names(path, archive->n_classes, store));
    for (int s = 0; s < DC_SPLIT_COUNT; s++) {
        uint32_t n_per_file = 0;
        for (int i = 0; i < MAX_FILES && archive->files[s][i]; i++) {
            DC_TRY(dc_path_join(source, archive->files[s][i], path));
            DC_TRY(append_file(archive, path, (dc_split)s, &n_per_file, content, store));
        }
    }
    return DC_OK;
}

dc_status dc_import_cifar10(const char *source, const dc_import_options *options, dc_dataset_content *content,
                            dc_import_store *store)
{
    (void)options;
    return import_cifar(source, &archives[0], content, store);
}

dc_status dc_import_cifar100(const char *source, const dc_import_options *options, dc_dataset_content *content,
                             dc_import_store *store)
{
    (void)options;
    return import_cifar(source, &archives[1], content, store);
}
