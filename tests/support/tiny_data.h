/* A small data set for trainings and searches of a second: 1x8x8 images of 4 classes that are easy to tell apart. */
#ifndef DC_TESTS_SUPPORT_TINY_DATA_H
#define DC_TESTS_SUPPORT_TINY_DATA_H

#include "data/dataset.h"
#include "tests/support/temp_dir.h"

enum { TINY_CLASSES = 4, TINY_TRAIN = 96, TINY_TEST = 36 };

typedef struct tiny_data {
    temp_dir dir; /* also for the test's own files */
    dc_dataset *dataset;
} tiny_data;

/* Whatever fails here ends the test program. */
tiny_data tiny_data_make(void);
void tiny_data_remove(tiny_data *data);

/* Whether two files hold the same bytes. */
bool same_file(const char *a, const char *b);

/* Copies a file. */
void copy_file(const char *from, const char *to);

#endif
