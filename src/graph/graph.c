#include "graph/graph.h"

#include "base/rng.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Input and index lists live in chunks that never move, so that nodes can point at them. */
typedef struct int_chunk {
    struct int_chunk *next;
    int used;
    int data[1024];
} int_chunk;

struct dc_graph_storage {
    int node_capacity, param_capacity;
    int_chunk *chunks;
    char message[512];
};

static const char *const op_names[DC_OP_COUNT] = {
    "input", "conv",    "batch_norm", "relu",   "max_pool", "avg_pool",  "global_avg_pool", "linear",
    "add",   "softmax", "mix",        "concat", "zero",     "drop_path", "dropout",         "cross_entropy",
};

const char *dc_op_name(dc_op op)
{
    return op_names[op];
}

/* ---- storage ---- */

int dc_graph_fail(dc_graph *g, const char *format, ...)
{
    if (g->error == DC_OK) {
        g->error = DC_ERR_INPUT;
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(g->storage->message, sizeof g->storage->message, format, arguments);
        va_end(arguments);
    }
    return -1;
}

static int out_of_memory(dc_graph *g)
{
    dc_graph_fail(g, "out of memory while a network's graph was built");
    g->error = DC_ERR_MEMORY;
    return -1;
}

dc_status dc_graph_check(const dc_graph *g)
{
    return g->error == DC_OK ? DC_OK : dc_fail(g->error, "%s", g->storage->message);
}

static int *take_ints(dc_graph *g, int n)
{
    int_chunk *chunk = g->storage->chunks;
    if (!chunk || chunk->used + n > (int)(sizeof chunk->data / sizeof chunk->data[0])) {
        chunk = n <= (int)(sizeof chunk->data / sizeof chunk->data[0]) ? dc_alloc(sizeof *chunk) : NULL;
        if (!chunk) {
            out_of_memory(g);
            return NULL;
        }
        chunk->next = g->storage->chunks;
        chunk->used = 0;
        g->storage->chunks = chunk;
    }
    int *taken = chunk->data + chunk->used;
    chunk->used += n;
    return taken;
}

/* Makes room for one more element of an array that doubles. */
static bool grow(void **array, int used, int *capacity, size_t size_bytes)
{
    if (used < *capacity)
        return true;
    int wanted = *capacity ? 2 * *capacity : 64;
    void *grown = dc_realloc(*array, (size_t)wanted * size_bytes);
    if (!grown)
        return false;
    *array = grown;
    *capacity = wanted;
    return true;
}

/* Appends a node of which op, name and inputs are known; NULL when an error is pending or arises. */
static dc_node *append(dc_graph *g, dc_op op, const char *name, int n_inputs, const int *inputs)
{
    if (g->error != DC_OK)
        return NULL;
    if (strlen(name) >= DC_NAME_CHARS - 24) {
        dc_graph_fail(g, "node name '%s' is too long", name);
        return NULL;
    }
    for (int i = 0; i < n_inputs; i++)
        if (inputs[i] < 0 || inputs[i] >= g->n_nodes) {
            dc_graph_fail(g, "%s '%s': input %d is no earlier node", op_names[op], name, i);
            return NULL;
        }
    int *own = n_inputs ? take_ints(g, n_inputs) : NULL;
    if ((n_inputs && !own) || !grow((void **)&g->nodes, g->n_nodes, &g->storage->node_capacity, sizeof *g->nodes)) {
        out_of_memory(g);
        return NULL;
    }
    if (n_inputs)
        memcpy(own, inputs, (size_t)n_inputs * sizeof *inputs);
    dc_node *node = &g->nodes[g->n_nodes++];
    *node = (dc_node){.op = op, .n_inputs = n_inputs, .inputs = own, .auxiliary = g->building_auxiliary};
    snprintf(node->name, sizeof node->name, "%s", name);
    if (n_inputs)
        node->shape = g->nodes[inputs[0]].shape;
    return node;
}

static int id_of(const dc_graph *g, const dc_node *node)
{
    return (int)(node - g->nodes);
}

static void add_param(dc_graph *g, dc_node *node, const char *suffix, dc_role role, dc_init init, float scale,
                      const int shape[4])
{
    if (g->error != DC_OK)
        return;
    if (!grow((void **)&g->params, g->n_params, &g->storage->param_capacity, sizeof *g->params)) {
        out_of_memory(g);
        return;
    }
    dc_param *param = &g->params[g->n_params];
    *param = (dc_param){.role = role, .init = init, .scale = scale, .count = 1, .auxiliary = g->building_auxiliary};
    snprintf(param->name, sizeof param->name, "%.*s%s%s", DC_NAME_CHARS - 24, node->name, *suffix ? "." : "", suffix);
    for (int i = 0; i < 4; i++) {
        param->shape[i] = shape[i];
        param->count *= (size_t)shape[i];
    }
    node->params[node->n_params++] = g->n_params++;
}

