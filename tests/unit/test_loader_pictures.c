/* The loader on JPEG files, and with several threads: what an epoch means, the same bits for any number of threads and
 * ranks and through a resume, and pictures that cannot be read. */
#include "data/loader.h"
#include "tests/support/picture_set.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = 41, SIDE = 20, PIXELS = 3 * SIDE * SIDE, BATCH = 12, EPOCH = 2, SEED = 11 };

static const dc_augment imagenet = {.flip = true,
                                    .resized_crop = true,
                                    .smallest_crop = 0.08,
                                    .brightness = 0.4,
                                    .contrast = 0.4,
                                    .saturation = 0.4,
                                    .hue = 0.2,
                                    .lighting = 0.1};

typedef struct fixture {
    temp_dir dir;
    dc_dataset *jpegs, *pixels;
} fixture;

static dc_dataset *open_set(const char *path)
{
    dc_dataset *dataset;
    if (dc_dataset_open(path, &dataset) != DC_OK)
        fail_msg("%s", dc_status_message());
    return dataset;
}

/* Pixels of the same shape and labels, so that one test serves both kinds. */
static int setup(void **state)
{
    static uint8_t pixels[N * PIXELS];
    static int32_t labels[N];
    fixture *f = calloc(1, sizeof *f);
    f->dir = temp_dir_make();
    temp_path path = temp_dir_path(&f->dir, "jpegs.h5");
    picture_set_write(path.s, N, -1);
    f->jpegs = open_set(path.s);
    assert_int_equal(dc_dataset_set_image_size(f->jpegs, SIDE), DC_OK);
    const char *names[N];
    for (int i = 0; i < N; i++) {
        labels[i] = i;
        names[i] = f->jpegs->classes[i];
    }
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(i * 2654435761u >> 24);
    const dc_images images = {.n = N, .pixels = pixels, .labels = labels};
    const dc_dataset_content content = {"pixels", {3, SIDE, SIDE}, N, names, {images, images}};
    path = temp_dir_path(&f->dir, "pixels.h5");
    assert_int_equal(dc_dataset_write(path.s, &content), DC_OK);
    f->pixels = open_set(path.s);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    dc_dataset_close(f->jpegs);
    dc_dataset_close(f->pixels);
    temp_dir_remove(&f->dir);
    free(f);
    return 0;
}

/* What an epoch brought: images and labels by their position in it. */
typedef struct epoch {
    int32_t label[N];
    float image[N][PIXELS];
    int n;
} epoch;

/* Loads an epoch from a step on, on all of `size` ranks. */
static void load(const dc_dataset *dataset, const dc_augment *augment, int lane, int size, int threads, uint32_t start,
                 epoch *e)
{
    for (int rank = 0; rank < size; rank++) {
        const dc_loader_options options = {.split = DC_SPLIT_TRAIN,
                                           .batch = BATCH,
                                           .rank = rank,
                                           .size = size,
                                           .lane = lane,
                                           .seed = SEED,
                                           .shuffle = true,
                                           .augment = *augment,
                                           .loading = {threads, 1 + threads % 3}};
        dc_loader *loader;
        assert_int_equal(dc_loader_create(dataset, &options, &loader), DC_OK);
        assert_int_equal(dc_loader_begin_epoch(loader, EPOCH, start), DC_OK);
        for (const dc_batch *b;;) {
            if (dc_loader_next(loader, &b) != DC_OK)
                fail_msg("%s", dc_status_message());
            if (!b)
                break;
            for (int i = 0; i < b->n_images; i++, e->n++) {
                const uint32_t at = b->step * BATCH + (uint32_t)(b->first_image + i);
                e->label[at] = b->labels[i];
                for (int p = 0; p < PIXELS; p++)
                    e->image[at][p] = b->images[(i / lane * PIXELS + p) * lane + i % lane];
            }
        }
        assert_true(dc_loader_wait_seconds(loader) >= 0);
        dc_loader_destroy(loader);
    }
}

static epoch *blank(void)
{
    epoch *e = malloc(sizeof *e);
    assert_non_null(e);
    memset(e, 0xff, sizeof *e);
    e->n = 0;
    return e;
}

static void assert_same(const epoch *a, const epoch *b)
{
    assert_memory_equal(a->label, b->label, sizeof a->label);
    assert_memory_equal(a->image, b->image, sizeof a->image);
}

