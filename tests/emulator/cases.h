/* Cases for the emulator's tests: programs that it should let pass or find mistakes in, and the runner that finds out
 * what becomes of them. */
#ifndef EMULATOR_CASES_H
#define EMULATOR_CASES_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>

/* Returns 0 when its result is right. Runs in a process of its own. */
typedef int emulator_case(void);

/* In every order of threads and streams, with several seeds: */
void always_right(emulator_case *run);                     /* returns 0 */
void sometimes_wrong(emulator_case *run);                  /* returns 1, in one setting at least */
void always_wrong(emulator_case *run);                     /* returns 1 */
void always_caught(emulator_case *run, const char *words); /* ends with a line of the emulator that has these words */

/* Device memory of n floats with these values, or fresh (NULL). */
float *device_floats(const float *values, size_t n);
/* Whether n floats of the device are value, value + step, ... */
bool device_holds(const float *device, size_t n, float value, float step);
cudaStream_t new_stream(void); /* that is not ordered with the legacy stream */

#define REQUIRE(call)                                                                                                  \
    do {                                                                                                               \
        if ((call) != cudaSuccess)                                                                                     \
            return 2;                                                                                                  \
    } while (0)

#endif
