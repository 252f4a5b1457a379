/* Importing pictures: folders and archives of every form give the same data set, and nothing that is wrong with them
 * passes. */
#include "base/files.h"
#include "data/dataset.h"
#include "data/imagenet_synsets.h"
#include "data/import.h"
#include "data/picture.h"
#include "tests/support/pictures.h"
#include "tests/support/temp_dir.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <png.h>

static dc_comm self; /* this process alone */

typedef struct fixture {
    temp_dir dir;
    temp_path source, destination;
} fixture;

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    f->dir = temp_dir_make();
    f->source = temp_dir_path(&f->dir, "animals");
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

static dc_dataset *import(const fixture *f, const char *kind, const char *source, const dc_import_options *options)
{
    dc_dataset *dataset = NULL;
    if (dc_import(&self, NULL, kind, source, f->destination.s, options) != DC_OK ||
        dc_dataset_open(f->destination.s, &dataset) != DC_OK || dc_dataset_verify(dataset) != DC_OK)
        fail_msg("%s", dc_status_message());
    assert_int_equal(temp_dir_count(temp_dir_path(&f->dir, "out").s), 1);
    return dataset;
}

/* Refused with one line; nothing is left. */
static void assert_refused(const fixture *f, const char *kind, const char *source, const dc_import_options *options,
                           const char *what)
{
    unlink(f->destination.s);
    assert_int_not_equal(dc_import(&self, NULL, kind, source, f->destination.s, options), DC_OK);
    const char *message = dc_status_message();
    if (!strstr(message, what) || strchr(message, '\n'))
        fail_msg("the message should be one line about '%s': %s", what, message);
    assert_int_equal(temp_dir_count(temp_dir_path(&f->dir, "out").s), 0);
}

/* Pictures 0..n-1 of each class, all different; w, h: 0: of different sizes. */
static void put_split(const fixture *f, const char *split, int n, int w, int h)
{
    static const char *const classes[] = {"dog", "cat", "emu"};
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < n; i++) {
            char name[128];
            int number = (c * 100 + i) * 2 + (strcmp(split, "train/") != 0);
            snprintf(name, sizeof name, "%s%s/%d.jpg", split, classes[c], i);
            picture_put(f->source.s, name, picture_jpeg(w ? w : 130 + 7 * i, h ? h : 120 + 5 * c, number));
        }
}

static void assert_animals(const dc_dataset *dataset, int n_train, int n_test)
{
    assert_int_equal(dataset->n_classes, 3);
    assert_string_equal(dataset->classes[0], "cat");
    assert_string_equal(dataset->classes[1], "dog");
    assert_string_equal(dataset->classes[2], "emu");
    assert_int_equal(dataset->split[DC_SPLIT_TRAIN].n, n_train);
    assert_int_equal(dataset->split[DC_SPLIT_TEST].n, n_test);
}

static void put_packed(const fixture *f, const char *name, file_bytes packed)
{
    picture_put(f->dir.path, name, packed);
}

