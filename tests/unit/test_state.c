/* State files: what is put comes back; damage is found or harmless; a crash at any moment leaves a whole file. */
#include "base/files.h"
#include "base/hash.h"
#include "base/rng.h"
#include "base/state.h"
#include "tests/support/temp_dir.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* HDF5 loses a little memory when a write is refused (full_disk_leaves_the_old_file). */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libhdf5";
}

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

static const char *in_directory(const char *name)
{
    static char path[2][DC_PATH_CHARS];
    static int turn;
    turn = !turn;
    assert_int_equal(dc_path_join(directory.path, name, path[turn]), DC_OK);
    return path[turn];
}

static void assert_ok(dc_status status)
{
    if (status)
        fail_msg("%s", dc_status_message());
}

static void assert_message(const char *part)
{
    if (!strstr(dc_status_message(), part) || strchr(dc_status_message(), '\n'))
        fail_msg("'%s' does not say '%s' on one line", dc_status_message(), part);
}

enum { ROWS = 300, COLUMNS = 500 };

/* A small state whose contents all follow from one number. */
static void fill(dc_state *state, int number)
{
    float *floats = malloc(sizeof(float) * ROWS * COLUMNS);
    uint8_t bytes[100];
    for (int i = 0; i < ROWS * COLUMNS; i++)
        floats[i] = (float)(i * 31 + number);
    for (int i = 0; i < 100; i++)
        bytes[i] = (uint8_t)(i + number);
    dc_state_put_i64(state, "search/epoch", number);
    dc_state_put_text(state, "config", "[search]\nepochs = 50\n");
    dc_state_put_floats(state, "search/weights/values", 2, (int64_t[]){ROWS, COLUMNS}, floats);
    dc_state_put_bytes(state, "labels", 1, (int64_t[]){100}, bytes);
    dc_state_put_text(state, "labels/units", "class");
    free(floats);
}

static dc_status save(const char *path, int number)
{
    dc_state *state;
    DC_TRY(dc_state_create(path, &state));
    fill(state, number);
    return dc_state_commit(state, true);
}

/* The number of a state, or -1 with the message when it cannot be read; a wrong content fails the test. */
static int read_back(dc_state *state)
{
    int64_t number = -1;
    static float floats[ROWS * COLUMNS];
    uint8_t bytes[100];
    char *text = NULL;
    dc_state_get_i64(state, "search/epoch", &number);
    dc_state_get_floats(state, "search/weights/values", 2, (int64_t[]){ROWS, COLUMNS}, floats);
    dc_state_get_bytes(state, "labels", 1, (int64_t[]){100}, bytes);
    dc_state_get_text(state, "config", &text);
    if (dc_state_close(state)) {
        free(text);
        return -1;
    }
    assert_string_equal(text, "[search]\nepochs = 50\n");
    free(text);
    for (int i = 0; i < ROWS * COLUMNS; i++)
        assert_true(floats[i] == (float)(i * 31 + (int)number));
    for (int i = 0; i < 100; i++)
        assert_int_equal(bytes[i], (uint8_t)(i + number));
    return (int)number;
}

static int load(const char *path)
{
    dc_state *state;
    return dc_state_open(path, &state) ? -1 : read_back(state);
}

static int load_newest(const char *path)
{
    dc_state *state;
    return dc_state_open_newest(path, &state) ? -1 : read_back(state);
}

