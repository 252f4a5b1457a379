/* The parameters of a model by name: one store, many graphs. A supernet's graph is rebuilt when a derived cell moves;
 * its weights stay here, also those that the present graph does not use. Model lifetime.
 *
 * Values, gradients and optimizer moments are four contiguous device buffers with equal offsets, in the order of
 * registration (forward order), so that a gradient bucket is a contiguous range that backward completes from its end.
 */
#ifndef DC_NN_PARAMS_H
#define DC_NN_PARAMS_H

#include "backend/backend.h"
#include "base/state.h"

typedef struct dc_stored_param {
    dc_param param;
    size_t offset; /* floats, multiple of 16 */
} dc_stored_param;

typedef struct dc_params {
    dc_backend *backend;
    int n;
    dc_stored_param *items;
    size_t count; /* floats in each buffer (offsets rounded up to 16, so there are gaps of zeros) */
    float *values, *grads, *first, *second; /* device; second only when some parameter is alpha */
    void *lookup;                           /* private: name -> item */
} dc_params;

dc_status dc_params_create(dc_backend *backend, dc_params **params);
void dc_params_destroy(dc_params *params);

/* Registers every parameter of the graph that is not there yet. An equal name with another shape or role is an error.
 * All graphs are added before dc_params_allocate. */
dc_status dc_params_add_graph(dc_params *params, const dc_graph *graph);

/* Allocates and initialises: values drawn per parameter from the stream of its name (independent of order, ranks,
 * device), gradients and moments zero. */
dc_status dc_params_allocate(dc_params *params, uint64_t seed);

/* A second store of the same parameters, with the values that they have now, for evaluation only: no gradients, no
 * moments. */
dc_status dc_params_copy(const dc_params *params, dc_params **copy);

/* One step of an exponential moving average, running statistics included: average = decay * average + (1 - decay) *
 * params. average: made of params by dc_params_copy. */
dc_status dc_params_average(dc_params *average, const dc_params *params, double decay);

/* The item of a name, or -1. */
int dc_params_find(const dc_params *params, const char *name);

/* Fills values/grads (graph->n_params each) for dc_executor_bind. grads may be NULL; its entries are where the store
 * has none. */
dc_status dc_params_bind(const dc_params *params, const dc_graph *graph, float **values, float **grads);

/* The segments of the graph's parameters of one role, in store order, for the optimizers: *segments is allocated
 * (caller frees with free()). */
dc_status dc_params_segments(const dc_params *params, const dc_graph *graph, dc_role role, int *n,
                             dc_segment **segments);

/* Plain copies of the store's values (and optimizer moments, if moments) to and from arrays below `prefix` of a state
 * file. Loading refuses a file whose parameters differ in name, shape, role or order. Not collective. */
dc_status dc_params_save(const dc_params *params, dc_state *state, const char *prefix, bool moments);
dc_status dc_params_load(dc_params *params, dc_state *state, const char *prefix, bool moments);

/* Host copies of one parameter's values. */
dc_status dc_params_read(const dc_params *params, int item, float *host);
dc_status dc_params_write(dc_params *params, int item, const float *host);

#endif
