#include "lug/fit.h"

#include "base/units.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double dc_lug_point(double min, double max, int point)
{
    double fraction = 0, digit = 0.5;
    for (unsigned bits = (unsigned)point + 1; bits; bits >>= 1, digit /= 2)
        fraction += (bits & 1) ? digit : 0;
    return min + (max - min) * fraction;
}

/* ---- the fit ----------------------------------------------------------------------------------------------------- */

/* A stretch of equal fitted values. */
typedef struct block {
    double sum, weight; /* sum of w y, sum of w */
    int length;
} block;

dc_status dc_isotonic(int n, const double *y, const double *w, double *fitted)
{
    block *blocks = dc_alloc((size_t)n * sizeof *blocks);
    if (!blocks)
        return DC_ERR_MEMORY;
    int top = 0;
    for (int i = 0; i < n; i++) {
        double weight = w ? w[i] : 1;
        block last = {weight * y[i], weight, 1};
        while (top > 0 && blocks[top - 1].sum * last.weight >= last.sum * blocks[top - 1].weight) {
            top--;
            last.sum += blocks[top].sum;
            last.weight += blocks[top].weight;
            last.length += blocks[top].length;
        }
        blocks[top++] = last;
    }
    for (int b = 0, i = 0; b < top; b++)
        for (int j = 0; j < blocks[b].length; j++)
            fitted[i++] = blocks[b].sum / blocks[b].weight;
    free(blocks);
    return DC_OK;
}

/* One search: K' and K. */
typedef struct sample {
    double target, size;
} sample;

static int sample_order(const void *pa, const void *pb)
{
    const sample *a = pa, *b = pb;
    int order = (a->target > b->target) - (a->target < b->target);
    return order ? order : (a->size > b->size) - (a->size < b->size);
}

/* The mean size of each distinct target, weighted by how many searches it has, then the monotone fit of those: the
 * least-squares non-decreasing function through all searches. */
static dc_status fit_samples(int n, sample *samples, double *weight, dc_lug_fit *fit)
{
    qsort(samples, (size_t)n, sizeof *samples, sample_order);
    for (int i = 0; i < n; i++) {
        int last = fit->n - 1;
        if (last >= 0 && samples[i].target == fit->target[last]) {
            weight[last] += 1;
            fit->size[last] += (samples[i].size - fit->size[last]) / weight[last];
        } else {
            fit->target[fit->n] = samples[i].target;
            fit->size[fit->n] = samples[i].size;
            weight[fit->n++] = 1;
        }
    }
    return dc_isotonic(fit->n, fit->size, weight, fit->size);
}

dc_status dc_lug_fit_make(const dc_lug *lug, dc_metric metric, dc_lug_fit *fit)
{
    *fit = (dc_lug_fit){.metric = metric};
    size_t bytes = (size_t)lug->n * sizeof(double);
    fit->target = dc_alloc(bytes);
    fit->size = dc_alloc(bytes);
    double *weight = dc_alloc(bytes);
    sample *samples = dc_alloc((size_t)lug->n * sizeof *samples);
    dc_status status = fit->target && fit->size && weight && samples ? DC_OK : DC_ERR_MEMORY;
    int n = 0;
    for (int i = 0; i < lug->n && status == DC_OK; i++)
        if (lug->entries[i].target[metric] > 0)
            samples[n++] = (sample){lug->entries[i].target[metric], lug->entries[i].derived_cost[metric]};
    if (status == DC_OK)
        status = n > 0
                     ? fit_samples(n, samples, weight, fit)
                     : dc_fail(DC_ERR_INPUT,
                               "the lookup graph has no search with a target for %s: extend it by some ([lug] points)",
                               dc_metric_name(metric));
    free(samples);
    free(weight);
    if (status != DC_OK)
        dc_lug_fit_clear(fit);
    return status;
}

void dc_lug_fit_clear(dc_lug_fit *fit)
{
    free(fit->target);
    free(fit->size);
    *fit = (dc_lug_fit){.metric = fit->metric};
}

/* ---- reading it -------------------------------------------------------------------------------------------------- */

