/* Depthwise convolution along one row: what its planes are made of. */
#ifndef DCK_TAPS_H
#define DCK_TAPS_H

#include "plane.h"

/* Pixels beyond a row of outputs whose inputs are read, though nothing comes of them. */
enum { DCK_SLACK = 3 };

/* Tap (j, i) of output pixel p is the input at[j][p * in_step + i * step]. */
typedef struct dck_taps {
    int rows, columns;
    int step;            /* pixels from column to column */
    const float **at;    /* [rows]: pixel 0 of the first column */
    const float *weight; /* [rows][columns] */
} dck_taps;

typedef struct dck_row {
    float *out;
    const float *mask; /* NULL: none; only where it is read as above zero there is something to write */
    dck_on_load on_load;
    dck_how how;
    dck_vec
        *sums; /* [2] += what is there then, and that * (mask as stored - mean); NULL: not wanted, as without mask */
    float mean;
} dck_row;

/* out[p] (+)= sum_ji weight[j][i] * at[j][p * in_step + i * step]; out_step: pixels from output to output. */
void DCK(tap_row)(int in_step, int out_step, const dck_taps *t, int pixels, const dck_row *o);

/* sums[j][i] += sum_p dy[p] * at[j][p * in_step + i * step] */
void DCK(tap_gradients)(int in_step, const dck_taps *t, const float *dy, int pixels, dck_vec *sums);

#endif
