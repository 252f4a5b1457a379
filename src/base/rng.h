/* Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
 *
 * A number is a pure function of (seed, stream, step, element): no state to save, none to share, the same on every
 * device, for any number of threads and ranks, and after any restart. Streams keep uses apart; where a use has many
 * instances (a named parameter, a drop-path node) the stream is the hash of its name. */
#ifndef DC_BASE_RNG_H
#define DC_BASE_RNG_H

#include <stdint.h>

typedef struct dc_rng_key {
    uint64_t seed;
    uint64_t stream;
} dc_rng_key;

/* 64-bit FNV-1a of a text: the stream of a named thing. */
uint64_t dc_rng_stream(const char *name);

/* Four independent uniform 32-bit words for one (key, step, element). */
void dc_rng_block(dc_rng_key key, uint32_t step, uint64_t element, uint32_t out[4]);

/* Uniform in [0, 1), 24 bits. */
float dc_rng_uniform(dc_rng_key key, uint32_t step, uint64_t element);

/* Standard normal (Box-Muller of one block). */
float dc_rng_normal(dc_rng_key key, uint32_t step, uint64_t element);

/* Fills order[0..n) with a permutation of 0..n-1 that depends on (key, step) only (Fisher-Yates). */
void dc_rng_permutation(dc_rng_key key, uint32_t step, uint32_t n, uint32_t *order);

#endif
