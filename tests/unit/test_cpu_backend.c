/* The CPU backend beside its operations: memory, layout, kernel cache, optimizers, random masks, instruction sets. */
#include "backend/cpu/cpu_backend.h"
#include "kernels.h"
#include "philox.h"
#include "tests/support/reference_backend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

static void must(dc_status status)
{
    if (status != DC_OK)
        fail_msg("%s", dc_status_message());
}

static int create(void **state)
{
    dc_backend *backend;
    must(dc_backend_create("cpu", &(dc_backend_options){.threads = 2}, &backend));
    *state = backend;
    return 0;
}

static int destroy(void **state)
{
    dc_backend_destroy(*state);
    return 0;
}

static void names_are_checked(void **state)
{
    (void)state;
    dc_backend *backend;
    assert_int_equal(dc_backend_create("gpu", &(dc_backend_options){.threads = 1}, &backend), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), "cpu"));
    assert_int_equal(dc_backend_create("cpu", &(dc_backend_options){.threads = 0}, &backend), DC_ERR_INPUT);
    setenv("DCANAS_ISA", "avx1024", 1);
    assert_int_equal(dc_backend_create("cpu", &(dc_backend_options){.threads = 1}, &backend), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), "DCANAS_ISA"));
    assert_non_null(strstr(dc_status_message(), "portable"));
    setenv("DCANAS_ISA", "portable", 1);
    must(dc_backend_create("cpu", &(dc_backend_options){.threads = 3}, &backend));
    assert_string_equal(dc_backend_description(backend), "cpu portable, 3 threads");
    dc_backend_destroy(backend);
    unsetenv("DCANAS_ISA");
    dc_backend_destroy(NULL);
}

static void tf32_is_a_gpu_s(void **state)
{
    (void)state;
    dc_precision precision = DC_PRECISION_F32;
    for (int i = 0; i < DC_PRECISIONS; i++) {
        must(dc_precision_parse(dc_precision_names[i], &precision));
        assert_int_equal(precision, i);
    }
    assert_int_equal(dc_precision_parse("fp16", &precision), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), "bf16"));
    dc_backend *backend;
    dc_backend_options options = {.threads = 1, .precision = DC_PRECISION_TF32};
    assert_int_equal(dc_backend_create("cpu", &options, &backend), DC_ERR_INPUT);
    assert_non_null(strstr(dc_status_message(), "tf32 needs a GPU"));
    options.precision = DC_PRECISION_BF16;
    must(dc_backend_create("cpu", &options, &backend));
    assert_non_null(strstr(dc_backend_description(backend), "bf16"));
    dc_backend_destroy(backend);
}

static void memory_is_aligned_and_zero(void **state)
{
    dc_backend *b = *state;
    static const size_t sizes[] = {1, 100, 4096, ((size_t)2 << 20) - 1, ((size_t)5 << 20) + 12};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *memory;
        must(b->call->alloc(b, sizes[i], &memory));
        size_t alignment = sizes[i] >= (size_t)2 << 20 ? (size_t)2 << 20 : 64;
        assert_int_equal((uintptr_t)memory % alignment, 0);
        for (size_t k = 0; k < sizes[i]; k++)
            assert_int_equal(((char *)memory)[k], 0);
        memset(memory, 1, sizes[i]);
        b->call->release(b, memory, sizes[i]);
    }
}

static void images_go_in_and_out(void **state)
{
    dc_backend *b = *state;
    enum { N = 21, C = 3, H = 5, W = 4, IMAGE = C * H * W };
    float in[N * IMAGE], out[N * IMAGE], *memory;
    for (int i = 0; i < N * IMAGE; i++)
        in[i] = (float)i;
    must(b->call->alloc(b, 32 * IMAGE * sizeof(float), (void **)&memory));
    for (int i = 0; i < 32 * IMAGE; i++)
        memory[i] = NAN;
    dc_view view = {memory, {C, H, W}, 16 * IMAGE, NULL};
    must(b->call->write(b, view, N, in));
    /* image 17 is lane 1 of block 1; unused lanes of its block are finite */
    assert_float_equal(memory[16 * IMAGE + ((1 * H + 2) * W + 3) * 16 + 1], in[17 * IMAGE + (1 * H + 2) * W + 3], 0);
    for (int i = 0; i < 32 * IMAGE; i++)
        assert_true(isfinite(memory[i]));
    must(b->call->read(b, view, N, out));
    assert_memory_equal(in, out, sizeof in);
    b->call->release(b, memory, 32 * IMAGE * sizeof(float));
}

