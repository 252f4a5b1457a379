/* Crops and colours: torchvision's results for given draws, draws as they should be spread, and a whole that is no
 * different from its parts. */
#include "data/crop.h"
#include "data/jpeg.h"
#include "tests/support/picture_set.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SIDE = 32, SEED = 3, N_COLOURS = 9, N_PICTURES = 24 };

static const dc_augment imagenet = {.resized_crop = true, .smallest_crop = 0.08};

/* ---- where ---- */

static void test_random_parts_are_spread(void **state)
{
    (void)state;
    enum { DRAWS = 20000, W = 500, H = 400 };
    int areas[4] = {0}, wide = 0, left = 0;
    for (uint32_t i = 0; i < DRAWS; i++) {
        dc_box box = dc_crop_draw(&imagenet, W, H, 224, SEED, i % 5, i);
        assert_true(box.x >= 0 && box.y >= 0 && box.w >= 1 && box.h >= 1 && box.x + box.w <= W && box.y + box.h <= H);
        assert_true(box.x == floor(box.x) && box.w == floor(box.w));
        const double area = box.w * box.h / (W * H), shape = box.w / box.h;
        assert_true(area > 0.079 && area <= 1 && shape > 0.74 && shape < 1.35);
        areas[(int)((area - 0.079) / 0.9211 * 4)]++;
        wide += shape > 1;
        left += box.x < (W - box.w) / 2;
    }
    /* As torchvision's in as many draws: those that would not fit, mostly large ones, are drawn again. */
    static const double shares[] = {0.316, 0.319, 0.258, 0.107};
    for (int k = 0; k < 4; k++)
        assert_true(fabs((double)areas[k] / DRAWS - shares[k]) < 0.015);
    assert_true(fabs((double)wide / DRAWS - 0.573) < 0.015);
    assert_true(fabs((double)left / DRAWS - 0.491) < 0.015);
}

static void test_parts_that_do_not_fit_are_the_middle(void **state)
{
    (void)state;
    const dc_augment whole = {.resized_crop = true, .smallest_crop = 1};
    dc_box box = dc_crop_draw(&whole, 500, 40, 224, SEED, 0, 0);
    assert_true(box.w == 53 && box.h == 40 && box.x == 223 && box.y == 0);
    box = dc_crop_draw(&whole, 30, 90, 224, SEED, 0, 0);
    assert_true(box.w == 30 && box.h == 40 && box.x == 0 && box.y == 25);
    box = dc_crop_draw(NULL, 500, 375, 224, SEED, 0, 0); /* 341x256, of which 224x224 from 58, 16 */
    assert_true(fabs(box.x - 58 * 500.0 / 341) < 1e-9 && fabs(box.y - 16 * 375.0 / 256) < 1e-9);
    assert_true(fabs(box.h - 224 * 375.0 / 256) < 1e-9);
}

/* ---- pixels ---- */

static void assert_close(const char *what, const uint8_t *a, const uint8_t *b, size_t n, int tolerance, double mean)
{
    double total = 0;
    for (size_t i = 0; i < n; i++) {
        const int off = abs(a[i] - b[i]);
        total += off;
        if (off > tolerance)
            fail_msg("%s: %d instead of %d at %zu", what, a[i], b[i], i);
    }
    if (total / (double)n > mean)
        fail_msg("%s: off by %g on average", what, total / (double)n);
}

static dc_dataset *picture_set(temp_dir *dir, int side)
{
    dc_dataset *dataset;
    temp_path path = temp_dir_path(dir, "pictures.h5");
    picture_set_write(path.s, N_PICTURES, -1);
    assert_int_equal(dc_dataset_open(path.s, &dataset), DC_OK);
    assert_int_equal(dc_dataset_set_image_size(dataset, side), DC_OK);
    return dataset;
}

