/* Files, locks, signals, clock and command lines. */
#include "base/args.h"
#include "base/clock.h"
#include "base/files.h"
#include "base/signals.h"
#include "tests/support/temp_dir.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static temp_dir directory;

static int set_up(void **context)
{
    (void)context;
    directory = temp_dir_make();
    return 0;
}

static int tear_down(void **context)
{
    (void)context;
    temp_dir_remove(&directory);
    return 0;
}

static void assert_ok(dc_status status)
{
    if (status)
        fail_msg("%s", dc_status_message());
}

static void assert_message(const char *part)
{
    if (!strstr(dc_status_message(), part))
        fail_msg("'%s' does not say '%s'", dc_status_message(), part);
}

static void paths_are_joined(void **context)
{
    (void)context;
    char path[DC_PATH_CHARS], *name = calloc(1, 5000);
    assert_ok(dc_path_join("a/b", "c", path));
    assert_string_equal(path, "a/b/c");
    assert_ok(dc_path_join("a/", "c", path));
    assert_string_equal(path, "a/c");
    assert_ok(dc_path_join("", "c", path));
    assert_string_equal(path, "c");
    memset(name, 'x', 4999);
    assert_int_equal(dc_path_join("a", name, path), DC_ERR_INPUT);
    free(name);
    assert_ok(dc_path_directory("a/b/c", path));
    assert_string_equal(path, "a/b");
    assert_ok(dc_path_directory("c", path));
    assert_string_equal(path, ".");
    assert_ok(dc_path_directory("/c", path));
    assert_string_equal(path, "/");
}

static void directories_are_made(void **context)
{
    (void)context;
    char path[DC_PATH_CHARS], file[DC_PATH_CHARS];
    assert_ok(dc_path_join(directory.path, "a//b/c/", path));
    assert_ok(dc_directory_create(path));
    assert_ok(dc_directory_create(path));
    assert_true(dc_file_exists(path));
    assert_ok(dc_path_join(path, "file", file));
    assert_ok(dc_file_replace_text(file, "x"));
    assert_ok(dc_path_join(file, "d", path));
    assert_int_equal(dc_directory_create(path), DC_ERR_IO);
    assert_message("/file: a file of that name stands there");
    assert_int_equal(dc_directory_create("/proc/nothing/here"), DC_ERR_IO);
    assert_message("cannot create the directory /proc/nothing");
    assert_int_equal(dc_directory_create(""), DC_ERR_INPUT);
}

static void files_are_replaced_whole(void **context)
{
    (void)context;
    char path[DC_PATH_CHARS], temporary[DC_PATH_CHARS], *data;
    size_t size;
    assert_ok(dc_path_join(directory.path, "text", path));
    assert_ok(dc_path_join(directory.path, "text.tmp", temporary));
    assert_ok(dc_file_replace_text(path, "one"));
    assert_ok(dc_file_replace(path, "t\0o", 3));
    assert_ok(dc_file_read(path, &data, &size));
    assert_true(size == 3 && !memcmp(data, "t\0o", 4));
    free(data);
    assert_ok(dc_directory_create(temporary)); /* the temporary file cannot be made */
    assert_int_equal(dc_file_replace_text(path, "three"), DC_ERR_IO);
    assert_ok(dc_file_read(path, &data, &size));
    assert_int_equal(size, 3);
    free(data);
    rmdir(temporary);
    assert_ok(dc_file_read("/proc/self/status", &data, &size)); /* a file that has no size beforehand */
    assert_true(size > 100 && strlen(data) == size);
    free(data);
    assert_int_equal(dc_file_read(directory.path, &data, &size), DC_ERR_IO);
    assert_message("it is a directory");
}

static void signals_only_ask(void **context)
{
    (void)context;
    static const int numbers[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2};
    assert_ok(dc_signals_install());
    assert_int_equal(dc_signals_received(), 0);
    for (int i = 0; i < 4; i++) {
        for (int again = 0; again < 3; again++)
            raise(numbers[i]);
        assert_int_equal(dc_signals_received(), numbers[i]);
        dc_signals_clear();
        assert_int_equal(dc_signals_received(), 0);
    }
    raise(SIGPIPE);
    assert_int_equal(dc_signals_received(), 0);
}

static void the_clock_goes_forward(void **context)
{
    (void)context;
    char stamp[DC_CLOCK_CHARS];
    double start = dc_clock_seconds();
    usleep(20000);
    double passed = dc_clock_seconds() - start;
    assert_true(passed >= 0.02 && passed < 5);
    assert_true(dc_clock_wall() > 1.6e9);
    assert_int_equal(strlen(dc_clock_stamp(stamp)), 19);
}

