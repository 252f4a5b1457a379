#include "base/args.h"

#include "base/text.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

typedef struct given {
    const dc_option *option;
    const char *value; /* NULL for a flag */
} given;

struct dc_args {
    const dc_command *command;
    int n_given, n_arguments;
    given *given;
    const char **arguments;
};

static const dc_option help_option = {"help", NULL, "shows this"};

dc_status dc_args_command(const dc_command *commands, int n, const char *name, const dc_command **command)
{
    const char *nearest = NULL;
    for (int i = 0; i < n; i++) {
        if (!strcmp(commands[i].name, name)) {
            *command = &commands[i];
            return DC_OK;
        }
        dc_text_nearest(name, commands[i].name, &nearest);
    }
    if (nearest)
        return dc_fail(DC_ERR_INPUT, "unknown command '%s'; did you mean '%s'?", name, nearest);
    return dc_fail(DC_ERR_INPUT, "unknown command '%s'; --help lists them", name);
}

static const dc_option *find_option(const dc_command *command, const char *name, size_t length)
{
    for (int i = 0; i < command->n_options; i++) {
        const char *known = command->options[i].name;
        if (strlen(known) == length && !memcmp(known, name, length))
            return &command->options[i];
    }
    return length == 4 && !memcmp(name, "help", 4) ? &help_option : NULL;
}

static dc_status unknown_option(const dc_command *command, const char *argument)
{
    const char *nearest = NULL, *dashes = argument[1] == '-' ? "--" : "-";
    const char *name = argument + strlen(dashes);
    int length = (int)strcspn(name, "=");
    char wanted[64];
    snprintf(wanted, sizeof wanted, "%.*s", length, name);
    for (int i = 0; i < command->n_options; i++)
        dc_text_nearest(wanted, command->options[i].name, &nearest);
    if (nearest)
        return dc_fail(DC_ERR_INPUT, "%s: unknown option '%s%.*s'; did you mean '--%s'?", command->name, dashes, length,
                       name, nearest);
    return dc_fail(DC_ERR_INPUT, "%s: unknown option '%s%.*s'; --help lists them", command->name, dashes, length, name);
}

/* Takes one "--..." at argv[*i], and its value when that is the next argument. */
static dc_status take_option(dc_args *args, int argc, char *const *argv, int *i)
{
    const char *argument = argv[*i], *name = argument + 2;
    if (!strcmp(argument, "-h"))
        name = "help";
    else if (argument[1] != '-')
        return unknown_option(args->command, argument);
    size_t length = strcspn(name, "=");
    const dc_option *option = find_option(args->command, name, length);
    const char *value = name[length] == '=' ? name + length + 1 : NULL;
    if (!option)
        return unknown_option(args->command, argument);
    if (!option->value && value)
        return dc_fail(DC_ERR_INPUT, "%s: --%s takes no value", args->command->name, option->name);
    if (option->value && !value) {
        if (*i + 1 >= argc)
            return dc_fail(DC_ERR_INPUT, "%s: --%s needs a value: --%s %s", args->command->name, option->name,
                           option->name, option->value);
        value = argv[++*i];
    }
    args->given[args->n_given++] = (given){option, value};
    return DC_OK;
}

static dc_status check_count(const dc_args *args)
{
    const dc_command *command = args->command;
    const char *usage = *command->arguments ? command->arguments : "nothing";
    if (dc_args_has(args, "help"))
        return DC_OK;
    if (args->n_arguments < command->min_arguments)
        return dc_fail(DC_ERR_INPUT, "%s: an argument is missing: %s expected", command->name, usage);
    if (args->n_arguments > command->max_arguments)
        return dc_fail(DC_ERR_INPUT, "%s: unexpected argument '%s': %s expected", command->name,
                       args->arguments[command->max_arguments], usage);
    return DC_OK;
}

static dc_status parse(dc_args *args, int argc, char *const *argv)
{
    bool options = true;
    for (int i = 0; i < argc; i++) {
        if (options && !strcmp(argv[i], "--"))
            options = false;
        else if (options && argv[i][0] == '-' && argv[i][1])
            DC_TRY(take_option(args, argc, argv, &i));
        else
            args->arguments[args->n_arguments++] = argv[i];
    }
    return check_count(args);
}

