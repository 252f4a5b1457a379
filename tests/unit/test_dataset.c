/* The data set file: what is written comes back, and nothing that is damaged or inconsistent opens. */
#include "base/files.h"
#include "base/state.h"
#include "data/dataset.h"
#include "tests/support/temp_dir.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_TRAIN = 50, N_TEST = 20, C = 2, H = 4, W = 3, CLASSES = 3, PIXELS = C * H * W };

static uint8_t pixels[DC_SPLIT_COUNT][N_TRAIN * PIXELS];
static int32_t labels[DC_SPLIT_COUNT][N_TRAIN];

static dc_dataset_content small_content(void)
{
    static const char *const names[CLASSES] = {"cat", "dog", "a longer name with spaces"};
    for (uint32_t s = 0; s < DC_SPLIT_COUNT; s++)
        for (uint32_t i = 0; i < N_TRAIN * PIXELS; i++) {
            pixels[s][i] = (uint8_t)((i + s) * 2654435761u >> 24);
            labels[s][i / PIXELS] = (int32_t)(i / PIXELS % CLASSES);
        }
    return (dc_dataset_content){"small",
                                {C, H, W},
                                CLASSES,
                                names,
                                {{.n = N_TRAIN, .pixels = pixels[DC_SPLIT_TRAIN], .labels = labels[DC_SPLIT_TRAIN]},
                                 {.n = N_TEST, .pixels = pixels[DC_SPLIT_TEST], .labels = labels[DC_SPLIT_TEST]}}};
}

static int setup(void **state)
{
    static temp_dir dir;
    dir = temp_dir_make();
    *state = &dir;
    return 0;
}

static int teardown(void **state)
{
    temp_dir_remove(*state);
    return 0;
}

static void assert_one_line_about(const char *what)
{
    if (!strstr(dc_status_message(), what) || strchr(dc_status_message(), '\n'))
        fail_msg("the message should be one line about '%s': %s", what, dc_status_message());
}

static void test_round_trip(void **state)
{
    dc_dataset_content content = small_content();
    temp_path path = temp_dir_path(*state, "small.h5");
    assert_int_equal(dc_dataset_write(path.s, &content), DC_OK);
    assert_int_equal(temp_dir_count(((temp_dir *)*state)->path), 1);
    dc_dataset *dataset;
    if (dc_dataset_open(path.s, &dataset) != DC_OK)
        fail_msg("%s", dc_status_message());
    assert_string_equal(dataset->name, "small");
    assert_memory_equal(&dataset->shape, &content.shape, sizeof content.shape);
    assert_int_equal(dataset->n_classes, CLASSES);
    for (int i = 0; i < CLASSES; i++)
        assert_string_equal(dataset->classes[i], content.classes[i]);
    for (int s = 0; s < DC_SPLIT_COUNT; s++) {
        uint32_t n = content.split[s].n;
        assert_int_equal(dataset->split[s].n, n);
        assert_memory_equal(dataset->split[s].pixels, pixels[s], n * PIXELS);
        assert_memory_equal(dataset->split[s].labels, labels[s], n * sizeof(int32_t));
    }
    for (int c = 0; c < C; c++) {
        double sum = 0, squares = 0, n = N_TRAIN * H * W;
        for (int i = 0; i < N_TRAIN; i++)
            for (int k = 0; k < H * W; k++) {
                double x = pixels[DC_SPLIT_TRAIN][(i * C + c) * H * W + k] / 255.0;
                sum += x;
                squares += x * x;
            }
        assert_true(fabs(dataset->mean[c] - sum / n) < 1e-12);
        assert_true(fabs(dataset->deviation[c] - sqrt(squares / n - sum / n * sum / n)) < 1e-9);
    }
    assert_int_equal(dc_dataset_verify(dataset), DC_OK);
    assert_int_equal(dc_dataset_check_unchanged(dataset), DC_OK);
    uint64_t hash = dataset->hash;
    dc_dataset_close(dataset);

    /* the hash follows the contents and nothing else */
    content.name = "renamed";
    assert_int_equal(dc_dataset_write(path.s, &content), DC_OK);
    assert_int_equal(dc_dataset_open(path.s, &dataset), DC_OK);
    assert_true(dataset->hash == hash);
    dc_dataset_close(dataset);
    labels[DC_SPLIT_TEST][7] = (labels[DC_SPLIT_TEST][7] + 1) % CLASSES;
    assert_int_equal(dc_dataset_write(path.s, &content), DC_OK);
    assert_int_equal(dc_dataset_open(path.s, &dataset), DC_OK);
    assert_true(dataset->hash != hash);
    dc_dataset_close(dataset);
    dc_dataset_close(NULL);
}

