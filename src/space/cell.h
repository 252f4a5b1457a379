/* Parts of a DARTS cell that the supernet and the target networks share. */
#ifndef DC_SPACE_CELL_H
#define DC_SPACE_CELL_H

#include "nn/blocks.h"
#include "space/genotype.h"

/* The type of cell i of a network: reductions stand at 1/3 and 2/3. */
dc_cell_type dc_cell_type_at(int i, int cells);

/* Operation `op` on x, (C,H,W) -> (C, H/stride, W/stride). search: batch norms without affine, and one after pooling,
 * as in DARTS' search; otherwise as in its target networks. skip_connect with stride 1 is x itself; none is a zero
 * node. Nodes are named name.<op>.<part>, for instance "cells.3.node.2.edge.1.sep_conv_3x3.depthwise1". */
int dc_cell_op(dc_graph *g, const char *name, int op, int x, int stride, bool search);

/* Brings the outputs of the two cells before (s0 the earlier one) to `channels` and one resolution: states[0] and
 * states[1]. reduction_prev: s0 has twice the resolution of s1. name.preprocess0, name.preprocess1 */
void dc_cell_inputs(dc_graph *g, const char *name, int s0, int s1, int channels, bool reduction_prev, bool affine,
                    int states[DC_CELL_STATES]);

/* The cell's output: the channel concat of the states in the mask. */
int dc_cell_output(dc_graph *g, const char *name, unsigned concat, const int states[DC_CELL_STATES]);

#endif