static void test_small_pictures_become_pixels_from_any_source(void **state)
{
    fixture *f = *state;
    put_split(f, "train/", 4, 20, 16);
    put_split(f, "test/", 2, 20, 16);
    picture_put(f->source.s, "README.txt", (file_bytes){malloc(1), 0});
    dc_dataset *dataset = import(f, "folders", f->source.s, NULL);
    assert_animals(dataset, 12, 6);
    assert_string_equal(dataset->name, "animals");
    assert_int_equal(dataset->storage, DC_STORAGE_PIXELS);
    assert_true(dataset->shape.c == 3 && dataset->shape.h == 16 && dataset->shape.w == 20);
    for (int i = 0; i < 12; i++)
        assert_int_equal(dataset->split[DC_SPLIT_TRAIN].labels[i], i / 4);
    file_bytes dog2 = picture_jpeg(20, 16, 4); /* training picture 6 */
    dc_picture_reader *reader;
    dc_picture picture;
    assert_int_equal(dc_picture_reader_create(&reader), DC_OK);
    assert_int_equal(dc_picture_decode(reader, dog2.s, dog2.n, 0, &picture), DC_OK);
    for (int c = 0; c < 3; c++)
        for (int k = 0; k < 20 * 16; k++)
            assert_int_equal(dataset->split[DC_SPLIT_TRAIN].pixels[(6 * 3 + c) * 320 + k],
                             picture.rgb.pixels[k / 20 * picture.rgb.stride + k % 20 * 3 + c]);
    dc_picture_reader_destroy(reader);
    free(dog2.s);
    uint64_t hash = dataset->hash;
    dc_dataset_close(dataset);

    static const struct {
        const char *name;
        pack_format format;
        int inner;
    } forms[] = {{"a.tar", PACK_TAR, 0},
                 {"b.tar.gz", PACK_TAR_GZ, 0},
                 {"c.tar", PACK_TAR, 2},
                 {"d.tgz", PACK_TAR_GZ, 1},
                 {"e.zip", PACK_ZIP, 0}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        put_packed(f, forms[i].name, pack_folder(f->source.s, forms[i].format, forms[i].inner));
        const dc_import_options options = {.threads = 3};
        dataset = import(f, "folders", temp_dir_path(&f->dir, forms[i].name).s, &options);
        assert_animals(dataset, 12, 6);
        assert_true(dataset->hash == hash);
        dc_dataset_close(dataset);
    }
}

static void test_large_pictures_stay_files(void **state)
{
    fixture *f = *state;
    put_split(f, "train/", 3, 0, 0);
    put_split(f, "val/", 1, 0, 0);
    static uint8_t samples[3 * 100 * 100];
    picture_put(f->source.s, "train/dog/grey.JPEG", picture_grey_jpeg(140, 110, 1));
    picture_put(f->source.s, "train/dog/large.png", picture_png(100, 100, PNG_COLOR_TYPE_RGB, 8, samples, NULL, 0));
    picture_put(f->source.s, "train/dog/small.png", picture_png(50, 40, PNG_COLOR_TYPE_RGB, 8, samples, NULL, 0));
    dc_dataset *dataset = import(f, "folders", f->source.s, NULL);
    assert_animals(dataset, 12, 3);
    assert_int_equal(dataset->storage, DC_STORAGE_JPEG);
    const dc_images *train = &dataset->split[DC_SPLIT_TRAIN];
    file_bytes cat1 = picture_jpeg(137, 125, 202); /* training picture 1 */
    assert_int_equal(train->offsets[2] - train->offsets[1], cat1.n);
    assert_memory_equal(train->jpegs + train->offsets[1], cat1.s, cat1.n);
    assert_true(train->sizes[1].width == 137 && train->sizes[1].height == 125);
    free(cat1.s);
    dc_picture_reader *reader;
    assert_int_equal(dc_picture_reader_create(&reader), DC_OK);
    double mean = 0;
    for (uint32_t i = 0; i < train->n; i++) { /* also what was PNG is a JPEG now */
        dc_picture picture;
        uint64_t begin = train->offsets[i];
        assert_int_equal(dc_picture_decode(reader, train->jpegs + begin, train->offsets[i + 1] - begin, 0, &picture),
                         DC_OK);
        assert_true(!picture.png && picture.w == train->sizes[i].width && picture.h == train->sizes[i].height);
        double sum = 0;
        for (int y = 0; y < picture.h; y++)
            for (int x = 0; x < picture.w; x++)
                sum += picture.rgb.pixels[y * picture.rgb.stride + 3 * x];
        mean += sum / (picture.w * picture.h) / 255 / train->n;
    }
    assert_true(fabs(dataset->mean[0] - mean) < 1e-6);
    assert_true(dataset->deviation[0] > 0.05 && dataset->deviation[0] < 0.5);
    dc_picture_reader_destroy(reader);
    dc_dataset_close(dataset);
}