/* The data set of one golden picture. */
static void test_middles_are_torchvisions(void **state)
{
    (void)state;
    static const char *const names[] = {"444", "422", "420", "progressive", "grey"};
    static const char *const classes[] = {"only"};
    dc_cropper *cropper;
    assert_int_equal(dc_cropper_create(&cropper), DC_OK);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        golden_picture p = golden_picture_open(names[i]);
        temp_dir dir = temp_dir_make();
        temp_path path = temp_dir_path(&dir, "one.h5");
        const dc_dataset_head head = {.name = "one",
                                      .storage = DC_STORAGE_JPEG,
                                      .n_classes = 1,
                                      .classes = classes,
                                      .n = {1, 1},
                                      .jpeg_bytes = {p.jpeg_bytes, p.jpeg_bytes},
                                      .deviation = {1, 1, 1}};
        dc_dataset_writer *writer;
        assert_int_equal(dc_dataset_writer_create(path.s, &head, &writer), DC_OK);
        for (int s = 0; s < DC_SPLIT_COUNT; s++)
            dc_dataset_writer_put_jpeg(writer, 0, (dc_picture_size){p.h, p.w}, p.jpeg, p.jpeg_bytes);
        assert_int_equal(dc_dataset_writer_commit(writer), DC_OK);
        dc_dataset *dataset;
        assert_int_equal(dc_dataset_open(path.s, &dataset), DC_OK);
        dc_dataset_set_image_size(dataset, SIDE);
        uint8_t out[3 * SIDE * SIDE];
        if (dc_crop_make(cropper, dataset, DC_SPLIT_TEST, 0, &(dc_augment){0}, SEED, 0, out) != DC_OK)
            fail_msg("%s", dc_status_message());
        int dims[3];
        uint8_t *middle = golden_bytes(names[i], "middle", dims);
        assert_int_equal(dims[1], SIDE);
        assert_close(names[i], out, middle, sizeof out, 1, 0.3);
        free(middle);
        dc_dataset_close(dataset);
        temp_dir_remove(&dir);
        golden_picture_clear(&p);
    }
    dc_cropper_destroy(cropper);
}

/* What is decoded in part, and smaller where a part is large, is what the whole picture shows there. */
static void test_parts_are_of_the_whole(void **state)
{
    (void)state;
    temp_dir dir = temp_dir_make();
    dc_cropper *cropper;
    dc_jpeg *jpeg;
    dc_resampler *resampler;
    assert_int_equal(dc_cropper_create(&cropper), DC_OK);
    assert_int_equal(dc_jpeg_create(&jpeg), DC_OK);
    assert_int_equal(dc_resampler_create(&resampler), DC_OK);
    for (int side = 12; side <= 48; side += 36) { /* of pictures of 40..103 a side: some are decoded smaller, none is */
        dc_dataset *dataset = picture_set(&dir, side);
        const dc_images *images = &dataset->split[DC_SPLIT_TRAIN];
        const size_t bytes = 3 * (size_t)(side * side);
        uint8_t *out = malloc(bytes), *expected = malloc(bytes);
        for (uint32_t i = 0; i < N_PICTURES; i++) {
            int w, h;
            dc_rgb rgb;
            assert_int_equal(dc_crop_make(cropper, dataset, DC_SPLIT_TRAIN, i, &imagenet, SEED, 2, out), DC_OK);
            dc_jpeg_open(jpeg, images->jpegs + images->offsets[i], images->offsets[i + 1] - images->offsets[i], &w, &h);
            assert_int_equal(dc_jpeg_decode(jpeg, 1, (dc_region){0, 0, w, h}, &rgb), DC_OK);
            const dc_box box = dc_crop_draw(&imagenet, w, h, side, SEED, 2, i);
            const dc_pixels part = {rgb.pixels + (int)box.y * rgb.stride + 3 * (int)box.x, rgb.stride, (int)box.w,
                                    (int)box.h, 3};
            dc_resample(resampler, &part, (dc_box){0, 0, box.w, box.h}, side, side, expected);
            if (side == 48)
                assert_memory_equal(out, expected, bytes);
            else
                assert_close("shrunk", out, expected, bytes, 24, 3);
        }
        free(out);
        free(expected);
        dc_dataset_close(dataset);
    }
    dc_resampler_destroy(resampler);
    dc_jpeg_destroy(jpeg);
    dc_cropper_destroy(cropper);
    temp_dir_remove(&dir);
}

/* ---- colours ---- */

static const dc_colour_draw no_change = {{DC_BRIGHTNESS, DC_CONTRAST, DC_SATURATION, DC_HUE}, {1, 1, 1, 0}, {0}};

