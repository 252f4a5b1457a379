#include "app/run_command.h"

#include "app/phases.h"
#include "app/result.h"
#include "app/starts.h"
#include "comm/buckets.h"

#include <stdlib.h>
#include <string.h>

#define SET_OPTION                                                                                                     \
    {                                                                                                                  \
        "set", "SECTION.KEY=VALUE", "changes one key of the configuration; may be repeated"                            \
    }

#define DEVICE_OPTIONS                                                                                                 \
    {"device", "auto|cpu|cuda", "what computes: [run] device"},                                                        \
    {                                                                                                                  \
        "precision", "float|tf32|bf16", "in what ([run] precision; default float; tf32 needs a GPU)"                   \
    }

#define KEYS_OPTION                                                                                                    \
    {                                                                                                                  \
        "keys", NULL, "prints every key of the configuration with its default and meaning"                             \
    }

static const dc_option options[] = {
    SET_OPTION,
    DEVICE_OPTIONS,
    KEYS_OPTION,
};
static const dc_option train_options[] = {
    SET_OPTION,
    DEVICE_OPTIONS,
    KEYS_OPTION,
    {"genotype", "GENOTYPE", "a name, a text or a file (default: genotype.txt of the run's folder)"},
};
static const dc_option lug_options[] = {
    SET_OPTION,
    DEVICE_OPTIONS,
    KEYS_OPTION,
    {"part", "I/N", "makes only the I-th of N shares of the searches, beside other jobs on the same folder"},
};

enum { N_OPTIONS = sizeof options / sizeof options[0] };

#define RESTART_HELP                                                                                                   \
    "CONFIG is an INI file such as those in input/. Start it with mpirun -np N (or srun) for N ranks.\n"               \
    "Results appear in output/NAME/. A run that was interrupted goes on where it was when it is started\n"             \
    "again with the same configuration; SIGTERM, SIGINT, USR1 and USR2 save its state and end it with\n"               \
    "exit status 75."

static const char lug_help[] = RESTART_HELP
    "\n\n"
    "With --part I/N, several jobs build one lookup graph at the same time on the same folder: N of them,\n"
    "each with its own I, in any order. `dcanas lug CONFIG` (or `dcanas run CONFIG`) then gathers what they\n"
    "made, and makes what is missing; it refuses searches that a job still makes.";

static const dc_command commands[] = {
    {"run", "CONFIG", 1, 1, options, N_OPTIONS,
     "does the whole job: lookup graph, search, selection, training, evaluation", RESTART_HELP},
    {"lug", "CONFIG", 1, 1, lug_options, N_OPTIONS + 1,
     "builds or extends the lookup graph from search target to derived size", lug_help},
    {"search", "CONFIG", 1, 1, options, N_OPTIONS,
     "searches an architecture within the budget (with the lookup graph, if built)", RESTART_HELP},
    {"train", "CONFIG", 1, 1, train_options, N_OPTIONS + 1, "trains and evaluates a given architecture", RESTART_HELP},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

const char *dc_run_command_summary(const char *name)
{
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].summary;
    return "";
}

/* ---- the four ---- */

static dc_status finish(dc_pipeline *p, const dc_outcome *outcome, FILE *out)
{
    dc_status status = DC_OK;
    if (p->world->rank == 0) {
        status = dc_result_write(p, outcome);
        if (status == DC_OK)
            status = dc_summary_print(p, outcome, out);
    }
    return dc_comm_agree(p->world, status);
}

static dc_status search_and_select(dc_pipeline *p, int *n, dc_candidate **candidates, int *best)
{
    dc_lug_entry *runs;
    DC_TRY(dc_phase_search(p, &runs));
    dc_status status = dc_phase_select(p, runs, n, candidates, best);
    free(runs);
    return status;
}

static dc_status run_search(dc_pipeline *p, bool train, FILE *out)
{
    int n = 0, best = 0;
    dc_candidate *candidates;
    dc_train_result training;
    DC_TRY(search_and_select(p, &n, &candidates, &best));
    dc_outcome outcome = {&candidates[best].genotype, n, best, candidates, NULL};
    dc_status status = DC_OK;
    if (train) {
        status = dc_phase_train(p, outcome.genotype, &training);
        outcome.training = &training;
    } else {
        status = dc_phase_keep_genotype(p, outcome.genotype);
    }
    if (status == DC_OK)
        status = finish(p, &outcome, out);
    free(candidates);
    return status;
}

