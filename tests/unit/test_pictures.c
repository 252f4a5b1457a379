/* Decoding and resampling of pictures: PIL's results, whatever part is asked for, and damage is said. */
#include "data/jpeg.h"
#include "data/resample.h"
#include "tests/support/picture_set.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const names[] = {"444", "422", "420", "progressive", "grey", "cmyk"};
enum { N_NAMES = sizeof names / sizeof *names, N_RESIZES = 5 };

static int setup(void **state)
{
    dc_jpeg *jpeg;
    assert_int_equal(dc_jpeg_create(&jpeg), DC_OK);
    *state = jpeg;
    return 0;
}

static int teardown(void **state)
{
    dc_jpeg_destroy(*state);
    return 0;
}

/* A region of the picture; fails the test when it cannot be had. */
static dc_rgb decode(dc_jpeg *jpeg, const golden_picture *p, int shrink, dc_region region)
{
    int w, h;
    dc_rgb out;
    if (dc_jpeg_open(jpeg, p->jpeg, p->jpeg_bytes, &w, &h) != DC_OK ||
        dc_jpeg_decode(jpeg, shrink, region, &out) != DC_OK)
        fail_msg("%s", dc_status_message());
    assert_int_equal(w, p->w);
    assert_int_equal(h, p->h);
    assert_int_equal(out.w, region.w);
    assert_int_equal(out.h, region.h);
    return out;
}

static void test_whole_pictures_are_pils(void **state)
{
    for (int i = 0; i < N_NAMES; i++) {
        golden_picture p = golden_picture_open(names[i]);
        dc_rgb out = decode(*state, &p, 1, (dc_region){0, 0, p.w, p.h});
        for (int y = 0; y < p.h; y++)
            if (memcmp(out.pixels + y * out.stride, p.rgb + (size_t)y * (size_t)p.w * 3, (size_t)p.w * 3) != 0)
                fail_msg("%s: row %d is not PIL's", names[i], y);
        golden_picture_clear(&p);
    }
}

static int below(uint32_t *word, int n)
{
    *word = *word * 1664525u + 1013904223u;
    return (int)((uint64_t)*word * (uint64_t)n >> 32);
}

/* Whatever part is asked for, at any size. */
static void test_regions_are_parts_of_the_whole(void **state)
{
    uint32_t word = 1;
    for (int i = 0; i < N_NAMES; i++)
        for (int shrink = 1; shrink <= 8; shrink *= 2) {
            golden_picture p = golden_picture_open(names[i]);
            int w = dc_jpeg_shrunk(p.w, shrink), h = dc_jpeg_shrunk(p.h, shrink);
            dc_rgb out = decode(*state, &p, shrink, (dc_region){0, 0, w, h});
            uint8_t *whole = malloc((size_t)h * (size_t)w * 3);
            for (int y = 0; y < h; y++)
                memcpy(whole + y * w * 3, out.pixels + y * out.stride, (size_t)w * 3);
            for (int k = 0; k < 60; k++) {
                dc_region r = {.x = below(&word, w), .y = below(&word, h)};
                r.w = 1 + below(&word, w - r.x);
                r.h = 1 + below(&word, h - r.y);
                out = decode(*state, &p, shrink, r);
                for (int y = 0; y < r.h; y++)
                    if (memcmp(out.pixels + y * out.stride, whole + ((r.y + y) * w + r.x) * 3, (size_t)r.w * 3) != 0)
                        fail_msg("%s: shrunk by %d, %dx%d at %d, %d: row %d", names[i], shrink, r.w, r.h, r.x, r.y, y);
            }
            free(whole);
            golden_picture_clear(&p);
        }
}

static void test_damage_is_said(void **state)
{
    dc_jpeg *jpeg = *state;
    int w, h;
    dc_rgb out;
    for (int i = 0; i < N_NAMES; i++) {
        golden_picture p = golden_picture_open(names[i]);
        dc_region all = {0, 0, p.w, p.h};
        for (size_t n = 0; n < p.jpeg_bytes; n += 1 + n / 8) { /* cut short */
            dc_status status = dc_jpeg_open(jpeg, p.jpeg, n, &w, &h);
            if (status == DC_OK)
                status = dc_jpeg_decode(jpeg, 1, all, &out);
            assert_int_equal(status, DC_ERR_INPUT);
            assert_non_null(strstr(dc_status_message(), "no readable JPEG: "));
        }
        golden_picture_clear(&p);
    }
    assert_int_equal(dc_jpeg_open(jpeg, (const uint8_t *)"a text", 6, &w, &h), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), "Not a JPEG file"));
    golden_picture p = golden_picture_open("420"); /* and the decoder still works */
    decode(jpeg, &p, 1, (dc_region){0, 0, p.w, p.h});
    assert_int_equal(dc_jpeg_open(jpeg, p.jpeg, p.jpeg_bytes, &w, &h), DC_OK);
    assert_int_equal(dc_jpeg_decode(jpeg, 2, (dc_region){0, 0, p.w, p.h}, &out), DC_ERR_INTERNAL);
    golden_picture_clear(&p);
}

