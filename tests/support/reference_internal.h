/* What the files of the reference backend share. */
#ifndef DC_TESTS_SUPPORT_REFERENCE_INTERNAL_H
#define DC_TESTS_SUPPORT_REFERENCE_INTERNAL_H

#include "tests/support/reference_backend.h"

struct dc_kernel {
    dc_kernel *next;
    dc_op op;
    dc_attr attr;
    bool relu; /* of a convolution: its input passes through a relu */
    uint64_t stream;
};

typedef void (*dc_reference_call)(const dc_kernel *, const dc_kernel_args *);

extern const dc_reference_call dc_reference_forward[DC_OP_COUNT];
extern const dc_reference_call dc_reference_backward[DC_OP_COUNT];

#endif
