/* The optimizers: one launch over all segments, whose list stays on the device. */
#include "backend/cuda/cuda_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool holds(const dc_cuda_table *table, int n, const dc_segment *segments)
{
    if (table->n != n)
        return false;
    for (int i = 0; i < n; i++) {
        const dck_run *run = &table->host[i];
        const dc_segment *s = &segments[i];
        if (run->value != s->value || run->grad != s->grad || run->first != s->first || run->second != s->second ||
            run->count != s->count)
            return false;
    }
    return true;
}

static void clear(dc_cuda_table *table)
{
    free(table->host);
    cudaFree(table->device);
    *table = (dc_cuda_table){0};
}

void dc_cuda_tables_clear(dc_cuda_backend *b)
{
    for (int i = 0; i < DC_CUDA_TABLES; i++)
        clear(&b->tables[i]);
}

static dc_status fill(dc_cuda_backend *b, dc_cuda_table *table, int n, const dc_segment *segments)
{
    const size_t bytes = (size_t)n * sizeof(dck_run);
    DC_TRY(dc_cuda_wait(b)); /* the old list may be in use */
    clear(table);
    table->host = dc_alloc(bytes);
    if (!table->host)
        return DC_ERR_MEMORY;
    DC_TRY(dc_cuda_alloc(bytes, (void **)&table->device));
    table->n = n;
    for (int i = 0; i < n; i++) {
        const dc_segment *s = &segments[i];
        table->host[i] = (dck_run){s->value, s->grad, s->first, s->second, s->count};
        table->total += s->count;
    }
    DC_CUDA_TRY(cudaMemcpyAsync(table->device, table->host, bytes, cudaMemcpyHostToDevice, b->stream));
    return DC_OK;
}

static dc_status table_of(dc_cuda_backend *b, int n, const dc_segment *segments, dc_cuda_table **found)
{
    dc_cuda_table *oldest = &b->tables[0];
    for (int i = 0; i < DC_CUDA_TABLES; i++) {
        dc_cuda_table *table = &b->tables[i];
        if (table->used < oldest->used)
            oldest = table;
        if (!table->used || !holds(table, n, segments))
            continue;
        table->used = ++b->clock;
        *found = table;
        return DC_OK;
    }
    DC_TRY(fill(b, oldest, n, segments));
    oldest->used = ++b->clock;
    *found = oldest;
    return DC_OK;
}

static double *sum_of(const dc_cuda_backend *b)
{
    return (double *)((char *)b->sums + dck_cuda_sum_squares_scratch_bytes());
}

/* The kernel itself leaves everything as it is where the gradient is not finite. Without a norm to tell, the host only
 * looks at the sum that has come back by now: an earlier update's. */
dc_status dc_cuda_sgd(dc_backend *backend, int n, const dc_segment *segments, const dc_sgd *sgd, double *norm)
{
    dc_cuda_backend *b = cuda_of(backend);
    dc_cuda_table *table;
    float *scale = (float *)(sum_of(b) + 1);
    if (norm)
        *norm = 0;
    if (!n)
        return DC_OK;
    DC_TRY(table_of(b, n, segments, &table));
    DC_CUDA_TRY(
        dck_cuda_sum_squares(&b->queue, table->n, table->device, table->total, sgd->clip, sum_of(b), scale, b->sums));
    DC_CUDA_TRY(dck_cuda_sgd(&b->queue, table->n, table->device, table->total, sgd->learning_rate, sgd->momentum,
                             sgd->weight_decay, sgd->nesterov, scale));
    double sum = *(volatile double *)b->seen_sum;
    DC_CUDA_TRY(cudaMemcpyAsync(b->seen_sum, sum_of(b), sizeof sum, cudaMemcpyDeviceToHost, b->stream));
    if (norm) {
        DC_TRY(dc_cuda_wait(b));
        sum = *b->seen_sum;
        *norm = sqrt(sum);
    }
    if (isfinite(sum))
        return DC_OK;
    DC_TRY(dc_cuda_wait(b));
    *b->seen_sum = 0; /* told once */
    return dc_backend_diverged((double)sgd->learning_rate);
}

dc_status dc_cuda_adam(dc_backend *backend, int n, const dc_segment *segments, const dc_adam *adam)
{
    dc_cuda_backend *b = cuda_of(backend);
    dc_cuda_table *table;
    if (!n)
        return DC_OK;
    DC_TRY(table_of(b, n, segments, &table));
    DC_CUDA_TRY(dck_cuda_adam(&b->queue, table->n, table->device, table->total, adam->learning_rate, adam->beta1,
                              adam->beta2, adam->epsilon, adam->weight_decay, adam->step));
    return DC_OK;
}

dc_status dc_cuda_blend(dc_backend *backend, float *y, const float *x, size_t count, float a, float b)
{
    DC_CUDA_TRY(dck_cuda_blend(&cuda_of(backend)->queue, y, x, count, a, b));
    return DC_OK;
}

dc_status dc_cuda_add(dc_backend *backend, float *y, const float *host, size_t count)
{
    DC_CUDA_TRY(dck_cuda_add(&cuda_of(backend)->queue, y, host, count));
    return DC_OK;
}
