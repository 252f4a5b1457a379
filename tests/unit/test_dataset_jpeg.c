/* Data sets of JPEG files: what is written comes back, and no index that points outside of its files opens. */
#include "base/files.h"
#include "base/state.h"
#include "data/dataset.h"
#include "tests/support/temp_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_TRAIN = 5, N_TEST = 3, CLASSES = 2, LARGEST = 3 << 20 };

static const char *const names[CLASSES] = {"cat", "dog"};

/* "JPEG" files of different lengths, two of them larger together than what the writer gathers. */
static size_t length_of(int split, int i)
{
    return split == DC_SPLIT_TRAIN && i >= 3 ? LARGEST + (size_t)i : 10 + 7 * (size_t)i + 100 * (size_t)split;
}

static uint8_t *bytes_of(int split, int i)
{
    static uint8_t bytes[LARGEST + N_TRAIN];
    for (size_t k = 0; k < length_of(split, i); k++)
        bytes[k] = (uint8_t)(k * 31 + (k >> 8) + (size_t)i * 7 + (size_t)split);
    return bytes;
}

static dc_dataset_head head_of(void)
{
    dc_dataset_head head = {.name = "animals",
                            .storage = DC_STORAGE_JPEG,
                            .n_classes = CLASSES,
                            .classes = names,
                            .n = {N_TRAIN, N_TEST},
                            .mean = {0.5, 0.4, 0.3},
                            .deviation = {0.2, 0.3, 0.1}};
    for (int s = 0; s < DC_SPLIT_COUNT; s++)
        for (uint32_t i = 0; i < head.n[s]; i++)
            head.jpeg_bytes[s] += length_of(s, (int)i);
    return head;
}

static dc_status put(dc_dataset_writer *writer, int split, int i)
{
    const dc_picture_size size = {10 + i, 20 + split};
    return dc_dataset_writer_put_jpeg(writer, i % CLASSES, size, bytes_of(split, i), length_of(split, i));
}