static void test_writing_refuses_nonsense_and_leaves_nothing(void **state)
{
    const temp_dir *dir = *state;
    temp_path path = temp_dir_path(dir, "small.h5");
    dc_dataset_content content = small_content();
    labels[DC_SPLIT_TRAIN][9] = CLASSES;
    assert_int_equal(dc_dataset_write(path.s, &content), DC_ERR_INPUT);
    assert_one_line_about("label 3 of image 9");
    content = small_content();
    content.split[DC_SPLIT_TEST].n = 0;
    assert_int_equal(dc_dataset_write(path.s, &content), DC_ERR_INPUT);
    assert_one_line_about("test images");
    assert_int_equal(temp_dir_count(dir->path), 0);
    content = small_content();
    temp_path nowhere = temp_dir_path(dir, "missing/small.h5");
    assert_int_not_equal(dc_dataset_write(nowhere.s, &content), DC_OK);
    assert_one_line_about("missing/small.h5");
    assert_int_equal(temp_dir_count(dir->path), 0);
}

static void assert_refused(const char *path, const char *what)
{
    dc_dataset *dataset;
    assert_int_not_equal(dc_dataset_open(path, &dataset), DC_OK);
    assert_null(dataset);
    assert_one_line_about(what);
    assert_one_line_about(strrchr(path, '/') + 1);
}

static void test_damaged_files_do_not_open(void **state)
{
    dc_dataset_content content = small_content();
    temp_path path = temp_dir_path(*state, "small.h5"), bad = temp_dir_path(*state, "bad.h5");
    assert_int_equal(dc_dataset_write(path.s, &content), DC_OK);
    char *bytes;
    size_t size;
    assert_int_equal(dc_file_read(path.s, &bytes, &size), DC_OK);
    for (size_t length = 0; length < size; length += length < 1024 ? 97 : size / 23) {
        temp_file_write(bad.s, bytes, length);
        assert_refused(bad.s, "");
    }
    for (size_t at = 0; at < size; at += size / 61) {
        bytes[at] ^= 0x10;
        temp_file_write(bad.s, bytes, size);
        assert_refused(bad.s, "");
        bytes[at] ^= 0x10;
    }
    memset(bytes, 'x', size);
    temp_file_write(bad.s, bytes, size);
    assert_refused(bad.s, "");
    free(bytes);
    assert_refused(temp_dir_path(*state, "missing.h5").s, "No such file");
    assert_refused(((temp_dir *)*state)->path, "no data set");
}

/* A whole, undamaged file, with one thing wrong in it. */
typedef struct wrong {
    const char *about; /* what the message must contain */
    int64_t version, n_images, n_labels, test_height;
    double mean;
    int32_t label;
    bool no_classes, images_as_floats, name_without_end;
    const char *format;
} wrong;

