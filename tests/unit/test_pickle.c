/* Pickled batches: as Python 2 and 3 write them, and nothing else. */
#include "data/import.h"
#include "data/pickle.h"
#include "tests/support/temp_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

/* A pickle that is being written. */
typedef struct writer {
    uint8_t s[1 << 18];
    size_t n;
} writer;

static void put(writer *w, const void *bytes, size_t n)
{
    assert_true(w->n + n <= sizeof w->s);
    memcpy(w->s + w->n, bytes, n);
    w->n += n;
}

static void put_number(writer *w, uint64_t number, size_t n_bytes)
{
    put(w, &number, n_bytes);
}

#define PUT(w, literal) put(w, literal, sizeof literal - 1)

/* How the parts are written by protocols 2 (Python 2), 2 (Python 3: bytes as text), 4 and 5. */
typedef enum style { PYTHON_2, PYTHON_3, PROTOCOL_4, PROTOCOL_5, STYLES } style;

static void put_key(writer *w, style how, const char *key)
{
    put(w, how == PYTHON_2 ? "U" : "\x8c", 1);
    put_number(w, strlen(key), 1);
    put(w, key, strlen(key));
    PUT(w, "\x94"); /* memorised, as Python 3.4 does */
}

/* rows x columns bytes at `bytes`. */
static void put_array(writer *w, style how, size_t rows, size_t columns, const uint8_t *bytes)
{
    size_t n = rows * columns;
    if (how == PROTOCOL_5) {
        PUT(w, "\x8c\x12numpy.core.numeric\x8c\x0b_frombuffer\x93(\x96");
        put_number(w, n, 8);
        put(w, bytes, n);
        PUT(w, "\x8c\5numpy\x8c\5dtype\x93\x8c\2u1\x89\x88\x87R(K\3\x8c\1|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tbM");
        put_number(w, rows, 2);
        PUT(w, "M");
        put_number(w, columns, 2);
        PUT(w, "\x86\x8c\1CtR");
        return;
    }
    if (how == PROTOCOL_4)
        PUT(w, "\x8c\x16numpy._core.multiarray\x8c\x0c_reconstruct\x93\x8c\5numpy\x8c\7ndarray\x93K\0\x85"
               "C\1b\x87R(K\1M");
    else
        PUT(w, "cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\1b\x87R(K\1M");
    put_number(w, rows, 2);
    PUT(w, "M");
    put_number(w, columns, 2);
    PUT(w, "\x86"
           "cnumpy\ndtype\nU\2u1K\0K\1\x87R(K\3U\1|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89");
    if (how == PYTHON_3) {
        PUT(w, "c_codecs\nencode\nX");
        size_t high = 0;
        for (size_t i = 0; i < n; i++)
            high += bytes[i] >= 0x80;
        put_number(w, n + high, 4);
        for (size_t i = 0; i < n; i++)
            if (bytes[i] < 0x80)
                put(w, &bytes[i], 1);
            else
                put(w, (uint8_t[]){(uint8_t)(0xc0 | bytes[i] >> 6), (uint8_t)(0x80 | (bytes[i] & 0x3f))}, 2);
        PUT(w, "X\6\0\0\0latin1\x86Rtb");
    } else {
        PUT(w, "B");
        put_number(w, n, 4);
        put(w, bytes, n);
        PUT(w, "tb");
    }
}

/* {"labels": [first, first + 1, ...], "data": rows x columns bytes} */
static void write_batch(writer *w, style how, const char *labels_key, int first, size_t rows, size_t columns)
{
    static uint8_t bytes[1 << 17];
    w->n = 0;
    PUT(w, "\x80");
    put_number(w, how < PROTOCOL_4 ? 2 : how == PROTOCOL_4 ? 4 : 5, 1);
    if (how >= PROTOCOL_4)
        PUT(w, "\x95\0\0\0\0\0\0\0\0");
    PUT(w, "}(");
    put_key(w, how, labels_key);
    PUT(w, "](");
    for (size_t i = 0; i < rows; i++) {
        PUT(w, "K");
        put_number(w, (uint64_t)first + i, 1);
    }
    PUT(w, "e");
    put_key(w, how, "data");
    for (size_t i = 0; i < rows * columns; i++)
        bytes[i] = (uint8_t)(i * 7 + (size_t)first);
    put_array(w, how, rows, columns, bytes);
    PUT(w, "u.");
}

static void assert_one_line_about(const char *what)
{
    if (!strstr(dc_status_message(), what) || strchr(dc_status_message(), '\n'))
        fail_msg("the message should be one line about '%s': %s", what, dc_status_message());
}

static writer w;

