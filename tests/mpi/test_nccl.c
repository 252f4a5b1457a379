/* Sums over ranks by NCCL, each rank with a device of its own: those of the gradient buckets beside the work of a
 * stream, and how a job ends when ranks do not mean the same or one does not come. The scenario is the first argument;
 * run.sh runs each on the emulated device and looks at output, exit status and time. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"
#include "check.h"
#include "comm/buckets.h"
#include "comm/nccl.h"

enum { N_PARAMS = 40 };

#define CHECK_CUDA(call) CHECK((call) == cudaSuccess)

/* Gradients that "backward" copies to the device one by one, from pinned memory, on its stream. */
typedef struct model {
    dc_bucket_param params[N_PARAMS];
    size_t count;
    cudaStream_t stream;
    float *device, *in, *out; /* in, out: pinned */
    float *sums;              /* by MPI */
} model;

/* Sizes from 1 to some thousand floats, offsets rounded up to 16 as in the parameter store. */
static model make_model(void)
{
    model m = {0};
    for (int i = 0; i < N_PARAMS; i++) {
        m.params[i] = (dc_bucket_param){.offset = m.count, .count = 1 + (size_t)(i * i * 37 % 2999)};
        m.count += (m.params[i].count + 15) / 16 * 16;
    }
    const size_t bytes = m.count * sizeof(float);
    CHECK_CUDA(cudaStreamCreateWithFlags(&m.stream, cudaStreamNonBlocking));
    CHECK_CUDA(cudaMalloc((void **)&m.device, bytes));
    CHECK_CUDA(cudaMallocHost((void **)&m.in, bytes));
    CHECK_CUDA(cudaMallocHost((void **)&m.out, bytes));
    m.sums = calloc(m.count, sizeof(float));
    CHECK(m.sums);
    memset(m.in, 0, bytes);
    CHECK_CUDA(cudaMemsetAsync(m.device, 0, bytes, m.stream));
    return m;
}

static void clear_model(model *m)
{
    CHECK_CUDA(cudaStreamSynchronize(m->stream));
    CHECK_CUDA(cudaStreamDestroy(m->stream));
    CHECK_CUDA(cudaFree(m->device));
    CHECK_CUDA(cudaFreeHost(m->in));
    CHECK_CUDA(cudaFreeHost(m->out));
    free(m->sums);
}

/* whole: numbers whose sums are exact in any order. */
static void draw(model *m, const dc_comm *comm, uint32_t step, bool whole)
{
    dc_rng_key key = {.seed = 1, .stream = (uint64_t)comm->rank};
    for (int i = 0; i < N_PARAMS; i++)
        for (size_t j = m->params[i].offset; j < m->params[i].offset + m->params[i].count; j++) {
            float x = dc_rng_uniform(key, step, j);
            m->in[j] = whole ? (float)(int)(x * 1000) : x - 0.5f;
        }
    memcpy(m->sums, m->in, m->count * sizeof(float));
    CHECK_OK(dc_comm_sum_floats(comm, m->sums, m->count));
}

static void complete(model *m, dc_buckets *buckets, int i)
{
    const dc_bucket_param p = m->params[i];
    CHECK_CUDA(cudaMemcpyAsync(m->device + p.offset, m->in + p.offset, p.count * sizeof(float), cudaMemcpyHostToDevice,
                               m->stream));
    bool starts = false;
    CHECK_OK(dc_buckets_done(buckets, i, &starts));
    if (starts)
        CHECK_OK(dc_buckets_start(buckets));
}

/* From the end, with neighbours swapped within windows of the given width; `out` is what an optimizer would see. */
static void enqueue_step(model *m, dc_buckets *buckets, const bool *expected, int window)
{
    CHECK_OK(dc_buckets_begin(buckets, expected));
    for (int end = N_PARAMS; end > 0; end -= window)
        for (int i = end > window ? end - window : 0; i < end; i++)
            if (!expected || expected[i])
                complete(m, buckets, i);
    CHECK_OK(dc_buckets_finish(buckets));
    CHECK_CUDA(cudaMemcpyAsync(m->out, m->device, m->count * sizeof(float), cudaMemcpyDeviceToHost, m->stream));
}

/* As a backend waits: asking whoever watches. */
static dc_status wait_for(model *m, dc_buckets *buckets)
{
    const double start = dc_clock_seconds();
    while (cudaStreamQuery(m->stream) == cudaErrorNotReady)
        DC_TRY(dc_buckets_check(buckets, dc_clock_seconds() - start));
    CHECK_CUDA(cudaStreamQuery(m->stream));
    return DC_OK;
}

static dc_buckets *make_buckets(const dc_comm *comm, model *m, size_t bucket_bytes)
{
    dc_buckets *buckets;
    CHECK_OK(dc_buckets_create(comm, m->stream, m->device, N_PARAMS, m->params, bucket_bytes, &buckets));
    return buckets;
}

