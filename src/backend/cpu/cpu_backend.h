/* The CPU backend: the lanes kernels of kernels/kernels.h behind the backend interface. */
#ifndef DC_BACKEND_CPU_CPU_BACKEND_H
#define DC_BACKEND_CPU_CPU_BACKEND_H

#include "backend/backend.h"

/* With the best instruction set of this machine, or the one that DCANAS_ISA names. threads >= 1. precision: float, or
 * bf16: convolutions but depthwise ones round their factors to bfloat16, sums and memory are float (with another
 * instruction set than avx512_bf16 that is slower than float). */
dc_status dc_cpu_backend_create(int threads, dc_precision precision, dc_backend **backend);

/* With the named instruction set (avx512_bf16, avx512, avx2, portable); NULL: the machine's best. Refused with
 * DC_ERR_INPUT when the name is unknown or this machine cannot run it. */
dc_status dc_cpu_backend_create_isa(const char *isa, int threads, dc_precision precision, dc_backend **backend);

#endif
