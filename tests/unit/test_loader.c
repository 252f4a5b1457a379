/* The loader: every image exactly once, one order for any rank count, resumable, and the values of a plain reference.
 */
#include "base/rng.h"
#include "data/loader.h"
#include "tests/support/temp_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <utime.h>

#include <cmocka.h>

enum { N_TRAIN = 103, N_TEST = 37, C = 3, H = 6, W = 7, CLASSES = 5, PIXELS = C * H * W };

typedef struct fixture {
    temp_dir dir;
    temp_path path;
    dc_dataset *dataset;
} fixture;

/* The first pixel tells the image's index. */
static int setup(void **state)
{
    static uint8_t pixels[DC_SPLIT_COUNT][N_TRAIN * PIXELS];
    static int32_t labels[DC_SPLIT_COUNT][N_TRAIN];
    static const char *const names[CLASSES] = {"a", "b", "c", "d", "e"};
    fixture *f = calloc(1, sizeof *f);
    for (int s = 0; s < DC_SPLIT_COUNT; s++)
        for (uint32_t i = 0; i < N_TRAIN; i++) {
            labels[s][i] = (int32_t)(i * 7 / 3 % CLASSES);
            for (uint32_t k = 0; k < PIXELS; k++)
                pixels[s][i * PIXELS + k] = k ? (uint8_t)(dc_rng_uniform((dc_rng_key){1, (uint64_t)s}, i, k) * 256)
                                              : (uint8_t)(i + 100 * (uint32_t)s);
        }
    dc_dataset_content content = {"small",
                                  {C, H, W},
                                  CLASSES,
                                  names,
                                  {{.n = N_TRAIN, .pixels = pixels[DC_SPLIT_TRAIN], .labels = labels[DC_SPLIT_TRAIN]},
                                   {.n = N_TEST, .pixels = pixels[DC_SPLIT_TEST], .labels = labels[DC_SPLIT_TEST]}}};
    f->dir = temp_dir_make();
    f->path = temp_dir_path(&f->dir, "small.h5");
    assert_int_equal(dc_dataset_write(f->path.s, &content), DC_OK);
    assert_int_equal(dc_dataset_open(f->path.s, &f->dataset), DC_OK);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    dc_dataset_close(f->dataset);
    temp_dir_remove(&f->dir);
    free(f);
    return 0;
}

static dc_loader_options training_options(int batch, int rank, int size)
{
    return (dc_loader_options){
        .split = DC_SPLIT_TRAIN, .batch = batch, .rank = rank, .size = size, .lane = 1, .seed = 7, .shuffle = true};
}

static dc_loader *create(const fixture *f, const dc_loader_options *options)
{
    dc_loader *loader;
    if (dc_loader_create(f->dataset, options, &loader) != DC_OK)
        fail_msg("%s", dc_status_message());
    return loader;
}

static const dc_batch *next(dc_loader *loader)
{
    const dc_batch *batch;
    if (dc_loader_next(loader, &batch) != DC_OK)
        fail_msg("%s", dc_status_message());
    return batch;
}

/* The index of an image of an unaugmented NCHW batch, from its first pixel. */
static uint32_t index_of(const fixture *f, const float *image)
{
    return (uint32_t)(((double)image[0] * f->dataset->deviation[0] + f->dataset->mean[0]) * 255 + 0.5);
}

/* Runs an epoch on all ranks; order[position in the epoch] = index of the image. Returns how many came. */
static uint32_t read_order(const fixture *f, int batch, int size, uint32_t epoch, uint32_t start, uint32_t *order)
{
    uint32_t n = 0;
    for (int rank = 0; rank < size; rank++) {
        dc_loader_options options = training_options(batch, rank, size);
        dc_loader *loader = create(f, &options);
        assert_int_equal(dc_loader_begin_epoch(loader, epoch, start), DC_OK);
        uint32_t step = start;
        for (const dc_batch *b; (b = next(loader)); step++) {
            assert_int_equal(b->step, step);
            assert_int_equal(b->epoch, epoch);
            assert_true(b->n_images <= dc_loader_local_share(batch, size));
            for (int i = 0; i < b->n_images; i++, n++) {
                uint32_t index = index_of(f, b->images + i * PIXELS);
                order[step * (uint32_t)batch + (uint32_t)(b->first_image + i)] = index;
                assert_int_equal(b->labels[i], f->dataset->split[DC_SPLIT_TRAIN].labels[index]);
            }
        }
        assert_int_equal(step, dc_loader_steps(loader));
        dc_loader_destroy(loader);
    }
    return n;
}