static void test_sizes(void **state)
{
    fixture *f = *state;
    put_split(f, "", 10, 0, 0);
    dc_import_options options = {.size = 24, .held_out = 0.2};
    dc_dataset *dataset = import(f, "folders", f->source.s, &options);
    assert_animals(dataset, 24, 6);
    assert_true(dataset->storage == DC_STORAGE_PIXELS && dataset->shape.h == 24 && dataset->shape.w == 24);
    for (int c = 0; c < 3; c++)
        assert_int_equal(dataset->split[DC_SPLIT_TEST].labels[2 * c + 1], c); /* two of each class */
    dc_dataset_close(dataset);
    options = (dc_import_options){.reencode = 60, .quality = 80, .held_out = -1};
    dataset = import(f, "folders", f->source.s, &options);
    assert_animals(dataset, 30, 30);
    assert_int_equal(dataset->storage, DC_STORAGE_JPEG);
    const dc_images *train = &dataset->split[DC_SPLIT_TRAIN];
    for (int i = 0; i < 30; i++) {
        const dc_picture_size size = train->sizes[i];
        assert_int_equal(size.height < size.width ? size.height : size.width, 60);
    }
    dc_dataset_close(dataset);
    options = (dc_import_options){.n_classes = 2};
    dataset = import(f, "folders", f->source.s, &options);
    assert_int_equal(dataset->n_classes, 2);
    assert_int_equal(dataset->split[DC_SPLIT_TRAIN].n + dataset->split[DC_SPLIT_TEST].n, 20);
    dc_dataset_close(dataset);
}

/* Of whatever size; among pictures that are JPEG already. */
static void test_the_quality_of_what_was_png(void **state)
{
    fixture *f = *state;
    static uint8_t samples[3 * 100 * 100];
    for (size_t i = 0; i < sizeof samples; i++)
        samples[i] = (uint8_t)(i * 2654435761u >> 24);
    picture_put(f->source.s, "a/0.jpg", picture_jpeg(130, 120, 0));
    picture_put(f->source.s, "a/1.png", picture_png(100, 100, PNG_COLOR_TYPE_RGB, 8, samples, NULL, 0));
    picture_put(f->source.s, "a/2.png", picture_png(50, 40, PNG_COLOR_TYPE_RGB, 8, samples, NULL, 0));
    uint64_t bytes[2][3];
    for (int k = 0; k < 2; k++) {
        const dc_import_options options = {.held_out = -1, .quality = k ? 30 : 0};
        dc_dataset *dataset = import(f, "folders", f->source.s, &options);
        const uint64_t *offsets = dataset->split[DC_SPLIT_TRAIN].offsets;
        for (int i = 0; i < 3; i++)
            bytes[k][i] = offsets[i + 1] - offsets[i];
        dc_dataset_close(dataset);
    }
    assert_int_equal(bytes[1][0], bytes[0][0]);
    assert_true(2 * bytes[1][1] < bytes[0][1] && 2 * bytes[1][2] < bytes[0][2]);
}

