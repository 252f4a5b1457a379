/* Command lines of subcommands: tables of options, "--key value", "--key=value", flags, "--" ends the options.
 *
 *     static const dc_option options[] = {{"set", "SECTION.KEY=VALUE", "changes one key; may be repeated"},
 *                                         {"json", NULL, "prints JSON"}};
 *     static const dc_command count = {"count", "GENOTYPE", 1, 1, options, 2, "counts a network", "..."};
 */
#ifndef DC_BASE_ARGS_H
#define DC_BASE_ARGS_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct dc_option {
    const char *name;  /* without the dashes */
    const char *value; /* what it takes, for the help: "N", "PATH"; NULL: a flag */
    const char *help;
} dc_option;

typedef struct dc_command {
    const char *name;      /* "count" */
    const char *arguments; /* for the help: "GENOTYPE" or "" */
    int min_arguments, max_arguments;
    const dc_option *options; /* --help is always there besides */
    int n_options;
    const char *summary; /* one line */
    const char *help;    /* more lines, or NULL */
} dc_command;

typedef struct dc_args dc_args;

/* The command of that name; DC_ERR_INPUT with the nearest one otherwise. */
dc_status dc_args_command(const dc_command *commands, int n, const char *name, const dc_command **command);

/* Parses what follows the command's name. Texts stay in argv. With --help the number of arguments is not checked. An
 * option given twice counts with its last value, or with all of them (dc_args_values). */
dc_status dc_args_parse(const dc_command *command, int argc, char *const *argv, dc_args **args);
void dc_args_destroy(dc_args *args);

int dc_args_count(const dc_args *args);                  /* positional arguments */
const char *dc_args_at(const dc_args *args, int index);  /* NULL when there are fewer */
bool dc_args_has(const dc_args *args, const char *name); /* the option was given */

/* The last value of an option, or NULL; the i-th one (in order), or NULL after the last. */
const char *dc_args_value(const dc_args *args, const char *name);
const char *dc_args_values(const dc_args *args, const char *name, int i);

/* A number; *value stays as it is when the option was not given. Errors name option, value and range. */
dc_status dc_args_int(const dc_args *args, const char *name, int minimum, int maximum, int *value);

/* "usage: dcanas count GENOTYPE [options]", the summary, the options, the help. */
void dc_args_print_help(const char *program, const dc_command *command, FILE *out);

/* One line a command. */
void dc_args_print_commands(const char *program, const dc_command *commands, int n, FILE *out);

#endif
