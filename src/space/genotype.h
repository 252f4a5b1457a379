/* The DARTS cell space (Liu et al. 2019, arXiv 1806.09055) and its architectures, "genotypes".
 *
 * A cell has 2 inputs (the outputs of the two cells before it), 4 nodes and one output, the channel concat of its
 * nodes. States are numbered 0, 1 (the inputs), 2..5 (the nodes 0..3); node i may read the sources (states) 0..i+1.
 * Edges are numbered as the rows of alpha: those of node 0 first, each node's by source. */
#ifndef DC_SPACE_GENOTYPE_H
#define DC_SPACE_GENOTYPE_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum dc_darts_op {
    DC_DARTS_NONE = 0,
    DC_DARTS_MAX_POOL_3X3,
    DC_DARTS_AVG_POOL_3X3,
    DC_DARTS_SKIP_CONNECT,
    DC_DARTS_SEP_CONV_3X3,
    DC_DARTS_SEP_CONV_5X5,
    DC_DARTS_DIL_CONV_3X3,
    DC_DARTS_DIL_CONV_5X5,
    DC_DARTS_N_OPS
} dc_darts_op;

typedef enum dc_cell_type { DC_CELL_NORMAL, DC_CELL_REDUCE, DC_CELL_TYPES } dc_cell_type;

enum {
    DC_CELL_INPUTS = 2,
    DC_CELL_NODES = 4,
    DC_CELL_STATES = DC_CELL_INPUTS + DC_CELL_NODES,
    DC_CELL_EDGES = 14,
    DC_CELL_KEPT = 2 * DC_CELL_NODES, /* edges of a derived cell: two into each node */
    DC_GENOTYPE_CHARS = 1024          /* room for any formatted genotype */
};

typedef struct dc_choice {
    int op;     /* dc_darts_op */
    int source; /* state 0..node+1 */
} dc_choice;

typedef struct dc_genotype {
    dc_choice cell[DC_CELL_TYPES][DC_CELL_KEPT]; /* choices 2i and 2i+1 are node i's */
    unsigned concat[DC_CELL_TYPES];              /* bit s: state s is part of the cell's output */
} dc_genotype;

/* The alpha row of node's edge from source 0; the one from source j is j further. */
static inline int dc_cell_first_edge(int node)
{
    return node * (node + 3) / 2;
}

/* The stride of an operation: reduction cells halve the resolution on the edges from their inputs. */
static inline int dc_cell_stride(dc_cell_type type, int source)
{
    return type == DC_CELL_REDUCE && source < DC_CELL_INPUTS ? 2 : 1;
}

/* "sep_conv_3x3", ...; NULL outside the enum. */
const char *dc_darts_op_name(int op);

/* The dc_darts_op of a name, or -1. */
int dc_darts_op_find(const char *name);

/* Reads the public text form
 *     Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=[...], reduce_concat=[2, 3, 4, 5])
 * with any white space and line breaks, # comments, either quotes, tuples or lists, fields in any order and an optional
 * `NAME =` before it. DC_ERR_INPUT with line, column and what is expected there. */
dc_status dc_genotype_parse(const char *text, dc_genotype *genotype);

/* Writes the same form on one line, as Python prints it; parsing it gives an equal genotype. */
void dc_genotype_format(const dc_genotype *genotype, char text[DC_GENOTYPE_CHARS]);

/* A genotype as a user gives it: the text form, the name of a built-in one (case matters), or the path of a file that
 * holds the text form. An unknown name is DC_ERR_INPUT, its message listing the names and the nearest. */
dc_status dc_genotype_lookup(const char *text_or_name, dc_genotype *genotype);

/* The name of built-in genotype i, NULL past the last. */
const char *dc_genotype_builtin_name(int i);

/* Whether both are the same architecture: the two choices of a node may stand in either order. */
bool dc_genotype_equal(const dc_genotype *a, const dc_genotype *b);

/* Equal genotypes have equal hashes. */
uint64_t dc_genotype_hash(const dc_genotype *genotype);

#endif
