/* Whole graphs through the plan and the executor: the CPU backend, with relus folded into convolutions, concats in
 * place and one arena for all, against the reference, where every node has memory of its own and nothing is folded. */
#include "backend/executor.h"
#include "nn/params.h"
#include "tests/support/random_graph.h"
#include "tests/support/reference_backend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

enum { BATCH = 20, IMAGES = 18, CHANNELS = 3, SIZE = 8, CLASSES = RANDOM_GRAPH_CLASSES, N_RANDOM = 60 };

static void must(dc_status status)
{
    if (status != DC_OK)
        fail_msg("%s", dc_status_message());
}

/* ---- graphs ---- */

static int relu_conv_norm(dc_graph *g, const char *name, int x, int out_c, int kernel, int stride, int groups)
{
    char full[64];
    int pad = kernel / 2;
    snprintf(full, sizeof full, "%s.relu", name);
    x = dc_graph_relu(g, full, x);
    snprintf(full, sizeof full, "%s.conv", name);
    x = dc_graph_conv(g, full, x, out_c, kernel, stride, pad, pad, 1, groups);
    snprintf(full, sizeof full, "%s.norm", name);
    return dc_graph_batch_norm(g, full, x, true);
}

static int stem(dc_graph *g, int channels)
{
    int x = dc_graph_conv(g, "stem.conv", g->input, channels, 3, 1, 1, 1, 1, 1);
    return dc_graph_batch_norm(g, "stem.norm", x, true);
}

static void classifier(dc_graph *g, const char *name, int x, float weight)
{
    char full[64];
    snprintf(full, sizeof full, "%s.pool", name);
    x = dc_graph_global_avg_pool(g, full, x);
    snprintf(full, sizeof full, "%s.linear", name);
    x = dc_graph_linear(g, full, x, CLASSES);
    if (!g->building_auxiliary)
        g->logits = x;
    snprintf(full, sizeof full, "%s.loss", name);
    dc_graph_cross_entropy(g, full, x, 0.1f, weight);
}

/* A target network's cell: separable convolution, skip, pools, factorized reduce, concat in place, both heads. */
static dc_graph *target_network(void)
{
    dc_graph *g = dc_graph_create((dc_shape){CHANNELS, SIZE, SIZE});
    int x = stem(g, 4);
    int a = relu_conv_norm(g, "a.depthwise", x, 4, 3, 1, 4);
    a = relu_conv_norm(g, "a.pointwise", a, 4, 1, 1, 1);
    a = relu_conv_norm(g, "a.depthwise2", a, 4, 3, 1, 4);
    a = relu_conv_norm(g, "a.pointwise2", a, 4, 1, 1, 1);
    a = dc_graph_drop_path(g, "a.drop", a);
    int b = dc_graph_batch_norm(g, "b.norm", dc_graph_max_pool(g, "b.pool", x, 3, 1, 1), false);
    int c = dc_graph_avg_pool(g, "c.pool", x, 3, 1, 1);
    int n1 = dc_graph_add(g, "n1", 2, (int[]){a, x}), n2 = dc_graph_add(g, "n2", 2, (int[]){b, n1});
    int n3 = dc_graph_add(g, "n3", 2, (int[]){c, n2});
    int cell = dc_graph_concat(g, "cell", 3, (int[]){n1, n2, n3});
    int relu = dc_graph_relu(g, "fr.relu", cell); /* factorized reduce: two shifted halves side by side */
    int left = dc_graph_conv(g, "fr.left", relu, 3, 1, 2, 0, 0, 1, 1);
    int right = dc_graph_conv(g, "fr.right", relu, 3, 1, 2, -1, 0, 1, 1);
    int both = dc_graph_batch_norm(g, "fr.norm", dc_graph_concat(g, "fr", 2, (int[]){left, right}), true);
    g->building_auxiliary = true;
    classifier(g, "auxiliary", relu_conv_norm(g, "auxiliary.conv", both, 5, 1, 1, 1), 0.4f);
    g->building_auxiliary = false;
    int last = dc_graph_dropout(g, "dropout", dc_graph_relu(g, "last.relu", both), 0.2f);
    classifier(g, "head", last, 1);
    return g;
}

