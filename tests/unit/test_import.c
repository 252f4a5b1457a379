/* Importers: small archives made here, everything that may be wrong with them, and the real Fashion-MNIST. */
#include "base/files.h"
#include "data/dataset.h"
#include "data/import.h"
#include "tests/support/pictures.h"
#include "tests/support/temp_dir.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

enum { N_TRAIN = 12, N_TEST = 6, SIDE = 5, IMAGE = SIDE * SIDE };

#define FASHION "/usr/share/datasets/fashion-mnist"

static dc_comm self; /* this process alone */

typedef struct fixture {
    temp_dir dir;
    temp_path source, destination;
} fixture;

/* One IDX file's bytes. */
typedef struct bytes {
    uint8_t s[16 + N_TRAIN * IMAGE + 64];
    size_t n;
} bytes;

static bytes idx_images(uint32_t n)
{
    bytes b = {{0, 0, 8, 3, 0, 0, 0, (uint8_t)n, 0, 0, 0, SIDE, 0, 0, 0, SIDE}, 16 + n * IMAGE};
    for (size_t i = 16; i < b.n; i++)
        b.s[i] = (uint8_t)(i * 7);
    return b;
}

static bytes idx_labels(uint32_t n)
{
    bytes b = {{0, 0, 8, 1, 0, 0, 0, (uint8_t)n}, 8 + n};
    for (size_t i = 8; i < b.n; i++)
        b.s[i] = (uint8_t)(i % 10);
    return b;
}

static bytes compressed(const bytes *plain)
{
    bytes b;
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (Bytef *)plain->s;
    z.avail_in = (uInt)plain->n;
    z.next_out = b.s;
    z.avail_out = sizeof b.s;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    b.n = sizeof b.s - z.avail_out;
    deflateEnd(&z);
    return b;
}

static void put(const fixture *f, const char *name, const bytes *b)
{
    temp_file_write(temp_dir_path(&f->dir, name).s, b->s, b->n);
}

static void write_idx(const fixture *f, bool gzip)
{
    static const char *const names[2][4] = {{"source/train-images-idx3-ubyte", "source/train-labels-idx1-ubyte",
                                             "source/t10k-images-idx3-ubyte", "source/t10k-labels-idx1-ubyte"},
                                            {"source/train-images-idx3-ubyte.gz", "source/train-labels-idx1-ubyte.gz",
                                             "source/t10k-images-idx3-ubyte.gz", "source/t10k-labels-idx1-ubyte.gz"}};
    bytes plain[] = {idx_images(N_TRAIN), idx_labels(N_TRAIN), idx_images(N_TEST), idx_labels(N_TEST)};
    for (int i = 0; i < 4; i++) {
        bytes packed = compressed(&plain[i]);
        put(f, names[gzip][i], gzip ? &packed : &plain[i]);
    }
}

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    f->dir = temp_dir_make();
    f->source = temp_dir_path(&f->dir, "source");
    f->destination = temp_dir_path(&f->dir, "out/data.h5");
    assert_int_equal(dc_directory_create(f->source.s), DC_OK);
    assert_int_equal(dc_directory_create(temp_dir_path(&f->dir, "out").s), DC_OK);
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

static dc_dataset *import(const fixture *f, const char *kind, const dc_import_options *options)
{
    const char *source = options && options->files[0] ? NULL : f->source.s;
    dc_dataset *dataset = NULL;
    if (dc_import(&self, NULL, kind, source, f->destination.s, options) != DC_OK ||
        dc_dataset_open(f->destination.s, &dataset) != DC_OK)
        fail_msg("%s", dc_status_message());
    return dataset;
}

