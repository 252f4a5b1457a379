#include "space/cell.h"

dc_cell_type dc_cell_type_at(int i, int cells)
{
    return i == cells / 3 || i == 2 * cells / 3 ? DC_CELL_REDUCE : DC_CELL_NORMAL;
}

int dc_cell_op(dc_graph *g, const char *name, int op, int x, int stride, bool search)
{
    const char *op_name = dc_darts_op_name(op);
    if (!op_name)
        return dc_graph_fail(g, "%s: there is no operation number %d", name, op);
    dc_name full = dc_name_of("%s.%s", name, op_name);
    bool affine = !search;
    switch ((dc_darts_op)op) {
    case DC_DARTS_MAX_POOL_3X3:
        return dc_block_pool(g, full.text, x, DC_OP_MAX_POOL, stride, search);
    case DC_DARTS_AVG_POOL_3X3:
        return dc_block_pool(g, full.text, x, DC_OP_AVG_POOL, stride, search);
    case DC_DARTS_SKIP_CONNECT:
        return stride == 1 ? x : dc_block_factorized_reduce(g, full.text, x, dc_block_shape(g, x).c, affine);
    case DC_DARTS_SEP_CONV_3X3:
        return dc_block_sep_conv(g, full.text, x, 3, stride, affine);
    case DC_DARTS_SEP_CONV_5X5:
        return dc_block_sep_conv(g, full.text, x, 5, stride, affine);
    case DC_DARTS_DIL_CONV_3X3:
        return dc_block_dil_conv(g, full.text, x, 3, stride, affine);
    case DC_DARTS_DIL_CONV_5X5:
        return dc_block_dil_conv(g, full.text, x, 5, stride, affine);
    case DC_DARTS_NONE:
    default:
        return dc_graph_zero(g, full.text, x, stride);
    }
}

void dc_cell_inputs(dc_graph *g, const char *name, int s0, int s1, int channels, bool reduction_prev, bool affine,
                    int states[DC_CELL_STATES])
{
    dc_name first = dc_name_of("%s.preprocess0", name), second = dc_name_of("%s.preprocess1", name);
    states[0] = reduction_prev ? dc_block_factorized_reduce(g, first.text, s0, channels, affine)
                               : dc_block_relu_conv_bn(g, first.text, s0, channels, affine);
    states[1] = dc_block_relu_conv_bn(g, second.text, s1, channels, affine);
}

int dc_cell_output(dc_graph *g, const char *name, unsigned concat, const int states[DC_CELL_STATES])
{
    int parts[DC_CELL_STATES], n = 0;
    for (int s = 0; s < DC_CELL_STATES; s++)
        if (concat >> s & 1)
            parts[n++] = states[s];
    return dc_graph_concat(g, name, n, parts);
}
