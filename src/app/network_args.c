#include "app/network_args.h"

#include <stdio.h>
#include <string.h>

enum { MAX_CLASSES = 1000000, MAX_CHANNELS = 65536, MAX_CELLS = 1000, MAX_SIDE = 65536 };

const char *dc_network_kind_name(dc_network_kind kind)
{
    return kind == DC_NETWORK_CIFAR ? "cifar" : "imagenet";
}

static dc_status parse_kind(const char *text, dc_network_kind *kind)
{
    bool cifar = strcmp(text, "cifar") == 0;
    if (!cifar && strcmp(text, "imagenet") != 0)
        return dc_fail(DC_ERR_INPUT, "network '%.40s': expected cifar or imagenet", text);
    *kind = cifar ? DC_NETWORK_CIFAR : DC_NETWORK_IMAGENET;
    return DC_OK;
}

/* "3x32x32" */
static dc_status parse_shape(const char *text, dc_shape *shape)
{
    dc_shape s;
    int end = 0;
    if (sscanf(text, "%6dx%6dx%6d%n", &s.c, &s.h, &s.w, &end) != 3 || text[end] || s.c < 1 || s.h < 1 || s.w < 1 ||
        s.c > MAX_CHANNELS || s.h > MAX_SIDE || s.w > MAX_SIDE)
        return dc_fail(DC_ERR_INPUT, "input '%.40s': expected channels x height x width of an image, such as 3x32x32",
                       text);
    *shape = s;
    return DC_OK;
}

dc_status dc_network_args(const dc_args *args, dc_network_options *options)
{
    dc_network_kind kind = DC_NETWORK_CIFAR;
    const char *network = dc_args_value(args, "network"), *input = dc_args_value(args, "input");
    if (network)
        DC_TRY(parse_kind(network, &kind));
    *options = dc_network_defaults(kind);
    if (input)
        DC_TRY(parse_shape(input, &options->input));
    DC_TRY(dc_args_int(args, "classes", 2, MAX_CLASSES, &options->classes));
    DC_TRY(dc_args_int(args, "channels", 2, MAX_CHANNELS, &options->channels));
    return dc_args_int(args, "cells", 3, MAX_CELLS, &options->cells);
}