static void check_exact(const dc_comm *comm)
{
    const size_t bucket_bytes[] = {4096, 1 << 30};
    const int windows[] = {1, 7, N_PARAMS};
    model m = make_model();
    for (int i = 0; i < 2; i++) {
        dc_buckets *buckets = make_buckets(comm, &m, bucket_bytes[i]);
        for (int k = 0; k < 3; k++) {
            draw(&m, comm, (uint32_t)k, true);
            enqueue_step(&m, buckets, NULL, windows[k]);
            CHECK_OK(wait_for(&m, buckets));
            CHECK(memcmp(m.out, m.sums, m.count * sizeof(float)) == 0);
        }
        dc_buckets_destroy(buckets);
    }
    clear_model(&m);
}

/* Graphs that use a part of the parameters, changing from step to step. Before, there are no numbers; of one bucket, a
 * gap between expected parameters is zero afterwards. */
static void check_expected(const dc_comm *comm, size_t bucket_bytes)
{
    model m = make_model();
    dc_buckets *buckets = make_buckets(comm, &m, bucket_bytes);
    for (int k = 0; k < 5; k++) {
        bool expected[N_PARAMS];
        for (int i = 0; i < N_PARAMS; i++)
            expected[i] = k == 0 ? false : k == 1 ? i >= 20 : i % k == 0;
        draw(&m, comm, (uint32_t)k, true);
        CHECK_CUDA(cudaMemsetAsync(m.device, 0xff, m.count * sizeof(float), m.stream));
        enqueue_step(&m, buckets, expected, 4);
        CHECK_OK(wait_for(&m, buckets));
        const bool gaps = comm->size > 1 && k > 1 && bucket_bytes > m.count * sizeof(float);
        for (int i = 0; i < N_PARAMS; i++)
            for (size_t j = m.params[i].offset; j < m.params[i].offset + m.params[i].count; j++)
                if (expected[i] || (gaps && i < N_PARAMS - k))
                    CHECK(m.out[j] == (expected[i] ? m.sums[j] : 0));
    }
    dc_buckets_destroy(buckets);
    clear_model(&m);
}

/* Ranks complete in orders of their own: still the same bits everywhere, each time. */
static void check_same_bits(const dc_comm *comm)
{
    model m = make_model();
    dc_buckets *buckets = make_buckets(comm, &m, 16384);
    const size_t bytes = m.count * sizeof(float);
    float *first = malloc(bytes);
    CHECK(first);
    for (int k = 0; k < 3; k++) {
        draw(&m, comm, 9, false);
        enqueue_step(&m, buckets, NULL, k == 0 ? 1 : 1 + comm->rank * 5);
        CHECK_OK(wait_for(&m, buckets));
        if (k == 0)
            memcpy(first, m.out, bytes);
        CHECK_OK(dc_comm_bcast(comm, 0, first, bytes));
        CHECK(memcmp(first, m.out, bytes) == 0);
    }
    free(first);
    dc_buckets_destroy(buckets);
    clear_model(&m);
}

/* Two halves of the ranks beside each other. */
static void check_groups(const dc_comm *comm, model *m)
{
    dc_comm group;
    dc_nccl *nccl;
    CHECK_OK(dc_comm_split(comm, comm->rank % 2, &group));
    CHECK_OK(dc_nccl_create(&group, &nccl));
    m->in[0] = (float)(comm->rank + 1);
    CHECK_CUDA(cudaMemcpyAsync(m->device, m->in, sizeof(float), cudaMemcpyHostToDevice, m->stream));
    CHECK_OK(dc_nccl_sum(nccl, m->device, 1, m->stream));
    CHECK_CUDA(cudaMemcpyAsync(m->out, m->device, sizeof(float), cudaMemcpyDeviceToHost, m->stream));
    CHECK_OK(dc_nccl_wait(nccl, m->stream));
    float sum = 0;
    for (int r = comm->rank % 2; r < comm->size; r += 2)
        sum += (float)(r + 1);
    CHECK(m->out[0] == sum);
    dc_nccl_destroy(nccl);
    dc_nccl_destroy(NULL);
    dc_comm_clear(&group);
}

static dc_status check_all(const dc_comm *comm)
{
    check_exact(comm);
    check_expected(comm, 8192);
    check_expected(comm, 1 << 30);
    check_same_bits(comm);
    model m = make_model();
    check_groups(comm, &m);
    clear_model(&m);
    return DC_OK;
}

/* Every rank on the first device: refused on each, at once. */
static dc_status share(const dc_comm *comm)
{
    dc_nccl *nccl;
    CHECK_CUDA(cudaSetDevice(0));
    return dc_nccl_create(comm, &nccl);
}

