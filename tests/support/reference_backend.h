/* A second backend, written only to be right: plain loops over NCHW, sums in double, one thread, nothing folded,
 * nothing shared with the other backends' code. Conformance tests hold every backend against it. */
#ifndef DC_TESTS_SUPPORT_REFERENCE_BACKEND_H
#define DC_TESTS_SUPPORT_REFERENCE_BACKEND_H

#include "backend/backend.h"

/* layout.lane is 1: a view's stride is the number of floats from one image to the next. */
dc_status dc_reference_backend_create(dc_backend **backend);

#endif