static void test_bad_pictures(void **state)
{
    fixture *f = *state;
    put_split(f, "train/", 3, 20, 16);
    put_split(f, "test/", 1, 20, 16);
    const dc_import_options skip = {.skip_bad = true};
    const struct {
        const char *what;
        file_bytes bytes;
    } cases[] = {{"an empty file", {malloc(1), 0}},
                 {"neither JPEG nor PNG", {(uint8_t *)strdup("this is no picture"), 18}},
                 {"the same picture as train/cat/0.jpg", picture_jpeg(20, 16, 200)},
                 {"no readable JPEG", picture_jpeg(20, 16, 99)}};
    for (int i = 0; i < 4; i++) {
        file_bytes bytes = cases[i].bytes;
        bytes.n -= i == 3 ? 40 : 0; /* cut short */
        picture_put(f->source.s, "train/dog/bad.JPEG", bytes);
        assert_refused(f, "folders", f->source.s, NULL, cases[i].what);
        assert_refused(f, "folders", f->source.s, NULL, "1 of 13 pictures");
        assert_refused(f, "folders", f->source.s, NULL, "train/dog/bad.JPEG");
        dc_dataset *dataset = import(f, "folders", f->source.s, &skip);
        assert_animals(dataset, 9, 3);
        dc_dataset_close(dataset);
    }
    for (int i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "train/emu/%d.jpg", i);
        picture_put(f->source.s, name, (file_bytes){malloc(1), 0});
    }
    assert_refused(f, "folders", f->source.s, &skip, "emu"); /* a class must not vanish */
    packed_file files[12];                                   /* nor where no folder tells of it */
    char names[12][64];
    for (int i = 0; i < 12; i++) {
        snprintf(names[i], sizeof names[i], "c%d/%d.jpg", i % 2, i);
        files[i] = (packed_file){names[i], picture_jpeg(20, 16, i), NULL};
        files[i].bytes.n -= i % 2 ? 40 : 0;
    }
    put_packed(f, "bad.tar", pack_files(12, files, PACK_TAR));
    assert_refused(f, "folders", temp_dir_path(&f->dir, "bad.tar").s, &skip, "no training pictures of class c1");
    for (int i = 0; i < 12; i++)
        free(files[i].bytes.s);
}

static void test_names(void **state)
{
    fixture *f = *state;
    put_split(f, "train/", 3, 20, 16);
    put_split(f, "test/", 1, 20, 16);
    temp_dir in;
    snprintf(in.path, sizeof in.path, "%.200s", f->source.s);
    static const char *const bad[] = {"train/two\nlines/1.jpg", "train/caf\xe9/1.jpg"};
    for (int i = 0; i < 2; i++) {
        picture_put(f->source.s, bad[i], picture_jpeg(20, 16, 500));
        assert_refused(f, "folders", f->source.s, NULL, "without control characters");
        unlink(temp_dir_path(&in, bad[i]).s);
        rmdir(temp_dir_path(&in, i ? "train/caf\xe9" : "train/two\nlines").s);
    }
    picture_put(f->source.s, "train/\xc3\x9c b/1.jpg", picture_jpeg(20, 16, 500));
    dc_dataset *dataset = import(f, "folders", f->source.s, NULL);
    assert_string_equal(dataset->classes[3], "\xc3\x9c b");
    dc_dataset_close(dataset);
    /* the same name again, with another picture */
    packed_file files[5];
    char names[5][64];
    for (int i = 0; i < 5; i++) {
        snprintf(names[i], sizeof names[i], "%scat/%d.jpg", i == 4 ? "./" : "", i % 4);
        files[i] = (packed_file){names[i], picture_jpeg(20, 16, i), NULL};
    }
    put_packed(f, "twice.tar", pack_files(5, files, PACK_TAR));
    temp_path tar = temp_dir_path(&f->dir, "twice.tar");
    assert_refused(f, "folders", tar.s, NULL, "cat/0.jpg: another picture has the same name");
    dataset = import(f, "folders", tar.s, &(dc_import_options){.skip_bad = true, .held_out = -1});
    assert_int_equal(dataset->split[DC_SPLIT_TRAIN].n, 4);
    dc_dataset_close(dataset);
    for (int i = 0; i < 5; i++)
        free(files[i].bytes.s);
}

