/* A few steps of a search and of a training, made with one precision and held against another's. */
#ifndef DC_TESTS_SUPPORT_STEPS_H
#define DC_TESTS_SUPPORT_STEPS_H

#include "rig.h"

enum { STEPS = 2 };

/* What a few steps leave behind. */
typedef struct outcome {
    double loss[STEPS], validation[STEPS]; /* of the weights' and of alpha's batches */
    double inference;                      /* loss with running statistics, after all steps; 0: not asked for */
    size_t arena_bytes;
    int n; /* of the parameters, and of their first gradients */
    float *values, *grads;
} outcome;

/* On a backend, which is taken over. */
outcome outcome_of_search(dc_backend *backend);
outcome outcome_of_training(dc_backend *backend);
void outcome_clear(outcome *o);

/* |a - b| / |b| */
double difference(const float *a, const float *b, int n);

/* By how much results may be apart from float's, relative. */
typedef struct apart {
    double loss, grads, values;
} apart;

/* That they are apart, and by no more than this. */
void check_follows(const char *what, const outcome *is, const outcome *right, apart most);

#endif
