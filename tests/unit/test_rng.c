/* Random numbers: functions of their key and counter, even, and unrelated between streams. */
#include "base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = 200000 };

static const dc_rng_key key = {42, 7};

static void numbers_are_functions(void **context)
{
    (void)context;
    uint32_t a[4], b[4];
    dc_rng_block(key, 3, 1000, a);
    for (uint64_t i = 0; i < 10; i++)
        dc_rng_block(key, 5, i, b); /* no state in between */
    dc_rng_block(key, 3, 1000, b);
    assert_memory_equal(a, b, sizeof a);
    const dc_rng_key others[] = {{43, 7}, {42, 8}, {42, 6}, {42, 7 + (1ull << 40)}, {42 + (1ull << 40), 7}};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        dc_rng_block(others[i], 3, 1000, b);
        for (int w = 0; w < 4; w++)
            assert_int_not_equal(a[w], b[w]);
    }
    dc_rng_block(key, 4, 1000, b);
    assert_int_not_equal(a[0], b[0]);
    dc_rng_block(key, 3, 1000 + (1ull << 32), b);
    assert_int_not_equal(a[0], b[0]);
}

/* What x * factor undoes modulo 2^64 (Newton). */
static uint64_t inverse(uint64_t factor)
{
    uint64_t x = factor;
    for (int i = 0; i < 6; i++)
        x *= 2 - factor * x;
    return x;
}

/* The seed that, with a stream, gives Philox a wanted key: the mixing of seed and stream run backwards. */
static uint64_t seed_for(uint64_t k, uint64_t stream)
{
    k = (k ^ (k >> 31) ^ (k >> 62)) * inverse(0x94d049bb133111ebu);
    k = (k ^ (k >> 27) ^ (k >> 54)) * inverse(0xbf58476d1ce4e5b9u);
    k = k ^ (k >> 30) ^ (k >> 60);
    return k - 0x9e3779b97f4a7c15u * (stream + 1);
}

/* Random123's known answers for philox4x32-10. */
static void numbers_are_philox(void **context)
{
    (void)context;
    static const struct {
        uint32_t counter[4], key[2], answer[4];
    } cases[] = {{{0}, {0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
                 {{UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX},
                  {UINT32_MAX, UINT32_MAX},
                  {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
                 {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                  {0xa4093822, 0x299f31d0},
                  {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const uint32_t *c = cases[i].counter, *k = cases[i].key;
        uint64_t stream = (uint64_t)c[3] << 32;
        dc_rng_key wanted = {seed_for((uint64_t)k[1] << 32 | k[0], stream), stream};
        uint32_t word[4];
        dc_rng_block(wanted, c[2], (uint64_t)c[1] << 32 | c[0], word);
        assert_memory_equal(word, cases[i].answer, sizeof word);
    }
    assert_int_equal(dc_rng_stream(""), 0xcbf29ce484222325u); /* FNV-1a's published values */
    assert_int_equal(dc_rng_stream("foobar"), 0x85944171f73967e8u);
}

static void uniforms_are_even(void **context)
{
    (void)context;
    double sum = 0, squares = 0;
    int bins[64] = {0};
    for (uint64_t i = 0; i < N; i++) {
        float u = dc_rng_uniform(key, 1, i);
        assert_true(u >= 0 && u < 1);
        sum += u;
        squares += (double)u * u;
        bins[(int)(u * 64)]++;
    }
    double mean = sum / N, chi = 0;
    for (int b = 0; b < 64; b++)
        chi += (bins[b] - N / 64.0) * (bins[b] - N / 64.0) / (N / 64.0);
    assert_true(fabs(mean - 0.5) < 4 * sqrt(1.0 / 12 / N));
    assert_true(fabs(squares / N - mean * mean - 1.0 / 12) < 0.001);
    assert_true(chi < 63 + 5 * sqrt(2 * 63.0));
}

static void normals_have_the_moments(void **context)
{
    (void)context;
    double power[5] = {0};
    for (uint64_t i = 0; i < N; i++) {
        double x = dc_rng_normal(key, 2, i), p = 1;
        assert_true(isfinite(x));
        for (int k = 0; k < 5; k++, p *= x)
            power[k] += p / N;
    }
    assert_true(fabs(power[1]) < 4 / sqrt(N));
    assert_true(fabs(power[2] - 1) < 4 * sqrt(2.0 / N));
    assert_true(fabs(power[3]) < 4 * sqrt(15.0 / N));
    assert_true(fabs(power[4] - 3) < 4 * sqrt(96.0 / N));
}

/* Bits of two sequences agree half of the time: over elements, steps, seeds and streams. */
static void neighbours_are_unrelated(void **context)
{
    (void)context;
    long agree[4] = {0}, bits = 0;
    for (uint32_t i = 0; i < 20000; i++) {
        uint32_t a[4], b[4][4];
        dc_rng_block(key, 1, i, a);
        dc_rng_block(key, 1, i + 1, b[0]);
        dc_rng_block(key, 2, i, b[1]);
        dc_rng_block((dc_rng_key){key.seed + 1, key.stream}, 1, i, b[2]);
        dc_rng_block((dc_rng_key){key.seed, key.stream + 2}, 1, i, b[3]);
        for (int w = 0; w < 4; w++) {
            bits += 32;
            for (int k = 0; k < 4; k++)
                agree[k] += 32 - __builtin_popcount(a[w] ^ b[k][w]);
        }
    }
    for (int k = 0; k < 4; k++)
        assert_true(fabs((double)agree[k] - bits / 2.0) < 4 * sqrt((double)bits / 4));
}

static void permutations_are_complete(void **context)
{
    (void)context;
    static const uint32_t sizes[] = {0, 1, 2, 3, 1000};
    uint32_t order[1000], again[1000];
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        char seen[1000] = {0};
        dc_rng_permutation(key, 1, sizes[s], order);
        dc_rng_permutation(key, 1, sizes[s], again);
        for (uint32_t i = 0; i < sizes[s]; i++) {
            assert_true(order[i] < sizes[s] && !seen[order[i]] && order[i] == again[i]);
            seen[order[i]] = 1;
        }
    }
    dc_rng_permutation(key, 2, 1000, again);
    assert_memory_not_equal(order, again, sizeof order);
    int counts[6] = {0}; /* each of the 3! orders equally often */
    for (uint32_t step = 0; step < 60000; step++) {
        dc_rng_permutation(key, step, 3, order);
        counts[order[0] * 2 + (order[1] > order[2])]++;
    }
    for (int i = 0; i < 6; i++)
        assert_true(abs(counts[i] - 10000) < 4 * 92);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_functions),    cmocka_unit_test(numbers_are_philox),
        cmocka_unit_test(uniforms_are_even),        cmocka_unit_test(normals_have_the_moments),
        cmocka_unit_test(neighbours_are_unrelated), cmocka_unit_test(permutations_are_complete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
