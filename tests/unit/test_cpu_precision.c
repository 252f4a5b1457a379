/* Steps of searches and trainings whose products are of bfloat16 follow those in float, on the CPU, whatever its
 * instruction set. (Operation by operation: test_conformance.c and test_conv_kernels.c.) */
#include "tests/support/lanes.h"
#include "tests/support/steps.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backend/cpu/cpu_backend.h"

static dc_backend *cpu(const char *isa, dc_precision precision)
{
    dc_backend *backend;
    rig_ok(dc_cpu_backend_create_isa(isa, 2, precision, &backend));
    return backend;
}

static void check(const char *what, outcome (*run)(dc_backend *), apart most)
{
    outcome plain = run(cpu("portable", DC_PRECISION_F32));
    assert_true(plain.loss[STEPS - 1] < plain.loss[0]); /* it learns at all */
    for (size_t i = 0; i < ISAS; i++) {
        if (!dck_kernels_for(isas[i]))
            continue;
        outcome paired = run(cpu(isas[i], DC_PRECISION_BF16));
        print_message("# %s: ", isas[i]);
        check_follows(what, &paired, &plain, most);
        outcome_clear(&paired);
    }
    outcome_clear(&plain);
}

static void a_search_follows_float(void **state)
{
    (void)state;
    check("search in bf16", outcome_of_search, (apart){0.02, 0.3, 0.01});
}

static void a_training_follows_float(void **state)
{
    (void)state;
    check("training in bf16", outcome_of_training, (apart){0.02, 0.15, 0.01});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_search_follows_float),
        cmocka_unit_test(a_training_follows_float),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
