/* Element types of what the emulated libraries compute with. */
#ifndef NUMBERS_HPP
#define NUMBERS_HPP

#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace emulator
{

enum class number { f32, bf16 };

static inline size_t bytes_of(number type)
{
    return type == number::f32 ? 4 : 2;
}

static inline float from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* To the nearest, ties to even, keeping 32 - dropped bits. */
static inline uint32_t rounded_bits(float x, int dropped)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x)
        return bits | 0x400000u;
    bits += ((1u << (dropped - 1)) - 1) + (bits >> dropped & 1);
    return bits >> dropped << dropped;
}

static inline float to_tf32(float x)
{
    return from_bits(rounded_bits(x, 13));
}

static inline float load(const void *p, number type, size_t i)
{
    if (type == number::f32)
        return static_cast<const float *>(p)[i];
    return from_bits((uint32_t) static_cast<const uint16_t *>(p)[i] << 16);
}

static inline void store(void *p, number type, size_t i, float x)
{
    if (type == number::f32)
        static_cast<float *>(p)[i] = x;
    else
        static_cast<uint16_t *>(p)[i] = (uint16_t)(rounded_bits(x, 16) >> 16);
}

/* Uses a workspace as unkindly as it may be used: before an operation, which finds nothing there, and after it. */
static inline void spoil(void *workspace, size_t bytes)
{
    memset(workspace, 0xff, bytes);
}

} // namespace emulator

#endif
