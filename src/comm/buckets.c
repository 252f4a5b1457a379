#include "comm/buckets.h"

#include "comm/transport.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Parameters first .. last, reduced by one call. */
typedef struct bucket {
    int first, last;
    int n_expected, n_left; /* in the present step */
} bucket;

struct dc_buckets {
    dc_transport *transport; /* NULL: one rank, for which all of this does nothing */
    float *grads;
    int n_params;
    dc_bucket_param *params;
    int *bucket_of; /* per parameter */
    bool *expected; /* per parameter, present step; cleared when done */
    bool *zero;     /* per parameter: not in the present step */
    int n_buckets;
    bucket *buckets; /* from the end of the buffer to its start: the order of completion */
    int n_started;   /* buckets whose turn is over: started, or without expected parameters */
};

static size_t param_end(const dc_bucket_param *param)
{
    return param->offset + param->count;
}

/* Cuts from the end: a bucket is closed when the next parameter would make it larger than wanted. */
static void cut(dc_buckets *b, size_t bucket_bytes)
{
    size_t end = 0;
    for (int i = b->n_params - 1; i >= 0; i--) {
        if (b->n_buckets == 0 || (end - b->params[i].offset) * sizeof(float) > bucket_bytes) {
            b->buckets[b->n_buckets++] = (bucket){.first = i, .last = i};
            end = param_end(&b->params[i]);
        }
        b->buckets[b->n_buckets - 1].first = i;
        b->bucket_of[i] = b->n_buckets - 1;
    }
}

static dc_status check(const dc_buckets *b)
{
    for (int i = 0; i < b->n_params; i++) {
        if (i > 0 && b->params[i].offset < param_end(&b->params[i - 1]))
            return dc_fail(DC_ERR_INTERNAL, "gradient buckets: parameter %d starts inside parameter %d", i, i - 1);
        if (b->params[i].count > INT_MAX)
            return dc_fail(DC_ERR_INTERNAL, "gradient buckets: parameter %d has more than 2^31 elements", i);
    }
    return DC_OK;
}

static dc_status fill(dc_buckets *b, int n, const dc_bucket_param *params, size_t bucket_bytes)
{
    size_t count = (size_t)n;
    b->n_params = n;
    b->params = dc_alloc(count * sizeof *b->params);
    b->bucket_of = dc_alloc(count * sizeof *b->bucket_of);
    b->expected = dc_alloc_zeroed(count * sizeof *b->expected);
    b->zero = dc_alloc_zeroed(count * sizeof *b->zero);
    b->buckets = dc_alloc(count * sizeof *b->buckets);
    if (!b->params || !b->bucket_of || !b->expected || !b->zero || !b->buckets)
        return DC_ERR_MEMORY;
    if (n > 0)
        memcpy(b->params, params, count * sizeof *params);
    DC_TRY(check(b));
    cut(b, bucket_bytes < INT_MAX ? bucket_bytes : INT_MAX);
    return DC_OK;
}

static dc_status create(const dc_comm *comm, float *grads, int n, const dc_bucket_param *params, size_t bucket_bytes,
                        dc_buckets *b)
{
    if (!b)
        return DC_ERR_MEMORY;
    b->grads = grads;
    return comm->size > 1 ? fill(b, n, params, bucket_bytes) : DC_OK;
}

dc_status dc_buckets_check_ranks(const dc_comm *comm, void *stream)
{
    int64_t most[] = {stream ? comm->size - comm->rank : 0, stream ? 0 : comm->size - comm->rank};
    if (comm->size == 1)
        return DC_OK;
    DC_TRY(dc_comm_max_int64(comm, most, 2));
    if (most[0] && most[1])
        return dc_fail(DC_ERR_INPUT,
                       "of ranks that train together rank %d has no GPU, and rank %d has one: give each a GPU, or all "
                       "the CPU (--device cpu)",
                       comm->size - (int)most[1], comm->size - (int)most[0]);
    return stream ? dc_nccl_transport_check(comm) : DC_OK;
}

