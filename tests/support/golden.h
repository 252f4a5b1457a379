/* Golden values: what PyTorch computed (tests/golden/generate.py), and the numbers that both sides draw. */
#ifndef DC_TESTS_SUPPORT_GOLDEN_H
#define DC_TESTS_SUPPORT_GOLDEN_H

#include "nn/model.h"

/* One stored array. */
typedef struct golden_entry {
    char kind[16];
    char name[DC_NAME_CHARS];
    size_t count;
    bool sketch; /* stored is its norm and dot products with random signs, not the array itself */
    const float *stored;
} golden_entry;

typedef struct golden {
    int n;
    golden_entry *entries;
    float *values;
} golden;

/* Reads group `name` of tests/golden/<file>.h5; a failure fails the test. */
golden *golden_open(const char *file, const char *name);
void golden_close(golden *g);

/* The entry, or NULL. */
const golden_entry *golden_find(const golden *g, const char *kind, const char *name);

/* A stored number; failing the test when it is not there. */
double golden_number(const golden *g, const char *kind, const char *name);

/* Norm-wise relative error |x - golden| / |golden|; of a sketch its estimate without bias. */
double golden_error(const golden_entry *entry, const float *x);

/* Fails the test, naming both, when x is not `entry` to the tolerance. */
void golden_check(const golden *g, const char *kind, const char *name, const float *x, size_t count, double tolerance);

/* The number i of a name's sequence, uniform in [-0.5, 0.5). */
float golden_draw(uint64_t stream, size_t i);

/* Parameters as PyTorch's side has them: drawn by name, about 1 where dcanas starts at 1, else about 0. */
void golden_fill_params(dc_params *params);

/* n images (times 4) and labels of a seed, in NCHW. */
void golden_images(const char *seed, size_t count, float *images);
void golden_labels(const char *seed, int n, int classes, int32_t *labels);

#endif