/* Only a data set is replaced. */
static void test_destinations(void **state)
{
    fixture *f = *state;
    put_split(f, "train/", 2, 20, 16);
    put_split(f, "test/", 1, 20, 16);
    put_packed(f, "mine.tar", pack_folder(f->source.s, PACK_TAR, 0));
    temp_path tar = temp_dir_path(&f->dir, "mine.tar"), folder = temp_dir_path(&f->dir, "out");
    char *before, *after;
    size_t n_before, n_after;
    assert_int_equal(dc_file_read(tar.s, &before, &n_before), DC_OK);
    assert_int_equal(dc_import(&self, NULL, "folders", tar.s, tar.s, NULL), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), "only a data set is replaced"));
    assert_int_equal(dc_file_read(tar.s, &after, &n_after), DC_OK);
    assert_true(n_before == n_after && memcmp(before, after, n_before) == 0);
    free(before);
    free(after);
    assert_int_equal(dc_import(&self, NULL, "folders", tar.s, folder.s, NULL), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), "no file that could be replaced"));
    assert_int_equal(dc_import(&self, NULL, "folders", tar.s, "/dev/full", NULL), DC_ERR_INPUT);
    temp_file_write(f->destination.s, "", 0);
    dc_dataset_close(import(f, "folders", tar.s, NULL));
    dc_dataset_close(import(f, "folders", tar.s, NULL));
}

static void test_bad_layouts(void **state)
{
    fixture *f = *state;
    assert_refused(f, "folders", f->source.s, NULL, "holds no pictures");
    assert_refused(f, "folders", temp_dir_path(&f->dir, "nothing").s, NULL, "nothing");
    put_split(f, "train/", 2, 20, 16);
    put_split(f, "test/", 1, 20, 16);
    assert_int_equal(dc_directory_create(temp_dir_path(&f->dir, "animals/train/fox").s), DC_OK);
    assert_refused(f, "folders", f->source.s, NULL, "train/fox holds no pictures");
    rmdir(temp_dir_path(&f->dir, "animals/train/fox").s);
    picture_put(f->source.s, "test/fox/1.jpg", picture_jpeg(20, 16, 901));
    assert_refused(f, "folders", f->source.s, NULL, "class fox, of which there are no training pictures");
    picture_put(f->source.s, "test/fox/1.jpg", picture_jpeg(20, 16, 901));
    unlink(temp_dir_path(&f->dir, "animals/test/fox/1.jpg").s);
    rmdir(temp_dir_path(&f->dir, "animals/test/fox").s);
    picture_put(f->source.s, "stray/1.jpg", picture_jpeg(20, 16, 902));
    assert_refused(f, "folders", f->source.s, NULL, "stray/1.jpg lies outside of train/");
    unlink(temp_dir_path(&f->dir, "animals/stray/1.jpg").s);
    picture_put(f->source.s, "train/1.jpg", picture_jpeg(20, 16, 903));
    assert_refused(f, "folders", f->source.s, NULL, "train/1.jpg lies in no class folder");
    unlink(temp_dir_path(&f->dir, "animals/train/1.jpg").s);
    picture_put(f->source.s, "val/cat/1.jpg", picture_jpeg(20, 16, 904));
    assert_refused(f, "folders", f->source.s, NULL, "both val/ and test/");
}

static void test_bad_archives(void **state)
{
    fixture *f = *state;
    put_split(f, "train/", 2, 20, 16);
    put_split(f, "test/", 1, 20, 16);
    temp_path cut = temp_dir_path(&f->dir, "cut.tar"), inner = temp_dir_path(&f->dir, "inner.tar");
    for (int gzip = 0; gzip < 2; gzip++) {
        file_bytes whole = pack_folder(f->source.s, gzip, 0);
        for (size_t n = 1; n < whole.n - 512; n += whole.n / 11) {
            temp_file_write(cut.s, whole.s, n);
            assert_refused(f, "folders", cut.s, NULL, "cut.tar: ");
        }
        temp_file_write(cut.s, whole.s, 0);
        assert_refused(f, "folders", cut.s, NULL, "cut.tar: ");
        free(whole.s);
    }
    /* one that ends between two files, inside of a whole one */
    file_bytes part = pack_folder(f->source.s, false, 0);
    part.n -= 1024;
    const packed_file outer = {"pictures.tar", part, NULL};
    file_bytes whole = pack_files(1, &outer, false);
    temp_file_write(inner.s, whole.s, whole.n);
    assert_refused(f, "folders", inner.s, NULL, "inner.tar/pictures.tar: cut short");
    free(whole.s);
    free(part.s);
    temp_file_write(cut.s, "this is no archive, whatever its name may say", 45);
    assert_refused(f, "folders", cut.s, NULL, "cut.tar: ");
}