static void test_every_protocol(void **state)
{
    (void)state;
    for (int s = 0; s < STYLES; s++) {
        dc_pickle *pickle;
        write_batch(&w, (style)s, "labels", 3, 5, 12);
        if (dc_pickle_parse(w.s, w.n, "batch", &pickle) != DC_OK)
            fail_msg("style %d: %s", s, dc_status_message());
        const dc_pickle_value *root = dc_pickle_root(pickle), *labels = dc_pickle_get(root, "labels");
        int64_t number, rows, columns;
        const uint8_t *bytes;
        assert_int_equal(dc_pickle_length(labels), 5);
        assert_int_equal(dc_pickle_integer(dc_pickle_item(labels, 4), &number), DC_OK);
        assert_int_equal(number, 7);
        assert_int_equal(dc_pickle_matrix(dc_pickle_get(root, "data"), &rows, &columns, &bytes), DC_OK);
        assert_true(rows == 5 && columns == 12);
        for (int i = 0; i < 60; i++)
            assert_int_equal(bytes[i], (uint8_t)(i * 7 + 3));
        assert_null(dc_pickle_get(root, "mean"));
        dc_pickle_destroy(pickle);
        for (size_t n = 0; n < w.n; n++) {
            assert_int_equal(dc_pickle_parse(w.s, n, "batch", &pickle), DC_ERR_INPUT);
            assert_null(pickle);
            assert_one_line_about("batch: no pickle of a data set");
        }
    }
    dc_pickle_destroy(NULL);
}

static void assert_refused(const void *bytes, size_t n, const char *what)
{
    dc_pickle *pickle;
    assert_int_equal(dc_pickle_parse(bytes, n, "batch", &pickle), DC_ERR_INPUT);
    assert_one_line_about(what);
}

#define REFUSED(literal, what) assert_refused(literal, sizeof literal - 1, what)

static void test_nothing_is_called(void **state)
{
    (void)state;
    REFUSED("\x80\2cposix\nsystem\nU\2ls\x85R.", "calls posix.system");
    REFUSED("\x80\4\x8c\x08"
            "builtins\x8c\4eval\x93\x8c\1"
            "1\x85R.",
            "calls builtins.eval");
    REFUSED("\x80\2cnumpy\nndarray\nU\2ls\x85R.", "cannot be called");
    REFUSED("\x80\2K\1K\2\x85R.", "cannot be called");
    REFUSED("(dp1\nS'data'\n.", "protocol 2");
    REFUSED("\x80\2e.", "takes what is not there");
    REFUSED("\x80\2](K\1u.", "adds to what is not there");
    REFUSED("\x80\2}(K\1u.", "a key without a value");
    REFUSED("\x80\2h\5.", "takes what is not there");
    REFUSED("\x80\2]r\xff\xff\xff\x7f.", "out of order");
    REFUSED("\x80\2U\xff.", "cut short");
    REFUSED("\x80\2\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", "cut short");
    REFUSED("\x80\2P1\n.", "instruction 0x50");
    REFUSED("\x80\2cnumpy\ndtype\nU\2i8K\0K\1\x87R(K\3U\1>NNNK\0K\0K\0tb.", "big end first");
    REFUSED("\x80\2cnumpy\ndtype\nU\2O8K\0K\1\x87R.", "type of numbers");
}

/* ---- whole archives ---- */

typedef struct fixture {
    temp_dir dir;
    temp_path source, destination;
} fixture;

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    f->dir = temp_dir_make();
    f->source = temp_dir_path(&f->dir, "python");
    f->destination = temp_dir_path(&f->dir, "data.h5");
    assert_int_equal(mkdir(f->source.s, 0777), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    temp_dir_remove(&f->dir);
    free(f);
    return 0;
}

static void save(const fixture *f, const char *name)
{
    char inside[64];
    snprintf(inside, sizeof inside, "python/%s", name);
    temp_file_write(temp_dir_path(&f->dir, inside).s, w.s, w.n);
}

static void write_names(const char *key, int n)
{
    w.n = 0;
    PUT(&w, "\x80\2}");
    put_key(&w, PYTHON_2, key);
    PUT(&w, "](");
    for (int i = 0; i < n; i++) {
        char name[16];
        snprintf(name, sizeof name, "class_%d", i);
        put_key(&w, PYTHON_2, name);
    }
    PUT(&w, "es.");
}

static dc_status run(const fixture *f, const char *kind)
{
    const dc_comm self = dc_comm_self();
    return dc_import(&self, NULL, kind, f->source.s, f->destination.s, NULL);
}

