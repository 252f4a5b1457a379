#include "app/count_command.h"

#include "app/json.h"
#include "app/network_args.h"
#include "base/args.h"
#include "base/units.h"
#include "graph/cost.h"
#include "search/supernet.h"
#include "space/network.h"

#include <string.h>

static const dc_option options[] = {
    DC_NETWORK_ARGS,
    {"sharing", NULL, "supernet: an operation on a source is computed once for all nodes"},
    {"bottleneck", NULL, "supernet: operations work on a quarter of the channels"},
    {"derived", "GENOTYPE", "supernet: what the cells other than the engine cells run (default: all cells mix)"},
    {"json", NULL, "prints JSON"},
};

static const dc_command command = {
    "count",
    "GENOTYPE|supernet",
    1,
    1,
    options,
    sizeof options / sizeof *options,
    "counts a network's parameters, multiply-accumulates and memory, exactly",
    "GENOTYPE is the name of a published architecture (DARTS_V1, DARTS_V2, PC_DARTS_cifar, PC_DARTS_image, PDARTS,\n"
    "SNAS), the text Genotype(normal=[...], ...), or a file that holds such a text. A supernet has 16 channels and\n"
    "8 cells if nothing else is said.\n"
    "params and macs leave out the auxiliary head, which only training has, and alpha. macs are the\n"
    "multiply-accumulates of convolutions and linear layers for one image.\n"
    "peak_activation_bytes is the most that is alive at once in inference of one image in fp32.",
};

static dc_status build_target(const dc_args *args, dc_network_options *o, dc_graph **graph)
{
    static const char *const of_supernet[] = {"sharing", "bottleneck", "derived"};
    for (size_t i = 0; i < sizeof of_supernet / sizeof *of_supernet; i++)
        if (dc_args_has(args, of_supernet[i]))
            return dc_fail(DC_ERR_INPUT, "count: --%s is for the supernet: dcanas count supernet --%s", of_supernet[i],
                           of_supernet[i]);
    dc_genotype genotype;
    DC_TRY(dc_genotype_lookup(dc_args_at(args, 0), &genotype));
    return dc_network_build(&genotype, o, graph);
}

/* o holds what the command line says for any network; channels and cells become the supernet's own where it is silent.
 */
static dc_status build_supernet(const dc_args *args, dc_network_options *o, dc_graph **graph)
{
    dc_supernet_options s = dc_supernet_defaults(o->kind);
    const char *text = dc_args_value(args, "derived");
    dc_genotype derived;
    if (text)
        DC_TRY(dc_genotype_lookup(text, &derived));
    if (!dc_args_has(args, "channels"))
        o->channels = s.channels;
    if (!dc_args_has(args, "cells"))
        o->cells = s.cells;
    s.input = o->input;
    s.classes = o->classes;
    s.channels = o->channels;
    s.cells = o->cells;
    s.sharing = dc_args_has(args, "sharing");
    s.bottleneck = dc_args_has(args, "bottleneck");
    s.derived_cells = text != NULL;
    return dc_supernet_build(&s, text ? &derived : NULL, false, graph);
}

static dc_status print_json(const dc_network_options *o, const dc_cost *cost, FILE *out)
{
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "network", dc_network_kind_name(o->kind));
    cJSON_AddItemToObject(root, "input", cJSON_CreateIntArray((int[]){o->input.c, o->input.h, o->input.w}, 3));
    cJSON_AddNumberToObject(root, "classes", o->classes);
    cJSON_AddNumberToObject(root, "channels", o->channels);
    cJSON_AddNumberToObject(root, "cells", o->cells);
    cJSON_AddNumberToObject(root, "params", (double)cost->params);
    cJSON_AddNumberToObject(root, "params_with_auxiliary", (double)cost->params_with_auxiliary);
    cJSON_AddNumberToObject(root, "macs", (double)cost->macs);
    cJSON_AddNumberToObject(root, "peak_activation_bytes", (double)cost->peak_activation_bytes);
    return dc_json_print(root, out);
}

static void print_text(const char *what, const dc_network_options *o, const dc_cost *cost, FILE *out)
{
    fprintf(out, "%s: %s network, %dx%dx%d images, %d classes, %d channels, %d cells\n", what,
            dc_network_kind_name(o->kind), o->input.c, o->input.h, o->input.w, o->classes, o->channels, o->cells);
    fprintf(out, "  params                 %s without the auxiliary head\n", dc_format_count(cost->params).s);
    if (cost->params_with_auxiliary != cost->params)
        fprintf(out, "  params_with_auxiliary  %s\n", dc_format_count(cost->params_with_auxiliary).s);
    fprintf(out, "  macs                   %s for one image, convolutions and linear layers\n",
            dc_format_count(cost->macs).s);
    fprintf(out, "  peak_activation_bytes  %s for one image in inference (%s)\n",
            dc_format_count(cost->peak_activation_bytes).s, dc_format_bytes((double)cost->peak_activation_bytes).s);
}

static dc_status count(const dc_args *args, FILE *out)
{
    bool supernet = strcmp(dc_args_at(args, 0), "supernet") == 0;
    dc_network_options o;
    dc_graph *graph;
    DC_TRY(dc_network_args(args, &o));
    DC_TRY(supernet ? build_supernet(args, &o, &graph) : build_target(args, &o, &graph));
    dc_cost cost = dc_graph_cost(graph);
    dc_graph_destroy(graph);
    if (cost.peak_activation_bytes < 0)
        return DC_ERR_MEMORY;
    if (dc_args_has(args, "json"))
        return print_json(&o, &cost, out);
    char what[41];
    snprintf(what, sizeof what, "%.40s", dc_args_at(args, 0));
    print_text(what, &o, &cost, out);
    return DC_OK;
}

dc_status dc_count_command(int argc, char *const *argv, FILE *out)
{
    dc_args *args;
    DC_TRY(dc_args_parse(&command, argc, argv, &args));
    dc_status status = DC_OK;
    if (dc_args_has(args, "help"))
        dc_args_print_help("dcanas", &command, out);
    else
        status = count(args, out);
    dc_args_destroy(args);
    return status;
}