static void every_type_comes_back(void **context)
{
    (void)context;
    dc_state *state;
    const char *path = in_directory("types.h5");
    int64_t dims[] = {2, 1, 3, 1}, none[] = {0, 4}, found[DC_STATE_MAX_RANK];
    float f[6] = {1, -2, 3.5f, 0, 1e-30f, 7}, f2[6];
    double d[6] = {1, 2, 3, 4, 5, 1e300}, d2[6];
    int32_t i[6] = {-1, INT32_MIN, 3}, i2[6];
    int64_t l[6] = {INT64_MIN, INT64_MAX}, l2[6];
    uint32_t u[6] = {UINT32_MAX, 1}, u2[6];
    uint64_t q[6] = {UINT64_MAX, 1}, q2[6];
    assert_ok(dc_state_create(path, &state));
    dc_state_put_floats(state, "a/f", 4, dims, f);
    dc_state_put_doubles(state, "a/d", 4, dims, d);
    dc_state_put_int32s(state, "a/b/i", 4, dims, i);
    dc_state_put_int64s(state, "l", 4, dims, l);
    dc_state_put_uint32s(state, "u", 4, dims, u);
    dc_state_put_uint64s(state, "q", 4, dims, q);
    dc_state_put_floats(state, "scalar", 0, NULL, f);
    dc_state_put_floats(state, "none", 2, none, f);
    dc_state_put_u64(state, "seed", UINT64_MAX);
    dc_state_put_double(state, "lambda", 0.1);
    dc_state_put_text(state, "empty", "");
    char *large = calloc(1, 200001);
    memset(large, 'x', 200000);
    dc_state_put_text(state, "large", large);
    assert_ok(dc_state_commit(state, true));

    assert_ok(dc_state_open(path, &state));
    assert_ok(dc_state_get_floats(state, "a/f", 4, dims, f2));
    assert_ok(dc_state_get_doubles(state, "a/d", 4, dims, d2));
    assert_ok(dc_state_get_int32s(state, "a/b/i", 4, dims, i2));
    assert_ok(dc_state_get_int64s(state, "l", 4, dims, l2));
    assert_ok(dc_state_get_uint32s(state, "u", 4, dims, u2));
    assert_ok(dc_state_get_uint64s(state, "q", 4, dims, q2));
    assert_memory_equal(f, f2, sizeof f);
    assert_memory_equal(d, d2, sizeof d);
    assert_memory_equal(i, i2, sizeof i);
    assert_memory_equal(l, l2, sizeof l);
    assert_memory_equal(u, u2, sizeof u);
    assert_memory_equal(q, q2, sizeof q);
    assert_ok(dc_state_get_floats(state, "scalar", 0, NULL, f2));
    assert_ok(dc_state_get_floats(state, "none", 2, none, NULL));
    uint64_t seed;
    double lambda;
    char *text;
    assert_ok(dc_state_get_u64(state, "seed", &seed));
    assert_ok(dc_state_get_double(state, "lambda", &lambda));
    assert_true(seed == UINT64_MAX && lambda == 0.1);
    assert_ok(dc_state_get_text(state, "empty", &text));
    assert_string_equal(text, "");
    free(text);
    assert_ok(dc_state_get_text(state, "large", &text));
    assert_string_equal(text, large);
    free(text);
    free(large);
    dc_state_type type;
    int rank;
    assert_ok(dc_state_shape(state, "a/b/i", &type, &rank, found));
    assert_true(type == DC_STATE_INT32 && rank == 4 && !memcmp(dims, found, sizeof found));
    assert_true(dc_state_has(state, "a") && dc_state_has(state, "a/b/i") && dc_state_has(state, "seed"));
    assert_false(dc_state_has(state, "b") || dc_state_has(state, "a/x/y") || dc_state_has(state, "l/x/y"));
    assert_ok(dc_state_close(state));
}