dc_status dc_buckets_create(const dc_comm *comm, void *stream, float *grads, int n, const dc_bucket_param *params,
                            size_t bucket_bytes, dc_buckets **buckets)
{
    dc_buckets *b = dc_alloc_zeroed(sizeof *b);
    dc_status status = dc_comm_agree(comm, create(comm, grads, n, params, bucket_bytes, b));
    if (status == DC_OK)
        status = dc_buckets_check_ranks(comm, stream);
    if (status == DC_OK && comm->size > 1)
        status = stream ? dc_nccl_transport_create(comm, stream, &b->transport)
                        : dc_mpi_transport_create(comm, b->n_buckets, &b->transport);
    if (status != DC_OK) {
        dc_buckets_destroy(b);
        b = NULL;
    }
    *buckets = b;
    return status;
}

void dc_buckets_destroy(dc_buckets *b)
{
    if (!b)
        return;
    if (b->transport)
        b->transport->call->destroy(b->transport);
    free(b->params);
    free(b->bucket_of);
    free(b->expected);
    free(b->zero);
    free(b->buckets);
    free(b);
}

/* Starts the sum over the range from the first to the last expected parameter of a complete bucket. */
static dc_status start(dc_buckets *b, int index)
{
    int first = b->buckets[index].first, last = b->buckets[index].last;
    while (b->zero[first])
        first++;
    while (b->zero[last])
        last--;
    for (int i = first; i < last; i++)
        if (b->zero[i])
            DC_TRY(b->transport->call->zero(b->transport, b->grads + b->params[i].offset, b->params[i].count));
    const size_t from = b->params[first].offset, to = param_end(&b->params[last]);
    return b->transport->call->start(b->transport, b->grads + from, to - from);
}

/* Starts what is complete, strictly in order, so that all ranks post the same sequence. */
static dc_status advance(dc_buckets *b)
{
    while (b->n_started < b->n_buckets && b->buckets[b->n_started].n_left == 0) {
        if (b->buckets[b->n_started].n_expected > 0)
            DC_TRY(start(b, b->n_started));
        b->n_started++;
    }
    return DC_OK;
}

dc_status dc_buckets_begin(dc_buckets *b, const bool *expected)
{
    if (!b->transport)
        return DC_OK;
    for (int i = 0; i < b->n_buckets; i++)
        b->buckets[i].n_expected = 0;
    for (int i = 0; i < b->n_params; i++) {
        b->expected[i] = !expected || expected[i];
        b->zero[i] = !b->expected[i];
        b->buckets[b->bucket_of[i]].n_expected += b->expected[i];
    }
    for (int i = 0; i < b->n_buckets; i++)
        b->buckets[i].n_left = b->buckets[i].n_expected;
    b->n_started = 0;
    return advance(b); /* past those in which nothing is expected */
}

dc_status dc_buckets_done(dc_buckets *b, int index, bool *starts)
{
    if (!b->transport)
        return DC_OK;
    if (index < 0 || index >= b->n_params || !b->expected[index])
        return dc_fail(DC_ERR_INTERNAL, "gradient buckets: parameter %d is done twice or not expected", index);
    b->expected[index] = false;
    b->buckets[b->bucket_of[index]].n_left--;
    *starts |= b->buckets[b->n_started].n_left == 0;
    return b->transport->call->progress(b->transport);
}

dc_status dc_buckets_start(dc_buckets *b)
{
    return b->transport ? advance(b) : DC_OK;
}

dc_status dc_buckets_finish(dc_buckets *b)
{
    if (!b->transport)
        return DC_OK;
    DC_TRY(advance(b));
    if (b->n_started < b->n_buckets) {
        const bucket *open = &b->buckets[b->n_started];
        int missing = open->last;
        while (!b->expected[missing])
            missing--;
        return dc_fail(DC_ERR_INTERNAL, "gradient buckets: parameter %d of %d was expected and did not complete",
                       missing, b->n_params);
    }
    return b->transport->call->finish(b->transport);
}

dc_status dc_buckets_check(void *buckets, double waited_s)
{
    dc_buckets *b = buckets;
    return b->transport ? b->transport->call->check(b->transport, waited_s) : DC_OK;
}
