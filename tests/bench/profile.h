/* Where a backend's time goes: its kernels timed one by one, summed up by kind of operation. */
#ifndef DC_TESTS_BENCH_PROFILE_H
#define DC_TESTS_BENCH_PROFILE_H

#include "backend/backend.h"

#include <stdio.h>

/* Puts a stop watch before every kernel and optimizer of the backend; shapes: kernels of unlike channels or planes
 * stand apart. One backend in a process. */
void profile_attach(dc_backend *backend, bool shapes);

/* Forgets what was measured so far. */
void profile_reset(void);

/* A table by time: milliseconds in each of `steps` steps of `step_s` seconds, and what lies outside of all kernels. */
void profile_print(FILE *out, int steps, double step_s);

#endif
