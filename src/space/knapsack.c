/* Dynamic programming over the stages. Three things keep its fronts small:
 *
 *  - dominance: of two partial choices, one that is no better in value and no cheaper in any resource is dropped;
 *  - the Lagrangian bound: for any multipliers u >= 0,
 *        value(completed) <= value + sum over later stages of max (v - u c) + u (limit - cost),
 *    so a partial choice whose bound does not beat the best complete choice known is dropped;
 *  - a width: at first only the choices of largest bound are followed. That finds a good complete choice, which makes
 *    the bound sharp. While something was dropped for width alone that could still win, the search is repeated wider.
 */
#include "space/knapsack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_WIDTH = 64, WIDENING = 8, DUAL_SWEEPS = 3, MOST_SWEEPS = 30, BISECTIONS = 40, MOST_DOUBLINGS = 200 };

static const double tolerance = 1e-12;

typedef struct option {
    double value, cost[DC_KNAPSACK_RESOURCES];
    int tag;
} option;

/* A choice for the stages so far. */
typedef struct state {
    double value, cost[DC_KNAPSACK_RESOURCES];
    double bound;
    int parent, option; /* position in the states of the stage before; in the stage's options */
} state;

struct dc_knapsack {
    int n_resources, n_stages;
    double limit[DC_KNAPSACK_RESOURCES];
    int n_options, option_capacity;
    option *options;
    int first[DC_KNAPSACK_STAGES + 1]; /* options of stage t: first[t] .. first[t + 1] */
    int n_states, state_capacity;
    state *states; /* of all stages, for the way back */

    /* bounds over the stages t and later */
    double least[DC_KNAPSACK_STAGES + 1][DC_KNAPSACK_RESOURCES]; /* cost */
    double multiplier[DC_KNAPSACK_RESOURCES];
    double rest[DC_KNAPSACK_STAGES + 1]; /* sum of max (v - u c) */

    bool found;        /* the best complete choice known */
    double best_value; /* while none is: less than any choice's value, so that a bound below it proves there is none */
    int best[DC_KNAPSACK_STAGES];
};

dc_status dc_knapsack_create(dc_knapsack **knapsack)
{
    *knapsack = dc_alloc_zeroed(sizeof **knapsack);
    return *knapsack ? DC_OK : DC_ERR_MEMORY;
}

void dc_knapsack_destroy(dc_knapsack *k)
{
    if (!k)
        return;
    free(k->options);
    free(k->states);
    free(k);
}

void dc_knapsack_begin(dc_knapsack *k, int n_resources, const double *limits)
{
    k->n_resources = n_resources;
    for (int r = 0; r < n_resources; r++)
        k->limit[r] = limits[r];
    k->n_stages = k->n_options = 0;
}

void dc_knapsack_stage(dc_knapsack *k)
{
    k->first[k->n_stages++] = k->n_options;
    k->first[k->n_stages] = k->n_options;
}

dc_status dc_knapsack_option(dc_knapsack *k, double value, const double *costs, int tag)
{
    if (k->n_options == k->option_capacity) {
        int capacity = k->option_capacity ? 2 * k->option_capacity : 1024;
        option *grown = dc_realloc(k->options, (size_t)capacity * sizeof *grown);
        if (!grown)
            return DC_ERR_MEMORY;
        k->options = grown;
        k->option_capacity = capacity;
    }
    option *o = &k->options[k->n_options++];
    *o = (option){.value = value, .tag = tag};
    for (int r = 0; r < k->n_resources; r++)
        o->cost[r] = costs[r];
    k->first[k->n_stages] = k->n_options;
    return DC_OK;
}

/* ---- dominance --------------------------------------------------------------------------------------------------- */

static int compare(double a, double b)
{
    return (a > b) - (a < b);
}

/* Best value first, then cheapest, so that whatever dominates comes before what it dominates. */
static int by_value(double value_a, const double *cost_a, double value_b, const double *cost_b)
{
    int order = compare(value_b, value_a);
    for (int r = 0; r < DC_KNAPSACK_RESOURCES && !order; r++)
        order = compare(cost_a[r], cost_b[r]);
    return order;
}

static int option_order(const void *pa, const void *pb)
{
    const option *a = pa, *b = pb;
    int order = by_value(a->value, a->cost, b->value, b->cost);
    return order ? order : (a->tag > b->tag) - (a->tag < b->tag);
}

static int state_order(const void *pa, const void *pb)
{
    const state *a = pa, *b = pb;
    int order = by_value(a->value, a->cost, b->value, b->cost);
    if (!order)
        order = (a->parent > b->parent) - (a->parent < b->parent);
    return order ? order : (a->option > b->option) - (a->option < b->option);
}

static int bound_order(const void *pa, const void *pb)
{
    const state *a = pa, *b = pb;
    int order = compare(b->bound, a->bound);
    return order ? order : state_order(pa, pb);
}

static bool no_dearer(const double *a, const double *b, int n_resources)
{
    for (int r = 0; r < n_resources; r++)
        if (a[r] > b[r])
            return false;
    return true;
}

