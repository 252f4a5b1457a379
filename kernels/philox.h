/* Philox4x32-10 keyed as base/rng.h does (which the kernels may not include; a test holds the two equal), for the CPU
 * and the GPU. */
#ifndef DCK_PHILOX_H
#define DCK_PHILOX_H

#include <stdint.h>

#ifdef __CUDACC__
#define DCK_EVERYWHERE __host__ __device__
#else
#define DCK_EVERYWHERE
#endif

DCK_EVERYWHERE static inline void dck_philox(uint64_t seed, uint64_t stream, uint32_t step, uint64_t element,
                                             uint32_t out[4])
{
    uint64_t k = seed + 0x9e3779b97f4a7c15u * (stream + 1);
    k = (k ^ (k >> 30)) * 0xbf58476d1ce4e5b9u;
    k = (k ^ (k >> 27)) * 0x94d049bb133111ebu;
    k ^= k >> 31;
    uint32_t k0 = (uint32_t)k, k1 = (uint32_t)(k >> 32);
    uint32_t c[4] = {(uint32_t)element, (uint32_t)(element >> 32), step, (uint32_t)(stream >> 32)};
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k0, (uint32_t)p1, (uint32_t)(p0 >> 32) ^ c[3] ^ k1,
                            (uint32_t)p0};
        for (int i = 0; i < 4; i++)
            c[i] = next[i];
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    for (int i = 0; i < 4; i++)
        out[i] = c[i];
}

/* Uniform in [0, 1), 24 bits. */
DCK_EVERYWHERE static inline float dck_philox_unit(uint32_t word)
{
    return (float)(word >> 8) * 0x1p-24f;
}

#endif
