/* The lookup graph as a collection and as a file. */
#include "base/state.h"
#include "lug/lug.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const dc_lug_identity identity = {{11, 22, 33}, {"Fashion-MNIST", "darts, C=16, 8 cells", "derived, 4 epochs"}};

static dc_lug_entry entry_of(int point, int seed_index, double seconds)
{
    dc_lug_entry entry = {.point = point,
                          .seed_index = seed_index,
                          .seed = 0xfedcba9876543210u + (uint64_t)(10 * point + seed_index),
                          .target = {1000 + point, 0},
                          .derived_cost = {990 + point + seed_index, 5000 + point},
                          .validation_accuracy = 0.9 + 0.01 * seed_index,
                          .seconds = seconds};
    for (size_t i = 0; i < sizeof entry.alpha / sizeof(float); i++)
        (&entry.alpha[0][0][0])[i] = 0.001f * (float)(i + (size_t)point);
    for (int type = 0; type < DC_CELL_TYPES; type++) {
        entry.genotype.concat[type] = 0x3c;
        for (int i = 0; i < DC_CELL_KEPT; i++)
            entry.genotype.cell[type][i] = (dc_choice){1 + (i + point) % 7, i % 2};
    }
    return entry;
}

static void fill(dc_lug *lug, const int (*order)[2], int n, double seconds)
{
    dc_lug_init(lug, &identity);
    for (int i = 0; i < n; i++) {
        dc_lug_entry entry = entry_of(order[i][0], order[i][1], seconds + i);
        assert_int_equal(dc_lug_add(lug, &entry), DC_OK);
    }
}

static void expect_equal(const dc_lug *a, const dc_lug *b)
{
    assert_int_equal(a->n, b->n);
    for (int i = 0; i < a->n; i++) {
        dc_lug_entry x = a->entries[i], y = b->entries[i];
        x.seconds = y.seconds = 0;
        assert_memory_equal(&x, &y, sizeof x);
    }
}

static char *path_in(const char *directory, const char *name)
{
    char *path;
    assert_true(asprintf(&path, "%s/%s", directory, name) > 0);
    return path;
}

static void test_order_of_arrival_does_not_matter(void **state)
{
    (void)state;
    dc_lug a, b;
    fill(&a, (const int[][2]){{0, 0}, {0, 1}, {1, 0}, {1, 1}, {2, 0}}, 5, 1);
    fill(&b, (const int[][2]){{2, 0}, {1, 1}, {0, 1}, {1, 0}, {0, 0}}, 5, 9);
    expect_equal(&a, &b);
    assert_int_equal(dc_lug_find(&b, 1, 1)->point, 1);
    assert_null(dc_lug_find(&b, 2, 1));
    dc_lug_entry again = entry_of(1, 1, 77); /* replaces */
    assert_int_equal(dc_lug_add(&b, &again), DC_OK);
    assert_int_equal(b.n, 5);
    assert_true(dc_lug_find(&b, 1, 1)->seconds == 77);
    dc_lug_clear(&a);
    dc_lug_clear(&b);
}

/* All bytes of the data set of one state file. */
static void read_rows(const char *path, const char *name, unsigned char *bytes, size_t size)
{
    dc_state *file;
    dc_state_type type;
    int rank;
    int64_t dims[DC_STATE_MAX_RANK];
    memset(bytes, 0, size);
    assert_int_equal(dc_state_open(path, &file), DC_OK);
    assert_int_equal(dc_state_shape(file, name, &type, &rank, dims), DC_OK);
    assert_int_equal(dc_state_get(file, name, type, rank, dims, bytes), DC_OK);
    assert_int_equal(dc_state_close(file), DC_OK);
}

static void test_file_round_trip(void **state)
{
    const char *directory = *state;
    char *first = path_in(directory, "first.h5"), *second = path_in(directory, "second.h5");
    dc_lug a, b, read;
    fill(&a, (const int[][2]){{0, 0}, {0, 1}, {1, 0}}, 3, 1);
    fill(&b, (const int[][2]){{1, 0}, {0, 1}, {0, 0}}, 3, 50);
    assert_int_equal(dc_lug_save(&a, first), DC_OK);
    assert_int_equal(dc_lug_save(&b, second), DC_OK);
    assert_int_equal(dc_lug_load(&read, first, NULL), DC_OK);
    expect_equal(&read, &a);
    assert_true(read.entries[2].seconds == a.entries[2].seconds);
    assert_int_equal(dc_lug_identity_check(&read.identity, &identity, first), DC_OK);
    assert_string_equal(read.identity.text[DC_LUG_RECIPE], "derived, 4 epochs");
    static const char *const same[] = {"point",  "seed_index",          "seed",    "target", "alpha", "derived_cost",
                                       "concat", "validation_accuracy", "genotype"};
    static unsigned char x[1 << 16], y[1 << 16];
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        read_rows(first, same[i], x, sizeof x);
        read_rows(second, same[i], y, sizeof y);
        assert_memory_equal(x, y, sizeof x);
    }
    dc_lug_clear(&a);
    dc_lug_clear(&b);
    dc_lug_clear(&read);
    free(first);
    free(second);
}

