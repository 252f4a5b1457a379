/* What the products of a network are computed in. */
#ifndef DC_BACKEND_CUDA_PRECISION_H
#define DC_BACKEND_CUDA_PRECISION_H

typedef enum dc_precision {
    DC_PRECISION_F32,  /* float throughout */
    DC_PRECISION_TF32, /* float in memory, factors rounded to 10 bits of mantissa by the tensor cores */
    DC_PRECISION_BF16  /* activations and weights bfloat16 in memory, sums float */
} dc_precision;

#endif