/* Refused with one line that names the file and the trouble; nothing is left. */
static void assert_refused(const fixture *f, const char *kind, const dc_import_options *options, const char *file,
                           const char *what)
{
    assert_int_not_equal(dc_import(&self, NULL, kind, f->source.s, f->destination.s, options), DC_OK);
    const char *message = dc_status_message();
    if (!strstr(message, file) || !strstr(message, what) || strchr(message, '\n'))
        fail_msg("the message should be one line about '%s' and '%s': %s", file, what, message);
    assert_int_equal(temp_dir_count(temp_dir_path(&f->dir, "out").s), 0);
}

static void assert_small_idx(const dc_dataset *dataset)
{
    bytes images = idx_images(N_TRAIN), labels = idx_labels(N_TEST);
    assert_int_equal(dataset->split[DC_SPLIT_TRAIN].n, N_TRAIN);
    assert_int_equal(dataset->split[DC_SPLIT_TEST].n, N_TEST);
    assert_true(dataset->shape.c == 1 && dataset->shape.h == SIDE && dataset->shape.w == SIDE);
    assert_memory_equal(dataset->split[DC_SPLIT_TRAIN].pixels, images.s + 16, N_TRAIN * IMAGE);
    for (int i = 0; i < N_TEST; i++)
        assert_int_equal(dataset->split[DC_SPLIT_TEST].labels[i], labels.s[8 + i]);
}

static void test_idx_plain_gzip_and_single_files(void **state)
{
    fixture *f = *state;
    write_idx(f, true);
    dc_dataset *dataset = import(f, "idx", NULL);
    assert_small_idx(dataset);
    assert_string_equal(dataset->name, "source");
    assert_string_equal(dataset->classes[9], "9");
    uint64_t hash = dataset->hash;
    dc_dataset_close(dataset);

    write_idx(f, false);
    dataset = import(f, "idx", &(dc_import_options){.name = "other", .classes_from = "fashion-mnist"});
    assert_small_idx(dataset);
    assert_true(dataset->hash == hash);
    assert_string_equal(dataset->name, "other");
    assert_string_equal(dataset->classes[9], "Ankle boot");
    dc_dataset_close(dataset);

    temp_path a = temp_dir_path(&f->dir, "source/train-images-idx3-ubyte"),
              b = temp_dir_path(&f->dir, "source/train-labels-idx1-ubyte.gz"),
              c = temp_dir_path(&f->dir, "source/t10k-images-idx3-ubyte"),
              d = temp_dir_path(&f->dir, "source/t10k-labels-idx1-ubyte");
    dataset = import(f, "idx", &(dc_import_options){.files = {a.s, b.s, c.s, d.s}, .n_classes = 26});
    assert_small_idx(dataset);
    assert_int_equal(dataset->n_classes, 26);
    dc_dataset_close(dataset);
}

#define TRAIN_IMAGES "train-images-idx3-ubyte"
#define TRAIN_LABELS "train-labels-idx1-ubyte"
#define TEST_IMAGES  "t10k-images-idx3-ubyte"

static void refuse_file(const fixture *f, const char *name, const bytes *b, const char *what)
{
    char inside[128];
    snprintf(inside, sizeof inside, "source/%s", name);
    write_idx(f, false);
    put(f, inside, b);
    assert_refused(f, "idx", NULL, name, what);
}