/* Each sample once over all ranks, in one order for 1, 2, 3 and 4 of them, whoever and however many make it. */
static void check_epoch(const dc_dataset *dataset, const dc_augment *augment)
{
    epoch *reference = blank();
    load(dataset, augment, 16, 1, 1, 0, reference);
    assert_int_equal(reference->n, N);
    int seen[N] = {0};
    for (int i = 0; i < N; i++)
        seen[reference->label[i]]++;
    for (int i = 0; i < N; i++)
        assert_int_equal(seen[i], 1);
    for (int size = 1; size <= 4; size++)
        for (int threads = 1; threads <= 5; threads += 2) {
            epoch *other = blank();
            load(dataset, augment, size % 2 ? 1 : 16, size, threads, 0, other);
            assert_int_equal(other->n, N);
            assert_same(other, reference);
            free(other);
        }
    for (uint32_t start = 1; start <= 4; start++) { /* resumed in mid-epoch, with other ranks and threads */
        epoch *resumed = blank();
        memcpy(resumed, reference, sizeof *resumed);
        for (uint32_t i = start * BATCH; i < N; i++)
            resumed->label[i] = -1;
        resumed->n = 0;
        load(dataset, augment, 16, (int)start, 5 - (int)start, start, resumed);
        assert_int_equal(resumed->n, start * BATCH < N ? N - (int)start * BATCH : 0);
        assert_same(resumed, reference);
        free(resumed);
    }
    free(reference);
}

static void test_epochs_of_jpegs(void **state)
{
    check_epoch(((fixture *)*state)->jpegs, &imagenet);
}

static void test_epochs_of_cropped_pixels(void **state)
{
    check_epoch(((fixture *)*state)->pixels, &imagenet);
}

static void test_epochs_of_pixels(void **state)
{
    check_epoch(((fixture *)*state)->pixels, &(dc_augment){.pad = 4, .flip = true, .cutout = 8});
}

/* Another epoch shows other parts of the pictures. */
static void test_epochs_differ(void **state)
{
    const fixture *f = *state;
    const dc_loader_options options = {
        .batch = N, .size = 1, .lane = 1, .seed = SEED, .augment = imagenet, .loading = {2, 1}};
    static float first[N * PIXELS];
    dc_loader *loader;
    const dc_batch *b;
    assert_int_equal(dc_loader_create(f->jpegs, &options, &loader), DC_OK);
    for (uint32_t e = 0; e < 2; e++) {
        assert_int_equal(dc_loader_begin_epoch(loader, e, 0), DC_OK);
        assert_int_equal(dc_loader_next(loader, &b), DC_OK);
        if (e == 0)
            memcpy(first, b->images, sizeof first);
    }
    for (int i = 0; i < N; i++)
        assert_memory_not_equal(b->images + i * PIXELS, first + i * PIXELS, PIXELS * sizeof *first);
    dc_loader_destroy(loader);
}

/* A picture that cannot be read is an error in its batch's place, that names it; those before it come. */
static void test_a_damaged_picture_is_named(void **state)
{
    fixture *f = *state;
    temp_path path = temp_dir_path(&f->dir, "damaged.h5");
    picture_set_write(path.s, N, 29);
    dc_dataset *dataset = open_set(path.s);
    for (int threads = 1; threads <= 6; threads++) {
        const dc_loader_options options = {
            .batch = 10, .size = 1, .lane = 16, .seed = SEED, .loading = {threads, threads % 3 + 1}};
        dc_loader *loader;
        const dc_batch *b;
        assert_int_equal(dc_loader_create(dataset, &options, &loader), DC_OK);
        for (int round = 0; round < 2; round++) {
            assert_int_equal(dc_loader_begin_epoch(loader, 0, 0), DC_OK);
            for (uint32_t step = 0; step < 2; step++) {
                assert_int_equal(dc_loader_next(loader, &b), DC_OK);
                assert_int_equal(b->step, step);
            }
            for (int again = 0; again < 2; again++) {
                assert_int_equal(dc_loader_next(loader, &b), DC_ERR_INPUT);
                assert_null(b);
                assert_non_null(strstr(dc_status_message(), path.s));
                assert_non_null(strstr(dc_status_message(), "train picture 29: no readable JPEG: "));
            }
            assert_int_equal(dc_loader_begin_epoch(loader, 0, 3), DC_OK); /* what comes after it does too */
            assert_int_equal(dc_loader_next(loader, &b), DC_OK);
            assert_int_equal(b->labels[0], 30);
        }
        dc_loader_destroy(loader);
    }
    dc_dataset_close(dataset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_epochs_of_jpegs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_epochs_of_cropped_pixels, setup, teardown),
        cmocka_unit_test_setup_teardown(test_epochs_of_pixels, setup, teardown),
        cmocka_unit_test_setup_teardown(test_epochs_differ, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_damaged_picture_is_named, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
