/* Pictures: those whose decodings are known (tests/golden/pictures.py), and a data set of JPEG files that tests make.
 */
#ifndef DC_TESTS_SUPPORT_PICTURE_SET_H
#define DC_TESTS_SUPPORT_PICTURE_SET_H

#include "data/dataset.h"
#include "tests/support/temp_dir.h"

typedef struct golden_picture {
    uint8_t *jpeg, *rgb; /* rgb [h][w][3]: what PIL decodes */
    size_t jpeg_bytes;
    int w, h;
} golden_picture;

/* A failure fails the test. */
golden_picture golden_picture_open(const char *name);
void golden_picture_clear(golden_picture *picture);

/* An array of a group of pictures.h5, of up to three dimensions; free() it. */
uint8_t *golden_bytes(const char *group, const char *name, int dims[3]);
int *golden_ints(const char *group, const char *name, int dims[3]);
float *golden_floats(const char *group, const char *name, int dims[3]);

/* Writes a data set of n JPEG files to train on and as many to test on, of 40..103 pixels a side; picture i is of class
 * i, so that its label tells which one it is, and of one colour but for some texture. damaged: this picture of training
 * is cut short; -1: none. */
void picture_set_write(const char *path, int n, int damaged);

#endif