static void test_idx_refusals(void **state)
{
    fixture *f = *state;
    assert_refused(f, "idx", NULL, "source", "neither train-images-idx3-ubyte nor");
    bytes b = idx_images(N_TRAIN);
    b.n--;
    refuse_file(f, TRAIN_IMAGES, &b, "cut short");
    b.n = 10;
    refuse_file(f, TRAIN_IMAGES, &b, "cut short");
    b.n = 0;
    refuse_file(f, TRAIN_IMAGES, &b, "not an IDX file of images");
    b = idx_images(N_TRAIN);
    b.n++;
    refuse_file(f, TRAIN_IMAGES, &b, "more data");
    b = idx_images(N_TRAIN);
    b.s[2] = 9;
    refuse_file(f, TRAIN_IMAGES, &b, "not an IDX file of images");
    b = idx_labels(N_TRAIN);
    refuse_file(f, TRAIN_IMAGES, &b, "not an IDX file of images");
    b = idx_images(N_TRAIN);
    refuse_file(f, TRAIN_LABELS, &b, "not an IDX file of labels");
    b = idx_images(0);
    refuse_file(f, TRAIN_IMAGES, &b, "dimension 0 is 0");
    b = idx_images(N_TRAIN);
    memset(b.s + 4, 0xff, 12);
    refuse_file(f, TRAIN_IMAGES, &b, "dimension 0 is 4294967295");
    b = idx_images(N_TRAIN);
    b.s[4] = 0x7f; /* two thousand million images: refused before memory is asked for */
    refuse_file(f, TRAIN_IMAGES, &b, "cut short");
    b = idx_labels(N_TRAIN - 1);
    refuse_file(f, TRAIN_LABELS, &b, "11 labels for 12 images");
    b = idx_labels(N_TRAIN);
    b.s[8 + 4] = 10;
    refuse_file(f, TRAIN_LABELS, &b, "label 10 of image 4 is outside 0..9");
    b = idx_images(N_TEST);
    b.s[11] = SIDE * SIDE;
    b.s[15] = 1;
    refuse_file(f, TEST_IMAGES, &b, "the training images are 5x5");
}

static void test_gzip_refusals(void **state)
{
    fixture *f = *state;
    bytes plain = idx_images(N_TRAIN), packed = compressed(&plain), b;
    for (size_t n = 2; n < packed.n; n += n < 40 ? 1 : 7) {
        b = packed;
        b.n = n;
        refuse_file(f, TRAIN_IMAGES, &b, "");
    }
    b = packed;
    b.n -= 3; /* in the checksum and length at the end */
    refuse_file(f, TRAIN_IMAGES, &b, "the gzip file is cut short");
    b = packed;
    b.s[b.n - 7] ^= 1;
    refuse_file(f, TRAIN_IMAGES, &b, "the gzip file is damaged");
    b = packed;
    b.s[b.n / 2] ^= 0x40;
    refuse_file(f, TRAIN_IMAGES, &b, "");
    b = packed;
    b.s[b.n++] = 0;
    refuse_file(f, TRAIN_IMAGES, &b, "after the end of the gzip data");
    plain.n -= 5;
    b = compressed(&plain);
    refuse_file(f, TRAIN_IMAGES, &b, "cut short");
}

static void test_option_refusals(void **state)
{
    fixture *f = *state;
    write_idx(f, false);
    assert_refused(f, "idx", &(dc_import_options){.classes_from = "emnist"}, "emnist", "fashion-mnist");
    assert_refused(f, "idx", &(dc_import_options){.n_classes = 8}, TRAIN_LABELS, "outside 0..7");
    assert_refused(f, "jpeg", NULL, "jpeg", "cifar10, cifar100, idx");
    assert_refused(f, "cifar10", &(dc_import_options){.n_classes = 8}, "cifar10", "which has its own");
    assert_refused(f, "cifar10", &(dc_import_options){.classes_from = "mnist"}, "cifar10", "options of kind idx");
    assert_refused(f, "idx", &(dc_import_options){.skip_bad = true}, "idx", "options of pictures");
    assert_int_equal(dc_import(&self, NULL, "idx", f->source.s, "/proc/none/x.h5", NULL), DC_ERR_IO);
    assert_non_null(strstr(dc_status_message(), "/proc/none"));
    assert_int_equal(dc_import(&self, NULL, "idx", f->source.s, temp_dir_path(&f->dir, "none/x.h5").s, NULL), DC_OK);
}

enum { PER_FILE = 3, CIFAR_PIXELS = 3072 };

