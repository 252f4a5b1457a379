/* The search network: cells in which every edge is a mixture of all operations, weighted by the softmax of alpha. */
#ifndef DC_SEARCH_SUPERNET_H
#define DC_SEARCH_SUPERNET_H

#include "nn/blocks.h"
#include "space/genotype.h"

/* With all three switches off: exactly the supernet of DARTS. */
typedef struct dc_supernet_options {
    dc_network_kind kind;
    dc_shape input;
    int classes;        /* at least 2 */
    int channels;       /* of a node in the first cell; at least 2; a multiple of 4 with the bottleneck */
    int cells;          /* at least 3; reductions at cells/3 and 2*cells/3 */
    bool sharing;       /* an operation on a source is computed once and read by every later node (DCA-NAS, Eq 5) */
    bool bottleneck;    /* operations work on channels/4: 1x1 conv and BN per source before, per node after the mix */
    bool derived_cells; /* only the engine cells mix; the others run a derived architecture */
    float alpha_init;   /* standard deviation of alpha at the start: 1e-3 */
    float label_smoothing;
} dc_supernet_options;

/* DARTS' search settings: CIFAR-10 (3x32x32) or ImageNet-1k (3x224x224), 16 channels, 8 cells, all switches off. */
dc_supernet_options dc_supernet_defaults(dc_network_kind kind);

/* Whether cell i is the engine of its type, the first one: it always mixes. */
bool dc_supernet_is_engine(int i, int cells);

/* Builds the supernet; *graph is the caller's. DC_ERR_INPUT for options out of range.
 *
 * derived: what the cells other than the engines run if options->derived_cells, each (source, op) pair computed once
 * where sharing is on. NULL (or without derived_cells): all cells mix. That graph has every parameter that the graph of
 * any derived architecture has, under the same names: register it first, then exchange graphs freely.
 * losses: append the cross entropy.
 *
 * alpha.normal and alpha.reduce are softmax nodes of DC_CELL_EDGES rows and DC_DARTS_N_OPS columns; `none` takes its
 * share of the softmax and adds nothing to a mix.
 *
 * Names: stem..., cells.C.preprocess0|1..., operations cells.C.node.N.edge.S.<op>... (S: the source) or, shared,
 * cells.C.source.S.<op>..., the bottleneck cells.C.source.S.reduce... and cells.C.node.N.restore..., cells.C.node.N
 * (the mix or sum), cells.C (the concat), classifier, loss. */
dc_status dc_supernet_build(const dc_supernet_options *options, const dc_genotype *derived, bool losses,
                            dc_graph **graph);

#endif
