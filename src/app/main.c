/* dcanas: finds, for a data set and a device's budget, the best convolutional network that fits, and trains it. */
#include "app/bench_data_command.h"
#include "app/count_command.h"
#include "app/data_command.h"
#include "app/eval_command.h"
#include "app/limits_command.h"
#include "app/plan_command.h"
#include "app/result.h"
#include "app/run_command.h"
#include "app/status_command.h"
#include "base/files.h"
#include "base/signals.h"
#include "base/spin.h"
#include "base/text.h"
#include "comm/comm.h"

#include <stdlib.h>
#include <string.h>

/* A subcommand of one process; others are collective (dc_run_command). */
typedef struct local_command {
    const char *name, *summary;
    dc_status (*run)(int argc, char *const *argv, FILE *out);
} local_command;

static const local_command locals[] = {
    {"count", "counts a network's parameters, multiply-accumulates and memory, exactly", dc_count_command},
    {"limits", "prints the smallest and largest network of the space, exactly", dc_limits_command},
};
static const char *const collectives[] = {"run", "lug", "search", "train"};

static void print_help(FILE *out)
{
    fprintf(out, "usage: dcanas COMMAND [arguments]     (dcanas COMMAND --help tells more)\n\n"
                 "Finds, for a data set and a device's budget, the best convolutional network that fits, and trains "
                 "it.\n\n");
    for (size_t i = 0; i < sizeof collectives / sizeof *collectives; i++)
        fprintf(out, "  %-10s %s\n", collectives[i], dc_run_command_summary(collectives[i]));
    fprintf(out, "  %-10s %s\n", "eval", "evaluates trained weights on a data set");
    fprintf(out, "  %-10s %s\n", "plan", "tells a run's memory and work before it is started");
    fprintf(out, "  %-10s %s\n", "data", "imports data sets and shows what is in them");
    fprintf(out, "  %-10s %s\n", "bench-data", "measures how fast a run's batches are made ready");
    fprintf(out, "  %-10s %s\n", "status", "tells how far a run is, without touching it");
    for (size_t i = 0; i < sizeof locals / sizeof *locals; i++)
        fprintf(out, "  %-10s %s\n", locals[i].name, locals[i].summary);
    fprintf(out,
            "\n  dcanas --version prints versions\n\n"
            "environment:\n"
            "  DCANAS_ISA            the CPU's instructions: avx512_bf16, avx512, avx2 or portable; the best it has\n"
            "  DCANAS_NCCL_TIMEOUT_S a sum over GPUs that takes longer ends the job; 300\n"
            "  DCANAS_START_TIMEOUT  a job whose ranks have not all begun by then ends; 10m\n"
            "  DCANAS_STATUS_FILE    where rank 0 leaves its exit status for a batch script; nowhere\n"
            "  DCANAS_WATCHDOG       a rank of `eval` or `data import` that has not moved for so long ends the job;\n"
            "                        30m, 0: never (runs have [run] watchdog)\n");
}

static dc_status unknown(const char *name)
{
    const char *nearest = NULL;
    for (size_t i = 0; i < sizeof collectives / sizeof *collectives; i++)
        dc_text_nearest(name, collectives[i], &nearest);
    dc_text_nearest(name, "eval", &nearest);
    dc_text_nearest(name, "plan", &nearest);
    dc_text_nearest(name, "data", &nearest);
    dc_text_nearest(name, "bench-data", &nearest);
    dc_text_nearest(name, "status", &nearest);
    for (size_t i = 0; i < sizeof locals / sizeof *locals; i++)
        dc_text_nearest(name, locals[i].name, &nearest);
    if (nearest)
        return dc_fail(DC_ERR_INPUT, "unknown command '%s'; did you mean '%s'?", name, nearest);
    return dc_fail(DC_ERR_INPUT, "unknown command '%s'; `dcanas --help` lists them all", name);
}

static dc_status dispatch(const dc_comm *world, int argc, char *const *argv, FILE *out)
{
    const char *name = argc > 1 ? argv[1] : "--help";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        if (world->rank == 0)
            print_help(out);
        return DC_OK;
    }
    if (strcmp(name, "--version") == 0) {
        if (world->rank == 0)
            dc_version_print(out);
        return DC_OK;
    }
    for (size_t i = 0; i < sizeof collectives / sizeof *collectives; i++)
        if (strcmp(name, collectives[i]) == 0)
            return dc_run_command(world, name, argc - 2, argv + 2, out);
    if (strcmp(name, "eval") == 0)
        return dc_eval_command(world, argc - 2, argv + 2, out);
    if (strcmp(name, "data") == 0)
        return dc_data_command(world, argc - 2, argv + 2, out);
    dc_watchdog_begun(world->watchdog); /* the others are not watched */
    if (strcmp(name, "plan") == 0)
        return dc_plan_command(world, argc - 2, argv + 2, out);
    if (strcmp(name, "bench-data") == 0)
        return dc_bench_data_command(world, argc - 2, argv + 2, out);
    for (size_t i = 0; i < sizeof locals / sizeof *locals; i++)
        if (strcmp(name, locals[i].name) == 0)
            return world->rank == 0 ? locals[i].run(argc - 2, argv + 2, out) : DC_OK;
    return unknown(name);
}

/* Without MPI, which login nodes may not have. */
static int status_main(int argc, char **argv)
{
    dc_status status = dc_status_command(argc - 2, argv + 2, stdout);
    if (status != DC_OK)
        fprintf(stderr, "dcanas: %s\n", dc_status_message());
    return dc_status_exit_code(status);
}

/* Leaves the exit status in the file that a batch script has named. A launcher's status is no proof: srun's may be 0 or
 * 1 where it could not start its tasks. Rank 0's. */
static void leave_status(int exit_status)
{
    const char *path = getenv("DCANAS_STATUS_FILE");
    char text[16];
    snprintf(text, sizeof text, "%d\n", exit_status);
    if (path && *path)
        dc_file_replace_text(path, text); /* without it the work counts as lost and is started again */
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "status") == 0)
        return status_main(argc, argv);
    dc_spin_briefly(argv);
    dc_comm world;
    dc_status status = dc_comm_init(&argc, &argv, &world);
    if (status != DC_OK) {
        fprintf(stderr, "dcanas: %s\n", dc_status_message());
        return dc_status_exit_code(status);
    }
    status = dc_signals_install();
    if (status == DC_OK)
        status = dc_comm_check_environment(&world);
    if (status == DC_OK)
        status = dispatch(&world, argc, argv, stdout);
    status = dc_comm_end(&world, status);
    if (status != DC_OK && world.rank == 0)
        fprintf(stderr, "dcanas: %s\n", dc_status_message());
    if (world.rank == 0)
        leave_status(dc_status_exit_code(status));
    dc_comm_finalize(&world);
    return dc_status_exit_code(status);
}