/* "3/8" */
static dc_status take_part(dc_pipeline *p, const char *text)
{
    int part = 0, parts = 0, end = 0;
    if (sscanf(text, "%d/%d%n", &part, &parts, &end) != 2 || text[end] || part < 1 || parts < part)
        return dc_fail(DC_ERR_INPUT, "--part %s: should be I/N with I from 1 to N, such as 3/8", text);
    return dc_pipeline_take_part(p, part, parts);
}

static dc_status run_lug(dc_pipeline *p, const dc_args *args, FILE *out)
{
    if (!dc_pipeline_constrained(p))
        return dc_fail(DC_ERR_INPUT, "a lookup graph needs [budget] params or macs (any value within the limits: it "
                                     "tells which metrics to hold) and [constraint] enabled = yes");
    if (dc_args_has(args, "part"))
        DC_TRY(take_part(p, dc_args_value(args, "part")));
    DC_TRY(dc_pipeline_open(p));
    DC_TRY(dc_phase_lug(p));
    if (p->parts)
        dc_log_info(p->log, "part %d of %d is done; without --part dcanas lug, or run, gathers them", p->part,
                    p->parts);
    else if (p->world->rank == 0)
        dc_lug_print(p, out);
    return DC_OK;
}

static dc_status given_genotype(const dc_pipeline *p, const dc_args *args, dc_genotype *genotype)
{
    char path[DC_PATH_CHARS];
    const char *text = dc_args_value(args, "genotype");
    if (!text) {
        DC_TRY(dc_pipeline_path(p, "genotype.txt", path));
        if (!dc_file_exists(path))
            return dc_fail(DC_ERR_INPUT, "train: give --genotype, or search first: there is no %s", path);
        text = path;
    }
    DC_TRY(dc_genotype_lookup(text, genotype));
    return dc_pipeline_check_genotype(p, genotype);
}

static dc_status run_train(dc_pipeline *p, const dc_args *args, FILE *out)
{
    dc_genotype genotype;
    dc_train_result training;
    DC_TRY_ALL(p->world, given_genotype(p, args, &genotype));
    DC_TRY(dc_pipeline_open(p));
    DC_TRY(dc_phase_train(p, &genotype, &training));
    const dc_outcome outcome = {&genotype, 0, 0, NULL, &training};
    return finish(p, &outcome, out);
}

/* A folder is taken only when nothing is wrong with what the user gave. */
static dc_status run_prepared(dc_pipeline *p, const char *name, const dc_args *args, FILE *out)
{
    if (strcmp(name, "lug") == 0)
        return run_lug(p, args, out);
    if (strcmp(name, "train") == 0)
        return run_train(p, args, out);
    if (strcmp(name, "run") == 0) { /* all ranks will train together: told before hours of searches */
        dc_backend *backend = p->backend;
        DC_TRY(dc_buckets_check_ranks(p->world, backend->call->stream ? backend->call->stream(backend) : NULL));
    }
    DC_TRY(dc_pipeline_open(p));
    if (strcmp(name, "search") == 0) {
        DC_TRY(dc_phase_load_lug(p));
        return run_search(p, false, out);
    }
    DC_TRY(dc_phase_lug(p));
    return run_search(p, true, out);
}

dc_status dc_run_command(const dc_comm *world, const char *name, int argc, char *const *argv, FILE *out)
{
    const dc_command *command;
    dc_args *args;
    DC_TRY(dc_args_command(commands, N_COMMANDS, name, &command));
    bool keys = false;
    for (int i = 0; i < argc; i++)
        keys |= strcmp(argv[i], "--keys") == 0;
    if (keys) {
        if (world->rank == 0)
            dc_config_print_help(&dc_settings_schema, out);
        return DC_OK;
    }
    DC_TRY_ALL(world, dc_args_parse(command, argc, argv, &args));
    if (dc_args_has(args, "help")) {
        if (world->rank == 0)
            dc_args_print_help("dcanas", command, out);
        dc_args_destroy(args);
        return DC_OK;
    }
    dc_pipeline pipeline;
    bool searches = strcmp(name, "train") != 0;
    dc_status status =
        dc_comm_agree(world, dc_pipeline_prepare(&pipeline, world, command->name, dc_args_at(args, 0), args, searches));
    if (status == DC_OK)
        status = run_prepared(&pipeline, name, args, out);
    dc_log_end(pipeline.log, status);
    if (pipeline.started)
        dc_starts_end(&pipeline, status);
    dc_pipeline_close(&pipeline);
    dc_args_destroy(args);
    return status;
}
