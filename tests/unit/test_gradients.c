/* Gradients computed in pieces are those of the whole: of weights and of alpha, in a supernet with batch norm. The
 * batch holds the same images again and again, so that every piece has the statistics of all of it. */
#include "search/supernet.h"
#include "train/gradients.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

enum { CLASSES = 3, PIECE = 16, PIECES = 3, BATCH = PIECE * PIECES };

/* Of each kind of network: ImageNet's stem makes an eighth of the side. */
static const int sides[] = {[DC_NETWORK_CIFAR] = 8, [DC_NETWORK_IMAGENET] = 64};
enum { MOST_FLOATS = BATCH * 3 * 64 * 64 };

static void must(dc_status status)
{
    if (status != DC_OK)
        fail_msg("%s", dc_status_message());
}

typedef struct network {
    dc_params *params;
    dc_step_arena arena;
    dc_model *model;
    dc_gradients gradients;
    dc_metrics metrics;
} network;

/* The graph of a derived architecture, in a store that has every architecture's parameters. */
static void open_network(network *n, dc_backend *backend, dc_network_kind kind, int micro_batch)
{
    dc_supernet_options options = dc_supernet_defaults(kind);
    dc_graph *all, *graph;
    dc_genotype genotype;
    options.input = (dc_shape){3, sides[kind], sides[kind]};
    options.classes = CLASSES;
    options.channels = 4;
    options.cells = 5;
    options.sharing = options.derived_cells = true;
    options.alpha_init = 0.3f;
    *n = (network){.arena = {.backend = backend}};
    must(dc_genotype_lookup("DARTS_V2", &genotype));
    must(dc_supernet_build(&options, NULL, true, &all));
    must(dc_supernet_build(&options, &genotype, true, &graph));
    must(dc_params_create(backend, &n->params));
    must(dc_params_add_graph(n->params, all));
    must(dc_params_allocate(n->params, 1));
    dc_graph_destroy(all);
    must(dc_gradients_init(&n->gradients, n->params, BATCH, 1, micro_batch));
    const dc_plan_options plan = {.batch = dc_gradients_piece(BATCH, 1, micro_batch), .training = true};
    must(dc_model_create(graph, &plan, &n->arena, n->params, &n->model));
}

static void close_network(network *n)
{
    dc_model_destroy(n->model);
    dc_gradients_clear(&n->gradients);
    dc_step_arena_clear(&n->arena);
    dc_params_destroy(n->params);
}

static dc_batch batch_of(int side, float *images, int32_t *labels)
{
    const size_t floats = (size_t)PIECE * 3 * (size_t)side * (size_t)side;
    for (size_t i = 0; i < PIECES * floats; i++)
        images[i] = 2 * dc_rng_uniform((dc_rng_key){5, 6}, 0, i % floats) - 1;
    for (int i = 0; i < BATCH; i++)
        labels[i] = i % PIECE % CLASSES;
    return (dc_batch){.images = images, .labels = labels, .n_images = BATCH, .n_global = BATCH};
}

/* Twice: what a step leaves behind must not reach the next. */
static void compute(network *n, const dc_batch *batch, unsigned what)
{
    const dc_step step = {.training = true, .momentum = 0.1f, .seed = 1};
    for (int i = 0; i < 2; i++) {
        n->metrics = (dc_metrics){0};
        must(dc_gradients_compute(&n->gradients, n->model, batch, &step, what, NULL, &n->metrics));
    }
}

static void compare(const network *pieces, const network *whole, unsigned what)
{
    const dc_role role = what == DC_GRAD_ALPHA ? DC_ROLE_ALPHA : DC_ROLE_WEIGHT;
    double difference = 0, norm = 0;
    for (int i = 0; i < whole->params->n; i++) {
        const dc_stored_param *item = &whole->params->items[i];
        if (item->param.role != role)
            continue;
        const float *a = pieces->params->grads + item->offset, *b = whole->params->grads + item->offset;
        for (size_t k = 0; k < item->param.count; k++) {
            difference += ((double)a[k] - (double)b[k]) * ((double)a[k] - (double)b[k]);
            norm += (double)b[k] * (double)b[k];
        }
    }
    assert_true(norm > 1e-6);
    if (difference > 1e-8 * norm)
        fail_msg("the gradients differ by %g of their norm", sqrt(difference / norm));
    assert_int_equal(pieces->metrics.n, BATCH);
    assert_int_equal(pieces->metrics.top1, whole->metrics.top1);
    assert_true(fabs(pieces->metrics.loss - whole->metrics.loss) <= 1e-5 * whole->metrics.loss);
}

static void check_pieces(dc_backend *backend, dc_network_kind kind, unsigned what)
{
    static _Alignas(64) float images[MOST_FLOATS];
    static int32_t labels[BATCH];
    const dc_batch batch = batch_of(sides[kind], images, labels);
    network whole, pieces;
    open_network(&whole, backend, kind, 0);
    open_network(&pieces, backend, kind, PIECE);
    assert_int_equal(whole.gradients.piece, BATCH);
    assert_int_equal(pieces.gradients.piece, PIECE);
    compute(&whole, &batch, what);
    compute(&pieces, &batch, what);
    compare(&pieces, &whole, what);
    close_network(&whole);
    close_network(&pieces);
}

static void pieces_add_up(void **state)
{
    (void)state;
    dc_backend *backend;
    const dc_backend_options options = {.threads = 1};
    must(dc_backend_create("cpu", &options, &backend));
    for (int kind = DC_NETWORK_CIFAR; kind <= DC_NETWORK_IMAGENET; kind++)
        for (unsigned what = DC_GRAD_WEIGHTS; what <= DC_GRAD_ALPHA; what++)
            check_pieces(backend, (dc_network_kind)kind, what);
    dc_backend_destroy(backend);
}

static void a_share_that_fits_is_one_piece(void **state)
{
    (void)state;
    assert_int_equal(dc_gradients_piece(96, 1, 0), 96);
    assert_int_equal(dc_gradients_piece(96, 5, 0), 20);
    assert_int_equal(dc_gradients_piece(96, 5, 16), 16);
    assert_int_equal(dc_gradients_piece(96, 8, 16), 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_add_up),
        cmocka_unit_test(a_share_that_fits_is_one_piece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