static void write_animals(const char *path)
{
    dc_dataset_head head = head_of();
    dc_dataset_writer *writer;
    assert_int_equal(dc_dataset_writer_create(path, &head, &writer), DC_OK);
    for (int s = 0; s < DC_SPLIT_COUNT; s++)
        for (int i = 0; i < (int)head.n[s]; i++)
            assert_int_equal(put(writer, s, i), DC_OK);
    assert_int_equal(dc_dataset_writer_commit(writer), DC_OK);
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

static dc_dataset *opened(const char *path)
{
    dc_dataset *dataset;
    if (dc_dataset_open(path, &dataset) != DC_OK)
        fail_msg("%s", dc_status_message());
    return dataset;
}

static void test_round_trip(void **state)
{
    temp_path path = temp_dir_path(*state, "animals.h5"), again = temp_dir_path(*state, "again.h5");
    write_animals(path.s);
    assert_int_equal(temp_dir_count(((temp_dir *)*state)->path), 1);
    dc_dataset *dataset = opened(path.s);
    assert_int_equal(dataset->storage, DC_STORAGE_JPEG);
    assert_int_equal(dataset->n_classes, CLASSES);
    assert_true(dataset->mean[2] == 0.3 && dataset->deviation[1] == 0.3);
    for (int s = 0; s < DC_SPLIT_COUNT; s++) {
        const dc_images *images = &dataset->split[s];
        assert_null(images->pixels);
        assert_int_equal(images->n, s ? N_TEST : N_TRAIN);
        for (int i = 0; i < (int)images->n; i++) {
            assert_int_equal(images->labels[i], i % CLASSES);
            assert_true(images->sizes[i].height == 10 + i && images->sizes[i].width == 20 + s);
            assert_int_equal(images->offsets[i + 1] - images->offsets[i], length_of(s, i));
            assert_memory_equal(images->jpegs + images->offsets[i], bytes_of(s, i), length_of(s, i));
        }
    }
    assert_int_equal(dc_dataset_verify(dataset), DC_OK);
    dc_dataset_close(dataset);
    write_animals(again.s); /* the same contents, the same bytes */
    char *a, *b;
    size_t n_a, n_b;
    assert_int_equal(dc_file_read(path.s, &a, &n_a), DC_OK);
    assert_int_equal(dc_file_read(again.s, &b, &n_b), DC_OK);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(a, b, n_a);
    free(a);
    free(b);
}

static void test_the_network_chooses_the_size(void **state)
{
    temp_path path = temp_dir_path(*state, "animals.h5");
    write_animals(path.s);
    dc_dataset *dataset = opened(path.s);
    assert_true(dataset->shape.c == 3 && dataset->shape.h == 224 && dataset->shape.w == 224);
    assert_int_equal(dc_dataset_set_image_size(dataset, 160), DC_OK);
    assert_true(dataset->shape.c == 3 && dataset->shape.h == 160 && dataset->shape.w == 160);
    assert_int_equal(dc_dataset_set_image_size(dataset, 0), DC_OK);
    assert_int_equal(dataset->shape.h, DC_DEFAULT_IMAGE_SIZE);
    assert_int_equal(dc_dataset_set_image_size(dataset, DC_MAX_IMAGE_SIDE + 1), DC_ERR_INPUT);
    assert_one_line_about("image size");
    dc_dataset_close(dataset);
}

static void test_the_writer_wants_what_was_announced(void **state)
{
    temp_path path = temp_dir_path(*state, "animals.h5");
    dc_dataset_head head = head_of();
    dc_dataset_writer *writer;
    assert_int_equal(dc_dataset_writer_create(path.s, &head, &writer), DC_OK);
    assert_int_equal(put(writer, 0, 0), DC_OK);
    assert_int_not_equal(dc_dataset_writer_commit(writer), DC_OK); /* most are missing */
    assert_int_equal(temp_dir_count(((temp_dir *)*state)->path), 0);

    head.jpeg_bytes[DC_SPLIT_TRAIN]--;
    assert_int_equal(dc_dataset_writer_create(path.s, &head, &writer), DC_OK);
    for (int i = 0; i < N_TRAIN - 1; i++)
        assert_int_equal(put(writer, DC_SPLIT_TRAIN, i), DC_OK);
    assert_int_not_equal(put(writer, DC_SPLIT_TRAIN, N_TRAIN - 1), DC_OK);
    dc_dataset_writer_abandon(writer);
    assert_int_equal(temp_dir_count(((temp_dir *)*state)->path), 0);

    head = head_of();
    assert_int_equal(dc_dataset_writer_create(path.s, &head, &writer), DC_OK);
    assert_int_equal(dc_dataset_writer_put_jpeg(writer, CLASSES, (dc_picture_size){1, 1}, "x", 1), DC_ERR_INPUT);
    assert_one_line_about("label 2");
    assert_int_equal(dc_dataset_writer_put_jpeg(writer, 0, (dc_picture_size){1, 0}, "x", 1), DC_ERR_INPUT);
    assert_one_line_about("1x0");
    dc_dataset_writer_abandon(writer);
    dc_dataset_writer_abandon(NULL);
}

/* A whole file whose index is wrong. */
typedef struct wrong {
    const char *about;
    uint64_t first, middle, last; /* offsets */
    int64_t n_hashes, sizes;
    int32_t width;
    const char *storage;
} wrong;

static void put_split(dc_state *state, const char *split, const wrong *w)
{
    char name[64];
    const int32_t labels[2] = {0, 1}, sizes[2][2] = {{5, 5}, {5, w->width}};
    const uint64_t hashes[3] = {0}, offsets[3] = {w->first, w->middle, w->last};
#define NAME(what) (snprintf(name, sizeof name, "%s/" what, split), name)
    dc_state_reserve(state, NAME("labels"), DC_STATE_INT32, 1, (int64_t[]){2});
    dc_state_put_rows(state, name, 0, 2, labels);
    dc_state_reserve(state, NAME("offsets"), DC_STATE_UINT64, 1, (int64_t[]){3});
    dc_state_put_rows(state, name, 0, 3, offsets);
    dc_state_reserve(state, NAME("sizes"), DC_STATE_INT32, 2, (int64_t[]){2, w->sizes});
    dc_state_put_rows(state, name, 0, 2, sizes);
    dc_state_reserve(state, NAME("hashes"), DC_STATE_UINT64, 1, &w->n_hashes);
    dc_state_put_rows(state, name, 0, w->n_hashes, hashes);
    dc_state_reserve(state, NAME("jpegs"), DC_STATE_UINT8, 1, (int64_t[]){20});
    dc_state_put_rows(state, name, 0, 20, "twenty bytes, no less");
#undef NAME
}

static void write_wrong(const char *path, const wrong *w)
{
    const char classes[CLASSES][DC_CLASS_NAME_CHARS] = {"cat", "dog"};
    const double half[3] = {0.5, 0.5, 0.5};
    dc_state *state;
    assert_int_equal(dc_state_create_large(path, &state), DC_OK);
    dc_state_put_text(state, "format", "dcanas data set");
    dc_state_put_i64(state, "version", 2);
    dc_state_put_text(state, "storage", w->storage);
    dc_state_put_text(state, "name", "wrong");
    dc_state_put_u64(state, "hash", 1);
    dc_state_put_doubles(state, "mean", 1, (int64_t[]){3}, half);
    dc_state_put_doubles(state, "std", 1, (int64_t[]){3}, half);
    dc_state_put_bytes(state, "classes", 2, (int64_t[]){CLASSES, DC_CLASS_NAME_CHARS}, (const uint8_t *)classes);
    put_split(state, "train", w);
    put_split(state, "test", w);
    if (dc_state_commit(state, false) != DC_OK)
        fail_msg("%s", dc_status_message());
}

static void test_wrong_indices_do_not_open(void **state)
{
    const wrong right = {"", 0, 7, 20, 2, 2, 5, "jpeg"};
    temp_path path = temp_dir_path(*state, "wrong.h5");
    write_wrong(path.s, &right);
    dc_dataset *dataset = opened(path.s);
    assert_int_equal(dc_dataset_verify(dataset), DC_ERR_INPUT);
    assert_one_line_about("train picture 0 (of class cat) is damaged");
    dc_dataset_close(dataset);
    wrong cases[] = {right, right, right, right, right, right, right, right, right};
    int n = 0;
    cases[n].last = 21, cases[n++].about = "train/offsets must go from 0 to the 20 bytes";
    cases[n].last = 19, cases[n++].about = "train/offsets must go from 0 to the 20 bytes";
    cases[n].first = 1, cases[n++].about = "train/offsets must go from 0 to the 20 bytes";
    cases[n].middle = 20, cases[n++].about = "picture 1 has no bytes";
    cases[n].middle = UINT64_MAX - 3, cases[n++].about = "picture 1 has no bytes";
    cases[n].n_hashes = 1, cases[n++].about = "train/hashes has 1 entries, expected 2";
    cases[n].sizes = 1, cases[n++].about = "train/sizes must be int32 [images][2]";
    cases[n].width = 65536, cases[n++].about = "picture 1 of 5x65536";
    cases[n].storage = "zip", cases[n++].about = "storage 'zip'";
    for (int i = 0; i < n; i++) {
        write_wrong(path.s, &cases[i]);
        assert_int_equal(dc_dataset_open(path.s, &dataset), DC_ERR_INPUT);
        assert_null(dataset);
        assert_one_line_about(cases[i].about);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_network_chooses_the_size, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_writer_wants_what_was_announced, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_indices_do_not_open, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