static void test_every_image_once_in_one_order(void **state)
{
    fixture *f = *state;
    uint32_t reference[N_TRAIN], order[N_TRAIN], other[N_TRAIN];
    assert_int_equal(read_order(f, 20, 1, 3, 0, reference), N_TRAIN);
    int seen[N_TRAIN] = {0}, moved = 0;
    for (int i = 0; i < N_TRAIN; i++) {
        seen[reference[i]]++;
        moved += reference[i] != (uint32_t)i;
    }
    for (int i = 0; i < N_TRAIN; i++)
        assert_int_equal(seen[i], 1);
    assert_true(moved > N_TRAIN / 2);
    for (int size = 2; size <= 8; size++) {
        memset(order, 0xff, sizeof order);
        assert_int_equal(read_order(f, 20, size, 3, 0, order), N_TRAIN);
        assert_memory_equal(order, reference, sizeof order);
    }
    assert_int_equal(read_order(f, 33, 3, 3, 0, order), N_TRAIN); /* another batch size: the same order */
    assert_memory_equal(order, reference, sizeof order);
    read_order(f, 20, 1, 4, 0, other);
    assert_memory_not_equal(other, reference, sizeof other);
}

static void test_resume_goes_on_in_the_order(void **state)
{
    fixture *f = *state;
    uint32_t reference[N_TRAIN], order[N_TRAIN];
    read_order(f, 10, 2, 5, 0, reference);
    memcpy(order, reference, sizeof order);
    memset(order + 40, 0xff, sizeof order - 40 * sizeof *order);
    assert_int_equal(read_order(f, 10, 2, 5, 4, order), N_TRAIN - 40);
    assert_memory_equal(order, reference, sizeof order);
}

static void test_begin_drops_what_was_made_ahead(void **state)
{
    fixture *f = *state;
    dc_loader_options options = training_options(10, 0, 1);
    dc_loader *loader = create(f, &options);
    for (uint32_t k = 0; k < 50; k++) {
        uint32_t epoch = k % 3, step = k % 11;
        assert_int_equal(dc_loader_begin_epoch(loader, epoch, step), DC_OK);
        const dc_batch *batch = next(loader);
        if (step == 11)
            assert_null(batch);
        else {
            assert_int_equal(batch->epoch, epoch);
            assert_int_equal(batch->step, step);
        }
    }
    assert_int_equal(dc_loader_begin_epoch(loader, 0, 11), DC_OK); /* resumed after the last step */
    assert_null(next(loader));
    dc_loader_destroy(loader);
}

static void test_repeat_and_drop_last(void **state)
{
    fixture *f = *state;
    dc_loader_options options = training_options(20, 0, 1);
    options.drop_last = options.repeat = true;
    dc_loader *loader = create(f, &options);
    assert_int_equal(dc_loader_steps(loader), 5);
    assert_int_equal(dc_loader_begin_epoch(loader, 2, 3), DC_OK);
    for (uint32_t k = 13; k < 33; k++) {
        const dc_batch *batch = next(loader);
        assert_non_null(batch);
        assert_int_equal(batch->epoch * 5 + batch->step, k);
        assert_int_equal(batch->n_images, 20);
    }
    dc_loader_destroy(loader);
}