static const dc_option options[] = {{"set", "SECTION.KEY=VALUE", "changes one key; may be repeated"},
                                    {"json", NULL, "prints JSON"},
                                    {"channels", "N", "width"}};
static const dc_command commands[] = {
    {"count", "GENOTYPE", 1, 1, options, 3, "counts a network", "Says what a network costs."},
    {"limits", "", 0, 0, options, 2, "shows the limits of a space", NULL}};

static dc_status parse(dc_args **args, int n, char *const *argv)
{
    return dc_args_parse(&commands[0], n, argv, args);
}

static void command_lines_are_parsed(void **context)
{
    (void)context;
    dc_args *args;
    int channels = 7;
    char *argv[] = {"--set", "a.b=1", "DARTS_V2", "--channels=36", "--set=c.d=2", "--json"};
    assert_ok(parse(&args, 6, argv));
    assert_int_equal(dc_args_count(args), 1);
    assert_string_equal(dc_args_at(args, 0), "DARTS_V2");
    assert_null(dc_args_at(args, 1));
    assert_true(dc_args_has(args, "json") && !dc_args_has(args, "help"));
    assert_string_equal(dc_args_values(args, "set", 0), "a.b=1");
    assert_string_equal(dc_args_values(args, "set", 1), "c.d=2");
    assert_null(dc_args_values(args, "set", 2));
    assert_ok(dc_args_int(args, "channels", 1, 100, &channels));
    assert_ok(dc_args_int(args, "cells", 1, 100, &channels));
    assert_true(channels == 36);
    assert_int_equal(dc_args_int(args, "channels", 1, 10, &channels), DC_ERR_INPUT);
    assert_string_equal(dc_status_message(), "count: --channels 36 is out of range: 1 to 10");
    assert_int_equal(dc_args_int(args, "set", 1, 10, &channels), DC_ERR_INPUT);
    assert_string_equal(dc_status_message(), "count: --set c.d=2 is not a whole number");
    dc_args_destroy(args);

    char *dashes[] = {"--", "--json"}, *help[] = {"-h"};
    assert_ok(parse(&args, 2, dashes));
    assert_string_equal(dc_args_at(args, 0), "--json");
    dc_args_destroy(args);
    assert_ok(parse(&args, 1, help));
    assert_true(dc_args_has(args, "help"));
    dc_args_destroy(args);
}

static void bad_command_lines_are_explained(void **context)
{
    (void)context;
    dc_args *args;
    const dc_command *command;
    static const struct {
        int n;
        char *argv[2];
        const char *message;
    } cases[] = {
        {2, {"g", "--jsn"}, "count: unknown option '--jsn'; did you mean '--json'?"},
        {2, {"g", "--chanels=3"}, "count: unknown option '--chanels'; did you mean '--channels'?"},
        {2, {"g", "-x"}, "count: unknown option '-x'; --help lists them"},
        {2, {"g", "--channels"}, "count: --channels needs a value: --channels N"},
        {2, {"g", "--json=1"}, "count: --json takes no value"},
        {2, {"g", "h"}, "count: unexpected argument 'h': GENOTYPE expected"},
        {0, {NULL}, "count: an argument is missing: GENOTYPE expected"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(parse(&args, cases[i].n, cases[i].argv), DC_ERR_INPUT);
        assert_string_equal(dc_status_message(), cases[i].message);
    }
    assert_ok(dc_args_command(commands, 2, "limits", &command));
    assert_ptr_equal(command, &commands[1]);
    assert_int_equal(dc_args_command(commands, 2, "limit", &command), DC_ERR_INPUT);
    assert_string_equal(dc_status_message(), "unknown command 'limit'; did you mean 'limits'?");
}

static void help_lists_everything(void **context)
{
    (void)context;
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    dc_args_print_help("dcanas", &commands[0], out);
    dc_args_print_commands("dcanas", commands, 2, out);
    fclose(out);
    assert_non_null(strstr(text, "usage: dcanas count GENOTYPE [options]\n\ncounts a network\n"));
    assert_non_null(strstr(text, "  --set SECTION.KEY=VALUE  changes one key; may be repeated\n"));
    assert_non_null(strstr(text, "  --help                   shows this\n"));
    assert_non_null(strstr(text, "  limits  shows the limits of a space\n"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_are_joined),
        cmocka_unit_test(directories_are_made),
        cmocka_unit_test(files_are_replaced_whole),
        cmocka_unit_test(signals_only_ask),
        cmocka_unit_test(the_clock_goes_forward),
        cmocka_unit_test(command_lines_are_parsed),
        cmocka_unit_test(bad_command_lines_are_explained),
        cmocka_unit_test(help_lists_everything),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