/* A supernet's: every feature of a source feeds two nodes with weights from one alpha; the 'none' operation. */
static dc_graph *supernet(void)
{
    dc_graph *g = dc_graph_create((dc_shape){CHANNELS, SIZE, SIZE});
    int x = stem(g, 6), alpha = dc_graph_softmax(g, "alpha", 3, 4, 0.5f);
    int f[4] = {dc_graph_zero(g, "none", x, 1), x,
                dc_graph_batch_norm(g, "pool.norm", dc_graph_max_pool(g, "pool", x, 3, 1, 1), false),
                relu_conv_norm(g, "conv", x, 6, 3, 1, 6)};
    int n1 = dc_graph_mix(g, "n1", alpha, 4, f, (int[]){0, 1, 2, 3});
    int h[8] = {f[0],
                f[1],
                f[2],
                f[3],
                dc_graph_zero(g, "none2", n1, 1),
                n1,
                dc_graph_avg_pool(g, "pool2", n1, 3, 1, 1),
                relu_conv_norm(g, "conv2", n1, 6, 1, 1, 1)};
    int n2 = dc_graph_mix(g, "n2", alpha, 8, h, (int[]){4, 5, 6, 7, 8, 9, 10, 11});
    int cell = dc_graph_concat(g, "cell", 2, (int[]){n1, n2});
    int twice = dc_graph_concat(g, "twice", 3, (int[]){cell, x, x}); /* cannot lie in place: x is read elsewhere */
    classifier(g, "head", relu_conv_norm(g, "last", twice, 8, 3, 2, 2), 1);
    return g;
}

/* Cells whose output, behind a relu and in place, the next two reduce to few channels; and plain siblings whose outputs
 * lie in one concat, are normalised together or not at all. */
static dc_graph *siblings(void)
{
    dc_graph *g = dc_graph_create((dc_shape){CHANNELS, SIZE, SIZE});
    int before = stem(g, 6), x = before;
    char name[16];
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "c%d.0", i);
        int s0 = relu_conv_norm(g, name, before, 4, 1, 1, 1);
        snprintf(name, sizeof name, "c%d.1", i);
        int s1 = relu_conv_norm(g, name, x, 4, 1, 1, 1);
        snprintf(name, sizeof name, "c%d.sum", i);
        int sum = dc_graph_add(g, name, 2, (int[]){s0, s1});
        snprintf(name, sizeof name, "c%d.dw", i);
        int depthwise = relu_conv_norm(g, name, s1, 4, 3, 1, 4);
        snprintf(name, sizeof name, "c%d", i);
        before = x;
        x = dc_graph_concat(g, name, 2, (int[]){sum, depthwise});
    }
    int p = dc_graph_conv(g, "p", x, 3, 1, 1, 0, 0, 1, 1), q = dc_graph_conv(g, "q", x, 5, 1, 1, 0, 0, 1, 1);
    int r = dc_graph_conv(g, "r", x, 8, 1, 1, 0, 0, 1, 1);
    int both = dc_graph_batch_norm(g, "both", dc_graph_concat(g, "pq", 2, (int[]){p, q}), true);
    classifier(g, "head", dc_graph_add(g, "last", 2, (int[]){both, r}), 1);
    return g;
}

/* ---- one machine: a backend, a store and an executor of the graph ---- */

typedef struct machine {
    dc_backend *backend;
    dc_params *params;
    dc_step_arena arena;
    dc_executor *executor;
    dc_step step;
    void *images, *labels;
    size_t image_bytes;
} machine;