static void test_colours_are_torchvisions(void **state)
{
    (void)state;
    enum { W = 40, H = 24, X = 5, Y = 20 };
    golden_picture p = golden_picture_open("444");
    for (int k = 0; k < N_COLOURS; k++) {
        char group[32];
        int dims[3];
        uint8_t image[3 * W * H];
        snprintf(group, sizeof group, "444/colour-%d", k);
        float *change = golden_floats(group, "change", dims);
        uint8_t *planes = golden_bytes(group, "planes", dims);
        for (int i = 0; i < 3 * W * H; i++)
            image[i] = p.rgb[((Y + i / W % H) * p.w + X + i % W) * 3 + i / (W * H)];
        dc_colour_draw draw = no_change;
        draw.amount[(int)change[0]] = change[1];
        assert_int_equal(dc_colour_apply(&draw, 3, W * H, image), DC_OK);
        assert_close(group, image, planes, sizeof image, 1, change[0] == DC_HUE ? 0.6 : 0.02);
        free(change);
        free(planes);
    }
    golden_picture_clear(&p);
}

static void test_colours_of_grey_and_light(void **state)
{
    (void)state;
    uint8_t image[3 * 100], before[3 * 100];
    for (int i = 0; i < 300; i++)
        image[i] = before[i] = (uint8_t)(i * 7 % 256);
    dc_colour_draw draw = no_change;
    draw.amount[DC_SATURATION] = 0.3f;
    draw.amount[DC_HUE] = 0.4f;
    assert_int_equal(dc_colour_apply(&draw, 1, 300, image), DC_OK); /* grey has neither */
    assert_memory_equal(image, before, sizeof image);
    assert_int_equal(dc_colour_apply(&draw, 2, 150, image), DC_ERR_INTERNAL);
    draw = no_change;
    draw.light[1] = -20.4f;
    draw.light[2] = 9.6f;
    assert_int_equal(dc_colour_apply(&draw, 3, 100, image), DC_OK);
    for (int i = 0; i < 300; i++) {
        const int expected = before[i] + (i < 100 ? 0 : i < 200 ? -20 : 10);
        assert_int_equal(image[i], expected < 0 ? 0 : expected > 255 ? 255 : expected);
    }
}

static void test_colour_draws_are_spread(void **state)
{
    (void)state;
    enum { DRAWS = 20000 };
    const dc_augment augment = {.brightness = 0.4, .contrast = 0.3, .saturation = 0.2, .hue = 0.1, .lighting = 0.1};
    static const double low[] = {0.6, 0.7, 0.8, -0.1}, high[] = {1.4, 1.3, 1.2, 0.1};
    int place[DC_COLOUR_CHANGES][DC_COLOUR_CHANGES] = {{0}};
    double sum[DC_COLOUR_CHANGES] = {0}, light[3] = {0};
    for (uint32_t i = 0; i < DRAWS; i++) {
        const dc_colour_draw draw = dc_colour_image_draw(&augment, SEED, 1, i);
        for (int k = 0; k < DC_COLOUR_CHANGES; k++) {
            assert_true((double)draw.amount[k] >= low[k] - 1e-6 && (double)draw.amount[k] <= high[k] + 1e-6);
            sum[k] += ((double)draw.amount[k] - low[k]) / (high[k] - low[k]);
            place[k][draw.order[k]]++;
        }
        for (int c = 0; c < 3; c++)
            light[c] += (double)(draw.light[c] * draw.light[c]);
    }
    for (int k = 0; k < DC_COLOUR_CHANGES; k++) {
        assert_true(fabs(sum[k] / DRAWS - 0.5) < 0.01);
        for (int c = 0; c < DC_COLOUR_CHANGES; c++)
            assert_in_range(place[k][c], DRAWS / 4 - 250, DRAWS / 4 + 250);
    }
    for (int c = 0; c < 3; c++) /* 255 * 0.1 * 0.2175 * 0.57, mostly */
        assert_true(fabs(sqrt(light[c] / DRAWS) - 3.2) < 0.15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_parts_are_spread),  cmocka_unit_test(test_parts_that_do_not_fit_are_the_middle),
        cmocka_unit_test(test_middles_are_torchvisions), cmocka_unit_test(test_parts_are_of_the_whole),
        cmocka_unit_test(test_colours_are_torchvisions), cmocka_unit_test(test_colours_of_grey_and_light),
        cmocka_unit_test(test_colour_draws_are_spread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
