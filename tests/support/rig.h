/* A graph with parameters from golden.h, on the CPU backend, for training and inference of one batch. */
#ifndef DC_TESTS_SUPPORT_RIG_H
#define DC_TESTS_SUPPORT_RIG_H

#include "golden.h"

/* Fails the test with the status' message. */
void rig_ok(dc_status status);

typedef struct rig {
    dc_backend *backend;
    dc_params *params;
    dc_step_arena arena;
    dc_model *training, *inference;
    int batch, classes;
    dc_step step;
    void *labels;
    float *host; /* room for images, logits and any parameter */
} rig;

/* isa: "portable", "avx2", ... The graphs, equal but for the losses, are taken over; `also`, may be NULL, only
 * registers its parameters first and stays the caller's. keep: a node whose value survives the step, or -1. */
rig *rig_create(const char *isa, dc_graph *training, dc_graph *inference, const dc_graph *also, int batch, int classes,
                int keep);
/* The same on a backend, which is taken over. */
rig *rig_create_on(dc_backend *backend, dc_graph *training, dc_graph *inference, const dc_graph *also, int batch,
                   int classes, int keep);
void rig_destroy(rig *r);

/* A backend of its own: an instruction set of the CPU, or "cuda". */
dc_backend *rig_backend(const char *isa);

/* Whether this machine runs it; the environment's DCANAS_TEST_DEVICE: the only one that is to be tested. */
bool rig_runs(const char *isa);

/* Loads the images and labels of a seed, runs forward, and backward for the gradients in `what` (0: none). */
void rig_train(rig *r, const char *seed, unsigned what);
/* The same images again, with running statistics. */
void rig_infer(rig *r);
dc_metrics rig_metrics(rig *r, const dc_model *model);

/* Compares the values (or gradient) of a node of a model. */
void rig_check_node(rig *r, const golden *g, const dc_model *model, const char *kind, const char *golden_name,
                    int node);
void rig_check_node_grad(rig *r, const golden *g, const char *golden_name, int node);

/* Compares, for every golden entry of a kind ("grad", "updated", "state"), the parameter of its name, of a role; and
 * fails when a parameter of that role in the training graph has no golden entry. */
void rig_check_params(rig *r, const golden *g, const char *kind, dc_role role, double tolerance);

/* The first node of a name, failing the test when there is none. */
int rig_node(const dc_graph *graph, const char *name);

#endif