static void test_names_that_lead_out_are_harmless(void **state)
{
    fixture *f = *state;
    packed_file files[12];
    char names[12][64];
    for (int i = 0; i < 12; i++) {
        static const char *const forms[] = {"../../train", "/train", "./.././train"};
        snprintf(names[i], sizeof names[i], "%s/%s/%d.jpg", forms[i % 3], i < 6 ? "cat" : "dog", i);
        files[i] = (packed_file){names[i], picture_jpeg(20, 16, i), NULL};
    }
    temp_path tar = temp_dir_path(&f->dir, "odd.tar");
    file_bytes packed = pack_files(12, files, false);
    temp_file_write(tar.s, packed.s, packed.n);
    free(packed.s);
    dc_dataset *dataset = import(f, "folders", tar.s, &(dc_import_options){.held_out = 0.34});
    assert_int_equal(dataset->n_classes, 2);
    assert_string_equal(dataset->classes[1], "dog");
    assert_int_equal(dataset->split[DC_SPLIT_TRAIN].n, 8);
    dc_dataset_close(dataset);
    for (int i = 0; i < 12; i++)
        free(files[i].bytes.s);
    assert_int_equal(access("/train", F_OK), -1);
}

/* Validation pictures in one folder, whose labels a file tells. */
static void put_flat(const fixture *f, const char *train, const char *inside, const char *val, int digits)
{
    static const char *const synsets[] = {"n02119789", "n01440764", "n02100735"}; /* numbers 1, 449, 2 */
    for (int c = 0; c < 3; c++) {
        char name[128];
        for (int i = 0; i < 2; i++) {
            snprintf(name, sizeof name, "%s/%s/%s%d.JPEG", train, synsets[c], inside, i);
            picture_put(f->source.s, name, picture_jpeg(20, 16, c * 2 + i));
        }
        snprintf(name, sizeof name, "%s%0*d.JPEG", val, digits, c + 1);
        picture_put(f->source.s, name, picture_jpeg(20, 16, 100 + c));
    }
}

static void put_text(const fixture *f, const char *name, const char *text)
{
    picture_put(f->source.s, name, (file_bytes){(uint8_t *)strdup(text), strlen(text)});
}

static void assert_flat(const fixture *f, const char *kind)
{
    dc_dataset *dataset = import(f, kind, f->source.s, NULL);
    assert_int_equal(dataset->split[DC_SPLIT_TRAIN].n, 6);
    assert_int_equal(dataset->split[DC_SPLIT_TEST].n, 3);
    assert_string_equal(dataset->classes[0], "n01440764");
    /* pictures 1, 2, 3 are of n02119789, n01440764, n02100735; stored by label */
    file_bytes second = picture_jpeg(20, 16, 101);
    dc_picture_reader *reader;
    dc_picture picture;
    assert_int_equal(dc_picture_reader_create(&reader), DC_OK);
    assert_int_equal(dc_picture_decode(reader, second.s, second.n, 0, &picture), DC_OK);
    for (int k = 0; k < 20 * 16; k++)
        assert_int_equal(dataset->split[DC_SPLIT_TEST].pixels[k],
                         picture.rgb.pixels[k / 20 * picture.rgb.stride + k % 20 * 3]);
    dc_picture_reader_destroy(reader);
    free(second.s);
    dc_dataset_close(dataset);
}

