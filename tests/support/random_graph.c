#include "tests/support/random_graph.h"

#include "base/rng.h"

#include <stdio.h>
#include <string.h>

enum { N_RANDOM_NODES = 24, MOST_INPUTS = 4, ALPHA_ROWS = 3, ALPHA_COLUMNS = 4 };

typedef struct maker {
    dc_graph *g;
    dc_rng_key key;
    uint64_t drawn;
    int alpha, mix; /* the last ones, -1: none yet */
} maker;

static int draw(maker *m, int n)
{
    return (int)(dc_rng_uniform(m->key, 0, m->drawn++) * (float)n);
}

/* Recent nodes more often than old ones; never one without images. */
static int any_node(maker *m)
{
    for (;;) {
        int back = 1 + (draw(m, 3) ? draw(m, 6) : draw(m, m->g->n_nodes)), id = m->g->n_nodes - back;
        if (id >= 0 && !m->g->nodes[id].batch_free)
            return id;
    }
}

/* Up to most nodes that go with x (same channels, or only the same size), x itself and others again and again. */
static int companions(maker *m, int x, bool same_channels, int most, int *list)
{
    int n = 0, wanted = 1 + draw(m, most);
    dc_shape s = m->g->nodes[x].shape;
    list[n++] = x;
    for (int tries = 0; tries < 60 && n < wanted; tries++) {
        int y = any_node(m);
        dc_shape t = m->g->nodes[y].shape;
        if (t.h == s.h && t.w == s.w && (t.c == s.c || !same_channels))
            list[n++] = y;
    }
    return n;
}

static void add_conv(maker *m, const char *name, int x)
{
    dc_shape s = m->g->nodes[x].shape;
    int kernel = draw(m, 2) ? 3 : 1, stride = s.h > 2 && draw(m, 4) == 0 ? 2 : 1;
    bool depthwise = draw(m, 3) == 0;
    dc_graph_conv(m->g, name, x, depthwise ? s.c : 1 + draw(m, 4), kernel, stride, kernel / 2, kernel / 2, 1,
                  depthwise ? s.c : 1);
}

static void add_mix(maker *m, const char *name, int x)
{
    int list[2 * MOST_INPUTS], index[2 * MOST_INPUTS], n = 0;
    if (m->mix >= 0 && draw(m, 3)) { /* as a cell's nodes: all that the last one mixes, and more */
        const dc_node *last = &m->g->nodes[m->mix];
        n = last->n_inputs - 1 < MOST_INPUTS ? last->n_inputs - 1 : MOST_INPUTS;
        memcpy(list, last->inputs + 1, (size_t)n * sizeof *list);
        x = list[0];
    }
    n += companions(m, x, true, MOST_INPUTS, list + n);
    if (m->alpha < 0)
        m->alpha = dc_graph_softmax(m->g, "alpha", ALPHA_ROWS, ALPHA_COLUMNS, 0.5f);
    for (int i = 0; i < n; i++)
        index[i] = draw(m, ALPHA_ROWS * ALPHA_COLUMNS);
    m->mix = dc_graph_mix(m->g, name, m->alpha, n, list, index);
}

static void add_node(maker *m, int i)
{
    int list[MOST_INPUTS], x = any_node(m);
    char name[16];
    snprintf(name, sizeof name, "n%d", i);
    switch (draw(m, 12)) {
    case 0:
    case 1:
        add_conv(m, name, x);
        break;
    case 2:
        dc_graph_batch_norm(m->g, name, x, draw(m, 2) == 0);
        break;
    case 3:
    case 4:
        dc_graph_relu(m->g, name, x);
        break;
    case 5:
        dc_graph_max_pool(m->g, name, x, 3, 1, 1);
        break;
    case 6:
        dc_graph_avg_pool(m->g, name, x, 3, 1, 1);
        break;
    case 7:
        dc_graph_add(m->g, name, companions(m, x, true, 3, list), list);
        break;
    case 8:
    case 9:
        dc_graph_concat(m->g, name, companions(m, x, false, MOST_INPUTS, list), list);
        break;
    case 10:
        if (draw(m, 2))
            dc_graph_zero(m->g, name, x, 1);
        else
            dc_graph_drop_path(m->g, name, x);
        break;
    default:
        add_mix(m, name, x);
    }
}

static void add_head(maker *m, const char *prefix, float weight)
{
    char name[32];
    snprintf(name, sizeof name, "%s.pool", prefix);
    int x = dc_graph_global_avg_pool(m->g, name, any_node(m));
    snprintf(name, sizeof name, "%s.linear", prefix);
    x = dc_graph_linear(m->g, name, x, RANDOM_GRAPH_CLASSES);
    if (!m->g->building_auxiliary)
        m->g->logits = x;
    snprintf(name, sizeof name, "%s.loss", prefix);
    dc_graph_cross_entropy(m->g, name, x, 0.1f, weight);
}

dc_graph *random_graph(uint64_t seed)
{
    maker m = {dc_graph_create((dc_shape){3, 8, 8}), {seed, dc_rng_stream("random graph")}, 0, -1, -1};
    for (int i = 0; i < N_RANDOM_NODES; i++)
        add_node(&m, i);
    if (draw(&m, 3) == 0) {
        m.g->building_auxiliary = true;
        add_head(&m, "auxiliary", 0.4f);
        m.g->building_auxiliary = false;
    }
    add_head(&m, "head", 1);
    return m.g;
}
