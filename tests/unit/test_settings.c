/* The configuration: files that are shipped load, and input/cifar10.ini explains every key that there is; keys that do
 * not go together are refused; each module gets what its section says. */
#include "app/settings.h"
#include "tests/support/temp_dir.h"

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

/* Settings as a file of this text gives them. */
static dc_status load_text(const char *text, dc_settings *settings)
{
    temp_dir dir = temp_dir_make();
    temp_path path = temp_dir_path(&dir, "some.thing.ini");
    temp_file_write(path.s, text, strlen(text));
    dc_status status = dc_settings_load(path.s, NULL, settings);
    temp_dir_remove(&dir);
    return status;
}

static void keys_that_do_not_go_together_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "[data] file"},
        {"[search]\nchannels = 18\n", "channels = 18"},
        {"[search]\nchannels = 18\nbottleneck = no\n", NULL},
        {"[search]\nepochs = 10\nalpha_warmup_epochs = 10\n", "alpha_warmup_epochs = 10"},
        {"[search]\ntrain_fraction = 0.6\nvalidation_fraction = 0.5\n", "validation_fraction = 0.5"},
        {"[search]\ntrain_fraction = 0.6\nvalidation_fraction = 0.4\n", NULL},
        {"[target]\nepochs = 5\nschedule_warmup_epochs = 5\n", "[target] schedule_warmup_epochs"},
        {"[search]\nschedule_warmup_epochs = 50\n", "[search] schedule_warmup_epochs"},
        {"[lug]\nlowest = 0.5\nhighest = 0.5\n", "[lug] lowest"},
        {"[search]\nbatch = 4\n[lug]\nranks_per_search = 5\n", "ranks_per_search"},
        {"[run]\nname = a/b\n", "[run] name = a/b"},
        {"[run]\nname = ..\n", "[run] name = .."},
        {"[target]\nbatch = 0\n", "[target] batch = 0"},
        {"[target]\nmicro_batch = 24\n", "[target] micro_batch = 24"},
        {"[search]\nmicro_batch = 8\n", "[search] micro_batch = 8"},
        {"[target]\nema_decay = 1\n", "ema_decay"},
        {"[budget]\nparams = -1\n", "params"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[512];
        dc_settings settings;
        snprintf(text, sizeof text, "%s%s", cases[i].text, *cases[i].text ? "[data]\nfile = d.h5\n" : "");
        dc_status status = load_text(text, &settings);
        if (status != (cases[i].message ? DC_ERR_INPUT : DC_OK))
            fail_msg("%s: %s", cases[i].text, status ? dc_status_message() : "accepted");
        if (cases[i].message && !strstr(dc_status_message(), cases[i].message))
            fail_msg("'%s' does not say '%s'", dc_status_message(), cases[i].message);
        assert_null(status ? strchr(dc_status_message(), '\n') : NULL);
    }
}

static void a_run_is_named_after_its_file(void **state)
{
    (void)state;
    dc_settings settings;
    assert_int_equal(load_text("[data]\nfile = d.h5\n", &settings), DC_OK);
    assert_string_equal(settings.run.name, "some.thing");
    assert_int_equal(load_text("[run]\nname = mine\n[data]\nfile = d.h5\n", &settings), DC_OK);
    assert_string_equal(settings.run.name, "mine");
}