double dc_lug_fit_size(const dc_lug_fit *fit, double target)
{
    int i = 0; /* knots up to the target */
    while (i < fit->n && fit->target[i] <= target)
        i++;
    if (i == 0)
        return fit->size[0];
    if (i == fit->n)
        return fit->size[fit->n - 1];
    double share = (target - fit->target[i - 1]) / (fit->target[i] - fit->target[i - 1]);
    return fit->size[i - 1] + share * (fit->size[i] - fit->size[i - 1]);
}

static void warn_outside(const dc_lug_fit *fit, double size, dc_lug_lookup *lookup)
{
    bool below = size < fit->size[0];
    snprintf(lookup->warning, sizeof lookup->warning,
             "[budget] %s = %s lies %s the lookup graph, which covers %s to %s: searching at its %s target %s",
             dc_metric_name(fit->metric), dc_format_count((int64_t)size).s, below ? "below" : "above",
             dc_format_count((int64_t)llround(fit->size[0])).s,
             dc_format_count((int64_t)llround(fit->size[fit->n - 1])).s, below ? "smallest" : "largest",
             dc_format_count((int64_t)llround(lookup->target)).s);
}

dc_lug_lookup dc_lug_fit_lookup(const dc_lug_fit *fit, double size)
{
    dc_lug_lookup lookup = {0};
    int i = 0; /* knots whose size is within */
    while (i < fit->n && fit->size[i] <= size)
        i++;
    if (i == 0)
        lookup.target = fit->target[0];
    else if (i == fit->n)
        lookup.target = fit->target[fit->n - 1];
    else {
        double share = (size - fit->size[i - 1]) / (fit->size[i] - fit->size[i - 1]);
        lookup.target = fit->target[i - 1] + share * (fit->target[i] - fit->target[i - 1]);
    }
    if (size < fit->size[0] || size > fit->size[fit->n - 1])
        warn_outside(fit, size, &lookup);
    return lookup;
}

/* ---- quality ----------------------------------------------------------------------------------------------------- */

/* The rank of x among all values: equal ones share the mean of their ranks. */
static double rank_of(int n, const double *values, double x)
{
    int below = 0, equal = 0;
    for (int i = 0; i < n; i++) {
        below += values[i] < x;
        equal += values[i] == x;
    }
    return below + (equal - 1) / 2.0;
}

static double rank_correlation(int n, const double *x, const double *y)
{
    double mean = (n - 1) / 2.0, xy = 0, xx = 0, yy = 0;
    for (int i = 0; i < n; i++) {
        double a = rank_of(n, x, x[i]) - mean, b = rank_of(n, y, y[i]) - mean;
        xy += a * b;
        xx += a * a;
        yy += b * b;
    }
    return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : 0;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

dc_status dc_lug_quality_of(const dc_lug *lug, dc_metric metric, dc_lug_quality *quality)
{
    *quality = (dc_lug_quality){0};
    double *target = dc_alloc(3 * ((size_t)lug->n + 1) * sizeof *target), largest = 0;
    if (!target)
        return DC_ERR_MEMORY;
    double *size = target + lug->n, *deviation = size + lug->n;
    for (int i = 0; i < lug->n; i++)
        if (lug->entries[i].target[metric] > 0) {
            quality->n++;
            largest = fmax(largest, lug->entries[i].derived_cost[metric]);
        }
    int n = 0;
    for (int i = 0; i < lug->n; i++) {
        const dc_lug_entry *e = &lug->entries[i];
        if (e->target[metric] <= 0 || e->target[metric] >= largest)
            continue;
        target[n] = e->target[metric];
        size[n] = e->derived_cost[metric];
        deviation[n] = fabs(size[n] / target[n] - 1);
        n++;
    }
    quality->n_bound = n;
    quality->rank_correlation = rank_correlation(n, target, size);
    qsort(deviation, (size_t)n, sizeof *deviation, ascending);
    if (n > 0)
        quality->median_deviation = (deviation[(n - 1) / 2] + deviation[n / 2]) / 2;
    free(target);
    return DC_OK;
}
