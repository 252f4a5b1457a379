/* Importers: public archives into a data set file. */
#ifndef DC_DATA_IMPORT_H
#define DC_DATA_IMPORT_H

#include "base/log.h"
#include "base/status.h"
#include "comm/comm.h"
#include "data/dataset.h"

#include <stddef.h>
#include <stdint.h>

enum { DC_IDX_TRAIN_IMAGES, DC_IDX_TRAIN_LABELS, DC_IDX_TEST_IMAGES, DC_IDX_TEST_LABELS, DC_IDX_FILES };

typedef struct dc_import_options {
    const char *name;         /* of the data set; NULL: the source's */
    const char *classes_from; /* idx: "fashion-mnist" or "mnist"; NULL: by the source's name, else "0", "1", ... */
    int n_classes;            /* idx without known class names: 0: 10; pictures: only so many, 0: all */
    const char *files[DC_IDX_FILES]; /* idx: the four files in place of a source (all or none) */
    /* pictures */
    int size;           /* store them decoded, each scaled to size x size; 0: those of one small size only */
    int reencode;       /* store JPEG with a shorter side of at most this; 0: the files as they are */
    int quality;        /* of JPEG that is made; 0: 90 */
    double held_out;    /* share of each class for testing, where the source has no test folder; 0: 0.1; negative:
                           none, the training pictures are tested with as well */
    bool skip_bad;      /* leave out what cannot be read and what is there twice, instead of failing */
    const char *labels; /* a file of labels; NULL: one in the source */
    int threads;        /* of each rank; 0: its cores */
} dc_import_options;

/* Reads `source` (a folder, tar, compressed tar or zip; NULL with options->files) and writes the data set file
 * `destination`, making its folder (atomically; after a failure nothing is left behind that could be taken for it).
 * kind: see dc_import_kinds. Anything unexpected in the source is an error that names the file. An import of pictures
 * that was interrupted (DC_INTERRUPTED, a kill) or that failed after much work leaves <destination>.part-R files, from
 * which the next one goes on. Mean and deviation of a data set of JPEG count every training picture alike, whatever its
 * size, and are taken after shrinking by 2, 4 or 8 as far as 224 pixels stay, which lowers the deviation by some 0.2 %.
 * options, log may be NULL. Collective. */
dc_status dc_import(const dc_comm *comm, dc_log *log, const char *kind, const char *source, const char *destination,
                    const dc_import_options *options);

/* The kinds for messages and help: "folders, ..., idx". */
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
dc_status dc_import_cifar10(const char *source, const dc_import_options *options, dc_dataset_content *content,
                            dc_import_store *store);
dc_status dc_import_imagenet16(const char *source, const dc_import_options *options, dc_dataset_content *content,
                               dc_import_store *store);
dc_status dc_import_cifar100(const char *source, const dc_import_options *options, dc_dataset_content *content,
                             dc_import_store *store);

#endif