/* Sorts the options of each stage and drops the dominated ones. */
static void prune_options(dc_knapsack *k)
{
    int kept = 0;
    for (int t = 0; t < k->n_stages; t++) {
        int begin = k->first[t], end = k->first[t + 1];
        qsort(k->options + begin, (size_t)(end - begin), sizeof(option), option_order);
        k->first[t] = kept;
        for (int i = begin; i < end; i++) {
            option candidate = k->options[i];
            bool dominated = false;
            for (int j = k->first[t]; j < kept && !dominated; j++)
                dominated = no_dearer(k->options[j].cost, candidate.cost, k->n_resources);
            if (!dominated)
                k->options[kept++] = candidate;
        }
    }
    k->first[k->n_stages] = k->n_options = kept;
}

/* The same for the states from `begin` on. */
static void prune_states(dc_knapsack *k, int begin)
{
    qsort(k->states + begin, (size_t)(k->n_states - begin), sizeof(state), state_order);
    int kept = begin;
    for (int i = begin; i < k->n_states; i++) {
        bool dominated = false;
        /* what was kept last is the cheapest of all where there is one resource, and often otherwise */
        int first = k->n_resources > 1 || kept == begin ? begin : kept - 1;
        for (int j = kept - 1; j >= first && !dominated; j--)
            dominated = no_dearer(k->states[j].cost, k->states[i].cost, k->n_resources);
        if (!dominated)
            k->states[kept++] = k->states[i];
    }
    k->n_states = kept;
}

/* ---- bounds ------------------------------------------------------------------------------------------------------ */

static double below_all_values(const dc_knapsack *k)
{
    double sum = 0;
    for (int t = 0; t < k->n_stages; t++) {
        double least = INFINITY;
        for (int i = k->first[t]; i < k->first[t + 1]; i++)
            least = fmin(least, k->options[i].value);
        sum += least;
    }
    return sum - 1 - fabs(sum);
}

static void find_least_costs(dc_knapsack *k)
{
    memset(k->least[k->n_stages], 0, sizeof k->least[0]);
    for (int t = k->n_stages - 1; t >= 0; t--)
        for (int r = 0; r < k->n_resources; r++) {
            double least = INFINITY;
            for (int i = k->first[t]; i < k->first[t + 1]; i++)
                least = fmin(least, k->options[i].cost[r]);
            k->least[t][r] = k->least[t + 1][r] + least;
        }
}

static double reduced_value(const dc_knapsack *k, const option *o, const double *u)
{
    double value = o->value;
    for (int r = 0; r < k->n_resources; r++)
        value -= u[r] * o->cost[r];
    return value;
}

/* The choice that maximises v - u c in each stage: its costs, and the bound on any choice. Remembers it when it keeps
 * within the limits and is the best so far. */
static double relax(dc_knapsack *k, const double *u, double *cost)
{
    int choice[DC_KNAPSACK_STAGES];
    double value = 0, bound = 0;
    memset(cost, 0, sizeof(double) * DC_KNAPSACK_RESOURCES);
    for (int t = 0; t < k->n_stages; t++) {
        double most = -INFINITY;
        for (int i = k->first[t]; i < k->first[t + 1]; i++) {
            double reduced = reduced_value(k, &k->options[i], u);
            if (reduced > most) {
                most = reduced;
                choice[t] = i;
            }
        }
        const option *chosen = &k->options[choice[t]];
        bound += most;
        value += chosen->value;
        for (int r = 0; r < k->n_resources; r++)
            cost[r] += chosen->cost[r];
    }
    for (int r = 0; r < k->n_resources; r++)
        bound += u[r] * k->limit[r];
    if (no_dearer(cost, k->limit, k->n_resources) && value > k->best_value) {
        k->found = true;
        k->best_value = value;
        memcpy(k->best, choice, sizeof(int) * (size_t)k->n_stages);
    }
    return bound;
}

/* Minimises the bound over multiplier r, the others fixed: where the relaxed choice comes to keep within limit r. */
static void bisect_multiplier(dc_knapsack *k, double *u, int r)
{
    double cost[DC_KNAPSACK_RESOURCES];
    double low = 0, high = u[r];
    if (high == 0) { /* a first guess: all value for all cost */
        u[r] = 0;
        relax(k, u, cost);
        if (cost[r] <= k->limit[r])
            return;
        high = 1 / (1 + fabs(k->limit[r]));
    }
    for (int i = 0; i < MOST_DOUBLINGS; i++) {
        u[r] = high;
        relax(k, u, cost);
        if (cost[r] <= k->limit[r])
            break;
        low = high;
        high *= 2;
    }
    for (int i = 0; i < BISECTIONS; i++) {
        u[r] = 0.5 * (low + high);
        relax(k, u, cost);
        if (cost[r] <= k->limit[r])
            high = u[r];
        else
            low = u[r];
    }
    u[r] = high;
}