static void equal_nodes_share_a_kernel(void **state)
{
    dc_backend *b = *state;
    dc_graph *g = dc_graph_create((dc_shape){4, 8, 8});
    int a = dc_graph_conv(g, "a", g->input, 4, 3, 1, 1, 1, 1, 4), c = dc_graph_conv(g, "c", a, 4, 3, 1, 1, 1, 1, 4);
    int d = dc_graph_conv(g, "d", a, 4, 3, 1, 2, 2, 2, 4);
    int p = dc_graph_drop_path(g, "p", a), q = dc_graph_drop_path(g, "q", a);
    must(dc_graph_check(g));
    dc_kernel *first, *again, *other;
    must(b->call->prepare(b, g, a, 16, false, &first));
    must(b->call->prepare(b, g, c, 16, false, &again));
    assert_ptr_equal(first, again);
    must(b->call->prepare(b, g, c, 16, true, &other));
    assert_ptr_not_equal(first, other);
    must(b->call->prepare(b, g, c, 32, false, &other));
    assert_ptr_not_equal(first, other);
    must(b->call->prepare(b, g, d, 16, false, &other));
    assert_ptr_not_equal(first, other);
    must(b->call->prepare(b, g, p, 16, false, &first)); /* its name is its stream of random numbers */
    must(b->call->prepare(b, g, q, 16, false, &other));
    assert_ptr_not_equal(first, other);
    dc_graph_destroy(g);
}

static void kernels_draw_the_program_s_random_numbers(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 1000; i++) {
        dc_rng_key key = {i * 0x9e3779b97f4a7c15u, i * 0xbf58476d1ce4e5b9u};
        uint32_t step = (uint32_t)i * 7919, ours[4], theirs[4];
        uint64_t element = i << (i % 50);
        dc_rng_block(key, step, element, theirs);
        dck_philox(key.seed, key.stream, step, element, ours);
        assert_memory_equal(ours, theirs, sizeof ours);
        assert_float_equal(dck_philox_unit(ours[0]), dc_rng_uniform(key, step, element), 0);
    }
}

/* ---- optimizers ---- */

enum { N_SEGMENTS = 40, LARGE = 200000 };

static size_t segment_floats(int s)
{
    return s == 7 ? LARGE : (size_t)(1 + 131 * s); /* none a multiple of a vector */
}

typedef struct model {
    dc_segment segments[N_SEGMENTS];
    float *memory;
    size_t count;
} model;

static model model_create(void)
{
    model m = {.count = 0};
    for (int s = 0; s < N_SEGMENTS; s++)
        m.count += (segment_floats(s) + 15) / 16 * 16;
    m.memory = aligned_alloc(64, 4 * m.count * sizeof(float));
    assert_non_null(m.memory);
    for (size_t i = 0; i < 4 * m.count; i++)
        m.memory[i] = i < 2 * m.count ? dc_rng_uniform((dc_rng_key){1, 2}, 0, i) - 0.5f : 0;
    size_t offset = 0;
    for (int s = 0; s < N_SEGMENTS; s++) {
        float *p = m.memory + offset;
        m.segments[s] = (dc_segment){p, p + m.count, p + 2 * m.count, p + 3 * m.count, segment_floats(s)};
        offset += (segment_floats(s) + 15) / 16 * 16;
    }
    return m;
}

static void assert_models_close(const model *a, const model *b, double tolerance)
{
    for (size_t i = 0; i < 4 * a->count; i++)
        if (!(fabs((double)a->memory[i] - (double)b->memory[i]) <= tolerance))
            fail_msg("float %zu of %zu: %.9g, not %.9g", i, a->count, (double)a->memory[i], (double)b->memory[i]);
}

