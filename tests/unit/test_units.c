#include "base/text.h"
#include "base/units.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void counts_are_exact(void **context)
{
    (void)context;
    const struct {
        const char *text;
        int64_t value;
    } good[] = {{"0", 0},
                {"2500", 2500},
                {"3.5M", 3500000},
                {"600M", 600000000},
                {"40k", 40000},
                {"40K", 40000},
                {"2G", 2000000000},
                {"1T", 1000000000000},
                {"1.50", -1},
                {"2.000", 2},
                {"0.001k", 1},
                {"3.3000000M", 3300000},
                {"3_349_342", 3349342},
                {"9223372036854775807", INT64_MAX}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        int64_t value = -1;
        dc_status status = dc_parse_count(good[i].text, &value);
        assert_int_equal(value, good[i].value);
        assert_int_equal(status, good[i].value < 0 ? DC_ERR_INPUT : DC_OK);
    }
    static const char *const bad[] = {"",   "M",   "1.2.3", "-5", "3.5m",   "1e6",     "3.5MM", " 1",
                                      "1 ", "0x5", "1.5",   "_1", "1__000", "1.0001k", ".",     "ten"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int64_t value = 77;
        assert_int_equal(dc_parse_count(bad[i], &value), DC_ERR_INPUT);
        assert_int_equal(value, 77);
    }
    int64_t value;
    assert_int_equal(dc_parse_count("9223372036854775808", &value), DC_ERR_INPUT);
    assert_int_equal(dc_parse_count("99999999T", &value), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), "too large"));
}

static void durations_add_up(void **context)
{
    (void)context;
    const struct {
        const char *text;
        double seconds;
    } good[] = {{"90", 90}, {"1.5", 1.5}, {"45s", 45}, {"15m", 900}, {"2h", 7200}, {"1h30m", 5400}, {"1d2h", 93600}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        double seconds;
        assert_int_equal(dc_parse_duration(good[i].text, &seconds), DC_OK);
        assert_true(seconds == good[i].seconds);
    }
    static const char *const bad[] = {"", "m", "30m1h", "1h30", "1x", "-3", "1h1h", "nan", "inf", "99999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        double seconds;
        assert_int_equal(dc_parse_duration(bad[i], &seconds), DC_ERR_INPUT);
    }
}

static void numbers_are_readable(void **context)
{
    (void)context;
    assert_string_equal(dc_format_count(0).s, "0");
    assert_string_equal(dc_format_count(999).s, "999");
    assert_string_equal(dc_format_count(3349342).s, "3,349,342");
    assert_string_equal(dc_format_count(-123456).s, "-123,456");
    assert_string_equal(dc_format_count(INT64_MIN).s, "-9,223,372,036,854,775,808");
    assert_string_equal(dc_format_count_short(987).s, "987");
    assert_string_equal(dc_format_count_short(1234567).s, "1.23M");
    assert_string_equal(dc_format_count_short(999999).s, "1.00M");
    assert_string_equal(dc_format_count_short(528359040).s, "528M");
    assert_string_equal(dc_format_count_short(-40000).s, "-40.0k");
    assert_string_equal(dc_format_bytes(512).s, "512 B");
    assert_string_equal(dc_format_bytes(1.4 * 1024 * 1024 * 1024).s, "1.4 GiB");
    assert_string_equal(dc_format_bytes(1048575).s, "1.0 MiB");
    assert_string_equal(dc_format_duration(0.82).s, "0.8s");
    assert_string_equal(dc_format_duration(42.3).s, "42s");
    assert_string_equal(dc_format_duration(192).s, "3m 12s");
    assert_string_equal(dc_format_duration(59.9).s, "1m 00s");
    assert_string_equal(dc_format_duration(7500).s, "2h 05m");
    assert_string_equal(dc_format_duration(97200).s, "1d 03h");
    assert_string_equal(dc_format_duration(-1).s, "?");
}

static void slips_are_recognised(void **context)
{
    (void)context;
    const char *nearest = NULL;
    assert_int_equal(dc_text_distance("channels", "chanels"), 1);
    assert_int_equal(dc_text_distance("epochs", "epohcs"), 1);
    assert_int_equal(dc_text_distance("Epochs", "epochs"), 0);
    assert_int_equal(dc_text_distance("", "abc"), 3);
    static const char *const names[] = {"epochs", "channels", "cells", "batch"};
    for (int i = 0; i < 4; i++)
        dc_text_nearest("chanels", names[i], &nearest);
    assert_string_equal(nearest, "channels");
    nearest = NULL;
    for (int i = 0; i < 4; i++)
        dc_text_nearest("momentum", names[i], &nearest);
    assert_null(nearest);
}

static void names_are_plain_text_or_not(void **context)
{
    (void)context;
    static const char *const plain[] = {"", "a b", "\xc3\x9c\xc2\xa0", "\xe2\x98\x83", "\xf0\x9f\x98\x80!"};
    static const char *const odd[] = {"a\nb",     "\033[31m", "\x7f",         "\xe9t\xe9",
                                      "\xc3",     "\xc0\xaf", "\xed\xa0\x80", "\xf5\x80\x80\x80",
                                      "\xe2\x98", "\xc2\x85", "\xe0\x80\x80"};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        assert_true(dc_text_is_plain(plain[i]));
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        assert_false(dc_text_is_plain(odd[i]));
    dc_fail(DC_ERR_INPUT, "%s", "a\nb\033[31m\xc3\x9c"); /* a message is a line */
    assert_string_equal(dc_status_message(), "a?b?[31m\xc3\x9c");
}

static void texts_grow(void **context)
{
    (void)context;
    dc_text text = {0};
    char *s;
    for (int i = 0; i < 1000; i++)
        dc_text_append(&text, "%d,", i);
    assert_int_equal(dc_text_take(&text, &s), DC_OK);
    assert_int_equal(strlen(s), 3890);
    assert_string_equal(s + 3886, "999,");
    free(s);
    assert_int_equal(dc_text_take(&text, &s), DC_OK);
    assert_string_equal(s, "");
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_are_exact),
        cmocka_unit_test(durations_add_up),
        cmocka_unit_test(numbers_are_readable),
        cmocka_unit_test(slips_are_recognised),
        cmocka_unit_test(names_are_plain_text_or_not),
        cmocka_unit_test(texts_grow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