static dc_status mismatch(const dc_comm *comm)
{
    model m = make_model();
    dc_nccl *nccl;
    CHECK_OK(dc_nccl_create(comm, &nccl));
    CHECK_OK(dc_nccl_sum(nccl, m.device, comm->rank == 1 ? 99 : 100, m.stream));
    return dc_nccl_wait(nccl, m.stream);
}

/* Two sums, on one rank the other way round. */
static dc_status order(const dc_comm *comm)
{
    model m = make_model();
    dc_nccl *nccl;
    CHECK_OK(dc_nccl_create(comm, &nccl));
    for (int i = 0; i < 2; i++)
        CHECK_OK(dc_nccl_sum(nccl, m.device, (i + comm->rank) % 2 ? 50 : 100, m.stream));
    return dc_nccl_wait(nccl, m.stream);
}

static dc_status host_memory(const dc_comm *comm)
{
    model m = make_model();
    dc_nccl *nccl;
    CHECK_OK(dc_nccl_create(comm, &nccl));
    CHECK_OK(dc_nccl_sum(nccl, m.in, 100, m.stream));
    return dc_nccl_wait(nccl, m.stream);
}

/* The second rank computes on its CPU. */
static dc_status mixed(const dc_comm *comm)
{
    model m = make_model();
    CHECK_OK(dc_buckets_check_ranks(comm, m.stream));
    CHECK_OK(dc_buckets_check_ranks(comm, NULL));
    return dc_buckets_check_ranks(comm, comm->rank == 1 ? NULL : m.stream);
}

/* What is recorded is refused: see comm/nccl.h. */
static dc_status captured(const dc_comm *comm)
{
    model m = make_model();
    dc_nccl *nccl;
    CHECK_OK(dc_nccl_create(comm, &nccl));
    CHECK_CUDA(cudaStreamBeginCapture(m.stream, cudaStreamCaptureModeThreadLocal));
    return dc_nccl_sum(nccl, m.device, 100, m.stream);
}

/* The last rank stops in the middle of its second backward, and its process stays. */
static dc_status stop(const dc_comm *comm)
{
    model m = make_model();
    dc_buckets *buckets = make_buckets(comm, &m, 4096);
    draw(&m, comm, 0, true);
    enqueue_step(&m, buckets, NULL, 1);
    CHECK_OK(wait_for(&m, buckets));
    if (comm->rank == comm->size - 1) {
        CHECK_OK(dc_buckets_begin(buckets, NULL));
        for (int i = N_PARAMS - 1; i > N_PARAMS / 2; i--)
            complete(&m, buckets, i);
        (void)cudaStreamQuery(m.stream);
        for (;;)
            pause();
    }
    enqueue_step(&m, buckets, NULL, 1);
    dc_status status = wait_for(&m, buckets);
    CHECK(status == DC_ERR_COMM);
    CHECK_CUDA(cudaStreamSynchronize(m.stream)); /* nothing is left that could keep the device */
    dc_fail_within(DC_ERR_COMM, "stopped");
    return dc_comm_alone(comm, status);
}

static dc_status kill_one(const dc_comm *comm)
{
    model m = make_model();
    dc_nccl *nccl;
    CHECK_OK(dc_nccl_create(comm, &nccl));
    if (comm->rank == comm->size - 1)
        _exit(9);
    CHECK_OK(dc_nccl_sum(nccl, m.device, 100, m.stream));
    return dc_comm_alone(comm, dc_nccl_wait(nccl, m.stream));
}

static dc_status run(const dc_comm *comm, const char *scenario)
{
    static const struct {
        const char *name;
        dc_status (*run)(const dc_comm *comm);
    } scenarios[] = {{"all", check_all},     {"share", share}, {"mixed", mixed},
                     {"mismatch", mismatch}, {"order", order}, {"host_memory", host_memory},
                     {"captured", captured}, {"stop", stop},   {"kill", kill_one}};
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++)
        if (strcmp(scenarios[i].name, scenario) == 0)
            return scenarios[i].run(comm);
    return dc_fail(DC_ERR_INTERNAL, "there is no scenario %s", scenario);
}

int main(int argc, char **argv)
{
    dc_comm world;
    CHECK_OK(dc_comm_init(&argc, &argv, &world));
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices < world.local_size) {
        if (world.rank == 0)
            printf("skipped: %d GPUs for %d ranks\n", devices, world.local_size);
        dc_comm_finalize(&world);
        return 77;
    }
    CHECK_CUDA(cudaSetDevice(world.local_rank));
    dc_status status = dc_comm_end(&world, run(&world, argc > 1 ? argv[1] : "all"));
    if (status != DC_OK && world.rank == 0)
        fprintf(stderr, "dcanas: %s\n", dc_status_message());
    dc_comm_finalize(&world);
    return dc_status_exit_code(status);
}