static void run_optimizer(dc_backend *b, model *m, int which, uint32_t step)
{
    const dc_sgd sgd = {0.1f, 0.9f, 3e-2f, which == 1, 50};
    const dc_adam adam = {0.01f, 0.5f, 0.999f, 1e-8f, 1e-2f, step};
    if (which < 2)
        must(b->call->sgd(b, N_SEGMENTS, m->segments, &sgd, NULL));
    else if (which == 2)
        must(b->call->adam(b, N_SEGMENTS, m->segments, &adam));
    else
        must(b->call->blend(b, m->memory, m->memory + m->count, m->count, 0.3f, 0.7f));
}

static void optimizers_conform(void **state)
{
    dc_backend *b = *state, *one, *reference;
    must(dc_backend_create("cpu", &(dc_backend_options){.threads = 1}, &one));
    must(dc_reference_backend_create(&reference));
    for (int which = 0; which < 4; which++) { /* sgd, with Nesterov, adam, blend */
        model ours = model_create(), single = model_create(), theirs = model_create();
        for (uint32_t step = 1; step <= 3; step++) {
            run_optimizer(b, &ours, which, step);
            run_optimizer(one, &single, which, step);
            run_optimizer(reference, &theirs, which, step);
        }
        assert_models_close(&ours, &theirs, 2e-6);
        assert_memory_equal(ours.memory, single.memory, 4 * ours.count * sizeof(float));
        free(ours.memory);
        free(single.memory);
        free(theirs.memory);
    }
    dc_backend_destroy(reference);
    dc_backend_destroy(one);
}

static void gradient_norm_is_exact_and_reproducible(void **state)
{
    dc_backend *b = *state, *three, *reference;
    must(dc_backend_create("cpu", &(dc_backend_options){.threads = 3}, &three));
    must(dc_reference_backend_create(&reference));
    model m = model_create();
    double ours, again, theirs;
    const dc_sgd still = {.learning_rate = 0};
    must(b->call->sgd(b, N_SEGMENTS, m.segments, &still, &ours));
    must(three->call->sgd(three, N_SEGMENTS, m.segments, &still, &again));
    must(reference->call->sgd(reference, N_SEGMENTS, m.segments, &still, &theirs));
    assert_true(fabs(ours - theirs) <= 1e-12 * theirs);
    assert_memory_equal(&ours, &again, sizeof ours);
    m.segments[20].grad[100] = NAN; /* a divergence must be seen */
    assert_int_equal(b->call->sgd(b, N_SEGMENTS, m.segments, &still, &ours), DC_ERR_INPUT);
    free(m.memory);
    dc_backend_destroy(reference);
    dc_backend_destroy(three);
}

/* ---- divergence is seen ---- */

static void what_is_not_a_number_stays_so(void **state)
{
    (void)state;
    static const char *const isas[] = {"avx512_bf16", "avx512", "avx2", "portable"};
    for (int i = 0; i < 4; i++) {
        const dck_kernels *call = dck_kernels_for(isas[i]);
        if (!call)
            continue;
        _Alignas(64) float logits[10 * 16] = {0}, saved[10 * 16], result[4];
        int32_t labels[16] = {0};
        logits[3 * 16 + 2] = NAN;
        dck_view view = {logits, 10, 1, 1, 160, NULL};
        call->cross_entropy_forward(view, labels, 0, 16, saved, result);
        assert_true(isnan(result[0]));
        assert_true(result[1] == 0);
        call->relu_forward(view, view, 1, 1);
        assert_true(isnan(logits[3 * 16 + 2]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_checked),
        cmocka_unit_test(tf32_is_a_gpu_s),
        cmocka_unit_test_setup_teardown(memory_is_aligned_and_zero, create, destroy),
        cmocka_unit_test_setup_teardown(images_go_in_and_out, create, destroy),
        cmocka_unit_test_setup_teardown(equal_nodes_share_a_kernel, create, destroy),
        cmocka_unit_test(kernels_draw_the_program_s_random_numbers),
        cmocka_unit_test_setup_teardown(optimizers_conform, create, destroy),
        cmocka_unit_test_setup_teardown(gradient_norm_is_exact_and_reproducible, create, destroy),
        cmocka_unit_test(what_is_not_a_number_stays_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
