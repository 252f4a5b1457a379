#include "train/weights.h"

#include "train/statistics.h"

#include <stdlib.h>

typedef struct field {
    const char *name;
    int *value;
} field;

/* The options that decide a network's structure and parameters, by name. */
enum { N_FIELDS = 8 };
static void fields_of(dc_network_options *o, int *kind, int *auxiliary, field fields[N_FIELDS])
{
    const field all[N_FIELDS] = {{"network/kind", kind},
                                 {"network/input_channels", &o->input.c},
                                 {"network/input_height", &o->input.h},
                                 {"network/input_width", &o->input.w},
                                 {"network/classes", &o->classes},
                                 {"network/channels", &o->channels},
                                 {"network/cells", &o->cells},
                                 {"network/auxiliary", auxiliary}};
    for (int i = 0; i < N_FIELDS; i++)
        fields[i] = all[i];
}

void dc_network_put(dc_state *state, const dc_network_options *options, const dc_genotype *genotype)
{
    char text[DC_GENOTYPE_CHARS];
    dc_genotype_format(genotype, text);
    dc_state_put_text(state, "network/genotype", text);
    dc_network_options copy = *options;
    int kind = (int)options->kind, auxiliary = options->auxiliary;
    field fields[N_FIELDS];
    fields_of(&copy, &kind, &auxiliary, fields);
    for (int i = 0; i < N_FIELDS; i++)
        dc_state_put_i64(state, fields[i].name, *fields[i].value);
    dc_state_put_double(state, "network/dropout", (double)options->dropout);
}

dc_status dc_network_get(dc_state *state, dc_network_options *options, dc_genotype *genotype)
{
    char *text = NULL;
    DC_TRY(dc_state_get_text(state, "network/genotype", &text));
    dc_status status = dc_genotype_parse(text, genotype);
    free(text);
    if (status != DC_OK)
        return dc_fail_within(status, "%s", dc_state_path(state));
    *options = (dc_network_options){0};
    int kind = 0, auxiliary = 0;
    field fields[N_FIELDS];
    fields_of(options, &kind, &auxiliary, fields);
    for (int i = 0; i < N_FIELDS; i++) {
        int64_t value = 0;
        DC_TRY(dc_state_get_i64(state, fields[i].name, &value));
        *fields[i].value = (int)value;
    }
    double dropout = 0;
    DC_TRY(dc_state_get_double(state, "network/dropout", &dropout));
    options->kind = (dc_network_kind)kind;
    options->auxiliary = auxiliary != 0;
    options->dropout = (float)dropout;
    return DC_OK;
}

dc_status dc_weights_save(const char *path, const dc_network_options *options, const dc_genotype *genotype,
                          const dc_params *params, double accuracy, int epoch)
{
    dc_state *state;
    DC_TRY(dc_state_create(path, &state));
    dc_network_put(state, options, genotype);
    dc_state_put_double(state, "accuracy", accuracy);
    dc_state_put_i64(state, "epoch", epoch);
    dc_status status = dc_params_save(params, state, "params", false);
    if (status != DC_OK) {
        dc_state_abandon(state);
        return status;
    }
    return dc_state_commit(state, false);
}

static dc_status load_statistics(dc_state *state, dc_params *params, bool average)
{
    int64_t dims[DC_STATE_MAX_RANK];
    DC_TRY(dc_state_shape(state, "ranks", NULL, NULL, dims));
    const size_t row = dc_statistics_row_bytes(params, average);
    if (dims[0] < 1 || dims[1] != (int64_t)row)
        return dc_fail(DC_ERR_INPUT, "%s: its running statistics are those of another network", dc_state_path(state));
    unsigned char *rows = dc_alloc((size_t)dims[0] * row);
    float *mean = dc_alloc((dc_statistics_count(params) + 1) * sizeof *mean);
    dc_status status = rows && mean ? dc_state_get_bytes(state, "ranks", 2, dims, rows) : DC_ERR_MEMORY;
    if (status == DC_OK) {
        dc_statistics_mean(params, rows, dims[0], row, average, mean);
        status = dc_statistics_write(params, mean);
    }
    free(rows);
    free(mean);
    return status;
}

dc_status dc_weights_load(dc_state *state, dc_params *params)
{
    const bool average = dc_state_has(state, "average/values");
    DC_TRY(dc_params_load(params, state, average ? "average" : "params", false));
    return dc_state_has(state, "ranks") ? load_statistics(state, params, average) : DC_OK;
}
