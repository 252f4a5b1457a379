/* Configuration: what a file says is what the settings hold, and every slip is one line that says what would be right.
 */
#include "base/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct settings {
    int channels, estimate;
    double rate, limit_s;
    bool sharing;
    int64_t params;
    char name[16], genotype[512];
} settings;

#define AT(field) .offset = offsetof(settings, field), .size = sizeof((settings *)0)->field

static const dc_key keys[] = {
    {"run", "name", DC_KEY_TEXT, AT(name), .initial = "demo", .minimum = 1, .flags = DC_KEY_NO_HASH,
     .help = "its name"},
    {"run", "limit", DC_KEY_DURATION_S, AT(limit_s), .initial = "2h", .flags = DC_KEY_NO_HASH, .help = "time"},
    {"search", "channels", DC_KEY_INT, AT(channels), .initial = "16", .minimum = 4, .maximum = 512, .help = "width"},
    {"search", "rate", DC_KEY_FLOAT, AT(rate), .initial = "0.2", .minimum = 0, .maximum = 10, .help = "learning rate"},
    {"search", "sharing", DC_KEY_BOOL, AT(sharing), .initial = "yes", .help = "Eq 5"},
    {"constraint", "estimate", DC_KEY_CHOICE, AT(estimate), .initial = "derived", .choices = "derived|soft"},
    {"constraint", "params", DC_KEY_COUNT, AT(params), .initial = "3.5M", .minimum = 1, .maximum = 1e12},
    {"constraint", "genotype", DC_KEY_TEXT, AT(genotype), .initial = "", .help = "text"},
};
static const dc_schema schema = {keys, sizeof keys / sizeof keys[0]};

static settings defaults(void)
{
    settings s;
    memset(&s, 0, sizeof s);
    assert_int_equal(dc_config_defaults(&schema, &s), DC_OK);
    return s;
}

static void parse_ok(const char *text, settings *s)
{
    if (dc_config_parse_text(&schema, "a.ini", text, s))
        fail_msg("%s", dc_status_message());
}

static void a_file_is_read(void **context)
{
    (void)context;
    settings s = defaults();
    assert_string_equal(s.name, "demo");
    assert_true(s.limit_s == 7200 && s.channels == 16 && s.rate == 0.2 && s.sharing && s.estimate == 0 &&
                s.params == 3500000);
    parse_ok("\xEF\xBB\xBF# a comment\n; another = one\n[search] ; why\n  channels = 36 ; of the stem\n"
             "\trate=1e-1\r\nsharing = off\n\n[constraint]\nestimate = soft\nparams = 600k\ngenotype=a;b = c: [d]\n"
             "[run]\nlimit = 1h30m\n[search]",
             &s);
    assert_true(s.channels == 36 && s.rate == 0.1 && !s.sharing && s.estimate == 1 && s.params == 600000);
    assert_true(s.limit_s == 5400);
    assert_string_equal(s.genotype, "a;b = c: [d]");
    assert_string_equal(s.name, "demo");
}

static void long_values_are_whole(void **context)
{
    (void)context;
    settings s = defaults();
    char text[2048], value[512] = "";
    while (strlen(value) < 480)
        strcat(value, "('sep_conv_3x3', 0), #;x ");
    value[strlen(value) - 1] = 0;
    snprintf(text, sizeof text, "; %s\n[constraint]\ngenotype = %s ; %s\nparams = 5M\n", value, value, value);
    parse_ok(text, &s);
    assert_string_equal(s.genotype, value);
    assert_int_equal(s.params, 5000000);
}

static void slips_are_explained(void **context)
{
    (void)context;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"[search]\n\nchanels = 3\n", "a.ini:3: unknown key [search] chanels; did you mean 'channels'?"},
        {"[search]\nparams = 3\n", "a.ini:2: unknown key [search] params; did you mean [constraint] params?"},
        {"[search]\nmomentum = 3\n", "a.ini:2: unknown key [search] momentum"},
        {"[serach]\nrate = 3\n", "a.ini:2: unknown section [serach]; did you mean [search]?"},
        {"[qqqq]\nrate = 3\n", "a.ini:2: unknown section [qqqq]; there are [run], [search], [constraint]"},
        {"rate = 3\n", "a.ini:1: key 'rate' stands before the first [section]"},
        {"[search]\nrate\n", "a.ini:2: 'rate' is neither [section] nor key = value"},
        {"[search]\nrate: 3\n", "a.ini:2: 'rate: 3' is neither [section] nor key = value"},
        {"[search\nrate = 3\n", "a.ini:1: '[search' is no [section]"},
        {"[search]\n = 3\n", "a.ini:2: '= 3' is neither [section] nor key = value"},
        {"[search]\nrate = 1\nchannels = 8\nrate = 1\n", "a.ini:4: [search] rate is given twice"},
        {"[search]\nrate = 1\n[run]\n[search]\nrate = 1\n", "a.ini:5: [search] rate is given twice"},
        {"[search]\nchannels = ten\n", "a.ini:2: [search] channels = ten: a whole number expected"},
        {"[search]\nchannels = 3.5\n", "a.ini:2: [search] channels = 3.5: a whole number expected"},
        {"[search]\nchannels =\n", "a.ini:2: [search] channels = : a whole number expected"},
        {"[search]\nchannels = 3", "a.ini:2: [search] channels = 3 is out of range: 4 to 512"},
        {"[search]\nchannels = 99999999999", "a.ini:2: [search] channels = 99999999999"},
        {"[search]\nrate = nan\n", "a.ini:2: [search] rate = nan: a number expected"},
        {"[search]\nrate = -0.1\n", "a.ini:2: [search] rate = -0.1 is out of range: 0 to 10"},
        {"[search]\nsharing = maybe\n", "a.ini:2: [search] sharing = maybe: yes or no expected"},
        {"[constraint]\nestimate = sfot\n",
         "a.ini:2: [constraint] estimate = sfot is not one of derived, soft; did you mean 'soft'?"},
        {"[constraint]\nparams = 3.5X\n", "a.ini:2: [constraint] params: '3.5X' is not a whole number"},
        {"[constraint]\nparams = 0\n", "a.ini:2: [constraint] params = 0 is out of range: 1 to 1,000,000,000,000"},
        {"[run]\nlimit = soon\n", "a.ini:2: [run] limit: 'soon' is not a duration"},
        {"[run]\nname = 1234567890123456\n", "a.ini:2: [run] name = 1234567890123456... is too long: at most 15"},
        {"[run]\nname = ; nothing\n", "a.ini:2: [run] name may not be empty"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        settings s = defaults();
        assert_int_equal(dc_config_parse_text(&schema, "a.ini", cases[i].text, &s), DC_ERR_INPUT);
        if (strncmp(dc_status_message(), cases[i].message, strlen(cases[i].message)) ||
            strchr(dc_status_message(), '\n'))
            fail_msg("'%s' instead of '%s'", dc_status_message(), cases[i].message);
    }
}