static void test_empty_file_round_trip(void **state)
{
    char *path = path_in(*state, "empty.h5");
    dc_lug lug, read;
    dc_lug_init(&lug, &identity);
    assert_int_equal(dc_lug_save(&lug, path), DC_OK);
    assert_int_equal(dc_lug_load(&read, path, NULL), DC_OK);
    assert_int_equal(read.n, 0);
    dc_lug_clear(&read);
    free(path);
}

static void test_extending(void **state)
{
    char *path = path_in(*state, "extended.h5");
    dc_lug lug, read, more;
    fill(&lug, (const int[][2]){{0, 0}, {2, 0}}, 2, 1);
    assert_int_equal(dc_lug_save(&lug, path), DC_OK);
    assert_int_equal(dc_lug_load(&read, path, NULL), DC_OK);
    fill(&more, (const int[][2]){{1, 0}, {2, 1}}, 2, 1);
    for (int i = 0; i < more.n; i++)
        assert_int_equal(dc_lug_add(&read, &more.entries[i]), DC_OK);
    assert_int_equal(dc_lug_save(&read, path), DC_OK);
    dc_lug_clear(&read);
    assert_int_equal(dc_lug_load(&read, path, NULL), DC_OK);
    assert_int_equal(read.n, 4);
    const int expected[4][2] = {{0, 0}, {1, 0}, {2, 0}, {2, 1}};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(read.entries[i].point, expected[i][0]);
        assert_int_equal(read.entries[i].seed_index, expected[i][1]);
    }
    dc_lug_clear(&lug);
    dc_lug_clear(&more);
    dc_lug_clear(&read);
    free(path);
}

static void test_another_identity_is_refused(void **state)
{
    (void)state;
    static const char *const names[DC_LUG_PARTS] = {"another data set", "another space", "another recipe"};
    for (int i = 0; i < DC_LUG_PARTS; i++) {
        dc_lug_identity other = identity;
        other.hash[i]++;
        snprintf(other.text[i], sizeof other.text[i], "something else");
        assert_int_equal(dc_lug_identity_check(&identity, &other, "out/lug.h5"), DC_ERR_INPUT);
        assert_non_null(strstr(dc_status_message(), "out/lug.h5"));
        assert_non_null(strstr(dc_status_message(), names[i]));
        assert_non_null(strstr(dc_status_message(), "something else"));
        assert_non_null(strstr(dc_status_message(), identity.text[i]));
    }
}

static void test_what_is_no_lookup_graph_is_refused(void **state)
{
    char *path = path_in(*state, "other.h5");
    dc_lug lug;
    assert_int_equal(dc_lug_load(&lug, path, NULL), DC_ERR_IO); /* missing */
    dc_state *file;
    assert_int_equal(dc_state_create(path, &file), DC_OK);
    dc_state_put_i64(file, "entries", 3);
    assert_int_equal(dc_state_commit(file, false), DC_OK);
    assert_int_equal(dc_lug_load(&lug, path, NULL), DC_ERR_INPUT);
    free(path);
}

static int make_directory(void **state)
{
    static char directory[] = "/tmp/dcanas-lug-XXXXXX";
    *state = mkdtemp(directory);
    return *state ? 0 : -1;
}

static int remove_directory(void **state)
{
    char *line;
    if (asprintf(&line, "rm -rf %s", (const char *)*state) < 0)
        return -1;
    int status = system(line);
    free(line);
    return status;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_order_of_arrival_does_not_matter),
                                       cmocka_unit_test(test_file_round_trip),
                                       cmocka_unit_test(test_empty_file_round_trip),
                                       cmocka_unit_test(test_extending),
                                       cmocka_unit_test(test_another_identity_is_refused),
                                       cmocka_unit_test(test_what_is_no_lookup_graph_is_refused)};
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