static void machine_init(machine *m, dc_backend *backend, const dc_graph *g, bool training)
{
    *m = (machine){.backend = backend, .arena = {.backend = backend}};
    must(dc_graph_check(g));
    must(dc_params_create(backend, &m->params));
    must(dc_params_add_graph(m->params, g));
    must(dc_params_allocate(m->params, 11));
    dc_plan_options options = {.batch = BATCH, .training = training, .keep_losses = true};
    must(dc_executor_create(g, &options, &m->arena, &m->executor));
    float **values = calloc((size_t)g->n_params, sizeof *values), **grads = calloc((size_t)g->n_params, sizeof *grads);
    must(dc_params_bind(m->params, g, values, grads));
    dc_executor_bind(m->executor, values, training ? grads : NULL);
    free(values);
    free(grads);
    size_t rounded = 32, image = CHANNELS * SIZE * SIZE;
    m->image_bytes = rounded * image * sizeof(float);
    must(backend->call->alloc(backend, m->image_bytes, &m->images));
    must(backend->call->alloc(backend, rounded * sizeof(int32_t), &m->labels));
    float host[BATCH * CHANNELS * SIZE * SIZE];
    int32_t labels[BATCH];
    for (size_t i = 0; i < BATCH * image; i++)
        host[i] = 2 * dc_rng_uniform((dc_rng_key){5, 6}, 0, i) - 1;
    for (int i = 0; i < BATCH; i++)
        labels[i] = i * 5 % CLASSES;
    dc_view view = {m->images, {CHANNELS, SIZE, SIZE}, image * (size_t)backend->layout.lane, NULL};
    must(backend->call->write(backend, view, BATCH, host));
    must(backend->call->copy_in(backend, m->labels, labels, sizeof labels));
    m->step = (dc_step){.images = view,
                        .labels = m->labels,
                        .n_images = IMAGES,
                        .training = training,
                        .drop_path_rate = 0.2f,
                        .momentum = 0.1f,
                        .seed = 3,
                        .index = 4};
}

static void machine_destroy(machine *m)
{
    dc_executor_destroy(m->executor);
    dc_step_arena_clear(&m->arena);
    dc_params_destroy(m->params);
    m->backend->call->release(m->backend, m->images, m->image_bytes);
    m->backend->call->release(m->backend, m->labels, 32 * sizeof(int32_t));
    dc_backend_destroy(m->backend);
}

/* ---- comparison ---- */

static void assert_close(const char *what, const float *got, const float *wanted, size_t n, double tolerance)
{
    double error = 0, size = 1e-4;
    for (size_t i = 0; i < n; i++) {
        double difference = fabs((double)got[i] - (double)wanted[i]);
        error = isfinite(difference) ? fmax(error, difference) : INFINITY;
        size = fmax(size, fabs((double)wanted[i]));
    }
    if (!(error <= tolerance * size))
        fail_msg("%s differs by %g of %g", what, error, size);
}

/* Every stored number of the chosen kind, parameter by parameter. */
static void compare_stores(const machine *a, const machine *b, bool grads, dc_role role)
{
    for (int i = 0; i < a->params->n; i++) {
        const dc_stored_param *p = &a->params->items[i];
        if (p->param.role != role)
            continue;
        const float *ours = grads ? a->params->grads : a->params->values;
        const float *theirs = grads ? b->params->grads : b->params->values;
        assert_close(p->param.name, ours + p->offset, theirs + p->offset, p->param.count, 2e-4);
    }
}

static void compare_metrics(machine *a, machine *b)
{
    dc_metrics ours = {0}, theirs = {0};
    must(dc_executor_metrics(a->executor, &ours));
    must(dc_executor_metrics(b->executor, &theirs));
    assert_true(fabs(ours.loss - theirs.loss) <= 1e-4 * fabs(theirs.loss));
    assert_true(fabs(ours.auxiliary - theirs.auxiliary) <= 1e-4 * fabs(theirs.auxiliary));
    assert_int_equal(ours.n, IMAGES);
    assert_int_equal(ours.top1, theirs.top1);
    assert_int_equal(ours.top5, theirs.top5);
}

static void poison(machine *m)
{
    memset(m->arena.memory, 0xff, m->arena.bytes);
    memset(m->params->grads, 0xff, m->params->count * sizeof(float));
}

static void compare_training(machine *a, machine *b)
{
    machine *both[] = {a, b};
    for (int round = 0; round < 3; round++) { /* weights, then alpha: as a search step does; without drop-path */
        unsigned what = round == 1 ? DC_GRAD_ALPHA : DC_GRAD_WEIGHTS;
        for (int i = 0; i < 2; i++) {
            both[i]->step.drop_path_rate = round == 2 ? 0 : 0.2f;
            poison(both[i]);
            must(dc_executor_forward(both[i]->executor, &both[i]->step));
            must(dc_executor_backward(both[i]->executor, &both[i]->step, what, NULL));
        }
        compare_metrics(a, b);
        compare_stores(a, b, true, round == 1 ? DC_ROLE_ALPHA : DC_ROLE_WEIGHT);
    }
    compare_stores(a, b, false, DC_ROLE_STATE);
}