/* PIL rounds to bytes between columns and rows, we only at the end: a level at most. */
static void test_sizes_change_as_pils(void **state)
{
    (void)state;
    dc_resampler *resampler;
    assert_int_equal(dc_resampler_create(&resampler), DC_OK);
    const struct {
        const char *name;
        int n;
    } cases[] = {{"444", N_RESIZES}, {"grey", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        golden_picture p = golden_picture_open(cases[i].name);
        for (int k = 0; k < cases[i].n; k++) {
            char group[64];
            snprintf(group, sizeof group, "%s/resize-%d", cases[i].name, k);
            int dims[3], *box = golden_ints(group, "box", dims);
            uint8_t *planes = golden_bytes(group, "planes", dims);
            int side = dims[1];
            size_t plane = (size_t)side * (size_t)side, total = 0;
            uint8_t *out = malloc(3 * plane), *grey = malloc(plane);
            dc_pixels part = {p.rgb + (box[1] * p.w + box[0]) * 3, p.w * 3, box[2], box[3], 3};
            dc_box all = {0, 0, box[2], box[3]};
            assert_int_equal(dc_resample(resampler, &part, all, side, side, out), DC_OK);
            for (size_t j = 0; j < 3 * plane; j++) {
                int off = abs(out[j] - planes[j]);
                total += (size_t)off;
                if (off > 1)
                    fail_msg("%s: %d at %zu, PIL has %d", group, out[j], j, planes[j]);
            }
            assert_true((double)total / (double)(3 * plane) < 0.25);
            /* a plane of one channel alone gives the same, up to rounding */
            uint8_t *red = malloc((size_t)(box[2] * box[3]));
            for (int y = 0; y < box[3]; y++)
                for (int x = 0; x < box[2]; x++)
                    red[y * box[2] + x] = part.pixels[y * part.stride + 3 * x];
            dc_pixels one = {red, box[2], box[2], box[3], 1};
            assert_int_equal(dc_resample(resampler, &one, all, side, side, grey), DC_OK);
            for (size_t j = 0; j < plane; j++)
                assert_in_range(grey[j] - out[j] + 1, 0, 2);
            free(red);
            free(grey);
            free(out);
            free(box);
            free(planes);
        }
        golden_picture_clear(&p);
    }
    dc_resampler_destroy(resampler);
}

/* Sides that lie within pixels: a ramp stays the ramp. */
static void test_fractional_boxes(void **state)
{
    (void)state;
    enum { SIDE = 40, OUT = 16 };
    uint8_t ramp[SIDE * SIDE], out[OUT * OUT];
    for (int i = 0; i < SIDE * SIDE; i++)
        ramp[i] = (uint8_t)(6 * (i % SIDE));
    dc_resampler *resampler;
    assert_int_equal(dc_resampler_create(&resampler), DC_OK);
    dc_pixels source = {ramp, SIDE, SIDE, SIDE, 1};
    dc_box box = {4.3, 2.7, 30.4, 11.1};
    assert_int_equal(dc_resample(resampler, &source, box, OUT, OUT, out), DC_OK);
    for (int i = 0; i < OUT * OUT; i++) {
        double expected = 6 * (box.x + (i % OUT + 0.5) * box.w / OUT - 0.5);
        assert_true(out[i] >= expected - 1 && out[i] <= expected + 1);
    }
    assert_int_equal(dc_resample(resampler, &source, (dc_box){20, 0, 21, 5}, OUT, OUT, out), DC_ERR_INTERNAL);
    dc_resampler_destroy(resampler);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_whole_pictures_are_pils, setup, teardown),
        cmocka_unit_test_setup_teardown(test_regions_are_parts_of_the_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_is_said, setup, teardown),
        cmocka_unit_test(test_sizes_change_as_pils),
        cmocka_unit_test(test_fractional_boxes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
