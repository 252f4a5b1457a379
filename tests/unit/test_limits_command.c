/* dcanas limits: what it prints and what it refuses. */
#include "app/limits_command.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cjson/cJSON.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ARGUMENTS = 8 };

/* What the command prints for the arguments up to NULL; the caller frees it. */
static char *printed(dc_status expected, const char *const *arguments)
{
    char *argv[MOST_ARGUMENTS], *text = NULL;
    size_t size;
    int argc = 0;
    for (; arguments[argc]; argc++)
        argv[argc] = (char *)arguments[argc];
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    dc_status status = dc_limits_command(argc, argv, out);
    fclose(out);
    if (status != expected)
        fail_msg("%s", dc_status_message());
    return text;
}

static void test_json_has_both_metrics(void **state)
{
    (void)state;
    char *text = printed(DC_OK, (const char *[]){"--space", "darts", "--network", "cifar", "--json", NULL});
    cJSON *root = cJSON_Parse(text);
    assert_non_null(root);
    const cJSON *params = cJSON_GetObjectItem(root, "params"), *macs = cJSON_GetObjectItem(root, "macs");
    /* no convolution in any cell; every operation a sep_conv_5x5 */
    assert_true(cJSON_GetObjectItem(params, "min")->valuedouble == 1370134);
    assert_true(cJSON_GetObjectItem(params, "max")->valuedouble == 5144086);
    assert_true(cJSON_GetObjectItem(macs, "min")->valuedouble < 528359040);
    assert_true(cJSON_GetObjectItem(macs, "max")->valuedouble > 528359040);
    cJSON_Delete(root);
    free(text);
}

static void test_geometry_matters(void **state)
{
    (void)state;
    char *text = printed(DC_OK, (const char *[]){"--channels", "16", "--cells=8", "--input", "1x28x28", NULL});
    assert_non_null(strstr(text, "1x28x28 images, 10 classes, 16 channels, 8 cells"));
    assert_null(strstr(text, "1,370,134"));
    free(text);
}

static void test_refusals(void **state)
{
    (void)state;
    free(printed(DC_ERR_INPUT, (const char *[]){"--space", "dart", NULL}));
    assert_non_null(strstr(dc_status_message(), "darts"));
    free(printed(DC_ERR_INPUT, (const char *[]){"--cells", "1", NULL}));
    free(printed(DC_ERR_INPUT, (const char *[]){"--network", "mnist", NULL}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_json_has_both_metrics),
                                       cmocka_unit_test(test_geometry_matters), cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
