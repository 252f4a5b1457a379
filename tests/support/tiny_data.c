#include "tests/support/tiny_data.h"

#include "base/files.h"
#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 8, PIXELS = SIDE * SIDE };

static void require(dc_status status)
{
    if (status == DC_OK)
        return;
    fprintf(stderr, "%s\n", dc_status_message());
    abort();
}

/* Noise; and in the quarter of its class, light. */
static void draw_images(uint64_t stream, uint32_t n, uint8_t *pixels, int32_t *labels)
{
    for (uint32_t i = 0; i < n; i++) {
        labels[i] = (int32_t)(i % TINY_CLASSES);
        for (uint32_t p = 0; p < PIXELS; p++) {
            uint32_t quarter = (p / SIDE >= SIDE / 2) * 2 + (p % SIDE >= SIDE / 2);
            float noise = dc_rng_uniform((dc_rng_key){9, stream}, i, p);
            pixels[i * PIXELS + p] = (uint8_t)(noise * 128 + ((int32_t)quarter == labels[i] ? 100 : 0));
        }
    }
}

tiny_data tiny_data_make(void)
{
    static uint8_t train[TINY_TRAIN * PIXELS], test[TINY_TEST * PIXELS];
    static int32_t train_labels[TINY_TRAIN], test_labels[TINY_TEST];
    static const char *const names[TINY_CLASSES] = {"a", "b", "c", "d"};
    draw_images(1, TINY_TRAIN, train, train_labels);
    draw_images(2, TINY_TEST, test, test_labels);
    const dc_dataset_content content = {"tiny",
                                        {1, SIDE, SIDE},
                                        TINY_CLASSES,
                                        names,
                                        {{.n = TINY_TRAIN, .pixels = train, .labels = train_labels},
                                         {.n = TINY_TEST, .pixels = test, .labels = test_labels}}};
    tiny_data data = {.dir = temp_dir_make()};
    temp_path path = temp_dir_path(&data.dir, "tiny.h5");
    require(dc_dataset_write(path.s, &content));
    require(dc_dataset_open(path.s, &data.dataset));
    return data;
}

void tiny_data_remove(tiny_data *data)
{
    dc_dataset_close(data->dataset);
    temp_dir_remove(&data->dir);
}

bool same_file(const char *a, const char *b)
{
    char *x = NULL, *y = NULL;
    size_t n_x = 0, n_y = 0;
    require(dc_file_read(a, &x, &n_x));
    require(dc_file_read(b, &y, &n_y));
    bool same = n_x == n_y && memcmp(x, y, n_x) == 0;
    free(x);
    free(y);
    return same;
}

void copy_file(const char *from, const char *to)
{
    char *bytes = NULL;
    size_t n = 0;
    require(dc_file_read(from, &bytes, &n));
    temp_file_write(to, bytes, n);
    free(bytes);
}
