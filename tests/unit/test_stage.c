/* Copies of a data set on the node's own storage: made, shared, found again, replaced, removed. */
#include "data/stage.h"
#include "tests/support/tiny_data.h"

#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static tiny_data data;
static temp_dir folder;

static int setup(void **state)
{
    (void)state;
    data = tiny_data_make();
    folder = temp_dir_make();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    temp_dir_remove(&folder);
    tiny_data_remove(&data);
    return 0;
}

static dc_stage open_stage(const char *where)
{
    const dc_comm self = dc_comm_self();
    dc_stage stage;
    if (dc_stage_open(&self, where, data.dataset, &stage) != DC_OK)
        fail_msg("%s", dc_status_message());
    return stage;
}

static size_t files_in_folder(void)
{
    char pattern[DC_PATH_CHARS];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s/*", folder.path);
    const size_t n = glob(pattern, 0, NULL, &found) == 0 ? found.gl_pathc : 0;
    if (n)
        globfree(&found);
    return n;
}

static void test_no_copy_is_the_file_itself(void **state)
{
    (void)state;
    static const char *const ways[] = {"no", "auto"}; /* the test's folder is on no network */
    for (int i = 0; i < 2; i++) {
        dc_stage stage = open_stage(ways[i]);
        assert_false(stage.staged);
        assert_string_equal(stage.path, data.dataset->path);
        dc_stage_close(&stage);
        assert_true(dc_file_exists(data.dataset->path));
    }
}

static void test_the_last_job_removes_a_copy(void **state)
{
    (void)state;
    dc_stage first = open_stage(folder.path);
    assert_true(first.staged && !first.found);
    assert_true(same_file(first.path, data.dataset->path));
    dc_stage second = open_stage(folder.path);
    assert_true(second.staged && second.found);
    assert_string_equal(first.path, second.path);
    assert_int_equal(files_in_folder(), 1);
    dc_stage_close(&first);
    assert_true(dc_file_exists(second.path));
    dc_stage_close(&second);
    assert_int_equal(files_in_folder(), 0);
}

static void test_what_a_killed_job_left_is_used(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        open_stage(folder.path);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(files_in_folder(), 1);
    dc_stage stage = open_stage(folder.path);
    assert_true(stage.found);
    dc_stage_close(&stage);
    assert_int_equal(files_in_folder(), 0);
}

static void test_what_is_no_copy_is_replaced(void **state)
{
    (void)state;
    dc_stage stage = open_stage(folder.path);
    dc_stage_close(&stage);
    for (int same_size = 0; same_size < 2; same_size++) {
        if (same_size)
            copy_file(data.dataset->path, stage.path);
        FILE *file = fopen(stage.path, same_size ? "r+" : "w");
        assert_non_null(file);
        for (int i = 0; i < 300; i++)
            fputs("junk", file);
        fclose(file);
        dc_stage again = open_stage(folder.path);
        assert_true(again.staged && !again.found);
        assert_true(same_file(again.path, data.dataset->path));
        dc_stage_close(&again);
        assert_int_equal(files_in_folder(), 0);
    }
}

static void test_a_folder_without_room_is_said(void **state)
{
    (void)state;
    const dc_comm self = dc_comm_self();
    dc_stage stage;
    assert_int_equal(dc_stage_open(&self, "/nowhere/at/all", data.dataset, &stage), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), "[data] stage = /nowhere/at/all: "));
    assert_non_null(strstr(dc_status_message(), "room for 0 B"));
    dc_stage_close(&stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_no_copy_is_the_file_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_last_job_removes_a_copy, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_a_killed_job_left_is_used, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_no_copy_is_replaced, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_folder_without_room_is_said, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
