/* What an interrupted import leaves: records come back, those that were cut off do not, and two imports never mix. */
#include "base/hash.h"
#include "data/spool.h"
#include "tests/support/temp_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { N = 5 };

static temp_dir dir;
static temp_path destination;

static int setup(void **state)
{
    (void)state;
    dir = temp_dir_make();
    destination = temp_dir_path(&dir, "data.h5");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    temp_dir_remove(&dir);
    return 0;
}

static dc_spool *opened(int rank, uint64_t identity)
{
    dc_spool *spool;
    if (dc_spool_open(destination.s, rank, identity, &spool) != DC_OK)
        fail_msg("%s", dc_status_message());
    return spool;
}

static void append(dc_spool *spool, int number)
{
    char name[32], payload[64];
    dc_record record = {.stamp = (uint64_t)number, .form = DC_RECORD_JPEG, .h = number, .w = 7};
    record.n_name = (uint32_t)snprintf(name, sizeof name, "picture %d", number);
    record.n_bytes = (uint64_t)snprintf(payload, sizeof payload, "the bytes of picture %d", number);
    record.hash = dc_hash_of(payload, record.n_bytes);
    assert_int_equal(dc_spool_append(spool, &record, name, payload, NULL), DC_OK);
}

/* How many records there are; each must be whole. */
static size_t scanned(dc_spool *spool)
{
    dc_record_place *places;
    size_t n;
    assert_int_equal(dc_spool_scan(spool, &places, &n), DC_OK);
    for (size_t i = 0; i < n; i++) {
        char payload[64] = "", expected[64];
        snprintf(expected, sizeof expected, "the bytes of picture %d", places[i].record.h);
        assert_int_equal(places[i].record.stamp, places[i].record.h);
        assert_int_equal(dc_spool_read(spool, &places[i], payload), DC_OK);
        assert_string_equal(payload, expected);
    }
    free(places);
    return n;
}

static void write_two_parts(void)
{
    for (int rank = 0; rank < 2; rank++) {
        dc_spool *spool = opened(rank, 9);
        for (int i = 0; i < N; i++)
            append(spool, 10 * rank + i);
        dc_spool_close(spool, false);
    }
}

static void test_records_of_all_ranks_come_back(void **state)
{
    (void)state;
    write_two_parts();
    dc_spool *spool = opened(0, 9);
    assert_true(dc_spool_bytes(spool) > 10 * 100); /* what is worth keeping is known before it is read */
    assert_int_equal(scanned(spool), 2 * N);
    append(spool, 50);
    dc_spool_close(spool, false);
    spool = opened(2, 9);
    assert_int_equal(scanned(spool), 2 * N + 1);
    assert_true(dc_spool_bytes(spool) > 11 * 100);
    dc_spool_close(spool, true);
    assert_int_equal(temp_dir_count(dir.path), 0);
    dc_spool_close(NULL, true);
}

static void test_what_was_cut_off_is_dropped(void **state)
{
    (void)state;
    temp_path part = temp_dir_path(&dir, "data.h5.part-1");
    for (int cut = 1; cut < 200; cut += 13) {
        write_two_parts();
        FILE *file = fopen(part.s, "rb");
        fseek(file, 0, SEEK_END);
        long size = ftell(file);
        fclose(file);
        assert_int_equal(truncate(part.s, size - cut), 0);
        dc_spool *spool = opened(1, 9);
        size_t lost = cut > 130 ? 2 : 1;
        size_t n = scanned(spool);
        assert_true(n >= 2 * N - lost && n < 2 * N);
        append(spool, 70); /* behind what is whole */
        dc_spool_close(spool, false);
        spool = opened(0, 9);
        assert_int_equal(scanned(spool), n + 1);
        dc_spool_close(spool, true);
    }
}

static void test_damage_is_found(void **state)
{
    (void)state;
    write_two_parts();
    FILE *file = fopen(temp_dir_path(&dir, "data.h5.part-1").s, "r+b");
    fseek(file, -3, SEEK_END);
    fputc('#', file);
    fclose(file);
    dc_spool *spool = opened(0, 9);
    dc_record_place *places;
    size_t n;
    char payload[64];
    assert_int_equal(dc_spool_scan(spool, &places, &n), DC_OK);
    assert_int_equal(n, 2 * N);
    assert_int_equal(dc_spool_read(spool, &places[n - 1], payload), DC_ERR_IO);
    assert_non_null(strstr(dc_status_message(), "data.h5.part-1 is damaged"));
    free(places);
    dc_spool_close(spool, true);
}

static void test_other_imports_do_not_mix(void **state)
{
    (void)state;
    write_two_parts();
    dc_spool *spool = opened(0, 8), *second; /* other options: begun anew */
    assert_int_equal(scanned(spool), 0);
    assert_int_equal(dc_spool_open(destination.s, 0, 8, &second), DC_ERR_INPUT);
    assert_null(second);
    assert_non_null(strstr(dc_status_message(), "another import writes"));
    temp_file_write(temp_dir_path(&dir, "data.h5.part-x").s, "mine", 4);
    temp_file_write(temp_dir_path(&dir, "data.h5.parts").s, "mine", 4);
    dc_spool_close(spool, true);
    assert_int_equal(temp_dir_count(dir.path), 2); /* nobody else's files */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_records_of_all_ranks_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_was_cut_off_is_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_is_found, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_imports_do_not_mix, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