static void write_wrong(const char *path, const wrong *w)
{
    dc_dataset_content content = small_content();
    static float floats[N_TRAIN * PIXELS];
    char classes[CLASSES][DC_CLASS_NAME_CHARS] = {"a", "b", "c"};
    if (w->name_without_end)
        memset(classes[1], 'x', sizeof classes[1]);
    labels[DC_SPLIT_TEST][3] = w->label;
    double mean[C] = {0.5, w->mean}, std[C] = {0.1, 0.1};
    dc_state *state;
    assert_int_equal(dc_state_create_large(path, &state), DC_OK);
    dc_state_put_text(state, "format", w->format);
    dc_state_put_i64(state, "version", w->version);
    dc_state_put_text(state, "name", "wrong");
    dc_state_put_u64(state, "hash", 1);
    dc_state_put_doubles(state, "mean", 1, (int64_t[]){C}, mean);
    dc_state_put_doubles(state, "std", 1, (int64_t[]){C}, std);
    if (!w->no_classes)
        dc_state_put_bytes(state, "classes", 2, (int64_t[]){CLASSES, DC_CLASS_NAME_CHARS}, (uint8_t *)classes);
    int64_t train[] = {w->n_images, C, H, W}, test[] = {N_TEST, C, w->test_height, W};
    dc_state_reserve(state, "train/images", w->images_as_floats ? DC_STATE_FLOAT : DC_STATE_UINT8, 4, train);
    dc_state_put_rows(state, "train/images", 0, w->n_images,
                      w->images_as_floats ? (void *)floats : (void *)pixels[DC_SPLIT_TRAIN]);
    dc_state_reserve(state, "train/labels", DC_STATE_INT32, 1, &w->n_labels);
    dc_state_put_rows(state, "train/labels", 0, w->n_labels, content.split[DC_SPLIT_TRAIN].labels);
    dc_state_reserve(state, "test/images", DC_STATE_UINT8, 4, test);
    dc_state_put_rows(state, "test/images", 0, N_TEST, pixels[DC_SPLIT_TEST]);
    dc_state_reserve(state, "test/labels", DC_STATE_INT32, 1, (int64_t[]){N_TEST});
    dc_state_put_rows(state, "test/labels", 0, N_TEST, labels[DC_SPLIT_TEST]);
    if (dc_state_commit(state, false) != DC_OK)
        fail_msg("%s", dc_status_message());
}

static void test_inconsistent_files_do_not_open(void **state)
{
    const wrong right = {"", 1, N_TRAIN, N_TRAIN, H, 0.5, 0, false, false, false, "dcanas data set"};
    temp_path path = temp_dir_path(*state, "wrong.h5");
    dc_dataset *dataset;
    write_wrong(path.s, &right);
    assert_int_equal(dc_dataset_open(path.s, &dataset), DC_OK); /* the rest shows what is wrong with the others */
    assert_int_equal(dc_dataset_verify(dataset), DC_ERR_INPUT);
    assert_one_line_about("hash");
    dc_dataset_close(dataset);

    wrong cases[] = {right, right, right, right, right, right, right, right, right, right, right, right};
    int n = 0;
    cases[n].version = 2, cases[n++].about = "storage";
    cases[n].version = 3, cases[n++].about = "format version 3";
    cases[n].n_labels = N_TRAIN - 1, cases[n++].about = "train/images has 50 entries, expected 49";
    cases[n].test_height = H - 1, cases[n++].about = "test images are 2x3x3, training images 2x4x3";
    cases[n].mean = NAN, cases[n++].about = "mean";
    cases[n].mean = 1.5, cases[n++].about = "mean";
    cases[n].label = CLASSES, cases[n++].about = "test/labels: label 3 of image 3 is outside 0..2";
    cases[n].label = -1, cases[n++].about = "label -1";
    cases[n].no_classes = true, cases[n++].about = "classes";
    cases[n].images_as_floats = true, cases[n++].about = "train/images must be uint8";
    cases[n].name_without_end = true, cases[n++].about = "the name of class 1";
    cases[n].format = "lookup graph", cases[n++].about = "no data set";
    for (int i = 0; i < n; i++) {
        write_wrong(path.s, &cases[i]);
        assert_refused(path.s, cases[i].about);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writing_refuses_nonsense_and_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_files_do_not_open, setup, teardown),
        cmocka_unit_test_setup_teardown(test_inconsistent_files_do_not_open, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
