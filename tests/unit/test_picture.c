/* Pictures: every kind of JPEG and PNG becomes RGB, damage shows, sizes change as PIL's do. */
#include "data/picture.h"
#include "tests/support/pictures.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <png.h>

static dc_picture_reader *reader;

static dc_picture decoded(const file_bytes *file, int least_side)
{
    dc_picture picture;
    if (dc_picture_decode(reader, file->s, file->n, least_side, &picture) != DC_OK)
        fail_msg("%s", dc_status_message());
    return picture;
}

static void assert_pixel(const dc_picture *picture, int x, int y, int r, int g, int b)
{
    const uint8_t *p = picture->rgb.pixels + y * picture->rgb.stride + 3 * x;
    if (abs(p[0] - r) > 1 || abs(p[1] - g) > 1 || abs(p[2] - b) > 1)
        fail_msg("pixel %d, %d is %d %d %d instead of %d %d %d", x, y, p[0], p[1], p[2], r, g, b);
}

static void assert_png(file_bytes file, const int expected[4][3])
{
    const dc_picture picture = decoded(&file, 0);
    assert_true(picture.png && picture.w == 2 && picture.h == 2);
    for (int i = 0; i < 4; i++)
        assert_pixel(&picture, i % 2, i / 2, expected[i][0], expected[i][1], expected[i][2]);
    free(file.s);
}

static void test_every_png_becomes_rgb(void **state)
{
    (void)state;
    static const uint8_t rgb[] = {255, 0, 0, 0, 255, 0, 0, 0, 255, 10, 20, 30};
    static const int rgb_is[4][3] = {{255, 0, 0}, {0, 255, 0}, {0, 0, 255}, {10, 20, 30}};
    assert_png(picture_png(2, 2, PNG_COLOR_TYPE_RGB, 8, rgb, NULL, 0), rgb_is);
    static const uint8_t indices[] = {0, 1, 2, 3};
    assert_png(picture_png(2, 2, PNG_COLOR_TYPE_PALETTE, 8, indices, rgb, 4), rgb_is);
    static const uint8_t grey[] = {0, 100, 200, 255};
    assert_png(picture_png(2, 2, PNG_COLOR_TYPE_GRAY, 8, grey, NULL, 0),
               (const int[4][3]){{0, 0, 0}, {100, 100, 100}, {200, 200, 200}, {255, 255, 255}});
    static const uint8_t deep[] = {0, 0, 100, 100, 200, 200, 255, 255}; /* 16 bits, big end first */
    assert_png(picture_png(2, 2, PNG_COLOR_TYPE_GRAY, 16, deep, NULL, 0),
               (const int[4][3]){{0, 0, 0}, {100, 100, 100}, {200, 200, 200}, {255, 255, 255}});
    static const uint8_t alpha[] = {255, 0, 0, 255, 255, 0, 0, 0, 255, 0, 0, 128, 9, 8, 7, 255};
    assert_png(picture_png(2, 2, PNG_COLOR_TYPE_RGB_ALPHA, 8, alpha, NULL, 0),
               (const int[4][3]){{255, 0, 0}, {255, 255, 255}, {255, 127, 127}, {9, 8, 7}});
}

static void test_jpeg(void **state)
{
    (void)state;
    file_bytes file = picture_jpeg(67, 45, 3), grey = picture_grey_jpeg(30, 20, 1), again;
    dc_picture picture = decoded(&file, 0);
    assert_true(!picture.png && picture.w == 67 && picture.h == 45 && picture.rgb.w == 67);
    assert_int_equal(dc_picture_encode(&picture.rgb, 95, &again.s, &again.n), DC_OK);
    picture = decoded(&file, 10); /* shrunk by 4: a shorter side of 12 */
    assert_true(picture.w == 67 && picture.h == 45 && picture.rgb.w == 17 && picture.rgb.h == 12);
    picture = decoded(&again, 0);
    assert_true(picture.w == 67 && picture.h == 45);
    picture = decoded(&grey, 0);
    const uint8_t *p = picture.rgb.pixels + 5 * picture.rgb.stride + 3 * 7;
    assert_true(p[0] == p[1] && p[1] == p[2]);
    free(file.s);
    free(grey.s);
    free(again.s);
}