/* Records whose pixels are a function of file, record and position. */
static size_t cifar_records(uint8_t *out, int file, int n_label_bytes, int n_classes)
{
    uint8_t *p = out;
    for (int i = 0; i < PER_FILE; i++) {
        if (n_label_bytes == 2)
            *p++ = 19;
        *p++ = (uint8_t)((file * PER_FILE + i) % n_classes);
        for (int k = 0; k < CIFAR_PIXELS; k++)
            *p++ = (uint8_t)(file * 31 + i * 7 + k);
    }
    return (size_t)(p - out);
}

static void write_cifar(const fixture *f, bool hundred)
{
    uint8_t records[PER_FILE * (2 + CIFAR_PIXELS)];
    char name[64], names[2048] = "";
    for (int i = 0; i < (hundred ? 2 : 6); i++) {
        if (hundred)
            snprintf(name, sizeof name, "source/%s.bin", i ? "test" : "train");
        else
            snprintf(name, sizeof name, i < 5 ? "source/data_batch_%d.bin" : "source/test_batch.bin", i + 1);
        size_t n = cifar_records(records, i, 1 + hundred, hundred ? 100 : 10);
        temp_file_write(temp_dir_path(&f->dir, name).s, records, n);
    }
    for (int i = 0; i < (hundred ? 100 : 10); i++)
        sprintf(names + strlen(names), "class_%d\n", i);
    strcat(names, "\n");
    temp_file_write(temp_dir_path(&f->dir, hundred ? "source/fine_label_names.txt" : "source/batches.meta.txt").s,
                    names, strlen(names));
}

static void test_cifar(void **state)
{
    fixture *f = *state;
    for (int hundred = 0; hundred < 2; hundred++) {
        write_cifar(f, hundred);
        dc_dataset *dataset = import(f, hundred ? "cifar100" : "cifar10", NULL);
        const dc_images *train = &dataset->split[DC_SPLIT_TRAIN], *test = &dataset->split[DC_SPLIT_TEST];
        assert_int_equal(train->n, hundred ? PER_FILE : 5 * PER_FILE);
        assert_int_equal(test->n, PER_FILE);
        assert_true(dataset->shape.c == 3 && dataset->shape.h == 32 && dataset->shape.w == 32);
        assert_int_equal(dataset->n_classes, hundred ? 100 : 10);
        assert_string_equal(dataset->classes[7], "class_7");
        for (uint32_t i = 0; i < train->n; i++) {
            assert_int_equal(train->labels[i], i % (hundred ? 100 : 10));
            for (uint32_t k = 0; k < CIFAR_PIXELS; k += 100)
                assert_int_equal(train->pixels[i * CIFAR_PIXELS + k],
                                 (uint8_t)(i / PER_FILE * 31 + i % PER_FILE * 7 + k));
        }
        assert_int_equal(test->labels[0], hundred ? 3 : 5);
        dc_dataset_close(dataset);
        assert_int_equal(unlink(f->destination.s), 0);
    }
}

/* The source packed is as good as the source. */
static void assert_archive_is_the_same(const fixture *f, const char *kind, uint64_t hash)
{
    fixture packed = *f;
    for (int gzip = 0; gzip < 2; gzip++) {
        const char *name = gzip ? "source.tar.gz" : "source.tar";
        picture_put(f->dir.path, name, pack_folder(f->source.s, gzip, 0));
        packed.source = temp_dir_path(&f->dir, name);
        dc_dataset *dataset = import(&packed, kind, NULL);
        assert_true(dataset->hash == hash);
        assert_string_equal(dataset->name, strcmp(kind, "idx") == 0 ? "source" : kind);
        dc_dataset_close(dataset);
    }
}

