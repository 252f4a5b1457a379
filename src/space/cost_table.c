#include "space/cost_table.h"

#include "graph/cost.h"

#include <string.h>

const char *dc_metric_name(dc_metric metric)
{
    static const char *const names[DC_METRICS] = {[DC_METRIC_PARAMS] = "params", [DC_METRIC_MACS] = "macs"};
    return names[metric];
}

static dc_status count(const dc_genotype *genotype, const dc_network_options *options, double cost[DC_METRICS])
{
    dc_graph *graph;
    DC_TRY(dc_network_build(genotype, options, &graph));
    dc_cost counted = dc_graph_cost(graph);
    dc_graph_destroy(graph);
    cost[DC_METRIC_PARAMS] = (double)counted.params;
    cost[DC_METRIC_MACS] = (double)counted.macs;
    return DC_OK;
}

/* A genotype that keeps only 'none'. */
static dc_genotype nothing(void)
{
    dc_genotype genotype;
    for (int type = 0; type < DC_CELL_TYPES; type++) {
        for (int i = 0; i < DC_CELL_KEPT; i++)
            genotype.cell[type][i] = (dc_choice){DC_DARTS_NONE, i % 2};
        genotype.concat[type] = ((1u << DC_CELL_NODES) - 1) << DC_CELL_INPUTS;
    }
    return genotype;
}

dc_status dc_cost_tables_make(const dc_network_options *options, dc_cost_table tables[DC_METRICS])
{
    dc_network_options bare = *options;
    bare.auxiliary = bare.losses = bare.drop_path = false;
    dc_genotype none = nothing();
    double fixed[DC_METRICS], cost[DC_METRICS];
    DC_TRY(count(&none, &bare, fixed));
    memset(tables, 0, sizeof(dc_cost_table) * DC_METRICS);
    for (int m = 0; m < DC_METRICS; m++) {
        tables[m].metric = (dc_metric)m;
        tables[m].fixed = fixed[m];
    }
    for (int type = 0; type < DC_CELL_TYPES; type++)
        for (int node = 0; node < DC_CELL_NODES; node++)
            for (int source = 0; source < DC_CELL_INPUTS + node; source++)
                for (int op = DC_DARTS_NONE + 1; op < DC_DARTS_N_OPS; op++) {
                    dc_genotype one = none;
                    one.cell[type][2 * node] = (dc_choice){op, source};
                    one.cell[type][2 * node + 1].source = source == 0;
                    DC_TRY(count(&one, &bare, cost));
                    for (int m = 0; m < DC_METRICS; m++)
                        tables[m].cost[type][dc_cell_first_edge(node) + source][op] = cost[m] - fixed[m];
                }
    return DC_OK;
}

double dc_cost_table_count(const dc_cost_table *table, const dc_genotype *genotype)
{
    double sum = table->fixed;
    for (int type = 0; type < DC_CELL_TYPES; type++)
        for (int i = 0; i < DC_CELL_KEPT; i++) {
            dc_choice kept = genotype->cell[type][i];
            sum += table->cost[type][dc_cell_first_edge(i / 2) + kept.source][kept.op];
        }
    return sum;
}
