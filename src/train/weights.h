/* A trained network in a file (HDF5, base/state.h): its description and its weights. */
#ifndef DC_TRAIN_WEIGHTS_H
#define DC_TRAIN_WEIGHTS_H

#include "base/state.h"
#include "nn/params.h"
#include "space/network.h"

/* Network options and genotype, as attributes and text below "network". */
void dc_network_put(dc_state *state, const dc_network_options *options, const dc_genotype *genotype);
dc_status dc_network_get(dc_state *state, dc_network_options *options, dc_genotype *genotype);

/* Writes path (atomically): the network below "network", its parameters below "params", and the accuracy that it
 * reached (0..1) at the end of which epoch (0: the first). Not collective. */
dc_status dc_weights_save(const char *path, const dc_network_options *options, const dc_genotype *genotype,
                          const dc_params *params, double accuracy, int epoch);

/* Reads what a file has to evaluate into an allocated store of its network's parameters: of a weights file the weights,
 * of a training's checkpoint those that the training would evaluate at that moment: the average where there is one,
 * with the mean of all ranks' running statistics. Not collective. */
dc_status dc_weights_load(dc_state *state, dc_params *params);

#endif
