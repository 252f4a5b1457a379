/* Logs, events and tables: who sees what, and what a crash leaves. */
#include "base/events.h"
#include "base/files.h"
#include "base/log.h"
#include "tests/support/temp_dir.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
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

static void path_of(const char *name, char path[DC_PATH_CHARS])
{
    assert_int_equal(dc_path_join(directory.path, name, path), DC_OK);
}

static void assert_ok(dc_status status)
{
    if (status)
        fail_msg("%s", dc_status_message());
}

static void assert_file(const char *path, const char *expected)
{
    char *text;
    assert_ok(dc_file_read(path, &text, NULL));
    assert_string_equal(text, expected);
    free(text);
}

static void write_text(const char *path, const char *text)
{
    assert_ok(dc_file_replace_text(path, text));
}

typedef void script(dc_log *log);

/* Runs a script with standard output and error going to files, and gives back what they got. */
static void run(int rank, bool terminal, const char *path, script *play, char **out, char **err)
{
    char names[2][DC_PATH_CHARS];
    int saved[2], failed;
    path_of("out", names[0]);
    path_of("err", names[1]);
    fflush(stdout);
    fflush(stderr);
    for (int i = 0; i < 2; i++) {
        saved[i] = dup(1 + i);
        int fd = open(names[i], O_RDWR | O_CREAT | O_TRUNC, 0600);
        dup2(fd, 1 + i);
        close(fd);
    }
    dc_log *log = NULL;
    failed = dc_log_open(rank, 2, terminal, path, &log) != DC_OK;
    if (!failed)
        play(log);
    dc_log_close(log);
    fflush(stderr);
    for (int i = 0; i < 2; i++) {
        dup2(saved[i], 1 + i);
        close(saved[i]);
    }
    assert_false(failed);
    assert_ok(dc_file_read(names[0], out, NULL));
    assert_ok(dc_file_read(names[1], err, NULL));
}

static void speak(dc_log *log)
{
    dc_log_info(log, "epoch %d", 3);
    dc_log_warn(log, "slow");
    dc_fail(DC_ERR_IO, "lost");
    dc_log_end(log, DC_ERR_IO);
    dc_log_end(log, DC_OK);
}

/* Takes the times away, "2025-01-31 12:00:01  ", at the beginning of lines. */
static void without_times(char *text)
{
    char *to = text;
    for (char *from = text; *from;) {
        assert_true(strlen(from) > 21 && from[4] == '-' && from[10] == ' ' && from[13] == ':');
        from += 21;
        size_t n = strcspn(from, "\n") + 1;
        memmove(to, from, n);
        to += n;
        from += n;
    }
    *to = 0;
}

static void ranks_say_what_is_theirs(void **context)
{
    (void)context;
    char path[DC_PATH_CHARS], *out, *err, *file;
    path_of("log.txt", path);
    run(0, false, path, speak, &out, &err);
    without_times(out);
    without_times(err);
    assert_string_equal(out, "epoch 3\n");
    assert_string_equal(err, "warning: slow\n");
    assert_ok(dc_file_read(path, &file, NULL));
    without_times(file);
    assert_string_equal(file, "epoch 3\nwarning: slow\nerror: lost\n");
    free(out);
    free(err);
    free(file);
    run(1, true, NULL, speak, &out, &err);
    without_times(err);
    assert_string_equal(out, "");
    assert_string_equal(err, "[rank 1] warning: slow\n");
    free(out);
    free(err);
    run(0, true, NULL, speak, &out, &err);
    assert_string_equal(out, "epoch 3\nwarning: slow\n");
    free(out);
    free(err);
    dc_log *log;
    assert_int_equal(dc_log_open(0, 1, false, "/nowhere/log.txt", &log), DC_ERR_IO);
    dc_log_info(NULL, "nobody hears");
    assert_false(dc_log_status_due(NULL));
    dc_log_status(NULL, 0, NULL);
}

static void show_status(dc_log *log)
{
    const char *lines[] = {"search 1", "search 2"}, *more[] = {"search 1 again", "search 2 again"};
    assert_true(dc_log_status_due(log));
    dc_log_status(log, 2, lines);
    assert_false(dc_log_status_due(log));
    dc_log_status(log, 2, more); /* too soon */
    dc_log_info(log, "found");
    usleep(250000);
    dc_log_status(log, 1, more);
}

static void status_is_redrawn_or_thinned(void **context)
{
    (void)context;
    char *out, *err;
    run(0, true, NULL, show_status, &out, &err);
    assert_string_equal(out, "search 1\nsearch 2\n"
                             "\033[2A\r\033[Jfound\nsearch 1\nsearch 2\n"
                             "\033[2A\r\033[Jsearch 1 again\n"
                             "\033[1A\r\033[J");
    free(out);
    free(err);
    run(0, false, NULL, show_status, &out, &err);
    without_times(out);
    assert_string_equal(out, "search 1\nsearch 2\nfound\n");
    free(out);
    free(err);
}