static void test_tiny_imagenet(void **state)
{
    fixture *f = *state;
    put_flat(f, "tiny/train", "images/", "tiny/val/images/val_", 1);
    picture_put(f->source.s, "tiny/test/images/test_0.JPEG", (file_bytes){malloc(1), 0}); /* not even looked at */
    assert_refused(f, "tiny-imagenet", f->source.s, NULL, "no file of labels");
    put_text(f, "tiny/val/val_annotations.txt",
             "val_3.JPEG\tn02100735\t0\t0\t62\t62\nval_1.JPEG\tn02119789\t1\t2\t3\t4\r\nval_2."
             "JPEG\tn01440764\t0\t0\t1\t1\n");
    assert_flat(f, "tiny-imagenet");
    put_text(f, "tiny/val/val_annotations.txt", "val_3.JPEG\tn02100735\t0\nval_1.JPEG\tn02119789\t1\n");
    assert_refused(f, "tiny-imagenet", f->source.s, NULL, "val_annotations.txt: no label for val_2.JPEG");
    put_text(f, "tiny/val/val_annotations.txt",
             "val_3.JPEG\tn02100735\t0\nval_1.JPEG\tn02119789\t1\nval_2.JPEG\tn09999999\t1\n");
    assert_refused(f, "tiny-imagenet", f->source.s, NULL, "class n09999999, of which there are no training pictures");
    put_text(f, "tiny/val/val_annotations.txt",
             "val_3.JPEG\tn02100735\nval_1.JPEG\tn02119789\nval_2.JPEG\tn01440764\nval_3.JPEG\tn02119789\n");
    assert_refused(f, "tiny-imagenet", f->source.s, NULL, "two labels for val_3.JPEG");
    put_text(f, "tiny/val/val_annotations.txt", "");
    assert_refused(f, "tiny-imagenet", f->source.s, NULL, "holds no labels");
}

static void test_imagenet(void **state)
{
    fixture *f = *state;
    put_flat(f, "ILSVRC2012_img_train", "", "ILSVRC2012_img_val/ILSVRC2012_val_", 8);
    static const struct {
        const char *name, *text;
    } forms[] = {
        {"ILSVRC2012_validation_ground_truth.txt", "1\n449\n2\n"},
        {"LOC_val_solution.csv",
         "ImageId,PredictionString\nILSVRC2012_val_00000003,n02100735 1 2 3 4 n02100735 5 6 7 8\n"
         "ILSVRC2012_val_00000001,n02119789 1 2 3 4\nILSVRC2012_val_00000002,n01440764 1 1 1 1\n"},
        {"imagenet_2012_validation_synset_labels.txt", "n02119789\nn01440764\nn02100735\n"},
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        put_text(f, forms[i].name, forms[i].text);
        assert_flat(f, "imagenet");
        unlink(temp_dir_path(&f->dir, "animals").s);
        char path[128];
        snprintf(path, sizeof path, "animals/%s", forms[i].name);
        unlink(temp_dir_path(&f->dir, path).s);
    }
    put_text(f, "ILSVRC2012_validation_ground_truth.txt", "1\n449\n");
    assert_refused(f, "imagenet", f->source.s, NULL, "2 labels for 3 pictures");
    put_text(f, "ILSVRC2012_validation_ground_truth.txt", "1\n449\n1001\n");
    assert_refused(f, "imagenet", f->source.s, NULL, "'1001' is no class");
    put_text(f, "ILSVRC2012_validation_ground_truth.txt", "1\n449\n2\n");
    picture_put(f->source.s, "ILSVRC2012_img_val/ILSVRC2012_val_00000001.JPEG", (file_bytes){malloc(1), 0});
    dc_dataset *dataset = import(f, "imagenet", f->source.s, &(dc_import_options){.skip_bad = true});
    assert_int_equal(dataset->split[DC_SPLIT_TEST].n, 2); /* the second and third label are still the others' */
    assert_int_equal(dataset->split[DC_SPLIT_TEST].labels[0], 0);
    assert_int_equal(dataset->split[DC_SPLIT_TEST].labels[1], 1);
    dc_dataset_close(dataset);
    temp_path labels = temp_dir_path(&f->dir, "none.txt");
    dc_import_options labelled = {.labels = labels.s};
    assert_refused(f, "imagenet", f->source.s, &labelled, "none.txt"); /* before the bad picture was looked at */
    picture_put(f->source.s, "ILSVRC2012_img_val/ILSVRC2012_val_00000001.JPEG", picture_jpeg(20, 16, 100));
    put_text(f, "ILSVRC2012_validation_ground_truth.txt", "1\n449\n5\n");
    assert_refused(f, "imagenet", f->source.s, NULL, "class n02102040, of which there are no training pictures");
    labels = temp_dir_path(&f->dir, "labels.txt");
    temp_file_write(labels.s,
                    "ILSVRC2012_val_00000001.JPEG 1\nILSVRC2012_val_00000002.JPEG 0\nILSVRC2012_val_00000003.JPEG 1\n",
                    93);
    dataset = import(f, "imagenet", f->source.s, &(dc_import_options){.labels = labels.s});
    assert_int_equal(dataset->split[DC_SPLIT_TEST].labels[0], 0);
    assert_int_equal(dataset->split[DC_SPLIT_TEST].labels[2], 1);
    dc_dataset_close(dataset);
    assert_refused(f, "imagenet16-120", f->source.s, NULL, "no training pictures of class n02110185");
    temp_path train = temp_dir_path(&f->dir, "animals/ILSVRC2012_img_train");
    assert_refused(f, "imagenet", train.s, &(dc_import_options){.labels = labels.s}, "needs no file of labels");
}