static void assert_bad(const uint8_t *bytes, size_t n, const char *what)
{
    dc_picture picture;
    assert_int_equal(dc_picture_decode(reader, bytes, n, 0, &picture), DC_ERR_INPUT);
    if (!strstr(dc_status_message(), what) || strchr(dc_status_message(), '\n'))
        fail_msg("the message should be one line about '%s': %s", what, dc_status_message());
}

static void test_damage_shows(void **state)
{
    (void)state;
    file_bytes jpeg = picture_jpeg(60, 50, 1);
    static uint8_t samples[3 * 40 * 40];
    for (size_t i = 0; i < sizeof samples; i++)
        samples[i] = (uint8_t)(i * i);
    file_bytes png = picture_png(40, 40, PNG_COLOR_TYPE_RGB, 8, samples, NULL, 0);
    assert_bad(jpeg.s, 0, "empty");
    assert_bad((const uint8_t *)"a text", 6, "neither JPEG nor PNG");
    for (size_t n = 3; n < jpeg.n - 2; n += 1 + n / 8)
        assert_bad(jpeg.s, n, "JPEG");
    for (size_t n = 8; n < png.n - 12; n += 1 + n / 8)
        assert_bad(png.s, n, "PNG");
    png.s[png.n / 2] ^= 0x10;
    assert_bad(png.s, png.n, "PNG");
    memset(jpeg.s + jpeg.n / 2, 0, jpeg.n / 4);
    dc_picture picture; /* zeros may be a picture; they must not be a crash */
    dc_picture_decode(reader, jpeg.s, jpeg.n, 0, &picture);
    free(jpeg.s);
    free(png.s);
    file_bytes few = picture_progressive_jpeg(60, 50, 5), many = picture_progressive_jpeg(60, 50, 1000);
    assert_int_equal(dc_picture_decode(reader, few.s, few.n, 0, &picture), DC_OK);
    assert_bad(many.s, many.n, "more than 100 scans");
    free(few.s);
    free(many.s);
}

static void test_box(void **state)
{
    (void)state;
    uint8_t pixels[3 * 6 * 4], planes[3 * 2 * 2];
    for (int y = 0; y < 4; y++)
        for (int x = 0; x < 6; x++)
            for (int c = 0; c < 3; c++)
                pixels[3 * (6 * y + x) + c] = (uint8_t)(10 * x + y + 50 * c);
    const dc_rgb rgb = {pixels, 18, 6, 4};
    assert_int_equal(dc_picture_box(&rgb, 2, planes), DC_OK);
    for (int c = 0; c < 3; c++) {
        /* means of 3x2 pixels, rows first: of columns 0..2 and 3..5, then of rows 0..1 (0.5 rounds up) and 2..3 */
        const int expected[4] = {11, 41, 13, 43};
        for (int i = 0; i < 4; i++)
            assert_int_equal(planes[4 * c + i], expected[i] + 50 * c);
    }
    uint8_t same[3 * 6 * 4];
    const dc_rgb small = {pixels, 18, 1, 1};
    assert_int_equal(dc_picture_box(&small, 2, same), DC_OK); /* larger: the nearest pixel */
    assert_true(same[0] == pixels[0] && same[3] == pixels[0] && same[4] == pixels[1] && same[11] == pixels[2]);
}

static void test_scale(void **state)
{
    (void)state;
    file_bytes file = picture_jpeg(90, 60, 2);
    const dc_picture picture = decoded(&file, 0);
    dc_rgb scaled;
    assert_int_equal(dc_picture_scale(reader, &picture.rgb, 45, 30, &scaled), DC_OK);
    assert_true(scaled.w == 45 && scaled.h == 30);
    double before = 0, after = 0;
    for (int y = 0; y < 60; y++)
        for (int k = 0; k < 3 * 90; k++)
            before += picture.rgb.pixels[y * picture.rgb.stride + k];
    for (int y = 0; y < 30; y++)
        for (int k = 0; k < 3 * 45; k++)
            after += scaled.pixels[y * scaled.stride + k];
    assert_true(before / (90 * 60) - after / (45 * 30) < 1 && after / (45 * 30) - before / (90 * 60) < 1);
    free(file.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_png_becomes_rgb),
        cmocka_unit_test(test_jpeg),
        cmocka_unit_test(test_damage_shows),
        cmocka_unit_test(test_box),
        cmocka_unit_test(test_scale),
    };
    if (dc_picture_reader_create(&reader) != DC_OK)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    dc_picture_reader_destroy(reader);
    return failed;
}
