/* What a network is computed in. Weights, statistics, losses, gradients of weights, optimizers and checkpoints are
 * float in each of them, and so are all sums. (bfloat16 has float's range: losses need no scaling.) */
#ifndef DC_BACKEND_PRECISION_H
#define DC_BACKEND_PRECISION_H

#include "base/status.h"

typedef enum dc_precision {
    DC_PRECISION_F32,  /* float throughout */
    DC_PRECISION_TF32, /* float in memory, factors rounded to 10 bits of mantissa by the tensor cores */
    DC_PRECISION_BF16, /* GPUs: activations and their gradients bfloat16 in memory, and the weights that tensor cores
                          read; CPUs: float in memory, factors of convolutions, but depthwise ones, rounded to bfloat16
                        */
    DC_PRECISIONS
} dc_precision;

/* By dc_precision: "float", "tf32", "bf16". */
extern const char *const dc_precision_names[DC_PRECISIONS];

/* DC_ERR_INPUT, with the names there are, for any other. */
dc_status dc_precision_parse(const char *name, dc_precision *precision);

#endif
