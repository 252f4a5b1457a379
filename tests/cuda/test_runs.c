/* Runs that are recorded and replayed: in parts, between which others' work is enqueued, they compute what they
 * computed when they were run, and the host puts hardly anything on the stream by itself. */
#include "tests/cuda/device.h"
#include "tests/emulator/counts.h"
#include "tests/support/rig.h"

enum { BATCH = 5, CLASSES = 4, STEPS = 5, RECORDED = 2 }; /* two steps run and record, the others replay */

#pragma weak emulator_enqueued

/* Who takes the gradients of every `each`-th node that has some to another place, as a sum over ranks would. */
typedef struct taker {
    rig *r;
    float *taken; /* device, in the place of the gradients */
    int each, n_done, n_started;
    int fails_at; /* the start that fails, -1: none */
    bool due[64]; /* items of the store */
} taker;

static dc_status done(void *context, const dc_graph *graph, int node, bool *starts)
{
    taker *t = context;
    for (int p = 0; p < graph->nodes[node].n_params; p++) {
        const int item = dc_params_find(t->r->params, graph->params[graph->nodes[node].params[p]].name);
        t->due[item] = t->r->params->items[item].param.role == DC_ROLE_WEIGHT;
    }
    *starts |= ++t->n_done % t->each == 0;
    return DC_OK;
}

static dc_status start(void *context)
{
    taker *t = context;
    const dc_params *params = t->r->params;
    if (t->n_started++ == t->fails_at)
        return dc_fail(DC_ERR_COMM, "this sum is not to be");
    for (int i = 0; i < params->n; i++) {
        const size_t at = params->items[i].offset;
        if (t->due[i])
            device_ok(cudaMemcpyAsync(t->taken + at, params->grads + at, params->items[i].param.count * sizeof(float),
                                      cudaMemcpyDeviceToDevice, t->r->backend->call->stream(t->r->backend)));
        t->due[i] = false;
    }
    return DC_OK;
}

static dc_graph *network(void)
{
    dc_graph *g = dc_graph_create((dc_shape){3, 8, 8});
    assert_non_null(g);
    int x = g->input;
    for (int i = 0; i < 5; i++) {
        char name[32];
        snprintf(name, sizeof name, "conv%d", i);
        x = dc_graph_conv(g, name, i ? dc_graph_relu(g, name, x) : x, 8, 3, 1, 1, 1, 1, i % 2 ? 8 : 1);
        snprintf(name, sizeof name, "bn%d", i);
        x = dc_graph_batch_norm(g, name, x, true);
    }
    g->logits = dc_graph_linear(g, "classifier", dc_graph_global_avg_pool(g, "pool", x), CLASSES);
    dc_graph_cross_entropy(g, "loss", g->logits, 0, 1);
    return g;
}

static unsigned long enqueued(const rig *r)
{
    return emulator_enqueued ? emulator_enqueued(r->backend->call->stream(r->backend)) : 0;
}

static rig *make_rig(void)
{
    return rig_create_on(rig_backend("cuda"), network(), NULL, NULL, BATCH, CLASSES, -1);
}

static taker make_taker(rig *r, int each)
{
    taker t = {.r = r, .each = each, .fails_at = -1};
    assert_in_range(r->params->n, 1, sizeof t.due / sizeof *t.due);
    rig_ok(r->backend->call->alloc(r->backend, r->params->count * sizeof(float), (void **)&t.taken));
    return t;
}

static dc_status backward(rig *r, taker *t)
{
    const dc_grad_hook hook = {done, start, t};
    t->n_done = t->n_started = 0;
    rig_train(r, "runs", 0);
    return dc_executor_backward(r->training->executor, &r->step, DC_GRAD_WEIGHTS, &hook);
}

static void read_floats(const rig *r, const float *device, float *host)
{
    rig_ok(r->backend->call->copy_out(r->backend, host, device, r->params->count * sizeof(float)));
}

static void assert_same(const rig *r, const float *device, const float *right, const char *what)
{
    float *host = malloc(r->params->count * sizeof *host);
    read_floats(r, device, host);
    if (memcmp(host, right, r->params->count * sizeof *host) != 0)
        fail_msg("%s: not the bits of the first step", what);
    free(host);
}

static void forget_all(const rig *r, const taker *t)
{
    const size_t bytes = r->params->count * sizeof(float);
    rig_ok(r->backend->call->fill_zero(r->backend, r->params->grads, bytes));
    rig_ok(r->backend->call->fill_zero(r->backend, t->taken, bytes));
}

/* A step: what is taken is what there is in the end, and that is right; first: where to put it, NULL: it is there. */
static void check_step(rig *r, taker *t, int step, float *first, const float *right)
{
    forget_all(r, t);
    const unsigned long before = enqueued(r);
    rig_ok(backward(r, t));
    const unsigned long put = enqueued(r) - before;
    assert_int_equal(t->n_started, t->n_done / t->each);
    rig_ok(start(t)); /* the rest */
    if (first)
        read_floats(r, r->params->grads, first);
    assert_same(r, r->params->grads, right, "gradients");
    assert_same(r, t->taken, right, "gradients that were taken between parts");
    /* images, labels, their layout, two moments; forward; each part and the takers' copies */
    if (emulator_enqueued && step >= RECORDED)
        assert_in_range(put, 1, 6 + (unsigned long)(t->n_started + r->params->n));
}

static void parts_replay_what_they_were(void **state)
{
    (void)state;
    const int each[] = {1, 3, 1000};
    rig *r = make_rig();
    float *right = calloc(r->params->count, sizeof *right);
    taker takers[3];
    for (int k = 0; k < 3; k++)
        takers[k] = make_taker(r, each[k]);
    for (int step = 0; step < STEPS; step++) /* in turns: each has its own recordings */
        for (int k = 0; k < 3; k++)
            check_step(r, &takers[k], step, k || step ? NULL : right, right);
    assert_true(takers[0].n_done > 5 && right[0] != 0);
    for (int k = 0; k < 3; k++)
        r->backend->call->release(r->backend, takers[k].taken, r->params->count * sizeof(float));
    free(right);
    rig_destroy(r);
}

/* In whatever step it fails, the next one begins anew. */
static void a_start_that_fails_spoils_no_later_run(void **state)
{
    (void)state;
    rig *r = make_rig();
    taker t = make_taker(r, 2);
    float *right = calloc(r->params->count, sizeof *right);
    check_step(r, &t, 0, right, right);
    for (int round = 0; round < 4; round++) {
        t.fails_at = round % 2;
        assert_int_equal(backward(r, &t), DC_ERR_COMM);
        t.fails_at = -1;
        memset(t.due, 0, sizeof t.due);
        for (int k = 0; k < round; k++)
            check_step(r, &t, 1, NULL, right);
    }
    r->backend->call->release(r->backend, t.taken, r->params->count * sizeof(float));
    free(right);
    rig_destroy(r);
}

int main(void)
{
    device_require();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_replay_what_they_were),
        cmocka_unit_test(a_start_that_fails_spoils_no_later_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