static bool can_win(const dc_knapsack *k, double bound)
{
    return bound > k->best_value + tolerance * fabs(k->best_value);
}

/* Good multipliers by coordinate descent on the dual; any are valid, these make the bound sharp. While nothing fits it
 * goes on longer, since the dual of a problem without solution falls without end. */
static void find_multipliers(dc_knapsack *k)
{
    double u[DC_KNAPSACK_RESOURCES] = {0}, cost[DC_KNAPSACK_RESOURCES];
    double least = relax(k, u, cost);
    memset(k->multiplier, 0, sizeof k->multiplier);
    int sweeps = k->n_resources > 1 ? DUAL_SWEEPS : 1;
    for (int s = 0; s < (k->found ? sweeps : MOST_SWEEPS) && can_win(k, least); s++)
        for (int r = 0; r < k->n_resources; r++) {
            bisect_multiplier(k, u, r);
            double bound = relax(k, u, cost);
            if (bound < least) {
                least = bound;
                memcpy(k->multiplier, u, sizeof u);
            }
        }
    k->rest[k->n_stages] = 0;
    for (int t = k->n_stages - 1; t >= 0; t--) {
        double most = -INFINITY;
        for (int i = k->first[t]; i < k->first[t + 1]; i++)
            most = fmax(most, reduced_value(k, &k->options[i], k->multiplier));
        k->rest[t] = k->rest[t + 1] + most;
    }
}

/* ---- the dynamic program ----------------------------------------------------------------------------------------- */

static dc_status reserve_states(dc_knapsack *k, int n)
{
    if (k->n_states + n <= k->state_capacity)
        return DC_OK;
    int capacity = 2 * (k->n_states + n);
    state *grown = dc_realloc(k->states, (size_t)capacity * sizeof *grown);
    if (!grown)
        return DC_ERR_MEMORY;
    k->states = grown;
    k->state_capacity = capacity;
    return DC_OK;
}

/* Appends to the states what `from` becomes by each option of stage t, where that can still fit and win. */
static dc_status extend(dc_knapsack *k, int from, int t)
{
    DC_TRY(reserve_states(k, k->first[t + 1] - k->first[t]));
    const state *s = &k->states[from];
    for (int i = k->first[t]; i < k->first[t + 1]; i++) {
        const option *o = &k->options[i];
        state next = {.value = s->value + o->value, .parent = from, .option = i};
        next.bound = next.value + k->rest[t + 1];
        bool fits = true;
        for (int r = 0; r < k->n_resources; r++) {
            next.cost[r] = s->cost[r] + o->cost[r];
            next.bound += k->multiplier[r] * (k->limit[r] - next.cost[r]);
            fits = fits && next.cost[r] + k->least[t + 1][r] <= k->limit[r];
        }
        if (fits && can_win(k, next.bound))
            k->states[k->n_states++] = next;
    }
    return DC_OK;
}

/* One pass that follows at most `width` states a stage; *missed is the largest bound among those cut for it. */
static dc_status pass(dc_knapsack *k, int width, double *missed)
{
    *missed = -INFINITY;
    k->n_states = 0;
    DC_TRY(reserve_states(k, 1));
    k->states[k->n_states++] = (state){.bound = INFINITY};
    int begin = 0;
    for (int t = 0; t < k->n_stages; t++) {
        int end = k->n_states;
        for (int from = begin; from < end; from++)
            DC_TRY(extend(k, from, t));
        begin = end;
        prune_states(k, begin);
        if (k->n_states - begin > width) {
            qsort(k->states + begin, (size_t)(k->n_states - begin), sizeof(state), bound_order);
            *missed = fmax(*missed, k->states[begin + width].bound);
            k->n_states = begin + width;
        }
        if (k->n_states == begin)
            return DC_OK; /* nothing can beat what is known */
    }
    /* the last stage's best, sorted first */
    const state *s = &k->states[begin];
    for (int i = begin; i < k->n_states; i++)
        if (k->states[i].value > s->value)
            s = &k->states[i];
    k->found = true;
    k->best_value = s->value;
    for (int t = k->n_stages - 1; t >= 0; t--) {
        k->best[t] = s->option;
        s = &k->states[s->parent];
    }
    return DC_OK;
}

dc_status dc_knapsack_solve(dc_knapsack *k, bool *found, int *tags, double *value)
{
    k->found = false;
    prune_options(k);
    k->best_value = below_all_values(k);
    find_least_costs(k);
    *found = false;
    for (int r = 0; r < k->n_resources; r++)
        if (k->least[0][r] > k->limit[r])
            return DC_OK;
    find_multipliers(k);
    double missed = INFINITY;
    for (int width = FIRST_WIDTH; can_win(k, missed); width *= WIDENING)
        DC_TRY(pass(k, width, &missed));
    *found = k->found;
    if (!k->found)
        return DC_OK;
    for (int t = 0; t < k->n_stages; t++)
        tags[t] = k->options[k->best[t]].tag;
    *value = k->best_value;
    return DC_OK;
}