static void each_module_gets_its_section(void **state)
{
    (void)state;
    const dc_dataset dataset = {.shape = {3, 32, 24}, .n_classes = 7};
    dc_settings s;
    assert_int_equal(load_text("[data]\nfile = d.h5\n[budget]\nmacs = 5M\n"
                               "[target]\nchannels = 20\nepochs = 40\nlearning_rate = 0.3\ncutout = 5\n"
                               "drop_path = 0.1\nschedule_warmup_epochs = 3\nschedule = linear\n"
                               "[search]\nchannels = 12\nepochs = 9\nalpha_warmup_epochs = 2\nlearning_rate = 0.7\n"
                               "train_images = 1000\nsharing = no\nclip = 2\n[constraint]\nestimate = soft\n"
                               "[select]\nepochs = 2\n",
                               &s),
                     DC_OK);
    const dc_search_options search = dc_settings_search(&s, &dataset);
    assert_int_equal(search.supernet.channels, 12);
    assert_int_equal(search.supernet.input.w, 24);
    assert_int_equal(search.supernet.classes, 7);
    assert_true(!search.supernet.sharing && search.supernet.bottleneck && search.supernet.derived_cells);
    assert_int_equal(search.warmup_epochs, 2);
    assert_int_equal(search.train.max_count, 1000);
    assert_int_equal(search.validation.max_count, 0);
    assert_int_equal(search.constraint.estimate, DC_ESTIMATE_SOFT);
    assert_true(search.sgd.clip == 2 && search.schedule.learning_rate == 0.7);
    const dc_train_options train = dc_settings_train(&s, &dataset), select = dc_settings_select(&s, &dataset);
    assert_int_equal(train.network.channels, 20);
    assert_int_equal(train.epochs, 40);
    assert_int_equal(train.schedule.kind, DC_SCHEDULE_LINEAR);
    assert_true(train.schedule.learning_rate == 0.3 && train.sgd.clip == 5 && train.drop_path_rate == 0.1);
    assert_int_equal(train.augment.cutout, 5);
    assert_int_equal(select.epochs, 2); /* the same, but short */
    assert_true(select.drop_path_rate == 0 && select.schedule.warmup_epochs == 0.5);
    assert_true(select.schedule.learning_rate == 0.3);
    dc_cost_table tables[DC_METRICS];
    const dc_budgets budgets = dc_settings_budgets(&s, tables);
    assert_int_equal(budgets.n, 1);
    assert_ptr_equal(budgets.table[0], &tables[DC_METRIC_MACS]);
    assert_true(budgets.limit[0] == 5e6);
}

static void rates_grow_with_the_batch(void **state)
{
    (void)state;
    const dc_dataset dataset = {.shape = {3, 32, 32}, .n_classes = 10};
    dc_settings s;
    assert_int_equal(load_text("[data]\nfile = d.h5\n[target]\nbatch = 1024\nlearning_rate = 0.1\n"
                               "minimum_learning_rate = 0.001\nlearning_rate_batch = 256\nmicro_batch = 64\n"
                               "ema_decay = 0.999\n[search]\nbatch = 64\nlearning_rate = 0.2\nmicro_batch = 32\n",
                               &s),
                     DC_OK);
    const dc_train_options train = dc_settings_train(&s, &dataset), select = dc_settings_select(&s, &dataset);
    const dc_search_options search = dc_settings_search(&s, &dataset);
    assert_true(train.schedule.learning_rate == 0.4 && train.schedule.minimum == 0.004);
    assert_true(search.schedule.learning_rate == 0.2);
    assert_true(train.micro_batch == 64 && search.micro_batch == 32);
    assert_true(train.ema_decay == 0.999 && select.ema_decay == 0);
}

/* A run goes on in its own precision; which engines compute is nothing that it is known by. */
static void precision_decides_results(void **state)
{
    (void)state;
    dc_settings plain, narrow, tuned;
    assert_int_equal(load_text("[data]\nfile = d.h5\n", &plain), DC_OK);
    assert_int_equal(load_text("[run]\nprecision = bf16\n[data]\nfile = d.h5\n", &narrow), DC_OK);
    assert_int_equal(load_text("[run]\nautotune = yes\n[data]\nfile = d.h5\n", &tuned), DC_OK);
    for (int i = 0; i < DC_PRECISIONS; i++) { /* the key's choices are the enumeration's, in its order */
        char text[96];
        dc_settings chosen;
        snprintf(text, sizeof text, "[run]\nprecision = %s\n[data]\nfile = d.h5\n", dc_precision_names[i]);
        assert_int_equal(load_text(text, &chosen), DC_OK);
        assert_int_equal(chosen.run.precision, i);
    }
    assert_true(tuned.run.autotune && !plain.run.autotune);
    const uint64_t hash = dc_config_hash(&dc_settings_schema, &plain, NULL);
    assert_true(dc_config_hash(&dc_settings_schema, &narrow, NULL) != hash);
    assert_true(dc_config_hash(&dc_settings_schema, &tuned, NULL) == hash);
    assert_int_equal(dc_config_compare(&dc_settings_schema, &narrow, &plain, NULL), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), "precision"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shipped_files_load),
        cmocka_unit_test(cifar10_explains_every_key),
        cmocka_unit_test(cifar10_shows_the_defaults),
        cmocka_unit_test(keys_that_do_not_go_together_are_refused),
        cmocka_unit_test(a_run_is_named_after_its_file),
        cmocka_unit_test(each_module_gets_its_section),
        cmocka_unit_test(rates_grow_with_the_batch),
        cmocka_unit_test(precision_decides_results),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
