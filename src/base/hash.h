/* 64-bit hashes: XXH3 over a stream of pieces. Equal on every machine (little-endian, as everything here). */
#ifndef DC_BASE_HASH_H
#define DC_BASE_HASH_H

#ifndef XXH_STATIC_LINKING_ONLY
#define XXH_STATIC_LINKING_ONLY /* the streaming state by value */
#endif
#include <stdint.h>
#include <string.h>
#include <xxhash.h>

typedef struct dc_hash {
    XXH3_state_t xxh;
} dc_hash;

static inline void dc_hash_init(dc_hash *hash)
{
    XXH3_INITSTATE(&hash->xxh);
    XXH3_64bits_reset(&hash->xxh);
}

static inline void dc_hash_bytes(dc_hash *hash, const void *data, size_t size_bytes)
{
    if (size_bytes)
        XXH3_64bits_update(&hash->xxh, data, size_bytes);
}

static inline void dc_hash_i64(dc_hash *hash, int64_t value)
{
    dc_hash_bytes(hash, &value, sizeof value);
}

static inline void dc_hash_u64(dc_hash *hash, uint64_t value)
{
    dc_hash_bytes(hash, &value, sizeof value);
}

static inline void dc_hash_double(dc_hash *hash, double value)
{
    dc_hash_bytes(hash, &value, sizeof value);
}

/* With its length, so that "ab","c" and "a","bc" differ. */
static inline void dc_hash_text(dc_hash *hash, const char *text)
{
    uint64_t length = strlen(text);
    dc_hash_u64(hash, length);
    dc_hash_bytes(hash, text, length);
}

static inline uint64_t dc_hash_end(const dc_hash *hash)
{
    return XXH3_64bits_digest(&hash->xxh);
}

/* Of one piece. */
static inline uint64_t dc_hash_of(const void *data, size_t size_bytes)
{
    return XXH3_64bits(data, size_bytes);
}

#endif