static void test_evaluation_counts_exactly(void **state)
{
    fixture *f = *state;
    for (int size = 1; size <= 4; size++) {
        int n = 0;
        for (int rank = 0; rank < size; rank++) {
            dc_loader_options options = {
                .split = DC_SPLIT_TEST, .batch = 12, .rank = rank, .size = size, .lane = 16, .seed = 1};
            dc_loader *loader = create(f, &options);
            assert_int_equal(dc_loader_begin_epoch(loader, 0, 0), DC_OK);
            for (const dc_batch *b; (b = next(loader));) {
                assert_int_equal(b->n_global, b->step == 3 ? 1 : 12);
                n += b->n_images;
                for (int i = 0; i < b->n_images; i++) /* in the stored order */
                    assert_int_equal(
                        b->labels[i],
                        f->dataset->split[DC_SPLIT_TEST].labels[b->step * 12 + (uint32_t)(b->first_image + i)]);
                for (int i = b->n_images; i < 16; i++) {
                    assert_int_equal(b->labels[i], 0);
                    for (int k = 0; k < PIXELS; k++)
                        assert_true(b->images[k * 16 + i] == 0);
                }
            }
            dc_loader_destroy(loader);
        }
        assert_int_equal(n, N_TEST);
    }
}

/* What DARTS does to one image, step by step: pad with black, crop, flip, normalise, cut out. */
static void reference_image(const dc_dataset *dataset, const dc_augment *augment, uint32_t index,
                            const dck_augment_draw *draw, float *out)
{
    enum { PAD_MAX = 4, PADDED = H + W + 2 * PAD_MAX };
    const uint8_t *image = dataset->split[DC_SPLIT_TRAIN].pixels + index * PIXELS;
    for (int c = 0; c < C; c++) {
        uint8_t padded[PADDED][PADDED] = {{0}}, crop[H][W];
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++)
                padded[y + augment->pad][x + augment->pad] = image[(c * H + y) * W + x];
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++)
                crop[y][x] = padded[y + draw->offset_y][x + draw->offset_x];
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++) {
                uint8_t byte = draw->flip ? crop[y][W - 1 - x] : crop[y][x];
                bool cut = y >= draw->cut_y0 && y < draw->cut_y1 && x >= draw->cut_x0 && x < draw->cut_x1;
                out[(c * H + y) * W + x] = cut ? 0 : (float)((byte / 255.0 - dataset->mean[c]) / dataset->deviation[c]);
            }
    }
}