static void test_archives(void **state)
{
    fixture *f = *state;
    write_cifar(f, false);
    dc_dataset *dataset = import(f, "cifar10", NULL);
    assert_archive_is_the_same(f, "cifar10", dataset->hash);
    dc_dataset_close(dataset);
    write_idx(f, true);
    dataset = import(f, "idx", NULL);
    assert_archive_is_the_same(f, "idx", dataset->hash);
    dc_dataset_close(dataset);
    assert_int_equal(unlink(temp_dir_path(&f->dir, "source/t10k-labels-idx1-ubyte.gz").s), 0);
    assert_int_equal(unlink(f->destination.s), 0);
    picture_put(f->dir.path, "source.tar", pack_folder(f->source.s, false, 0));
    f->source = temp_dir_path(&f->dir, "source.tar");
    assert_refused(f, "idx", NULL, "source.tar", "neither t10k-labels-idx1-ubyte nor");
}

static void test_cifar_refusals(void **state)
{
    fixture *f = *state;
    uint8_t records[PER_FILE * (2 + CIFAR_PIXELS)];
    temp_path batch = temp_dir_path(&f->dir, "source/data_batch_3.bin"),
              names = temp_dir_path(&f->dir, "source/batches.meta.txt");
    assert_refused(f, "cifar10", NULL, "source", "neither data_batch_1.bin (the binary version) nor data_batch_1");
    write_cifar(f, false);
    unlink(batch.s);
    assert_refused(f, "cifar10", NULL, "data_batch_3.bin", "");
    size_t n = cifar_records(records, 2, 1, 10);
    temp_file_write(batch.s, records, n - 1);
    assert_refused(f, "cifar10", NULL, "data_batch_3.bin", "whole number of records");
    temp_file_write(batch.s, records, 0);
    assert_refused(f, "cifar10", NULL, "data_batch_3.bin", "whole number of records");
    temp_file_write(batch.s, records, n - 1 - CIFAR_PIXELS);
    assert_refused(f, "cifar10", NULL, "data_batch_3.bin", "2 images, the files before it have 3");
    records[1 + CIFAR_PIXELS] = 10;
    temp_file_write(batch.s, records, n);
    assert_refused(f, "cifar10", NULL, "data_batch_3.bin", "label 10 of image 1 is outside 0..9");
    write_cifar(f, false);
    temp_file_write(names.s, "cat\ndog\n", 8);
    assert_refused(f, "cifar10", NULL, "batches.meta.txt", "2 class names");
    temp_file_write(names.s, "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n", 24);
    assert_refused(f, "cifar10", NULL, "batches.meta.txt", "10 class names");
}

static void test_fashion_mnist(void **state)
{
    fixture *f = *state;
    if (access(FASHION, R_OK) != 0) {
        print_message("# %s is not installed (package dataset-fashion-mnist): not tested\n", FASHION);
        return; /* cmocka's skip() is a failure in TAP */
    }
    f->source.s[0] = '\0';
    strcat(f->source.s, FASHION);
    dc_dataset *dataset = import(f, "idx", NULL);
    assert_int_equal(dataset->split[DC_SPLIT_TRAIN].n, 60000);
    assert_int_equal(dataset->split[DC_SPLIT_TEST].n, 10000);
    assert_true(dataset->shape.c == 1 && dataset->shape.h == 28 && dataset->shape.w == 28);
    assert_true(fabs(dataset->mean[0] - 0.2860) < 5e-5);
    assert_true(fabs(dataset->deviation[0] - 0.3530) < 5e-5);
    assert_string_equal(dataset->name, "fashion-mnist");
    assert_string_equal(dataset->classes[0], "T-shirt/top");
    int counts[10] = {0};
    for (int i = 0; i < 60000; i++)
        counts[dataset->split[DC_SPLIT_TRAIN].labels[i]]++;
    for (int c = 0; c < 10; c++)
        assert_int_equal(counts[c], 6000);
    assert_int_equal(dc_dataset_verify(dataset), DC_OK);
    dc_dataset_close(dataset);
}

int main(void)
{
    self = dc_comm_self();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_idx_plain_gzip_and_single_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_idx_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gzip_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_option_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cifar, setup, teardown),
        cmocka_unit_test_setup_teardown(test_archives, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cifar_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fashion_mnist, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
