/* Genotypes: the public text form, names, equality. */
#include "space/genotype.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define NORMAL                                                                                                         \
    "normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1),"                      \
    " ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)]"
#define REDUCE                                                                                                         \
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1),"                      \
    " ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)]"
#define V2 "Genotype(" NORMAL ", normal_concat=[2, 3, 4, 5], " REDUCE ", reduce_concat=[2, 3, 4, 5])"

static dc_genotype parsed(const char *text)
{
    dc_genotype genotype;
    if (dc_genotype_parse(text, &genotype) != DC_OK)
        fail_msg("%s", dc_status_message());
    return genotype;
}

static void assert_refused(const char *text, const char *position, const char *expected)
{
    dc_genotype genotype = {.concat = {7, 7}};
    if (dc_genotype_parse(text, &genotype) != DC_ERR_INPUT)
        fail_msg("accepted: %s", text);
    if (!strstr(dc_status_message(), position) || !strstr(dc_status_message(), expected))
        fail_msg("'%s' should say '%s' and '%s'", dc_status_message(), position, expected);
    assert_null(strchr(dc_status_message(), '\n'));
    assert_int_equal(genotype.concat[0], 7); /* left alone */
}

static void test_reads_published_form(void **state)
{
    (void)state;
    dc_genotype g = parsed(V2);
    assert_int_equal(g.cell[DC_CELL_NORMAL][7].op, DC_DARTS_DIL_CONV_3X3);
    assert_int_equal(g.cell[DC_CELL_NORMAL][7].source, 2);
    assert_int_equal(g.cell[DC_CELL_REDUCE][3].op, DC_DARTS_MAX_POOL_3X3);
    assert_int_equal(g.cell[DC_CELL_REDUCE][3].source, 1);
    assert_int_equal(g.concat[DC_CELL_NORMAL], 0x3c);
    assert_int_equal(g.concat[DC_CELL_REDUCE], 0x3c);
    char text[DC_GENOTYPE_CHARS];
    dc_genotype_format(&g, text);
    assert_string_equal(text, V2);
}

static void test_reads_variants(void **state)
{
    (void)state;
    dc_genotype g = parsed(V2);
    const char *variants[] = {
        "DARTS_V2 = " V2,
        "  Genotype(\n" REDUCE ",\n reduce_concat = range( 2 ,6 ) ,\n" NORMAL ", normal_concat=(2,3,4,5,),)\n\n",
        "# found by hand\nbest=Genotype( # normal first\n" NORMAL ",normal_concat=range(2,6)," REDUCE
        ",reduce_concat=[5,4,3,2]) # end",
        "Genotype(normal=((\"sep_conv_3x3\",0),[\"sep_conv_3x3\",1],('sep_conv_3x3',0,),('sep_conv_3x3',1),"
        "('sep_conv_3x3',1),('skip_connect',0),('skip_connect',0),('dil_conv_3x3',2),),normal_concat=range(2,6)," REDUCE
        ",reduce_concat=range(2,6))",
    };
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        dc_genotype other = parsed(variants[i]);
        assert_memory_equal(&g, &other, sizeof g);
    }
    g = parsed("Genotype(" NORMAL ", normal_concat=[1, 5], " REDUCE ", reduce_concat=range(3, 5))");
    assert_int_equal(g.concat[DC_CELL_NORMAL], 0x22);
    assert_int_equal(g.concat[DC_CELL_REDUCE], 0x18);
}

static void test_says_where_and_what(void **state)
{
    (void)state;
    assert_refused("", "line 1, column 1, at the end", "Genotype(");
    assert_refused("DARTS_V9", "column 1", "Genotype(");
    assert_refused("x = Gen(", "column 5", "Genotype(");
    assert_refused("Genotype(normal=[('sep_conv_7x7', 0)", "column 19", "sep_conv_5x5");
    assert_refused("Genotype(normal=[('sep_conv_3x3, 0)", "column 19", "expected an operation");
    assert_refused("Genotype(normal=[('sep_conv_3x3', 2)", "column 35", "a source of node 0, 0 to 1");
    assert_refused("Genotype(normal=[('sep_conv_3x3', -1)", "column 35", "a source of node 0, 0 to 1");
    assert_refused("Genotype(normal=[('sep_conv_3x3', 99999999999999999999)", "column 35", "0 to 1");
    assert_refused("Genotype(normal=[\n  ('none', 0),\n  ('none', 0)])", "line 3, column 15", "8 operations");
    assert_refused("Genotype(normal=[('none', 0) ('none', 0)])", "column 30", "','");
    assert_refused("Genotype(" NORMAL ", " NORMAL ")", "column", "each once");
    assert_refused("Genotype(" NORMAL ", reduce_concat=[1, 2])", "at \"1, 2", "a state, 2 to 5");
    assert_refused("Genotype(" NORMAL ", normal_concat=[2, 2])", "at \"]", "2 is listed twice");
    assert_refused("Genotype(" NORMAL ", normal_concat=range(4, 4))", "at \"4))", "5 to 6");
    assert_refused("Genotype(" NORMAL ", normal_concat=[])", "at \"])", "a state");
    assert_refused("Genotype(" NORMAL ", normal_concat=[2], " REDUCE ")", "at the end", "reduce_concat");
    assert_refused("Genotype(" NORMAL ", size=[2])", "at \"size", "normal_concat=");
    assert_refused(V2 " + 1", "at \"+ 1", "nothing after");
    /* NASNet's cells have 5 nodes. */
    assert_refused("Genotype(normal=[('none',0),('none',0),('none',0),('none',0),('none',0),('none',0),('none',0),"
                   "('none',0),('none',0),('none',0)]",
                   "column", "8 operations");
}

