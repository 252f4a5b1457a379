/* The options by which a command line names a target network: shared by the subcommands that count networks. */
#ifndef DC_APP_NETWORK_ARGS_H
#define DC_APP_NETWORK_ARGS_H

#include "base/args.h"
#include "space/network.h"

/* Rows of a dc_option table. */
#define DC_NETWORK_ARGS                                                                                                \
    {"network", "cifar|imagenet", "the family: stem, head and the defaults of what follows (default cifar)"},          \
        {"classes", "N", "classes (default 10, imagenet 1000)"},                                                       \
        {"channels", "N", "channels of a node in the first cell (default 36, imagenet 48)"},                           \
        {"cells", "N", "cells (default 20, imagenet 14)"},                                                             \
    {                                                                                                                  \
        "input", "CxHxW", "one image: channels, height, width (default 3x32x32, imagenet 3x224x224)"                   \
    }

/* "cifar" or "imagenet". */
const char *dc_network_kind_name(dc_network_kind kind);

/* The family's defaults, then what was given. */
dc_status dc_network_args(const dc_args *args, dc_network_options *options);

#endif
