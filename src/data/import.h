/* Importers: public archives into a data set file. */
#ifndef DC_DATA_IMPORT_H
#define DC_DATA_IMPORT_H

#include "base/status.h"
#include "data/dataset.h"

#include <stddef.h>
#include <stdint.h>

enum { DC_IDX_TRAIN_IMAGES, DC_IDX_TRAIN_LABELS, DC_IDX_TEST_IMAGES, DC_IDX_TEST_LABELS, DC_IDX_FILES };

typedef struct dc_import_options {
    const char *name;                /* of the data set; NULL: the source folder's */
    const char *classes_from;        /* idx: "fashion-mnist" or "mnist"; NULL: by the source folder's name, else
                                        "0", "1", ... */
    int n_classes;                   /* idx without known class names; 0: 10 */
    const char *files[DC_IDX_FILES]; /* idx: the four files in place of a source folder (all or none) */
} dc_import_options;

/* Reads `source` (a folder, or NULL with options->files) and writes the data set file `destination`, making its
 * folder (atomically; nothing is left behind on failure). kind: "idx" (MNIST family, plain or gzip), "cifar10",
 * "cifar100" (binary version). options may be NULL. Anything unexpected in the source is an error that names the file.
 */
dc_status dc_import(const char *kind, const char *source, const char *destination, const dc_import_options *options);

/* The kinds for messages and help: "idx, cifar10, cifar100". */
const char *dc_import_kinds(void);

/* One IDX file in memory (http://yann.lecun.com/exdb/mnist): unsigned bytes of n_dims dimensions. */
typedef struct dc_idx {
    uint32_t dims[3];
    uint8_t *data; /* owned: free() */
} dc_idx;

/* Parses a whole IDX file, plain or gzip (by content), which must have exactly n_dims (1 or 3) dimensions and exactly
 * the bytes that they ask for. where: the file's name for messages. */
dc_status dc_idx_parse(const uint8_t *bytes, size_t n_bytes, int n_dims, const char *where, dc_idx *idx);

/* The importers' own parts: each fills *content and *store, which holds the content's memory. */
typedef struct dc_import_store {
    uint8_t *pixels[DC_SPLIT_COUNT];
    int32_t *labels[DC_SPLIT_COUNT];
    char **classes; /* NULL-terminated, each owned */
    char name[DC_CLASS_NAME_CHARS];
} dc_import_store;

dc_status dc_import_idx(const char *source, const dc_import_options *options, dc_dataset_content *content,
                        dc_import_store *store);
dc_status dc_import_cifar(const char *source, bool hundred, dc_dataset_content *content, dc_import_store *store);

#endif
