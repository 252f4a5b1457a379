#include "app/limits_command.h"

#include "app/json.h"
#include "app/network_args.h"
#include "base/args.h"
#include "base/units.h"
#include "space/derive.h"

#include <string.h>

static const dc_option options[] = {
    {"space", "darts", "the space of cells (default darts)"},
    DC_NETWORK_ARGS,
    {"json", NULL, "prints JSON"},
};

static const dc_command command = {
    "limits",
    "",
    0,
    0,
    options,
    sizeof options / sizeof *options,
    "tells the smallest and the largest network of a space: what a budget can be",
    "Exact over all architectures of the space, for target networks of the given geometry, without the auxiliary\n"
    "head. macs are the multiply-accumulates of convolutions and linear layers for one image. A budget outside these\n"
    "limits is refused: below, nothing fits; above, everything does.",
};

static dc_status print_json(const dc_network_options *o, const dc_limits limits[DC_METRICS], FILE *out)
{
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "space", "darts");
    cJSON_AddStringToObject(root, "network", dc_network_kind_name(o->kind));
    cJSON_AddItemToObject(root, "input", cJSON_CreateIntArray((int[]){o->input.c, o->input.h, o->input.w}, 3));
    cJSON_AddNumberToObject(root, "classes", o->classes);
    cJSON_AddNumberToObject(root, "channels", o->channels);
    cJSON_AddNumberToObject(root, "cells", o->cells);
    for (int m = 0; m < DC_METRICS; m++) {
        cJSON *range = cJSON_AddObjectToObject(root, dc_metric_name((dc_metric)m));
        cJSON_AddNumberToObject(range, "min", limits[m].min);
        cJSON_AddNumberToObject(range, "max", limits[m].max);
    }
    return dc_json_print(root, out);
}

static void print_text(const dc_network_options *o, const dc_limits limits[DC_METRICS], FILE *out)
{
    fprintf(out, "darts space: %s networks, %dx%dx%d images, %d classes, %d channels, %d cells\n",
            dc_network_kind_name(o->kind), o->input.c, o->input.h, o->input.w, o->classes, o->channels, o->cells);
    for (int m = 0; m < DC_METRICS; m++)
        fprintf(out, "  %-8s %13s to %13s\n", dc_metric_name((dc_metric)m), dc_format_count((int64_t)limits[m].min).s,
                dc_format_count((int64_t)limits[m].max).s);
}

static dc_status print_limits(const dc_args *args, FILE *out)
{
    const char *space = dc_args_value(args, "space");
    if (space && strcmp(space, "darts") != 0)
        return dc_fail(DC_ERR_INPUT, "--space %s: there is no such space; there is: darts", space);
    dc_network_options o;
    dc_cost_table tables[DC_METRICS];
    dc_limits limits[DC_METRICS];
    DC_TRY(dc_network_args(args, &o));
    DC_TRY(dc_cost_tables_make(&o, tables));
    for (int m = 0; m < DC_METRICS; m++)
        limits[m] = dc_cost_table_limits(&tables[m]);
    if (dc_args_has(args, "json"))
        return print_json(&o, limits, out);
    print_text(&o, limits, out);
    return DC_OK;
}

dc_status dc_limits_command(int argc, char *const *argv, FILE *out)
{
    dc_args *args;
    DC_TRY(dc_args_parse(&command, argc, argv, &args));
    dc_status status = DC_OK;
    if (dc_args_has(args, "help"))
        dc_args_print_help("dcanas", &command, out);
    else
        status = print_limits(args, out);
    dc_args_destroy(args);
    return status;
}