static void files_that_are_none(void **context)
{
    (void)context;
    settings s = defaults();
    char path[] = "/tmp/dcanas-config-XXXXXX";
    int fd = mkstemp(path);
    assert_int_equal(dc_config_load(&schema, "/nowhere/a.ini", &s), DC_ERR_IO);
    assert_string_equal(dc_status_message(), "cannot read /nowhere/a.ini: No such file or directory");
    assert_int_equal(dc_config_load(&schema, "/tmp", &s), DC_ERR_IO);
    assert_int_equal(write(fd, "[search]\nrate = 1\0\n", 19), 19);
    assert_int_equal(dc_config_load(&schema, path, &s), DC_ERR_INPUT);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(pwrite(fd, "[search]\nrate = 3\n", 18, 0), 18);
    assert_int_equal(dc_config_load(&schema, path, &s), DC_OK);
    assert_true(s.rate == 3);
    close(fd);
    unlink(path);
}

static void set_changes_one_key(void **context)
{
    (void)context;
    settings s = defaults();
    assert_int_equal(dc_config_set(&schema, "constraint.params=600k", &s), DC_OK);
    assert_int_equal(dc_config_set(&schema, "constraint.genotype = a=b.c ", &s), DC_OK);
    assert_int_equal(s.params, 600000);
    assert_string_equal(s.genotype, "a=b.c");
    static const char *const bad[][2] = {
        {"constraint.parms=1", "--set: unknown key [constraint] parms; did you mean 'params'?"},
        {"params=1", "--set params=1: section.key=value expected"},
        {"search.rate", "--set search.rate: section.key=value expected"},
        {"search.rate=x", "--set: [search] rate = x: a number expected"},
        {"run.name=a ;b", "--set: [run] name = a ;b: a text without ' ;' (it begins a comment) expected"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(dc_config_set(&schema, bad[i][0], &s), DC_ERR_INPUT);
        assert_string_equal(dc_status_message(), bad[i][1]);
    }
}

static void a_dump_reads_back(void **context)
{
    (void)context;
    settings s = defaults(), again = defaults();
    char *text;
    parse_ok(
        "[search]\nrate = 0.1000000000000000055\nchannels = 24\n[constraint]\nestimate = soft\n[run]\nlimit = 1.25\n",
        &s);
    s.rate = 1.0 / 3;
    for (int comments = 0; comments < 2; comments++) {
        assert_int_equal(dc_config_dump(&schema, &s, comments, &text), DC_OK);
        again = defaults();
        parse_ok(text, &again);
        assert_memory_equal(&s, &again, sizeof s);
        assert_true(!strstr(text, "; learning rate") == !comments);
        free(text);
    }
}

static void the_hash_sees_what_matters(void **context)
{
    (void)context;
    settings a = defaults(), b = defaults();
    parse_ok("[search]\nrate = 0.20\n[run]\nname = other\nlimit = 5\n[constraint]\nparams=3500k", &b);
    assert_true(dc_config_hash(&schema, &a, NULL) == dc_config_hash(&schema, &b, NULL));
    assert_int_equal(dc_config_compare(&schema, &a, &b, NULL), DC_OK);
    b.channels = 17;
    assert_false(dc_config_hash(&schema, &a, NULL) == dc_config_hash(&schema, &b, NULL));
    assert_false(dc_config_hash(&schema, &a, "search|constraint") == dc_config_hash(&schema, &b, "search|constraint"));
    assert_true(dc_config_hash(&schema, &a, "constraint") == dc_config_hash(&schema, &b, "constraint"));
    assert_int_equal(dc_config_compare(&schema, &a, &b, "constraint|search"), DC_ERR_INPUT);
    assert_string_equal(dc_status_message(), "[search] channels is 16, but was 17");
    assert_int_equal(dc_config_compare(&schema, &a, &b, "constraint"), DC_OK);
}

static void help_shows_every_key(void **context)
{
    (void)context;
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    dc_config_print_help(&schema, out);
    fclose(out);
    assert_non_null(strstr(text, "  channels = 16  (4 to 512)\n      width\n"));
    assert_non_null(strstr(text, "  estimate = derived  (derived, soft)\n"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_read),
        cmocka_unit_test(long_values_are_whole),
        cmocka_unit_test(slips_are_explained),
        cmocka_unit_test(files_that_are_none),
        cmocka_unit_test(set_changes_one_key),
        cmocka_unit_test(a_dump_reads_back),
        cmocka_unit_test(the_hash_sees_what_matters),
        cmocka_unit_test(help_shows_every_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