static void mismatches_are_named(void **context)
{
    (void)context;
    dc_state *state;
    const char *path = in_directory("mismatch.h5");
    float floats[6];
    int64_t number;
    assert_ok(save(path, 5));
    struct {
        const char *name, *message;
        dc_state_type type;
        int rank;
        int64_t dims[2];
    } cases[] = {
        {"labels", "mismatch.h5: array 'labels' is uint8 100, but float 100 is expected", DC_STATE_FLOAT, 1, {100}},
        {"labels", "'labels' is uint8 100, but uint8 99 is expected", DC_STATE_UINT8, 1, {99}},
        {"labels", "'labels' is uint8 100, but uint8 100x1 is expected", DC_STATE_UINT8, 2, {100, 1}},
        {"lables", "mismatch.h5: it has no array 'lables'", DC_STATE_UINT8, 1, {100}},
        {"search", "cannot open the array 'search'", DC_STATE_UINT8, 1, {100}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_ok(dc_state_open(path, &state));
        assert_int_equal(dc_state_get(state, cases[i].name, cases[i].type, cases[i].rank, cases[i].dims, floats),
                         DC_ERR_INPUT);
        assert_message(cases[i].message);
        assert_int_equal(dc_state_get_i64(state, "search/epoch", &number), DC_ERR_INPUT); /* the error sticks */
        assert_int_equal(dc_state_close(state), DC_ERR_INPUT);
        assert_message(cases[i].message);
    }
    assert_ok(dc_state_open(path, &state));
    assert_int_equal(dc_state_get_i64(state, "config", &number), DC_ERR_INPUT);
    assert_message("'config' is not one value of type int64");
    dc_state_close(state);
    assert_ok(dc_state_create(path, &state));
    dc_state_put_i64(state, "a", 1);
    dc_state_put_i64(state, "a", 2);
    assert_int_equal(dc_state_commit(state, true), DC_ERR_INTERNAL);
    assert_message("'a' is put twice");
    assert_int_equal(load(path), 5);
}

static void equal_contents_give_equal_bytes(void **context)
{
    (void)context;
    char *a, *b;
    size_t n, m;
    assert_ok(save(in_directory("a.h5"), 3));
    usleep(1100000); /* a time of change would show */
    assert_ok(save(in_directory("b.h5"), 3));
    assert_ok(dc_file_read(in_directory("a.h5"), &a, &n));
    assert_ok(dc_file_read(in_directory("b.h5"), &b, &m));
    assert_true(n == m && !memcmp(a, b, n));
    free(a);
    free(b);
}

static void the_two_newest_are_kept(void **context)
{
    (void)context;
    const char *path = in_directory("kept.h5");
    assert_false(dc_state_exists(path));
    for (int i = 1; i <= 3; i++)
        assert_ok(save(path, i));
    assert_int_equal(load(path), 3);
    assert_int_equal(load(in_directory("kept.h5.previous")), 2);
    assert_false(dc_file_exists(in_directory("kept.h5.tmp")));
    assert_true(dc_state_exists(in_directory("kept.h5")));
}

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void damage_falls_back(void **context)
{
    (void)context;
    dc_state *state;
    char path[DC_PATH_CHARS], previous[DC_PATH_CHARS];
    strcpy(path, in_directory("damaged.h5"));
    strcpy(previous, in_directory("damaged.h5.previous"));
    assert_ok(save(path, 1));
    assert_ok(save(path, 2));
    assert_int_equal(truncate(path, 100000), 0);
    assert_ok(dc_state_open_newest(path, &state));
    assert_non_null(dc_state_warning(state));
    assert_non_null(strstr(dc_state_warning(state), "damaged.h5 is damaged: it has 100000 bytes"));
    assert_string_equal(dc_state_path(state), previous);
    assert_int_equal(read_back(state), 1);

    assert_ok(save(path, 3)); /* a damaged file must not push the whole one out */
    assert_int_equal(load(path), 3);
    assert_int_equal(load(previous), 1);

    assert_int_equal(unlink(path), 0); /* the moment between the two renames */
    assert_int_equal(load_newest(path), 1);

    write_text(path, "garbage");
    write_text(previous, "");
    assert_int_equal(dc_state_open_newest(path, &state), DC_ERR_INPUT);
    assert_message("damaged.h5 is damaged or no state file");
    assert_message("damaged.h5.previous is damaged or no state file");
    char *text;
    assert_ok(dc_file_read(path, &text, NULL));
    assert_string_equal(text, "garbage");
    free(text);
    assert_int_equal(dc_state_open_newest(in_directory("nothing.h5"), &state), DC_ERR_IO);
    assert_message("No such file");
}

/* Every flipped bit, anywhere, is found. */
static void the_first_bytes_tell_what_it_is_about(void **context)
{
    (void)context;
    char path[DC_PATH_CHARS], about[DC_STATE_ABOUT_CHARS], *bytes;
    dc_state *state;
    size_t size;
    strcpy(path, in_directory("about.h5"));
    assert_ok(save(path, 9));
    assert_ok(dc_state_about(path, about));
    assert_string_equal(about, "");
    assert_ok(dc_state_create(path, &state));
    dc_state_put_i64(state, "x", 1);
    dc_state_put_about(state, "step=%d", 417);
    assert_ok(dc_state_commit(state, false));
    assert_ok(dc_state_about(path, about));
    assert_string_equal(about, "step=417");
    assert_ok(dc_state_open(path, &state));
    assert_ok(dc_state_close(state));
    assert_ok(dc_file_read(path, &bytes, &size));
    char *there = memmem(bytes, 512, "417", 3);
    assert_non_null(there);
    *there = '5'; /* another line than was written */
    assert_ok(dc_file_replace(path, bytes, size));
    assert_int_equal(dc_state_open(path, &state), DC_ERR_INPUT);
    assert_message("is damaged");
    assert_int_equal(truncate(path, 300), 0);
    assert_int_equal(dc_state_about(path, about), DC_ERR_INPUT);
    assert_int_equal(dc_state_about("/nowhere.h5", about), DC_ERR_IO);
    free(bytes);
}

static void flips_are_found(void **context)
{
    (void)context;
    char path[DC_PATH_CHARS], *bytes;
    size_t size;
    strcpy(path, in_directory("flips.h5"));
    assert_ok(save(path, 9));
    assert_ok(dc_file_read(path, &bytes, &size));
    for (uint32_t i = 0; i < 700; i++) {
        uint32_t word[4];
        dc_rng_block((dc_rng_key){1, 2}, i, 0, word);
        /* every byte of the header in turn, then anywhere */
        size_t at = i < 512 ? i : word[0] % size;
        bytes[at] = (char)(bytes[at] ^ (1 << word[1] % 8));
        int fd = open(path, O_WRONLY);
        assert_ok(dc_file_write_all(fd, path, bytes, size));
        close(fd);
        assert_int_equal(load(path), -1);
        assert_message("is damaged");
        bytes[at] = (char)(bytes[at] ^ (1 << word[1] % 8));
    }
    for (size_t cut = size - 1; cut > 0; cut = cut * 3 / 4) {
        assert_int_equal(truncate(path, (off_t)cut), 0);
        assert_int_equal(load(path), -1);
        assert_message("is damaged");
    }
    free(bytes);
}

/* A writer is killed at random moments: the newest or the one before is always there, and the number never falls. */
static void kill_leaves_a_whole_file(void **context)
{
    (void)context;
    char path[DC_PATH_CHARS];
    int last = 0;
    strcpy(path, in_directory("killed.h5"));
    assert_ok(save(path, 0));
    for (uint32_t trial = 0; trial < 25; trial++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (!child) {
            for (int i = last + 1;; i++) {
                if (save(path, i))
                    _exit(1);
            }
        }
        uint32_t word[4];
        dc_rng_block((dc_rng_key){3, 4}, trial, 0, word);
        usleep(1000 + word[0] % 60000);
        kill(child, SIGKILL);
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status));
        int found = load_newest(path);
        assert_true(found >= last);
        last = found;
    }
    assert_true(last > 0); /* it did write */
}