static void test_values_follow_the_reference(void **state)
{
    fixture *f = *state;
    static const dc_augment cases[] = {
        {0}, {.pad = 4}, {.flip = true}, {.cutout = 3}, {.pad = 2, .flip = true, .cutout = 4}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        for (int size = 1; size <= 3; size++)
            for (int rank = 0; rank < size; rank++) {
                dc_loader_options options = training_options(40, rank, size), plain = options;
                options.augment = cases[k];
                options.lane = 16;
                dc_loader *loader = create(f, &options), *names = create(f, &plain);
                dc_loader_begin_epoch(loader, 6, 0);
                dc_loader_begin_epoch(names, 6, 0);
                for (const dc_batch *b; (b = next(loader));) {
                    const dc_batch *same = next(names);
                    for (int i = 0; i < b->n_images; i++) {
                        uint32_t index = index_of(f, same->images + i * PIXELS);
                        dck_augment_draw draw =
                            dc_augment_image_draw(&cases[k], (dc_shape){C, H, W}, options.seed, 6, index);
                        float expected[PIXELS];
                        reference_image(f->dataset, &cases[k], index, &draw, expected);
                        for (int p = 0; p < PIXELS; p++)
                            assert_true(b->images[(i / 16 * PIXELS + p) * 16 + i % 16] == expected[p]);
                    }
                }
                dc_loader_destroy(loader);
                dc_loader_destroy(names);
            }
}

/* The same images with the same changes, as bytes. */
static void test_pixels_make_the_same_batches(void **state)
{
    fixture *f = *state;
    for (int rank = 0; rank < 2; rank++) {
        dc_loader_options options = training_options(40, rank, 2), as_pixels = options;
        as_pixels.augment = (dc_augment){.pad = 2, .flip = true, .cutout = 4};
        as_pixels.as_pixels = true;
        as_pixels.loading = (dc_loading){3, 2};
        dc_loader *loader = create(f, &as_pixels), *names = create(f, &options);
        assert_true(dc_loader_bytes(f->dataset, &as_pixels) < dc_loader_bytes(f->dataset, &options));
        dc_loader_begin_epoch(loader, 6, 0);
        dc_loader_begin_epoch(names, 6, 0);
        for (const dc_batch *b; (b = next(loader));) {
            const dc_batch *same = next(names);
            assert_null(b->images);
            assert_int_equal(b->n_images, same->n_images);
            assert_int_equal(b->pixels.pad, 2);
            assert_memory_equal(b->labels, same->labels, (size_t)b->n_images * sizeof *b->labels);
            for (int i = 0; i < b->n_images; i++) {
                const uint32_t index = index_of(f, same->images + i * PIXELS);
                const dck_augment_draw draw =
                    dc_augment_image_draw(&as_pixels.augment, (dc_shape){C, H, W}, options.seed, 6, index);
                assert_memory_equal(&b->pixels.draws[i], &draw, sizeof draw);
                const uint8_t *stored = f->dataset->split[DC_SPLIT_TRAIN].pixels + index * PIXELS;
                assert_memory_equal(b->pixels.bytes + i * PIXELS, stored, PIXELS);
                for (int c = 0; c < C; c++)
                    assert_true(b->pixels.table[c * 256 + 200] ==
                                (float)((200 / 255.0 - f->dataset->mean[c]) / f->dataset->deviation[c]));
            }
        }
        dc_loader_destroy(loader);
        dc_loader_destroy(names);
    }
}

static void test_draws_are_spread(void **state)
{
    (void)state;
    enum { DRAWS = 20000 };
    dc_augment augment = {.pad = 4, .flip = true, .cutout = 16};
    int offset_y[9] = {0}, offset_x[9] = {0}, flips = 0, centre[32] = {0};
    for (uint32_t i = 0; i < DRAWS; i++) {
        dck_augment_draw draw = dc_augment_image_draw(&augment, (dc_shape){3, 32, 32}, 5, i % 7, i);
        offset_y[draw.offset_y]++;
        offset_x[draw.offset_x]++;
        flips += draw.flip;
        assert_true(draw.cut_y0 >= 0 && draw.cut_y1 <= 32 && draw.cut_y1 - draw.cut_y0 >= 8);
        centre[draw.cut_x0 > 0 ? draw.cut_x0 + 8 : draw.cut_x1 - 8]++;
    }
    for (int k = 0; k < 9; k++) {
        assert_in_range(offset_y[k], DRAWS / 9 - 250, DRAWS / 9 + 250);
        assert_in_range(offset_x[k], DRAWS / 9 - 250, DRAWS / 9 + 250);
    }
    for (int k = 0; k < 32; k++)
        assert_in_range(centre[k], DRAWS / 32 - 130, DRAWS / 32 + 130);
    assert_in_range(flips, DRAWS / 2 - 350, DRAWS / 2 + 350);
}

static void test_lists_and_splits(void **state)
{
    fixture *f = *state;
    const dc_images *train = &f->dataset->split[DC_SPLIT_TRAIN];
    dc_indices a, b, again_a, again_b;
    assert_int_equal(dc_split_indices(f->dataset, 3, (dc_portion){0.5, 0}, (dc_portion){0.25, 0}, &a, &b), DC_OK);
    int total[CLASSES] = {0}, in_a[CLASSES] = {0}, in_b[CLASSES] = {0}, used[N_TRAIN] = {0};
    for (uint32_t i = 0; i < train->n; i++)
        total[train->labels[i]]++;
    for (uint32_t i = 0; i < a.n; i++) {
        in_a[train->labels[a.items[i]]]++;
        used[a.items[i]]++;
    }
    for (uint32_t i = 0; i < b.n; i++) {
        in_b[train->labels[b.items[i]]]++;
        used[b.items[i]]++;
    }
    for (int i = 0; i < N_TRAIN; i++)
        assert_true(used[i] <= 1);
    for (int c = 0; c < CLASSES; c++) {
        assert_int_equal(in_a[c], total[c] / 2);
        assert_int_equal(in_b[c], total[c] * 3 / 4 - total[c] / 2);
    }
    assert_int_equal(dc_split_indices(f->dataset, 3, (dc_portion){0.5, 0}, (dc_portion){0.25, 0}, &again_a, &again_b),
                     DC_OK);
    assert_memory_equal(a.items, again_a.items, a.n * sizeof *a.items);
    dc_indices_clear(&again_a);
    dc_indices_clear(&again_b);
    dc_indices_clear(&b);
    assert_int_equal(dc_split_indices(f->dataset, 4, (dc_portion){0.5, 0}, (dc_portion){0.5, 9}, &again_a, &b), DC_OK);
    assert_memory_not_equal(a.items, again_a.items, a.n * sizeof *a.items);
    assert_int_equal(b.n, 9);

    /* a loader over a list gives exactly that list */
    dc_loader_options options = training_options(8, 0, 1);
    options.indices = &a;
    dc_loader *loader = create(f, &options);
    dc_loader_begin_epoch(loader, 0, 0);
    memset(used, 0, sizeof used);
    for (const dc_batch *batch; (batch = next(loader));)
        for (int i = 0; i < batch->n_images; i++)
            used[index_of(f, batch->images + i * PIXELS)]++;
    for (uint32_t i = 0; i < a.n; i++)
        assert_int_equal(used[a.items[i]]--, 1);
    for (int i = 0; i < N_TRAIN; i++)
        assert_int_equal(used[i], 0);
    dc_loader_destroy(loader);
    dc_indices_clear(&a);
    dc_indices_clear(&again_a);
    dc_indices_clear(&b);
}

static void test_refusals(void **state)
{
    fixture *f = *state;
    dc_indices a, b;
    assert_int_equal(dc_split_indices(f->dataset, 3, (dc_portion){0.7, 0}, (dc_portion){0.5, 0}, &a, &b), DC_ERR_INPUT);
    assert_int_equal(dc_split_indices(f->dataset, 3, (dc_portion){0.5, 0}, (dc_portion){0.001, 0}, &a, &b),
                     DC_ERR_INPUT);
    dc_loader_options options = training_options(N_TRAIN + 1, 0, 1);
    dc_loader *loader;
    assert_int_equal(dc_loader_create(f->dataset, &options, &loader), DC_ERR_INPUT);
    assert_null(loader);
    assert_non_null(strstr(dc_status_message(), "batch of 104 images is larger than the 103 training images"));
}

static void test_destroy_at_any_time(void **state)
{
    fixture *f = *state;
    for (int k = 0; k < 200; k++) {
        dc_loader_options options = training_options(20, 0, 1);
        options.repeat = true;
        dc_loader *loader = create(f, &options);
        if (k % 4)
            dc_loader_begin_epoch(loader, 0, 0);
        for (int i = 0; i < k % 6 && k % 4; i++)
            next(loader);
        struct timespec pause = {0, k % 7 * 3000};
        nanosleep(&pause, NULL);
        dc_loader_destroy(loader);
    }
    dc_loader_destroy(NULL);
}

/* An error of the thread comes back to the caller, after the batches made before it. */
static void test_changed_file_is_reported(void **state)
{
    fixture *f = *state;
    dc_loader_options options = training_options(5, 0, 1);
    options.repeat = true;
    dc_loader *loader = create(f, &options);
    dc_loader_begin_epoch(loader, 0, 0);
    next(loader);
    struct utimbuf old = {1000000000, 1000000000};
    assert_int_equal(utime(f->path.s, &old), 0);
    dc_status status = DC_OK;
    const dc_batch *batch;
    for (int i = 0; i < 5 && status == DC_OK; i++)
        status = dc_loader_next(loader, &batch);
    assert_int_equal(status, DC_ERR_IO);
    assert_null(batch);
    assert_non_null(strstr(dc_status_message(), "changed while in use"));
    dc_loader_destroy(loader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_image_once_in_one_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_resume_goes_on_in_the_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_begin_drops_what_was_made_ahead, setup, teardown),
        cmocka_unit_test_setup_teardown(test_repeat_and_drop_last, setup, teardown),
        cmocka_unit_test_setup_teardown(test_evaluation_counts_exactly, setup, teardown),
        cmocka_unit_test_setup_teardown(test_values_follow_the_reference, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pixels_make_the_same_batches, setup, teardown),
        cmocka_unit_test(test_draws_are_spread),
        cmocka_unit_test_setup_teardown(test_lists_and_splits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_destroy_at_any_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_changed_file_is_reported, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
