/* Every shipped configuration can be run: on a data set of the shape that it is meant for its networks can be planned,
 * its budgets lie within the limits of its space, and the published architectures of its family keep them. */
#include "app/plan_command.h"
#include "data/dataset.h"
#include "tests/support/temp_dir.h"

#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

/* genotype: one that the budget is meant to admit; NULL: none in particular. */
typedef struct recipe {
    const char *file;
    dc_shape images;
    int classes;
    const char *genotype;
} recipe;

static const recipe recipes[] = {
    {"cifar10", {3, 32, 32}, 10, "DARTS_V2"},
    {"cifar100", {3, 32, 32}, 100, "DARTS_V2"},
    {"demo", {1, 28, 28}, 10, NULL},
    {"fashion-mnist", {1, 28, 28}, 10, NULL},
    {"imagenet", {3, 224, 224}, 1000, "PC_DARTS_cifar"},
    {"imagenet-search", {3, 224, 224}, 1000, "PDARTS"},
    {"imagenet16-120", {3, 16, 16}, 120, "DARTS_V2"},
    {"mnist", {1, 28, 28}, 10, NULL},
    {"tiny-imagenet", {3, 64, 64}, 200, "DARTS_V2"},
};
enum { N_RECIPES = sizeof recipes / sizeof recipes[0], IMAGES = 40, MOST_CLASSES = 1000, PHASES = 4 };

/* A few images, of as many classes as they can have; the others exist by name. */
static void write_data(const char *path, const recipe *r)
{
    static char names[MOST_CLASSES][8];
    static const char *classes[MOST_CLASSES];
    int32_t labels[IMAGES];
    uint8_t *pixels = calloc(IMAGES, (size_t)r->images.c * (size_t)r->images.h * (size_t)r->images.w);
    assert_non_null(pixels);
    pixels[0] = 200; /* an image of one colour has no deviation */
    pixels[(size_t)r->images.h * (size_t)r->images.w] = 200;
    pixels[2 * (size_t)r->images.h * (size_t)r->images.w] = 200;
    for (int c = 0; c < r->classes; c++) {
        snprintf(names[c], sizeof names[c], "c%d", c);
        classes[c] = names[c];
    }
    for (int i = 0; i < IMAGES; i++)
        labels[i] = i % 5;
    const dc_images images = {.n = IMAGES, .pixels = pixels, .labels = labels};
    const dc_dataset_content content = {
        .name = r->file, .shape = r->images, .n_classes = r->classes, .classes = classes, .split = {images, images}};
    if (dc_dataset_write(path, &content) != DC_OK)
        fail_msg("%s", dc_status_message());
    free(pixels);
}

/* The configuration, with no more images to a step than there are here. */
static cJSON *plan(const recipe *r, const char *data, const char *genotype)
{
    static const char *const small[] = {"search.train_fraction=0.5", "search.validation_fraction=0.5",
                                        "search.batch=16", "target.batch=16"};
    char path[64], file[4096], *text = NULL, *argv[24];
    size_t size;
    int argc = 0;
    const dc_comm alone = dc_comm_self();
    snprintf(path, sizeof path, "input/%s.ini", r->file);
    snprintf(file, sizeof file, "data.file=%s", data);
    argv[argc++] = path;
    argv[argc++] = (char *)"--json";
    argv[argc++] = (char *)"--set";
    argv[argc++] = file;
    for (int i = 0; i < 4; i++) {
        argv[argc++] = (char *)"--set";
        argv[argc++] = (char *)small[i];
    }
    if (genotype) {
        argv[argc++] = (char *)"--genotype";
        argv[argc++] = (char *)genotype;
    }
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    const dc_status status = dc_plan_command(&alone, argc, argv, out);
    fclose(out);
    if (status != DC_OK)
        fail_msg("%s: %s", path, dc_status_message());
    cJSON *root = cJSON_Parse(text);
    assert_non_null(root);
    free(text);
    return root;
}

static void check_phases(cJSON *root, int n)
{
    const cJSON *phases = cJSON_GetObjectItem(root, "phases"), *phase;
    assert_int_equal(cJSON_GetArraySize(phases), n);
    cJSON_ArrayForEach(phase, phases)
    {
        assert_true(cJSON_GetObjectItem(phase, "arena_bytes")->valuedouble > 0);
        assert_true(cJSON_GetObjectItem(phase, "steps")->valuedouble > 0);
        assert_true(cJSON_GetObjectItem(phase, "macs")->valuedouble > 0);
    }
    cJSON_Delete(root);
}

static void every_recipe_can_be_planned(void **state)
{
    (void)state;
    temp_dir dir = temp_dir_make();
    for (int i = 0; i < N_RECIPES; i++) {
        const temp_path data = temp_dir_path(&dir, recipes[i].file);
        write_data(data.s, &recipes[i]);
        check_phases(plan(&recipes[i], data.s, NULL), PHASES);
        if (recipes[i].genotype)
            check_phases(plan(&recipes[i], data.s, recipes[i].genotype), 1);
    }
    temp_dir_remove(&dir);
}

static void no_recipe_is_left_out(void **state)
{
    (void)state;
    glob_t files;
    assert_int_equal(glob("input/*.ini", 0, NULL, &files), 0);
    assert_int_equal(files.gl_pathc, N_RECIPES);
    for (int i = 0; i < N_RECIPES; i++) {
        char path[64];
        bool there = false;
        snprintf(path, sizeof path, "input/%s.ini", recipes[i].file);
        for (size_t k = 0; k < files.gl_pathc; k++)
            there |= strcmp(files.gl_pathv[k], path) == 0;
        assert_true(there);
    }
    globfree(&files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_recipe_is_left_out),
        cmocka_unit_test(every_recipe_can_be_planned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
