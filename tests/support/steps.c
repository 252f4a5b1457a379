#include "steps.h"

#include "search/supernet.h"
#include "space/network.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { BATCH = 16, CLASSES = 10 };

void outcome_clear(outcome *o)
{
    free(o->values);
    free(o->grads);
}

double difference(const float *a, const float *b, int n)
{
    double distance = 0, size = 0;
    for (int i = 0; i < n; i++) {
        distance += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(distance / size);
}

static float *copy_of(rig *r, const float *device)
{
    float *host = malloc(r->params->count * sizeof *host);
    assert_non_null(host);
    rig_ok(r->backend->call->copy_out(r->backend, host, device, r->params->count * sizeof *host));
    return host;
}

static double train_step(rig *r)
{
    static const dc_sgd_options sgd = {.momentum = 0.9, .weight_decay = 3e-4, .clip = 5};
    rig_train(r, "precision.train", DC_GRAD_WEIGHTS);
    const double loss = rig_metrics(r, r->training).loss;
    rig_ok(dc_model_sgd(r->training, &sgd, 0.05, NULL));
    return loss;
}

static double alpha_step(rig *r, int step)
{
    const dc_adam adam = {.learning_rate = 0.01f,
                          .beta1 = 0.5f,
                          .beta2 = 0.999f,
                          .epsilon = 1e-8f,
                          .weight_decay = 1e-3f,
                          .step = (uint32_t)step + 1};
    rig_train(r, "precision.validation", DC_GRAD_ALPHA);
    const double loss = rig_metrics(r, r->training).loss;
    rig_ok(r->backend->call->adam(r->backend, r->training->n_alpha, r->training->alpha, &adam));
    return loss;
}

/* With alpha: a search's steps. The rig is destroyed. */
static outcome run_steps(rig *r, bool alpha)
{
    outcome o = {.n = (int)r->params->count, .arena_bytes = dc_executor_plan(r->training->executor)->arena_bytes};
    for (int i = 0; i < STEPS; i++) {
        if (alpha)
            o.validation[i] = alpha_step(r, i);
        o.loss[i] = train_step(r);
        if (i == 0)
            o.grads = copy_of(r, r->params->grads);
    }
    if (r->inference) {
        rig_infer(r);
        o.inference = rig_metrics(r, r->inference).loss;
    }
    o.values = copy_of(r, r->params->values);
    rig_destroy(r);
    return o;
}

outcome outcome_of_search(dc_backend *backend)
{
    dc_supernet_options options = dc_supernet_defaults(DC_NETWORK_CIFAR);
    options.input = (dc_shape){3, 8, 8};
    options.channels = 4;
    options.cells = 3;
    dc_genotype genotype;
    dc_graph *all, *graph;
    rig_ok(dc_genotype_lookup("DARTS_V2", &genotype));
    rig_ok(dc_supernet_build(&options, NULL, true, &all));
    rig_ok(dc_supernet_build(&options, &genotype, true, &graph));
    const outcome o = run_steps(rig_create_on(backend, graph, NULL, all, BATCH, CLASSES, -1), true);
    dc_graph_destroy(all);
    return o;
}

outcome outcome_of_training(dc_backend *backend)
{
    dc_network_options options = dc_network_defaults(DC_NETWORK_CIFAR);
    options.input = (dc_shape){3, 8, 8};
    options.channels = 4;
    options.cells = 3;
    options.auxiliary = false;
    options.losses = true;
    dc_genotype genotype;
    dc_graph *training, *inference;
    rig_ok(dc_genotype_lookup("DARTS_V2", &genotype));
    rig_ok(dc_network_build(&genotype, &options, &training));
    rig_ok(dc_network_build(&genotype, &options, &inference));
    return run_steps(rig_create_on(backend, training, inference, NULL, BATCH, CLASSES, -1), false);
}

void check_follows(const char *what, const outcome *is, const outcome *right, apart most)
{
    const double grads = difference(is->grads, right->grads, is->n);
    const double values = difference(is->values, right->values, is->n);
    print_message("# %s: gradients %.2g, weights %.2g apart; losses", what, grads, values);
    for (int i = 0; i < STEPS; i++)
        print_message(" %.4f/%.4f", is->loss[i], right->loss[i]);
    print_message("\n");
    assert_int_equal(is->n, right->n);
    assert_true(grads > 0 && grads <= most.grads);
    assert_true(values > 0 && values <= most.values);
    for (int i = 0; i < STEPS; i++) {
        assert_true(fabs(is->loss[i] - right->loss[i]) <= most.loss * right->loss[i]);
        assert_true(fabs(is->validation[i] - right->validation[i]) <= most.loss * right->validation[i]);
    }
    assert_true(fabs(is->inference - right->inference) <= most.loss * right->inference);
}
