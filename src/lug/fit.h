/* The monotone fit of a lookup graph and its inverse. */
#ifndef DC_LUG_FIT_H
#define DC_LUG_FIT_H

#include "lug/lug.h"

/* The target K' of a point of the lookup graph: points 0, 1, 2, ... are spread over [min, max] in the order of van der
 * Corput's sequence (1/2, 1/4, 3/4, 1/8, 5/8, ...), so that asking for more points only refines those that are there.
 * Linear in the size, since a network's cost is linear in what it keeps: a step down the ladder then frees the same
 * amount everywhere. The ends are left out: they are single corners of the space whose K is known without a search. */
double dc_lug_point(double min, double max, int point);

/* Least-squares non-decreasing fit to y with weights w (w NULL: all 1) by pooling adjacent violators (Ayer et al.
 * 1955). fitted may be y itself. */
dc_status dc_isotonic(int n, const double *y, const double *w, double *fitted);

/* Knots of K' -> K: target strictly increasing, size non-decreasing, linear in between. */
typedef struct dc_lug_fit {
    dc_metric metric;
    int n;
    double *target; /* K' */
    double *size;   /* fitted K */
} dc_lug_fit;

/* Fits all seeds of all entries that constrain this metric. DC_ERR_INPUT when there are none. */
dc_status dc_lug_fit_make(const dc_lug *lug, dc_metric metric, dc_lug_fit *fit);
void dc_lug_fit_clear(dc_lug_fit *fit);

/* The fitted K at a target, constant beyond the first and last knots. */
double dc_lug_fit_size(const dc_lug_fit *fit, double target);

/* How well sizes follow targets: over all searches that constrain the metric. */
typedef struct dc_lug_quality {
    int n, n_bound;          /* searches; those whose target bound: it lies below the largest size that any derived */
    double rank_correlation; /* Spearman's, of K' and K over the bound ones (ties get their mean rank) */
    double median_deviation; /* of |K/K' - 1| over the bound ones */
} dc_lug_quality;

dc_status dc_lug_quality_of(const dc_lug *lug, dc_metric metric, dc_lug_quality *quality);

typedef struct dc_lug_lookup {
    double target;     /* K' to search at */
    char warning[256]; /* empty, or one line: the budget lies outside what the LUG covers */
} dc_lug_lookup;

/* The largest K' whose fitted size is at most K: of a flat stretch its freest end. Outside the covered range the
 * nearest knot, with a warning. */
dc_lug_lookup dc_lug_fit_lookup(const dc_lug_fit *fit, double size);

#endif