static void test_cifar_python(void **state)
{
    fixture *f = *state;
    char name[32];
    for (int i = 1; i <= 5; i++) {
        write_batch(&w, (style)(i % STYLES), "labels", i, 4, 3072);
        snprintf(name, sizeof name, "data_batch_%d", i);
        save(f, name);
    }
    write_batch(&w, PYTHON_2, "labels", 0, 3, 3072);
    save(f, "test_batch");
    assert_int_equal(run(f, "cifar10"), DC_ERR_INPUT);
    assert_one_line_about("no file batches.meta");
    write_names("label_names", 10);
    save(f, "batches.meta");
    if (run(f, "cifar10") != DC_OK)
        fail_msg("%s", dc_status_message());
    dc_dataset *dataset;
    assert_int_equal(dc_dataset_open(f->destination.s, &dataset), DC_OK);
    assert_int_equal(dataset->split[DC_SPLIT_TRAIN].n, 20);
    assert_int_equal(dataset->split[DC_SPLIT_TEST].n, 3);
    assert_string_equal(dataset->classes[9], "class_9");
    for (int i = 0; i < 20; i++) {
        assert_int_equal(dataset->split[DC_SPLIT_TRAIN].labels[i], i / 4 + 1 + i % 4);
        assert_int_equal(dataset->split[DC_SPLIT_TRAIN].pixels[i * 3072 + 5],
                         (uint8_t)((i % 4 * 3072 + 5) * 7 + i / 4 + 1));
    }
    dc_dataset_close(dataset);

    write_batch(&w, PYTHON_3, "labels", 8, 4, 3072);
    save(f, "data_batch_2");
    assert_int_equal(run(f, "cifar10"), DC_ERR_INPUT);
    assert_one_line_about("data_batch_2: label 10 of image 2 is outside 0..9");
    write_batch(&w, PYTHON_3, "labels", 1, 3, 3072);
    save(f, "data_batch_2");
    assert_int_equal(run(f, "cifar10"), DC_ERR_INPUT);
    assert_one_line_about("data_batch_2: 3 images");
    write_batch(&w, PYTHON_3, "labels", 1, 4, 3071);
    save(f, "data_batch_2");
    assert_int_equal(run(f, "cifar10"), DC_ERR_INPUT);
    assert_one_line_about("rows of 3072");
    write_batch(&w, PYTHON_3, "marks", 1, 4, 3072);
    save(f, "data_batch_2");
    assert_int_equal(run(f, "cifar10"), DC_ERR_INPUT);
    assert_one_line_about("a list of 'labels' expected");
}

static void test_cifar100_python(void **state)
{
    fixture *f = *state;
    write_batch(&w, PYTHON_2, "fine_labels", 90, 9, 3072);
    save(f, "train");
    write_batch(&w, PYTHON_2, "fine_labels", 1, 3, 3072);
    save(f, "test");
    write_names("fine_label_names", 100);
    save(f, "meta");
    if (run(f, "cifar100") != DC_OK)
        fail_msg("%s", dc_status_message());
    dc_dataset *dataset;
    assert_int_equal(dc_dataset_open(f->destination.s, &dataset), DC_OK);
    assert_int_equal(dataset->n_classes, 100);
    assert_int_equal(dataset->split[DC_SPLIT_TRAIN].labels[8], 98);
    dc_dataset_close(dataset);
}

static void test_imagenet16_batches(void **state)
{
    fixture *f = *state;
    char name[32];
    for (int i = 1; i <= 10; i++) { /* labels 14*i - 13 .. 14*i: the last ones are beyond the 120 classes */
        write_batch(&w, (style)(i % STYLES), "labels", 14 * i - 13, 14, 768);
        snprintf(name, sizeof name, "train_data_batch_%d", i);
        save(f, name);
    }
    write_batch(&w, PROTOCOL_4, "labels", 100, 50, 768);
    save(f, "val_data");
    if (run(f, "imagenet16-120") != DC_OK)
        fail_msg("%s", dc_status_message());
    dc_dataset *dataset;
    assert_int_equal(dc_dataset_open(f->destination.s, &dataset), DC_OK);
    assert_int_equal(dataset->n_classes, 120);
    assert_string_equal(dataset->classes[0], "n02119789");
    assert_string_equal(dataset->classes[119], "n02397096");
    assert_int_equal(dataset->split[DC_SPLIT_TRAIN].n, 120);
    assert_int_equal(dataset->split[DC_SPLIT_TEST].n, 21);
    for (int i = 0; i < 120; i++)
        assert_int_equal(dataset->split[DC_SPLIT_TRAIN].labels[i], i);
    assert_true(dataset->shape.c == 3 && dataset->shape.h == 16);
    dc_dataset_close(dataset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_protocol),
        cmocka_unit_test(test_nothing_is_called),
        cmocka_unit_test_setup_teardown(test_cifar_python, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cifar100_python, setup, teardown),
        cmocka_unit_test_setup_teardown(test_imagenet16_batches, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