static dc_status put_event(dc_events *events, int step)
{
    cJSON *event = dc_event_create("step");
    cJSON_AddNumberToObject(event, "step", step);
    return dc_events_write(events, event);
}

/* The steps in an events file, each line parsed. */
static int count_events(const char *path, int first)
{
    char *text, *line, *rest;
    int n = 0;
    assert_ok(dc_file_read(path, &text, NULL));
    assert_true(!*text || text[strlen(text) - 1] == '\n');
    for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest), n++) {
        cJSON *event = cJSON_Parse(line);
        assert_non_null(event);
        assert_string_equal(cJSON_GetObjectItem(event, "event")->valuestring, "step");
        assert_int_equal(cJSON_GetObjectItem(event, "step")->valueint, first + n);
        assert_true(cJSON_GetObjectItem(event, "time")->valuedouble > 1e9);
        cJSON_Delete(event);
    }
    free(text);
    return n;
}

static void events_survive_a_torn_line(void **context)
{
    (void)context;
    char path[DC_PATH_CHARS];
    struct stat info;
    dc_events *events;
    path_of("events.jsonl", path);
    assert_ok(dc_events_open(path, &events));
    for (int i = 0; i < 3; i++)
        assert_ok(put_event(events, i));
    dc_events_close(events);
    assert_int_equal(count_events(path, 0), 3);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(truncate(path, info.st_size - 5), 0);
    assert_ok(dc_events_open(path, &events));
    assert_ok(put_event(events, 2));
    dc_events_close(events);
    assert_int_equal(count_events(path, 0), 3);

    char *torn = malloc(10000); /* longer than one piece of the search for its beginning */
    memset(torn, 'x', 9999);
    torn[9999] = 0;
    write_text(path, torn);
    free(torn);
    assert_ok(dc_events_open(path, &events));
    dc_events_close(events);
    assert_file(path, "");
    assert_ok(dc_events_write(NULL, dc_event_create("nobody")));
    assert_int_equal(dc_events_open("/nowhere/events.jsonl", &events), DC_ERR_IO);
}

static void a_full_disk_leaves_whole_lines(void **context)
{
    (void)context;
    char path[DC_PATH_CHARS];
    struct rlimit before, small;
    dc_events *events;
    path_of("full.jsonl", path);
    assert_ok(dc_events_open(path, &events));
    assert_ok(put_event(events, 0));
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    small = before;
    small.rlim_cur = 70;
    setrlimit(RLIMIT_FSIZE, &small);
    dc_status status = put_event(events, 1);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(status, DC_ERR_IO);
    assert_ok(put_event(events, 1));
    dc_events_close(events);
    assert_int_equal(count_events(path, 0), 2);
}

static void tables_resume_where_the_checkpoint_is(void **context)
{
    (void)context;
    char path[DC_PATH_CHARS];
    dc_csv *csv;
    path_of("train.csv", path);
    assert_ok(dc_csv_open(path, "epoch,loss", -1, &csv));
    for (int i = 1; i <= 4; i++)
        assert_ok(dc_csv_write(csv, "%d,%.2f", i, 1.0 / i));
    dc_csv_close(csv);
    assert_file(path, "epoch,loss\n1,1.00\n2,0.50\n3,0.33\n4,0.25\n");

    assert_ok(dc_csv_open(path, "epoch,loss", 2, &csv));
    assert_file(path, "epoch,loss\n1,1.00\n2,0.50\n");
    assert_ok(dc_csv_write(csv, "3,0.34"));
    dc_csv_close(csv);
    write_text(path, "epoch,loss\n1,1.00\n2,0.5");
    assert_ok(dc_csv_open(path, "epoch,loss", 5, &csv));
    dc_csv_close(csv);
    assert_file(path, "epoch,loss\n1,1.00\n");

    assert_int_equal(dc_csv_open(path, "epoch,loss,accuracy", 5, &csv), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), "train.csv has the columns epoch,loss, not epoch,loss,accuracy"));
    assert_file(path, "epoch,loss\n1,1.00\n");
    assert_ok(dc_csv_open(path, "epoch,loss,accuracy", -1, &csv));
    dc_csv_close(csv);
    assert_file(path, "epoch,loss,accuracy\n");
    write_text(path, "epo"); /* killed in the header */
    assert_ok(dc_csv_open(path, "epoch,loss", 5, &csv));
    dc_csv_close(csv);
    assert_file(path, "epoch,loss\n");
    assert_ok(dc_csv_write(NULL, "nobody"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_say_what_is_theirs),
        cmocka_unit_test(status_is_redrawn_or_thinned),
        cmocka_unit_test(events_survive_a_torn_line),
        cmocka_unit_test(a_full_disk_leaves_whole_lines),
        cmocka_unit_test(tables_resume_where_the_checkpoint_is),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
