/* The monotone fit of a lookup graph and its inverse. */
#ifndef DC_LUG_FIT_H
#define DC_LUG_FIT_H

#include "lug/lug.h"

/* Spreads n targets over [min, max], targets[i] = min + (max - min) * (i + 1/2) / n: the centres of n equal shares.
 * Linear in the size, since a network's cost is linear in what it keeps: a step down the ladder then frees the same
 * amount everywhere, and linear interpolation between the points errs by the same amount everywhere. (A logarithmic
 * ladder would spend its points near the minimum, where `fixed` leaves no choice.) The ends are left out: they are
 * single corners of the space whose K is known without a search. */
void dc_lug_points(double min, double max, int n, double *targets);

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

typedef struct dc_lug_lookup {
    double target;     /* K' to search at */
    char warning[256]; /* empty, or one line: the budget lies outside what the LUG covers */
} dc_lug_lookup;

/* The largest K' whose fitted size is at most K: of a flat stretch its freest end. Outside the covered range the
 * nearest knot, with a warning. */
dc_lug_lookup dc_lug_fit_lookup(const dc_lug_fit *fit, double size);

#endif
