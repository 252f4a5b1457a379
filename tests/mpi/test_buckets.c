/* Gradient buckets: the sums of one large all-reduce, whatever the order of completion and the size of buckets. */
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "check.h"
#include "comm/buckets.h"

enum { N_PARAMS = 60 };

typedef struct model {
    dc_bucket_param params[N_PARAMS];
    size_t count;
    float *grads, *sums; /* sums: by one all-reduce */
} model;

/* Sizes from 1 to some thousand floats, offsets rounded up to 16 as in the parameter store. */
static model make_model(void)
{
    model m = {0};
    for (int i = 0; i < N_PARAMS; i++) {
        m.params[i] = (dc_bucket_param){.offset = m.count, .count = 1 + (size_t)(i * i * 37 % 4999)};
        m.count += (m.params[i].count + 15) / 16 * 16;
    }
    m.grads = calloc(m.count, sizeof(float));
    m.sums = calloc(m.count, sizeof(float));
    CHECK(m.grads && m.sums);
    return m;
}

static void clear_model(model *m)
{
    free(m->grads);
    free(m->sums);
}

/* whole: numbers whose sums are exact in any order. */
static void draw(model *m, const dc_comm *comm, uint32_t step, bool whole)
{
    dc_rng_key key = {.seed = 1, .stream = (uint64_t)comm->rank};
    for (int i = 0; i < N_PARAMS; i++)
        for (size_t j = m->params[i].offset; j < m->params[i].offset + m->params[i].count; j++) {
            float x = dc_rng_uniform(key, step, j);
            m->grads[j] = whole ? (float)(int)(x * 1000) : x - 0.5f;
        }
    memcpy(m->sums, m->grads, m->count * sizeof(float));
    CHECK_OK(dc_comm_sum_floats(comm, m->sums, m->count));
}

/* Completes a parameter, and starts what can be. */
static void complete(dc_buckets *buckets, int i)
{
    bool starts = false;
    CHECK_OK(dc_buckets_done(buckets, i, &starts));
    if (starts)
        CHECK_OK(dc_buckets_start(buckets));
}

/* Completes from the end, with neighbours swapped within windows of the given width. */
static void run_step(dc_buckets *buckets, const bool *expected, int window)
{
    CHECK_OK(dc_buckets_begin(buckets, expected));
    for (int end = N_PARAMS; end > 0; end -= window)
        for (int i = end > window ? end - window : 0; i < end; i++)
            if (!expected || expected[i])
                complete(buckets, i);
    CHECK_OK(dc_buckets_finish(buckets));
}

static void check_exact(const dc_comm *comm)
{
    const size_t bucket_bytes[] = {1, 4096, 65536, 1 << 30};
    const int windows[] = {1, 3, 7, N_PARAMS};
    model m = make_model();
    for (int i = 0; i < 4; i++) {
        dc_buckets *buckets;
        CHECK_OK(dc_buckets_create(comm, NULL, m.grads, N_PARAMS, m.params, bucket_bytes[i], &buckets));
        for (int k = 0; k < 4; k++) {
            draw(&m, comm, (uint32_t)k, true);
            run_step(buckets, NULL, windows[k]);
            CHECK(memcmp(m.grads, m.sums, m.count * sizeof(float)) == 0);
        }
        dc_buckets_destroy(buckets);
    }
    clear_model(&m);
}

/* Ranks complete in orders of their own, with other collectives in between: still the same bits everywhere, each time.
 */
static void check_same_bits(const dc_comm *comm)
{
    model m = make_model();
    dc_buckets *buckets;
    float *first = malloc(m.count * sizeof(float));
    CHECK(first);
    CHECK_OK(dc_buckets_create(comm, NULL, m.grads, N_PARAMS, m.params, 16384, &buckets));
    for (int k = 0; k < 3; k++) {
        draw(&m, comm, 9, false);
        CHECK_OK(dc_buckets_begin(buckets, NULL));
        for (int i = N_PARAMS - 1; i >= 0; i--) {
            double one = 1;
            complete(buckets, k > 0 && comm->rank % 2 ? N_PARAMS - 1 - i : i);
            if (i % 20 == 0)
                CHECK_OK(dc_comm_sum_doubles(comm, &one, 1));
        }
        CHECK_OK(dc_buckets_finish(buckets));
        if (k == 0)
            memcpy(first, m.grads, m.count * sizeof(float));
        CHECK(memcmp(first, m.grads, m.count * sizeof(float)) == 0);
        memcpy(m.sums, m.grads, m.count * sizeof(float));
        CHECK_OK(dc_comm_bcast(comm, 0, m.sums, m.count * sizeof(float)));
        CHECK(memcmp(m.sums, m.grads, m.count * sizeof(float)) == 0);
    }
    dc_buckets_destroy(buckets);
    free(first);
    clear_model(&m);
}

/* Graphs that use a part of the parameters, changing from step to step. */
static void check_expected(const dc_comm *comm)
{
    model m = make_model();
    dc_buckets *buckets;
    CHECK_OK(dc_buckets_create(comm, NULL, m.grads, N_PARAMS, m.params, 8192, &buckets));
    for (int k = 0; k < 5; k++) {
        bool expected[N_PARAMS];
        for (int i = 0; i < N_PARAMS; i++)
            expected[i] = k == 0 ? false : k == 1 ? i >= 30 : i % k == 0;
        draw(&m, comm, (uint32_t)k, true);
        run_step(buckets, expected, 4);
        for (int i = 0; i < N_PARAMS; i++)
            for (size_t j = m.params[i].offset; expected[i] && j < m.params[i].offset + m.params[i].count; j++)
                CHECK(m.grads[j] == m.sums[j]);
    }
    dc_buckets_destroy(buckets);
    clear_model(&m);
}

static void check_misuse(const dc_comm *comm)
{
    model m = make_model();
    dc_buckets *buckets;
    dc_bucket_param overlap[2] = {{0, 20}, {16, 8}};
    if (comm->size > 1) {
        CHECK(dc_buckets_create(comm, NULL, m.grads, 2, overlap, 1, &buckets) == DC_ERR_INTERNAL);
        CHECK(buckets == NULL);
        CHECK_OK(dc_buckets_create(comm, NULL, m.grads, N_PARAMS, m.params, 1 << 30, &buckets));
        CHECK_OK(dc_buckets_begin(buckets, NULL));
        bool starts = false;
        CHECK_OK(dc_buckets_done(buckets, 4, &starts));
        CHECK(dc_buckets_done(buckets, 4, &starts) == DC_ERR_INTERNAL);
        CHECK(!starts);
        CHECK(dc_buckets_finish(buckets) == DC_ERR_INTERNAL);
        CHECK_MESSAGE("parameter 59 of 60");
        dc_buckets_destroy(buckets);
    }
    CHECK_OK(dc_buckets_create(comm, NULL, NULL, 0, NULL, DC_BUCKET_BYTES, &buckets));
    CHECK_OK(dc_buckets_begin(buckets, NULL));
    CHECK_OK(dc_buckets_finish(buckets));
    dc_buckets_destroy(buckets);
    dc_buckets_destroy(NULL);
    clear_model(&m);
}

int main(int argc, char **argv)
{
    dc_comm world;
    CHECK_OK(dc_comm_init(&argc, &argv, &world));
    check_exact(&world);
    check_same_bits(&world);
    check_expected(&world);
    check_misuse(&world);
    dc_status status = dc_comm_end(&world, DC_OK);
    dc_comm_finalize(&world);
    return dc_status_exit_code(status);
}
