/* What each operation costs on each edge of the target network: the table B of the size constraint (DCA-NAS, Eq 3).
 *
 * A cost is that of all cells of one type together, in the target network's own geometry (cells, channels,
 * resolutions), so that a network's cost is `fixed` plus the table's entries of what its genotype keeps. For the
 * counted metrics this equals dc_graph_cost of the built network without its auxiliary head exactly; measured
 * metrics (latency, energy) are further tables of the same form. */
#ifndef DC_SPACE_COST_TABLE_H
#define DC_SPACE_COST_TABLE_H

#include "space/genotype.h"
#include "space/network.h"

typedef enum dc_metric {
    DC_METRIC_PARAMS, /* weights, affine and bias, without the auxiliary head */
    DC_METRIC_MACS,   /* conv and linear multiply-accumulates of one image, without the auxiliary head */
    DC_METRICS
} dc_metric;

/* "params", "macs": the keys of section [budget]. */
const char *dc_metric_name(dc_metric metric);

typedef struct dc_cost_table {
    dc_metric metric;
    double fixed;                                              /* stem, preprocessing, classifier */
    double cost[DC_CELL_TYPES][DC_CELL_EDGES][DC_DARTS_N_OPS]; /* [none] is 0 */
} dc_cost_table;

/* Fills tables[DC_METRICS] for target networks of this geometry, from dc_graph_cost of networks that differ in one
 * operation: nothing here knows what an operation costs. Options that make no difference to the cost are ignored. */
dc_status dc_cost_tables_make(const dc_network_options *options, dc_cost_table tables[DC_METRICS]);

/* fixed + sum over the kept edges. */
double dc_cost_table_count(const dc_cost_table *table, const dc_genotype *genotype);

#endif
