/* Tensors of the lanes kernels for tests that hold them against plain loops: guarded, filled with fixed random numbers.
 * Whatever fails here fails the test. */
#ifndef DC_TESTS_SUPPORT_LANES_H
#define DC_TESTS_SUPPORT_LANES_H

#include "kernels.h"

enum { BLOCKS = 2 };

static const char *const isas[] = {"avx512_bf16", "avx512", "avx2", "portable"};
enum { ISAS = sizeof isas / sizeof *isas };

/* A view inside a larger tensor: some planes before and after the channels of each block are guards. */
typedef struct tensor {
    float *all;
    size_t count;
    dck_view view;
    float *affine; /* of the view, or NULL */
} tensor;

/* In [-1, 1), from a sequence that every program begins anew. */
float random_float(void);
/* From now on with so many bits behind the point, so that floats hold products and sums of a few exactly; 0: with all.
 */
void random_floats_have(int bits);

tensor tensor_create(int c, int h, int w);
void tensor_destroy(tensor *t);
void tensor_randomize(tensor t);
/* Gives the view factors of either sign. */
void tensor_add_affine(tensor *t);
/* Nothing has written outside of the view. */
void assert_guards(tensor t);

float *at(dck_view v, int block, int c, int y, int x, int lane);
/* What a reader takes it for. */
double value_at(dck_view v, int block, int c, int y, int x, int lane);
/* Where it would stand in an array of its own, without guards. */
size_t flat(dck_view v, int block, int c, int y, int x, int lane);

/* Every number is right to 2e-6 of its size (the sum of what was added up). before: what stood there and is added to,
 * or NULL. */
void assert_view(dck_view v, const double *right, const double *size, const float *before);

/* Holds no numbers at first. */
void *scratch_create(size_t bytes);
/* Nothing has written past its end. */
void scratch_destroy(void *scratch, size_t bytes);

#endif
