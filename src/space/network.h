/* The target networks of DARTS: what a genotype is trained, counted and exported as. */
#ifndef DC_SPACE_NETWORK_H
#define DC_SPACE_NETWORK_H

#include "nn/blocks.h"
#include "space/genotype.h"

typedef struct dc_network_options {
    dc_network_kind kind;
    dc_shape input;
    int classes;  /* at least 2 */
    int channels; /* of a node in the first cell; doubled by each reduction; at least 2 */
    int cells;    /* at least 3; reductions at cells/3 and 2*cells/3 */
    bool auxiliary;
    float auxiliary_weight, label_smoothing;
    float dropout;  /* before the classifier */
    bool losses;    /* append the cross entropy of the classifier and, weighted, of the auxiliary head */
    bool drop_path; /* append drop-path after every operation of a cell but the identity */
} dc_network_options;

/* DARTS' own settings: CIFAR-10 (3x32x32, 36 channels, 20 cells, head .4, drop-path) or ImageNet-1k (3x224x224, 48
 * channels, 14 cells, head .4, label smoothing .1); without losses. */
dc_network_options dc_network_defaults(dc_network_kind kind);

/* Builds the target network; *graph is the caller's. DC_ERR_INPUT for options out of range or an input that is too
 * small. `none` adds nothing to its node.
 *
 * Names: stem..., cells.C.preprocess0|1..., cells.C.node.N.edge.E.<op>..., cells.C.node.N (the sum), cells.C (the
 * concat), classifier, loss, auxiliary...; edge E is 0 or 1, in the genotype's order. */
dc_status dc_network_build(const dc_genotype *genotype, const dc_network_options *options, dc_graph **graph);

#endif