dc_status dc_args_parse(const dc_command *command, int argc, char *const *argv, dc_args **args)
{
    dc_args *made = dc_alloc_zeroed(sizeof *made);
    if (!made)
        return DC_ERR_MEMORY;
    made->command = command;
    made->given = dc_alloc_zeroed((size_t)(argc + 1) * sizeof *made->given);
    made->arguments = dc_alloc_zeroed((size_t)(argc + 1) * sizeof *made->arguments);
    dc_status status = made->given && made->arguments ? parse(made, argc, argv) : DC_ERR_MEMORY;
    if (status) {
        dc_args_destroy(made);
        return status;
    }
    *args = made;
    return DC_OK;
}

void dc_args_destroy(dc_args *args)
{
    if (!args)
        return;
    free(args->given);
    free(args->arguments);
    free(args);
}

int dc_args_count(const dc_args *args)
{
    return args->n_arguments;
}

const char *dc_args_at(const dc_args *args, int index)
{
    return index < args->n_arguments ? args->arguments[index] : NULL;
}

bool dc_args_has(const dc_args *args, const char *name)
{
    for (int i = 0; i < args->n_given; i++) {
        if (!strcmp(args->given[i].option->name, name))
            return true;
    }
    return false;
}

const char *dc_args_values(const dc_args *args, const char *name, int i)
{
    for (int j = 0; j < args->n_given; j++) {
        if (!strcmp(args->given[j].option->name, name) && i-- == 0)
            return args->given[j].value;
    }
    return NULL;
}

const char *dc_args_value(const dc_args *args, const char *name)
{
    const char *value = NULL;
    for (int j = 0; j < args->n_given; j++) {
        if (!strcmp(args->given[j].option->name, name))
            value = args->given[j].value;
    }
    return value;
}

dc_status dc_args_int(const dc_args *args, const char *name, int minimum, int maximum, int *value)
{
    const char *text = dc_args_value(args, name);
    if (!text)
        return DC_OK;
    char *end;
    errno = 0;
    long number = strtol(text, &end, 10);
    if (end == text || *end)
        return dc_fail(DC_ERR_INPUT, "%s: --%s %s is not a whole number", args->command->name, name, text);
    if (errno || number < minimum || number > maximum)
        return dc_fail(DC_ERR_INPUT, "%s: --%s %s is out of range: %d to %d", args->command->name, name, text, minimum,
                       maximum);
    *value = (int)number;
    return DC_OK;
}

static void print_option(const dc_option *option, int width, FILE *out)
{
    const char *value = option->value ? option->value : "";
    int used = fprintf(out, "  --%s%s%s", option->name, *value ? " " : "", value);
    fprintf(out, "%*s%s\n", used < width ? width - used : 2, "", option->help);
}

void dc_args_print_help(const char *program, const dc_command *command, FILE *out)
{
    int width = 0;
    for (int i = 0; i < command->n_options; i++) {
        const dc_option *option = &command->options[i];
        int needed = (int)(strlen(option->name) + (option->value ? strlen(option->value) + 1 : 0)) + 6;
        width = needed > width && needed <= 32 ? needed : width;
    }
    width = width > 12 ? width : 12;
    fprintf(out, "usage: %s %s%s%s [options]\n\n%s\n\noptions:\n", program, command->name,
            *command->arguments ? " " : "", command->arguments, command->summary);
    for (int i = 0; i < command->n_options; i++)
        print_option(&command->options[i], width, out);
    print_option(&help_option, width, out);
    if (command->help)
        fprintf(out, "\n%s\n", command->help);
}

void dc_args_print_commands(const char *program, const dc_command *commands, int n, FILE *out)
{
    int width = 0;
    for (int i = 0; i < n; i++) {
        int length = (int)strlen(commands[i].name);
        width = length > width ? length : width;
    }
    fprintf(out, "usage: %s COMMAND [arguments] [options]\n\ncommands:\n", program);
    for (int i = 0; i < n; i++)
        fprintf(out, "  %-*s  %s\n", width, commands[i].name, commands[i].summary);
    fprintf(out, "\n%s COMMAND --help says more about one.\n", program);
}
