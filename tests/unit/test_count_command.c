/* dcanas count: the figures as a user reads them, and refusals. */
#include "app/count_command.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

enum { MAX_WORDS = 16 };

/* Runs the command on words split at blanks; *text is the caller's. */
static dc_status run(const char *line, char **text)
{
    char copy[256], *words[MAX_WORDS], *rest;
    int n = 0;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok_r(copy, " ", &rest); word && n < MAX_WORDS; word = strtok_r(NULL, " ", &rest))
        words[n++] = word;
    size_t size;
    FILE *out = open_memstream(text, &size);
    dc_status status = dc_count_command(n, words, out);
    fclose(out);
    return status;
}

static void assert_counts(const char *line, double params, double with_auxiliary, double macs)
{
    char *text;
    if (run(line, &text) != DC_OK)
        fail_msg("%s: %s", line, dc_status_message());
    cJSON *json = cJSON_Parse(text);
    assert_non_null(json);
    assert_true(cJSON_GetObjectItem(json, "params")->valuedouble == params);
    assert_true(cJSON_GetObjectItem(json, "params_with_auxiliary")->valuedouble == with_auxiliary);
    if (macs > 0)
        assert_true(cJSON_GetObjectItem(json, "macs")->valuedouble == macs);
    assert_true(cJSON_GetObjectItem(json, "peak_activation_bytes")->valuedouble > 0);
    cJSON_Delete(json);
    free(text);
}

static void test_json(void **state)
{
    (void)state;
    assert_counts("DARTS_V2 --json", 3349342, 3825768, 528359040);
    assert_counts("--json PDARTS --network=imagenet", 4944352, 4944352 + 1260776, 542819328);
    assert_counts("supernet --network cifar --json", 1930618, 1930618, 0);
    /* One class more is a row of weights and a bias more: 4 * 144 channels at the classifier, 768 features in the head.
     */
    assert_counts("DARTS_V2 --classes 11 --json", 3349342 + 577, 3825768 + 577 + 769, 528359040 + 576);
}

static void test_text(void **state)
{
    (void)state;
    char *text;
    assert_int_equal(run("DARTS_V2", &text), DC_OK);
    assert_non_null(strstr(text, "3,349,342"));
    assert_non_null(strstr(text, "3,825,768"));
    assert_non_null(strstr(text, "528,359,040"));
    free(text);
    assert_int_equal(run("--help", &text), DC_OK);
    assert_non_null(strstr(text, "--network"));
    free(text);
}

static void test_refusals(void **state)
{
    (void)state;
    const struct {
        const char *line, *message;
    } cases[] = {
        {"", "GENOTYPE|supernet"},
        {"DARTS_V3", "DARTS_V1, DARTS_V2"},
        {"DARTS_V2 --network mnist", "cifar or imagenet"},
        {"DARTS_V2 --input 3x32", "3x32x32"},
        {"DARTS_V2 --input 3x32x32x1", "3x32x32"},
        {"DARTS_V2 --input 3x0x32", "3x32x32"},
        {"DARTS_V2 --cells 2", "cells"},
        {"DARTS_V2 --bottleneck", "supernet"},
        {"supernet --bottleneck --channels 18", "channels = 18"},
        {"supernet --derived nothing", "nothing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text;
        assert_int_equal(run(cases[i].line, &text), DC_ERR_INPUT);
        if (!strstr(dc_status_message(), cases[i].message))
            fail_msg("'%s': '%s' should say '%s'", cases[i].line, dc_status_message(), cases[i].message);
        assert_string_equal(text, "");
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