dc_graph *dc_graph_create(dc_shape input)
{
    dc_graph *g = dc_alloc_zeroed(sizeof *g);
    if (!g)
        return NULL;
    g->logits = -1;
    g->storage = dc_alloc_zeroed(sizeof *g->storage);
    if (!g->storage) {
        free(g);
        return NULL;
    }
    if (input.c < 1 || input.h < 1 || input.w < 1)
        dc_graph_fail(g, "input %dx%dx%d: every size must be at least 1", input.c, input.h, input.w);
    dc_node *node = append(g, DC_OP_INPUT, "input", 0, NULL);
    if (node)
        node->shape = input;
    return g;
}

void dc_graph_destroy(dc_graph *g)
{
    if (!g)
        return;
    for (int_chunk *chunk = g->storage->chunks; chunk;) {
        int_chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
    free(g->storage);
    free(g->nodes);
    free(g->params);
    free(g);
}

/* ---- builders ---- */

/* Output size of a window operation along one dimension, or 0 when the window does not fit. */
static int window_out(int in, int kernel, int stride, int pad_begin, int pad_end, int dilation)
{
    int room = in + pad_begin + pad_end - (dilation * (kernel - 1) + 1);
    return room < 0 ? 0 : room / stride + 1;
}

static void set_window_shape(dc_graph *g, dc_node *node)
{
    const dc_attr *a = &node->attr;
    dc_shape in = node->shape;
    node->shape.h = window_out(in.h, a->kernel, a->stride, a->pad_begin, a->pad_end, a->dilation);
    node->shape.w = window_out(in.w, a->kernel, a->stride, a->pad_begin, a->pad_end, a->dilation);
    if (node->shape.h < 1 || node->shape.w < 1)
        dc_graph_fail(g, "%s '%s': a %dx%d window (dilation %d) does not fit into %dx%d", op_names[node->op],
                      node->name, a->kernel, a->kernel, a->dilation, in.h, in.w);
}

int dc_graph_conv(dc_graph *g, const char *name, int x, int out_c, int kernel, int stride, int pad_begin, int pad_end,
                  int dilation, int groups)
{
    dc_node *node = append(g, DC_OP_CONV, name, 1, &x);
    if (!node)
        return -1;
    int in_c = node->shape.c;
    if (out_c < 1 || kernel < 1 || stride < 1 || dilation < 1 || groups < 1 || in_c % groups || out_c % groups)
        return dc_graph_fail(g, "conv '%s': %d -> %d channels in %d groups, kernel %d, stride %d, dilation %d", name,
                             in_c, out_c, groups, kernel, stride, dilation);
    node->attr = (dc_attr){.out_c = out_c,
                           .kernel = kernel,
                           .stride = stride,
                           .pad_begin = pad_begin,
                           .pad_end = pad_end,
                           .dilation = dilation,
                           .groups = groups};
    set_window_shape(g, node);
    node->shape.c = out_c;
    /* PyTorch's default for convolutions: kaiming_uniform(a = sqrt 5) = U(+-1 / sqrt(fan_in)) */
    int per_group = in_c / groups;
    float scale = 1.0f / sqrtf((float)(per_group * kernel * kernel));
    add_param(g, node, "weight", DC_ROLE_WEIGHT, DC_INIT_UNIFORM, scale, (int[4]){out_c, per_group, kernel, kernel});
    return g->error ? -1 : id_of(g, node);
}

int dc_graph_batch_norm(dc_graph *g, const char *name, int x, bool affine)
{
    dc_node *node = append(g, DC_OP_BATCH_NORM, name, 1, &x);
    if (!node)
        return -1;
    node->attr.affine = affine;
    const int shape[4] = {node->shape.c, 1, 1, 1};
    add_param(g, node, "running_mean", DC_ROLE_STATE, DC_INIT_ZERO, 0, shape);
    add_param(g, node, "running_var", DC_ROLE_STATE, DC_INIT_ONE, 0, shape);
    if (affine) {
        add_param(g, node, "weight", DC_ROLE_WEIGHT, DC_INIT_ONE, 0, shape);
        add_param(g, node, "bias", DC_ROLE_WEIGHT, DC_INIT_ZERO, 0, shape);
    }
    return g->error ? -1 : id_of(g, node);
}

/* One input, output of the same shape, no attributes. */
static int same_shape(dc_graph *g, dc_op op, const char *name, int x)
{
    dc_node *node = append(g, op, name, 1, &x);
    return node ? id_of(g, node) : -1;
}

int dc_graph_relu(dc_graph *g, const char *name, int x)
{
    return same_shape(g, DC_OP_RELU, name, x);
}

int dc_graph_drop_path(dc_graph *g, const char *name, int x)
{
    return same_shape(g, DC_OP_DROP_PATH, name, x);
}

int dc_graph_dropout(dc_graph *g, const char *name, int x, float rate)
{
    int id = same_shape(g, DC_OP_DROPOUT, name, x);
    if (id < 0)
        return -1;
    if (!(rate >= 0 && rate < 1))
        return dc_graph_fail(g, "dropout '%s': rate %g must lie in [0, 1)", name, (double)rate);
    g->nodes[id].attr.rate = rate;
    return id;
}

static int pool(dc_graph *g, dc_op op, const char *name, int x, int kernel, int stride, int pad)
{
    dc_node *node = append(g, op, name, 1, &x);
    if (!node)
        return -1;
    if (kernel < 1 || stride < 1 || pad < 0 || pad >= kernel)
        return dc_graph_fail(g, "%s '%s': kernel %d, stride %d, padding %d", op_names[op], name, kernel, stride, pad);
    node->attr = (dc_attr){.kernel = kernel, .stride = stride, .pad_begin = pad, .pad_end = pad, .dilation = 1};
    set_window_shape(g, node);
    return g->error ? -1 : id_of(g, node);
}

int dc_graph_max_pool(dc_graph *g, const char *name, int x, int kernel, int stride, int pad)
{
    return pool(g, DC_OP_MAX_POOL, name, x, kernel, stride, pad);
}

int dc_graph_avg_pool(dc_graph *g, const char *name, int x, int kernel, int stride, int pad)
{
    return pool(g, DC_OP_AVG_POOL, name, x, kernel, stride, pad);
}

int dc_graph_global_avg_pool(dc_graph *g, const char *name, int x)
{
    dc_node *node = append(g, DC_OP_GLOBAL_AVG_POOL, name, 1, &x);
    if (!node)
        return -1;
    node->shape.h = node->shape.w = 1;
    return id_of(g, node);
}

int dc_graph_linear(dc_graph *g, const char *name, int x, int out_c)
{
    dc_node *node = append(g, DC_OP_LINEAR, name, 1, &x);
    if (!node)
        return -1;
    if (out_c < 1)
        return dc_graph_fail(g, "linear '%s': %d outputs", name, out_c);
    int64_t wide = (int64_t)node->shape.c * node->shape.h * node->shape.w;
    if (wide > INT32_MAX)
        return dc_graph_fail(g, "linear '%s': %lld inputs are too many", name, (long long)wide);
    int features = (int)wide;
    node->attr.out_c = out_c;
    node->shape = (dc_shape){out_c, 1, 1};
    float scale = 1.0f / sqrtf((float)features);
    add_param(g, node, "weight", DC_ROLE_WEIGHT, DC_INIT_UNIFORM, scale, (int[4]){out_c, features, 1, 1});
    add_param(g, node, "bias", DC_ROLE_WEIGHT, DC_INIT_UNIFORM, scale, (int[4]){out_c, 1, 1, 1});
    return g->error ? -1 : id_of(g, node);
}

static bool equal_shapes(dc_shape a, dc_shape b)
{
    return a.c == b.c && a.h == b.h && a.w == b.w;
}

static int check_same(dc_graph *g, const dc_node *node, int first)
{
    for (int i = first + 1; i < node->n_inputs; i++) {
        dc_shape a = g->nodes[node->inputs[first]].shape, b = g->nodes[node->inputs[i]].shape;
        if (!equal_shapes(a, b))
            return dc_graph_fail(g, "%s '%s': shapes %dx%dx%d and %dx%dx%d differ", op_names[node->op], node->name, a.c,
                                 a.h, a.w, b.c, b.h, b.w);
    }
    return id_of(g, node);
}

int dc_graph_add(dc_graph *g, const char *name, int n, const int *x)
{
    if (n < 1)
        return dc_graph_fail(g, "add '%s': no inputs", name);
    dc_node *node = append(g, DC_OP_ADD, name, n, x);
    return node ? check_same(g, node, 0) : -1;
}

int dc_graph_softmax(dc_graph *g, const char *name, int rows, int columns, float init_scale)
{
    dc_node *node = append(g, DC_OP_SOFTMAX, name, 0, NULL);
    if (!node)
        return -1;
    if (rows < 1 || columns < 1)
        return dc_graph_fail(g, "softmax '%s': %d rows, %d columns", name, rows, columns);
    node->shape = (dc_shape){rows, 1, columns};
    node->batch_free = true;
    add_param(g, node, "", DC_ROLE_ALPHA, DC_INIT_NORMAL, init_scale, (int[4]){rows, columns, 1, 1});
    return g->error ? -1 : id_of(g, node);
}

int dc_graph_mix(dc_graph *g, const char *name, int softmax, int n, const int *x, const int *index)
{
    if (g->error)
        return -1;
    if (n < 1 || softmax < 0 || softmax >= g->n_nodes || g->nodes[softmax].op != DC_OP_SOFTMAX)
        return dc_graph_fail(g, "mix '%s': wants a softmax node and at least one feature", name);
    int *inputs = take_ints(g, n + 1), *own_index = take_ints(g, n + 1);
    if (!inputs || !own_index)
        return -1;
    inputs[0] = softmax;
    own_index[0] = -1;
    memcpy(inputs + 1, x, (size_t)n * sizeof *x);
    memcpy(own_index + 1, index, (size_t)n * sizeof *index);
    dc_node *node = append(g, DC_OP_MIX, name, n + 1, inputs);
    if (!node)
        return -1;
    node->index = own_index;
    node->shape = g->nodes[x[0]].shape;
    dc_shape weights = g->nodes[softmax].shape;
    for (int i = 1; i <= n; i++)
        if (own_index[i] < 0 || own_index[i] >= weights.c * weights.w)
            return dc_graph_fail(g, "mix '%s': weight %d is outside the softmax", name, own_index[i]);
    return check_same(g, node, 1);
}

int dc_graph_concat(dc_graph *g, const char *name, int n, const int *x)
{
    if (n < 1)
        return dc_graph_fail(g, "concat '%s': no inputs", name);
    dc_node *node = append(g, DC_OP_CONCAT, name, n, x);
    if (!node)
        return -1;
    node->shape.c = 0;
    for (int i = 0; i < n; i++) {
        dc_shape s = g->nodes[x[i]].shape;
        if (s.h != node->shape.h || s.w != node->shape.w)
            return dc_graph_fail(g, "concat '%s': %dx%d beside %dx%d", name, s.h, s.w, node->shape.h, node->shape.w);
        node->shape.c += s.c;
    }
    return id_of(g, node);
}

int dc_graph_zero(dc_graph *g, const char *name, int x, int stride)
{
    dc_node *node = append(g, DC_OP_ZERO, name, 1, &x);
    if (!node)
        return -1;
    if (stride < 1)
        return dc_graph_fail(g, "zero '%s': stride %d", name, stride);
    node->attr.stride = stride;
    node->shape.h = (node->shape.h + stride - 1) / stride;
    node->shape.w = (node->shape.w + stride - 1) / stride;
    return id_of(g, node);
}

int dc_graph_cross_entropy(dc_graph *g, const char *name, int logits, float smoothing, float weight)
{
    dc_node *node = append(g, DC_OP_CROSS_ENTROPY, name, 1, &logits);
    if (!node)
        return -1;
    if (node->shape.h != 1 || node->shape.w != 1 || node->shape.c < 2)
        return dc_graph_fail(g, "cross_entropy '%s': wants at least 2 logits, not %dx%dx%d", name, node->shape.c,
                             node->shape.h, node->shape.w);
    if (!(smoothing >= 0 && smoothing < 1))
        return dc_graph_fail(g, "cross_entropy '%s': label smoothing %g must lie in [0, 1)", name, (double)smoothing);
    node->attr.smoothing = smoothing;
    node->attr.weight = weight;
    node->shape = (dc_shape){1, 1, 1};
    node->batch_free = true;
    return id_of(g, node);
}

/* ---- hash ---- */

static uint64_t mix_in(uint64_t hash, const void *bytes, size_t n)
{
    for (const unsigned char *b = bytes; n; n--, b++)
        hash = (hash ^ *b) * 0x100000001b3u;
    return hash;
}

uint64_t dc_graph_hash(const dc_graph *g)
{
    uint64_t hash = dc_rng_stream("graph");
    for (int i = 0; i < g->n_nodes; i++) {
        const dc_node *node = &g->nodes[i];
        const dc_attr *a = &node->attr;
        int numbers[] = {(int)node->op, node->shape.c, node->shape.h, node->shape.w, node->n_inputs, a->kernel,
                         a->stride,     a->pad_begin,  a->pad_end,    a->dilation,   a->groups,      a->affine};
        float floats[] = {a->rate, a->smoothing, a->weight};
        hash = mix_in(hash, numbers, sizeof numbers);
        hash = mix_in(hash, floats, sizeof floats);
        hash = mix_in(hash, node->inputs, (size_t)node->n_inputs * sizeof *node->inputs);
        if (node->index)
            hash = mix_in(hash, node->index, (size_t)node->n_inputs * sizeof *node->index);
        if (node->op == DC_OP_DROP_PATH || node->op == DC_OP_DROPOUT) /* the stream of its random numbers */
            hash = mix_in(hash, node->name, strlen(node->name));
        for (int p = 0; p < node->n_params; p++)
            hash = mix_in(hash, g->params[node->params[p]].name, strlen(g->params[node->params[p]].name));
    }
    return hash;
}
