/* What a step has to compute and to move at the least, counted from the graphs that a backend is asked to run, and how
 * fast this machine could do so. */
#ifndef DC_TESTS_BENCH_WORK_H
#define DC_TESTS_BENCH_WORK_H

#include "backend/backend.h"

/* Counts from now on the graphs that the backend prepares: of a search each supernet (alpha moves derived cells), of a
 * training the first, which is the one that is trained. One backend in a process. */
void work_attach(dc_backend *backend, bool search);

typedef struct work {
    double flops, bytes; /* of a step, mean over the counted graphs */
    double floor_s;      /* no step can be faster: the sum over operations of the longer of flops / peak and bytes /
                            bandwidth */
    double peak_flops, peak_bytes; /* of the machine, a second */
} work;

/* Measures the machine's ceilings with so many threads; takes 128 MiB. */
work work_measure(int threads);

#endif
