#include "base/rng.h"

#include <math.h>

uint64_t dc_rng_stream(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
    return hash;
}

/* Key: the seed mixed with the stream (128 bits of identity into Philox's 64-bit key by a splitmix finaliser);
 * counter: step and element, and the stream's upper half, so that two uses share no counter block. */
void dc_rng_block(dc_rng_key key, uint32_t step, uint64_t element, uint32_t out[4])
{
    uint64_t k = key.seed + 0x9e3779b97f4a7c15u * (key.stream + 1);
    k = (k ^ (k >> 30)) * 0xbf58476d1ce4e5b9u;
    k = (k ^ (k >> 27)) * 0x94d049bb133111ebu;
    k ^= k >> 31;
    uint32_t k0 = (uint32_t)k, k1 = (uint32_t)(k >> 32);
    uint32_t c0 = (uint32_t)element, c1 = (uint32_t)(element >> 32), c2 = step, c3 = (uint32_t)(key.stream >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

static float unit(uint32_t word)
{
    return (float)(word >> 8) * 0x1p-24f;
}

float dc_rng_uniform(dc_rng_key key, uint32_t step, uint64_t element)
{
    uint32_t word[4];
    dc_rng_block(key, step, element, word);
    return unit(word[0]);
}

float dc_rng_normal(dc_rng_key key, uint32_t step, uint64_t element)
{
    uint32_t word[4];
    dc_rng_block(key, step, element, word);
    double radius = sqrt(-2.0 * log(1.0 - (double)unit(word[0])));
    return (float)(radius * cos(6.283185307179586 * (double)unit(word[1])));
}

void dc_rng_permutation(dc_rng_key key, uint32_t step, uint32_t n, uint32_t *order)
{
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    for (uint32_t i = n; i > 1; i--) {
        uint32_t word[4];
        dc_rng_block(key, step, i, word);
        uint64_t wide = (uint64_t)word[0] << 32 | word[1];
        uint32_t j = (uint32_t)(wide % i); /* 64 bits against at most 32: the bias is below 2^-32 */
        uint32_t t = order[i - 1];
        order[i - 1] = order[j];
        order[j] = t;
    }
}
