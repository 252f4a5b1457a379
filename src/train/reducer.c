#include "train/reducer.h"

#include <stdlib.h>
#include <string.h>

static dc_status collect(dc_reducer *r, dc_bucket_param *ranges)
{
    for (int i = 0; i < r->params->n; i++) {
        const dc_stored_param *item = &r->params->items[i];
        bool weight = item->param.role == DC_ROLE_WEIGHT;
        r->bucket_of[i] = weight ? r->n : -1;
        if (weight)
            ranges[r->n++] = (dc_bucket_param){item->offset, item->param.count};
    }
    return DC_OK;
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
        r->bucket_of = dc_alloc(n * sizeof *r->bucket_of);
        r->expected = dc_alloc_zeroed(n * sizeof *r->expected);
        status = r->bucket_of && r->expected ? collect(r, ranges) : DC_ERR_MEMORY;
    }
    status = dc_comm_agree(comm, status);
    if (status == DC_OK)
        status = dc_buckets_create(comm, params->grads, r->n, ranges, DC_BUCKET_BYTES, &r->buckets);
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
    dc_buckets_destroy(r->buckets);
    free(r->bucket_of);
    free(r->expected);
    free(r);
}

static int bucket_param(const dc_reducer *r, const dc_graph *graph, int param)
{
    return r->bucket_of[dc_params_find(r->params, graph->params[param].name)];
}

dc_status dc_reducer_begin(dc_reducer *r, const dc_graph *graph)
{
    if (r->comm->size == 1)
        return DC_OK;
    memset(r->expected, 0, (size_t)r->n * sizeof *r->expected);
    for (int i = 0; i < graph->n_params; i++)
        if (graph->params[i].role == DC_ROLE_WEIGHT)
            r->expected[bucket_param(r, graph, i)] = true;
    return dc_buckets_begin(r->buckets, r->expected);
}

dc_status dc_reducer_hook(void *context, const dc_graph *graph, int node)
{
    dc_reducer *r = context;
    for (int p = 0; p < graph->nodes[node].n_params && r->comm->size > 1; p++) {
        int param = graph->nodes[node].params[p];
        if (graph->params[param].role == DC_ROLE_WEIGHT)
            DC_TRY(dc_buckets_done(r->buckets, bucket_param(r, graph, param)));
    }
    return DC_OK;
}

dc_status dc_reducer_add_nothing(dc_reducer *r, const dc_graph *graph)
{
    dc_backend *backend = r->params->backend;
    DC_TRY(backend->call->fill_zero(backend, r->params->grads, r->params->count * sizeof(float)));
    for (int i = graph->n_nodes - 1; i >= 0; i--)
        DC_TRY(dc_reducer_hook(r, graph, i));
    return DC_OK;
}

dc_status dc_reducer_finish(dc_reducer *r)
{
    return r->comm->size == 1 ? DC_OK : dc_buckets_finish(r->buckets);
}