/* Takes the graph over. */
static void check(dc_graph *g, bool training)
{
    dc_backend *cpu, *reference;
    must(dc_backend_create("cpu", &(dc_backend_options){.threads = 2}, &cpu));
    must(dc_reference_backend_create(&reference));
    machine a, b;
    machine_init(&a, cpu, g, training);
    machine_init(&b, reference, g, training);
    assert_int_equal(a.arena.bytes, dc_executor_plan(a.executor)->arena_bytes);
    if (training) {
        compare_training(&a, &b);
    } else {
        poison(&a);
        poison(&b);
        must(dc_executor_forward(a.executor, &a.step));
        must(dc_executor_forward(b.executor, &b.step));
        float ours[IMAGES * CLASSES], theirs[IMAGES * CLASSES];
        must(dc_executor_read(a.executor, g->logits, IMAGES, ours));
        must(dc_executor_read(b.executor, g->logits, IMAGES, theirs));
        assert_close("logits", ours, theirs, IMAGES * CLASSES, 2e-5);
        compare_metrics(&a, &b);
    }
    machine_destroy(&a);
    machine_destroy(&b);
    dc_graph_destroy(g);
}

static void a_target_network_trains(void **state)
{
    (void)state;
    check(target_network(), true);
}

static void a_target_network_infers(void **state)
{
    (void)state;
    check(target_network(), false);
}

static void a_supernet_trains(void **state)
{
    (void)state;
    check(supernet(), true);
}

static void a_supernet_infers(void **state)
{
    (void)state;
    check(supernet(), false);
}

static void any_graph_trains_and_infers(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < N_RANDOM; seed++) {
        check(random_graph(seed), true);
        check(random_graph(seed), false);
    }
}

/* How many nodes the CPU has planned so. */
static int count(const dc_graph *g, bool (*is_so)(const dc_plan *plan, int node))
{
    dc_backend *cpu;
    dc_plan *plan;
    int n = 0;
    must(dc_backend_create("cpu", &(dc_backend_options){.threads = 1}, &cpu));
    must(dc_plan_create(g, &cpu->layout, &(dc_plan_options){.batch = BATCH, .training = true}, &plan));
    for (int i = 0; i < g->n_nodes; i++)
        n += is_so(plan, i);
    dc_plan_destroy(plan);
    dc_backend_destroy(cpu);
    return n;
}

static bool runs_at_anothers_step(const dc_plan *plan, int node)
{
    return plan->nodes[node].leader != node;
}

static bool is_summed_by(const dc_plan *plan, int node, dc_op op)
{
    return plan->nodes[node].summed_by >= 0 && plan->graph->nodes[plan->nodes[node].summed_by].op == op;
}

static bool is_summed_by_convolution(const dc_plan *plan, int node)
{
    return is_summed_by(plan, node, DC_OP_CONV);
}

static bool is_summed_by_drop_path(const dc_plan *plan, int node)
{
    return is_summed_by(plan, node, DC_OP_DROP_PATH);
}

static bool is_summed_by_mix(const dc_plan *plan, int node)
{
    return is_summed_by(plan, node, DC_OP_MIX);
}

/* What the comparisons above are to cover. */
static void batch_norms_are_summed_on_the_way(void **state)
{
    (void)state;
    dc_graph *g = target_network(), *search = supernet();
    assert_int_equal(count(g, is_summed_by_convolution), 2); /* the first after others have added to the gradient */
    assert_int_equal(count(g, is_summed_by_drop_path), 1);
    assert_int_equal(count(search, is_summed_by_mix), 1);
    dc_graph_destroy(g);
    dc_graph_destroy(search);
}

static void convolutions_of_one_tensor_run_together(void **state)
{
    (void)state;
    dc_graph *g = siblings();
    assert_int_equal(count(g, runs_at_anothers_step), 6);
    check(g, true);
    check(siblings(), false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions_of_one_tensor_run_together),
        cmocka_unit_test(a_target_network_trains),
        cmocka_unit_test(a_target_network_infers),
        cmocka_unit_test(a_supernet_trains),
        cmocka_unit_test(a_supernet_infers),
        cmocka_unit_test(any_graph_trains_and_infers),
        cmocka_unit_test(batch_norms_are_summed_on_the_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
