#include "train/gradients.h"

#include "train/evaluate.h"

int dc_gradients_piece(int batch, int ranks, int micro_batch)
{
    const int share = dc_loader_local_share(batch, ranks);
    return micro_batch > 0 && micro_batch < share ? micro_batch : share;
}

dc_status dc_gradients_init(dc_gradients *g, dc_params *params, int batch, int ranks, int micro_batch)
{
    dc_backend *backend = params->backend;
    *g = (dc_gradients){.params = params, .piece = dc_gradients_piece(batch, ranks, micro_batch)};
    if (g->piece == dc_loader_local_share(batch, ranks))
        return DC_OK;
    return backend->call->alloc(backend, params->count * sizeof(float), (void **)&g->sums);
}

void dc_gradients_clear(dc_gradients *g)
{
    if (g->sums)
        g->params->backend->call->release(g->params->backend, g->sums, g->params->count * sizeof(float));
    *g = (dc_gradients){0};
}

static dc_status compute(dc_model *model, const dc_batch *batch, const dc_step *circumstances, unsigned what,
                         dc_reducer *reducer, dc_metrics *metrics)
{
    dc_step step = *circumstances;
    DC_TRY(dc_batch_stage(model->params->backend, model->graph, batch, &step));
    DC_TRY(dc_executor_forward(model->executor, &step));
    DC_TRY(dc_executor_backward(model->executor, &step, what, reducer ? dc_reducer_hook(reducer) : NULL));
    return dc_executor_metrics(model->executor, metrics);
}

/* n images of the batch, from one that begins a block of the layout. */
static dc_batch piece_of(const dc_batch *batch, dc_shape shape, int first, int n)
{
    const size_t elements = (size_t)first * (size_t)shape.c * (size_t)shape.h * (size_t)shape.w;
    dc_batch piece = *batch;
    if (batch->images) {
        piece.images += elements;
    } else {
        piece.pixels.bytes += elements;
        piece.pixels.draws += first;
    }
    piece.labels += first;
    piece.first_image += first;
    piece.n_images = n;
    return piece;
}

/* What is in the buffer of parameters that this graph does not have is zero, so that it stays so. */
static dc_status compute_pieces(const dc_gradients *g, dc_model *model, const dc_batch *batch, const dc_step *step,
                                unsigned what, dc_metrics *metrics)
{
    dc_backend *backend = g->params->backend;
    const size_t count = g->params->count;
    float *grads = g->params->grads;
    DC_TRY(backend->call->fill_zero(backend, grads, count * sizeof *grads));
    for (int first = 0; first < batch->n_images; first += g->piece) {
        const int left = batch->n_images - first;
        const dc_batch piece =
            piece_of(batch, model->graph->nodes[model->graph->input].shape, first, left < g->piece ? left : g->piece);
        DC_TRY(compute(model, &piece, step, what, NULL, metrics));
        if (left > g->piece)
            DC_TRY(backend->call->blend(backend, g->sums, grads, count, 1, first > 0));
    }
    return backend->call->blend(backend, grads, g->sums, count, 1, 1);
}

dc_status dc_gradients_compute(const dc_gradients *g, dc_model *model, const dc_batch *batch, const dc_step *step,
                               unsigned what, dc_reducer *reducer, dc_metrics *metrics)
{
    if (batch->n_images == 0)
        return dc_reducer_add_nothing(reducer, model->graph);
    if (batch->n_images <= g->piece)
        return compute(model, batch, step, what, reducer, metrics);
    DC_TRY(compute_pieces(g, model, batch, step, what, metrics));
    return reducer ? dc_reducer_complete(reducer, model->graph) : DC_OK;
}