/* The 120 classes in their own order, of folders with others beside them; every picture a mean of its boxes. */
static void test_imagenet16(void **state)
{
    fixture *f = *state;
    for (int c = 0; c < 122; c++) {
        char name[128];
        int synset = dc_imagenet_synsets[c];
        snprintf(name, sizeof name, "train/n%08d/a.JPEG", synset);
        picture_put(f->source.s, name, picture_jpeg(50, 37, c));
        snprintf(name, sizeof name, "val/n%08d/b.JPEG", synset);
        picture_put(f->source.s, name, picture_jpeg(20, 20, 1000 + c));
    }
    dc_dataset *dataset = import(f, "imagenet16-120", f->source.s, NULL);
    assert_int_equal(dataset->n_classes, 120);
    assert_string_equal(dataset->classes[0], "n02119789");
    assert_string_equal(dataset->classes[119], "n02397096");
    assert_true(dataset->split[DC_SPLIT_TRAIN].n == 120 && dataset->split[DC_SPLIT_TEST].n == 120);
    assert_true(dataset->storage == DC_STORAGE_PIXELS && dataset->shape.h == 16 && dataset->shape.w == 16);
    file_bytes eighth = picture_jpeg(50, 37, 7);
    dc_picture_reader *reader;
    dc_picture picture;
    uint8_t planes[3 * 16 * 16];
    assert_int_equal(dc_picture_reader_create(&reader), DC_OK);
    assert_int_equal(dc_picture_decode(reader, eighth.s, eighth.n, 0, &picture), DC_OK);
    assert_int_equal(dc_picture_box(&picture.rgb, 16, planes), DC_OK);
    assert_memory_equal(dataset->split[DC_SPLIT_TRAIN].pixels + 7 * sizeof planes, planes, sizeof planes);
    dc_picture_reader_destroy(reader);
    free(eighth.s);
    dc_dataset_close(dataset);
    assert_refused(f, "imagenet16-120", f->source.s, &(dc_import_options){.size = 8}, "has its own size");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_small_pictures_become_pixels_from_any_source, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_pictures_stay_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sizes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_quality_of_what_was_png, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_pictures, setup, teardown),
        cmocka_unit_test_setup_teardown(test_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_destinations, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_layouts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_archives, setup, teardown),
        cmocka_unit_test_setup_teardown(test_names_that_lead_out_are_harmless, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tiny_imagenet, setup, teardown),
        cmocka_unit_test_setup_teardown(test_imagenet, setup, teardown),
        cmocka_unit_test_setup_teardown(test_imagenet16, setup, teardown),
    };
    self = dc_comm_self();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
