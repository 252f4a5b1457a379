/* The configuration files that are shipped: they load, and input/cifar10.ini explains every key that there is. */
#include "app/settings.h"

#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static dc_settings load(const char *path)
{
    dc_settings settings;
    if (dc_settings_load(path, NULL, &settings) != DC_OK)
        fail_msg("%s", dc_status_message());
    return settings;
}

static void shipped_files_load(void **state)
{
    (void)state;
    glob_t files;
    assert_int_equal(glob("input/*.ini", 0, NULL, &files), 0);
    assert_true(files.gl_pathc >= 3);
    for (size_t i = 0; i < files.gl_pathc; i++) {
        const dc_settings settings = load(files.gl_pathv[i]);
        assert_string_not_equal(settings.run.name, "");
        assert_string_not_equal(settings.data_file, "");
        assert_true(settings.budget[DC_METRIC_PARAMS] > 0);
    }
    globfree(&files);
}

/* Whether the file sets the key in its section, which begins with a comment. */
static bool explains(const char *text, const dc_key *key)
{
    char line[160];
    snprintf(line, sizeof line, "\n[%s]\n#", key->section);
    const char *section = strstr(text, line), *end = section ? strstr(section + 1, "\n[") : NULL;
    if (!section)
        return false;
    snprintf(line, sizeof line, "\n%s =", key->name);
    const char *found = strstr(section, line);
    return found && (!end || found < end);
}

static void cifar10_explains_every_key(void **state)
{
    (void)state;
    FILE *file = fopen("input/cifar10.ini", "r");
    assert_non_null(file);
    static char text[1 << 16];
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    for (int i = 0; i < dc_settings_schema.n; i++)
        if (!explains(text, &dc_settings_schema.keys[i]))
            fail_msg("input/cifar10.ini does not explain [%s] %s", dc_settings_schema.keys[i].section,
                     dc_settings_schema.keys[i].name);
}

/* It says so: keys that are left out have its values. */
static void cifar10_shows_the_defaults(void **state)
{
    (void)state;
    const dc_settings cifar10 = load("input/cifar10.ini");
    dc_settings defaults;
    char *expected, *shown;
    assert_int_equal(dc_config_defaults(&dc_settings_schema, &defaults), DC_OK);
    memcpy(defaults.run.name, cifar10.run.name, sizeof defaults.run.name);
    memcpy(defaults.data_file, cifar10.data_file, sizeof defaults.data_file);
    memcpy(defaults.budget, cifar10.budget, sizeof defaults.budget);
    assert_int_equal(dc_config_dump(&dc_settings_schema, &defaults, true, &expected), DC_OK);
    assert_int_equal(dc_config_dump(&dc_settings_schema, &cifar10, true, &shown), DC_OK);
    assert_string_equal(shown, expected);
    free(expected);
    free(shown);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shipped_files_load),
        cmocka_unit_test(cifar10_explains_every_key),
        cmocka_unit_test(cifar10_shows_the_defaults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