/* A limit on the size of a file stands for a full disk: a write is refused in the middle. */
static void full_disk_leaves_the_old_file(void **context)
{
    (void)context;
    char path[DC_PATH_CHARS];
    struct rlimit before, small;
    strcpy(path, in_directory("full.h5"));
    assert_ok(save(path, 1));
    assert_ok(save(path, 2));
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    small = before;
    static const rlim_t limits[] = {0, 100, 511, 512, 5000, 70000, 300000};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        dc_state *state;
        small.rlim_cur = limits[i];
        setrlimit(RLIMIT_FSIZE, &small);
        dc_status status = save(path, 3);
        char message[256];
        snprintf(message, sizeof message, "%s", dc_status_message());
        dc_status large = dc_state_create_large(path, &state);
        if (!large) {
            fill(state, 3);
            large = dc_state_commit(state, true);
        }
        setrlimit(RLIMIT_FSIZE, &before);
        assert_int_equal(status, DC_ERR_IO);
        assert_non_null(strstr(message, "full.h5.tmp: File too large"));
        assert_int_equal(large, DC_ERR_IO);
        assert_message("full.h5");
        assert_int_equal(load(path), 2);
        assert_false(dc_file_exists(in_directory("full.h5.tmp")));
    }
    assert_int_equal(load(in_directory("full.h5.previous")), 1);
    assert_ok(save(path, 4));
    assert_int_equal(load(path), 4);
    assert_int_equal(save(in_directory("nowhere/x.h5"), 1), DC_ERR_IO);
    assert_message("No such file");
}