/* Every text cut short is an error, not a crash. */
static void test_every_truncation_is_refused(void **state)
{
    (void)state;
    char text[] = V2;
    for (size_t n = sizeof text - 2; n > 0; n--) {
        text[n] = '\0';
        dc_genotype genotype;
        assert_int_equal(dc_genotype_parse(text, &genotype), DC_ERR_INPUT);
    }
}

static void test_builtins(void **state)
{
    (void)state;
    const char *expected[] = {"DARTS_V1", "DARTS_V2", "PC_DARTS_cifar", "PC_DARTS_image", "PDARTS", "SNAS"};
    int n = 0;
    for (; dc_genotype_builtin_name(n); n++) {
        dc_genotype g, again;
        assert_string_equal(dc_genotype_builtin_name(n), expected[n]);
        assert_int_equal(dc_genotype_lookup(expected[n], &g), DC_OK);
        assert_int_equal(g.concat[DC_CELL_NORMAL], 0x3c);
        assert_int_equal(g.concat[DC_CELL_REDUCE], 0x3c);
        for (int type = 0; type < DC_CELL_TYPES; type++)
            for (int i = 0; i < DC_CELL_KEPT; i += 2)
                assert_int_not_equal(g.cell[type][i].source, g.cell[type][i + 1].source);
        char text[DC_GENOTYPE_CHARS];
        dc_genotype_format(&g, text);
        assert_int_equal(dc_genotype_lookup(text, &again), DC_OK);
        assert_memory_equal(&g, &again, sizeof g);
    }
    assert_int_equal(n, 6);
}

static void test_unknown_name(void **state)
{
    (void)state;
    dc_genotype g;
    assert_int_equal(dc_genotype_lookup("darts_v2", &g), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), "did you mean DARTS_V"));
    assert_non_null(strstr(dc_status_message(), "DARTS_V1, DARTS_V2, PC_DARTS_cifar, PC_DARTS_image, PDARTS, SNAS"));
    assert_int_equal(dc_genotype_lookup("zzzzzzzzzzzz", &g), DC_ERR_INPUT);
    assert_null(strstr(dc_status_message(), "did you mean"));
    assert_int_equal(dc_genotype_lookup("", &g), DC_ERR_INPUT);
}

static void test_reads_a_file(void **state)
{
    (void)state;
    char path[] = "/tmp/dcanas-genotype-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    const char good[] = "# the winner\n" V2 "\n", bad[] = "# the loser\nGenotype(norm";
    assert_int_equal(write(fd, good, sizeof good - 1), sizeof good - 1);
    dc_genotype g, v2 = parsed(V2);
    assert_int_equal(dc_genotype_lookup(path, &g), DC_OK);
    assert_memory_equal(&g, &v2, sizeof g);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(pwrite(fd, bad, sizeof bad - 1, 0), sizeof bad - 1);
    assert_int_equal(dc_genotype_lookup(path, &g), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), path));
    assert_non_null(strstr(dc_status_message(), "line 2"));
    close(fd);
    unlink(path);
}

static void test_equality_and_hash(void **state)
{
    (void)state;
    dc_genotype a = parsed(V2), b = a;
    b.cell[DC_CELL_NORMAL][2] = a.cell[DC_CELL_NORMAL][3];
    b.cell[DC_CELL_NORMAL][3] = a.cell[DC_CELL_NORMAL][2];
    assert_true(dc_genotype_equal(&a, &b));
    assert_true(dc_genotype_hash(&a) == dc_genotype_hash(&b));
    b = a;
    b.cell[DC_CELL_REDUCE][7].op = DC_DARTS_NONE;
    assert_false(dc_genotype_equal(&a, &b));
    assert_false(dc_genotype_hash(&a) == dc_genotype_hash(&b));
    b = a;
    b.concat[DC_CELL_NORMAL] = 0x38;
    assert_false(dc_genotype_equal(&a, &b));
    assert_false(dc_genotype_hash(&a) == dc_genotype_hash(&b));
}

static void test_edge_numbers(void **state)
{
    (void)state;
    const int first[] = {0, 2, 5, 9, 14};
    for (int node = 0; node <= DC_CELL_NODES; node++)
        assert_int_equal(dc_cell_first_edge(node), first[node]);
    assert_int_equal(dc_cell_stride(DC_CELL_REDUCE, 1), 2);
    assert_int_equal(dc_cell_stride(DC_CELL_REDUCE, 2), 1);
    assert_int_equal(dc_cell_stride(DC_CELL_NORMAL, 0), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_published_form),
        cmocka_unit_test(test_reads_variants),
        cmocka_unit_test(test_says_where_and_what),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_builtins),
        cmocka_unit_test(test_unknown_name),
        cmocka_unit_test(test_reads_a_file),
        cmocka_unit_test(test_equality_and_hash),
        cmocka_unit_test(test_edge_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
