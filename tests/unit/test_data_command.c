/* dcanas data: an archive in, a file out, and what info says about it. */
#include "app/data_command.h"
#include "tests/support/temp_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

enum { N = 4, SIDE = 2, MAX_ARGUMENTS = 16 };

/* Runs the command on a NULL-terminated list; *text: what it printed (caller frees). */
static dc_status command(char **text, const char *const *arguments)
{
    char *argv[MAX_ARGUMENTS];
    int argc = 0;
    for (; arguments[argc]; argc++)
        argv[argc] = (char *)arguments[argc];
    size_t size;
    const dc_comm self = dc_comm_self();
    FILE *out = open_memstream(text, &size);
    dc_status status = dc_data_command(&self, argc, argv, out);
    fclose(out);
    return status;
}

#define COMMAND(text, ...) command(text, (const char *const[]){__VA_ARGS__, NULL})

static void test_import_and_info(void **state)
{
    (void)state;
    temp_dir dir = temp_dir_make();
    temp_path images = temp_dir_path(&dir, "images"), labels = temp_dir_path(&dir, "labels"),
              data = temp_dir_path(&dir, "data.h5");
    uint8_t image_bytes[16 + N * SIDE * SIDE] = {0, 0, 8, 3, 0, 0, 0, N, 0, 0, 0, SIDE, 0, 0, 0, SIDE, 255};
    uint8_t label_bytes[8 + N] = {0, 0, 8, 1, 0, 0, 0, N, 0, 1, 2, 1};
    temp_file_write(images.s, image_bytes, sizeof image_bytes);
    temp_file_write(labels.s, label_bytes, sizeof label_bytes);
    char *text;
    assert_int_equal(COMMAND(&text, "import", "idx", data.s, "--train-images", images.s, "--train-labels", labels.s,
                             "--test-images", images.s, "--test-labels", labels.s, "--name=tiny", "--classes", "3"),
                     DC_OK);
    assert_non_null(strstr(text, "train     4 images, 1 (0) to 2 (1) of a class"));
    assert_non_null(strstr(text, "storage   pixels, 1x2x2"));
    free(text);

    assert_int_equal(COMMAND(&text, "info", data.s, "--json", "--verify"), DC_OK);
    cJSON *json = cJSON_Parse(text);
    assert_non_null(json);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(json, "name")), "tiny");
    assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(json, "train_images")) == N);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "classes")), 3);
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(json, "verified")));
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(json, "storage")), "pixels");
    const cJSON *per_class = cJSON_GetObjectItem(json, "train_images_per_class");
    assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(per_class, "min")) == 1);
    assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(per_class, "max")) == 2);
    assert_true(cJSON_GetNumberValue(cJSON_GetArrayItem(cJSON_GetObjectItem(json, "mean"), 0)) == 1.0 / 16);
    cJSON_Delete(json);
    free(text);

    assert_int_equal(COMMAND(&text, "import", "idx", data.s, "--train-images", images.s), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), "train-labels"));
    free(text);
    assert_int_equal(COMMAND(&text, "inform", data.s), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), "info"));
    free(text);
    assert_int_equal(COMMAND(&text, "info", images.s), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), "images"));
    free(text);
    assert_int_equal(COMMAND(&text, "import", "--help"), DC_OK);
    assert_non_null(strstr(text, "cifar100"));
    free(text);
    temp_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_import_and_info)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