static void large_states_are_mapped(void **context)
{
    (void)context;
    dc_state *state;
    char path[DC_PATH_CHARS];
    strcpy(path, in_directory("large.h5"));
    enum { N = 1000, ROW = 48 };
    uint8_t rows[100][ROW];
    assert_ok(dc_state_create_large(path, &state));
    dc_state_reserve(state, "images", DC_STATE_UINT8, 3, (int64_t[]){N, 3, 16});
    dc_state_put_text(state, "images/order", "NCHW");
    for (int first = 0; first + 100 <= N - 100; first += 100) { /* the last hundred is never written */
        for (int i = 0; i < 100; i++)
            memset(rows[i], (first + i) & 0xff, ROW);
        dc_state_put_rows(state, "images", first, 100, rows);
    }
    assert_ok(dc_state_check(state));
    assert_ok(dc_state_commit(state, false));

    assert_ok(dc_state_open_large(path, true, &state));
    int64_t offset, size;
    assert_ok(dc_state_offset(state, "images", &offset, &size));
    assert_int_equal(size, N * ROW);
    assert_int_equal(offset % 64, 0);
    char *bytes;
    assert_ok(dc_file_read(path, &bytes, NULL));
    for (int i = 0; i < N; i++)
        assert_int_equal((uint8_t)bytes[offset + i * ROW + 7], i < N - 100 ? i & 0xff : 0);
    free(bytes);
    dc_state_close(state);

    assert_int_equal(truncate(path, 20000), 0);
    assert_int_equal(dc_state_open_large(path, false, &state), DC_ERR_INPUT);
    assert_message("is damaged: it has 20000 bytes");
    assert_int_equal(dc_state_open_large("/etc/passwd", false, &state), DC_ERR_INPUT);
    assert_message("no state file");
    assert_ok(dc_state_create_large(path, &state));
    dc_state_abandon(state);
    assert_false(dc_file_exists(in_directory("large.h5.tmp")));
}

static void *save_and_load(void *path)
{
    for (int i = 0; i < 5; i++) {
        dc_state *state;
        int64_t number = -1;
        if (save(path, i) || dc_state_open(path, &state))
            return "failed";
        dc_state_get_i64(state, "search/epoch", &number);
        if (dc_state_close(state) || number != i)
            return "failed";
    }
    return NULL;
}

static void threads_save_at_once(void **context)
{
    (void)context;
    pthread_t threads[4];
    char paths[4][DC_PATH_CHARS];
    for (int i = 0; i < 4; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/thread%d.h5", directory.path, i);
        assert_int_equal(pthread_create(&threads[i], NULL, save_and_load, paths[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        void *result;
        pthread_join(threads[i], &result);
        assert_null(result);
        assert_int_equal(load(paths[i]), 4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_comes_back),
        cmocka_unit_test(mismatches_are_named),
        cmocka_unit_test(the_two_newest_are_kept),
        cmocka_unit_test(equal_contents_give_equal_bytes),
        cmocka_unit_test(damage_falls_back),
        cmocka_unit_test(flips_are_found),
        cmocka_unit_test(kill_leaves_a_whole_file),
        cmocka_unit_test(full_disk_leaves_the_old_file),
        cmocka_unit_test(large_states_are_mapped),
        cmocka_unit_test(threads_save_at_once),
        cmocka_unit_test(the_first_bytes_tell_what_it_is_about),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
