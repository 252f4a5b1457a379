#include "train/reducer.h"

#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

static dc_status collect(dc_reducer *r, dc_bucket_param *ranges)
{
    for (int i = 0; i < r->params->n; i++) {
        const dc_stored_param *item = &r->params->items[i];
        const bool has_gradient = item->param.role != DC_ROLE_STATE;
        r->bucket_of[i] = has_gradient ? r->n : -1;
        if (has_gradient)
            ranges[r->n++] = (dc_bucket_param){item->offset, item->param.count};
    }
    return DC_OK;
}

/* Running statistics are each rank's own. */
static dc_status hash_values(const dc_params *params, uint64_t *hash)
{
    dc_hash state;
    dc_hash_init(&state);
    for (int i = 0; i < params->n; i++) {
        const dc_param *param = &params->items[i].param;
        if (param->role == DC_ROLE_STATE)
            continue;
        float *host = dc_alloc(param->count * sizeof *host);
        dc_status status = host ? dc_params_read(params, i, host) : DC_ERR_MEMORY;
        if (status == DC_OK)
            dc_hash_bytes(&state, host, param->count * sizeof *host);
        free(host);
        DC_TRY(status);
    }
    *hash = dc_hash_end(&state);
    return DC_OK;
}

static dc_status check_equal(const dc_comm *comm, const dc_params *params)
{
    uint64_t hash = 0;
    if (comm->size == 1)
        return DC_OK;
    DC_TRY_ALL(comm, hash_values(params, &hash));
    const int64_t half = (int64_t)(hash >> 1);
    int64_t range[] = {half, -half};
    DC_TRY(dc_comm_max_int64(comm, range, 2));
    if (range[0] != -range[1])
        return dc_fail(DC_ERR_INPUT,
                       "the ranks of one training start from different weights: all nodes must run the "
                       "same program with the same libraries, and share the output folder ([run] output)");
    return DC_OK;
}

static dc_status create_buckets(dc_reducer *r, const dc_bucket_param *ranges)
{
    dc_backend *backend = r->params->backend;
    DC_TRY(check_equal(r->comm, r->params));
    void *stream = backend->call->stream ? backend->call->stream(backend) : NULL;
    DC_TRY(dc_buckets_create(r->comm, stream, r->params->grads, r->n, ranges, DC_BUCKET_BYTES, &r->buckets));
    if (r->comm->size > 1)
        backend->watch = (dc_watch){dc_buckets_check, r->buckets};
    return DC_OK;
}

/* ---- the hook of backward ---- */

static int bucket_param(const dc_reducer *r, const dc_graph *graph, int param)
{
    return r->bucket_of[dc_params_find(r->params, graph->params[param].name)];
}

static dc_status gradients_done(void *context, const dc_graph *graph, int node, bool *starts)
{
    dc_reducer *r = context;
    for (int p = 0; p < graph->nodes[node].n_params; p++) {
        int param = graph->nodes[node].params[p];
        if (dc_grad_has(r->what, graph->params[param].role))
            DC_TRY(dc_buckets_done(r->buckets, bucket_param(r, graph, param), starts));
    }
    return DC_OK;
}

static dc_status start_sums(void *context)
{
    dc_reducer *r = context;
    return dc_buckets_start(r->buckets);
}

dc_status dc_reducer_create(const dc_comm *comm, const dc_params *params, dc_reducer **reducer)
{
    size_t n = (size_t)params->n + 1;
    dc_reducer *r = dc_alloc_zeroed(sizeof *r);
    dc_bucket_param *ranges = dc_alloc(n * sizeof *ranges);
    dc_status status = DC_ERR_MEMORY;
    if (r && ranges) {
        r->comm = comm;
        r->params = params;
        r->hook = (dc_grad_hook){gradients_done, start_sums, r};
        r->bucket_of = dc_alloc(n * sizeof *r->bucket_of);
        r->expected = dc_alloc_zeroed(n * sizeof *r->expected);
        status = r->bucket_of && r->expected ? collect(r, ranges) : DC_ERR_MEMORY;
    }
    status = dc_comm_agree(comm, status);
    if (status == DC_OK)
        status = create_buckets(r, ranges);
    free(ranges);
    if (status != DC_OK) {
        dc_reducer_destroy(r);
        return status;
    }
    *reducer = r;
    return DC_OK;
}

void dc_reducer_destroy(dc_reducer *r)
{
    if (!r)
        return;
    if (r->buckets && r->params->backend->watch.context == r->buckets)
        r->params->backend->watch = (dc_watch){0};
    dc_buckets_destroy(r->buckets);
    free(r->bucket_of);
    free(r->expected);
    free(r);
}

dc_status dc_reducer_begin(dc_reducer *r, const dc_graph *graph, unsigned what)
{
    r->what = what;
    if (r->comm->size == 1)
        return DC_OK;
    memset(r->expected, 0, (size_t)r->n * sizeof *r->expected);
    for (int i = 0; i < graph->n_params; i++)
        if (dc_grad_has(what, graph->params[i].role))
            r->expected[bucket_param(r, graph, i)] = true;
    return dc_buckets_begin(r->buckets, r->expected);
}

const dc_grad_hook *dc_reducer_hook(const dc_reducer *r)
{
    return r->comm->size > 1 ? &r->hook : NULL;
}

dc_status dc_reducer_complete(dc_reducer *r, const dc_graph *graph)
{
    bool starts = false;
    for (int i = graph->n_nodes - 1; i >= 0 && r->comm->size > 1; i--)
        DC_TRY(gradients_done(r, graph, i, &starts));
    return dc_buckets_start(r->buckets);
}

dc_status dc_reducer_add_nothing(dc_reducer *r, const dc_graph *graph)
{
    dc_backend *backend = r->params->backend;
    DC_TRY(backend->call->fill_zero(backend, r->params->grads, r->params->count * sizeof(float)));
    return dc_reducer_complete(r, graph);
}

dc_status dc_reducer_finish(dc_reducer *r)
{
    return r->comm->size == 1 ? DC_OK : dc_buckets_finish(r->buckets);
}
