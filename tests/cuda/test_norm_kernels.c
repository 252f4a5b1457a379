/* The GPU's batch norm and mix, against plain loops on the host. */
#include "tests/cuda/expect.h"

/* ---- batch norm ---- */

static const float momentum = 0.1f, epsilon = 1e-5f;

/* Parameters and statistics, on the host and on the device. */
typedef struct norm_case {
    operands *o;
    float *gamma, *beta, *mean, *variance, *saved; /* saved: [2][c] */
    device_memory on_device[5];
    device_memory scratch, affine;
    dck_norm k;
    bool training;
} norm_case;

static float *random_floats(size_t n, float base)
{
    float *x = malloc(n * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++)
        x[i] = base + random_float();
    return x;
}

static norm_case norm_case_create(operands *o, bool affine)
{
    const size_t c = (size_t)o->s.c, bytes = c * sizeof(float);
    norm_case n = {.o = o,
                   .gamma = random_floats(c, 0),
                   .beta = random_floats(c, 0),
                   .mean = random_floats(c, 0),
                   .variance = random_floats(c, 1.5f),
                   .saved = random_floats(2 * c, 0),
                   .training = true};
    float *const from[] = {n.gamma, n.beta, n.mean, n.variance, n.saved};
    for (int i = 0; i < 5; i++)
        n.on_device[i] = device_create_from(from[i], i == 4 ? 2 * bytes : bytes);
    n.scratch = device_create(dck_cuda_norm_scratch_bytes(o->out.view, BLOCKS));
    n.affine = device_create(2 * bytes);
    n.k = (dck_norm){.gamma = affine ? n.on_device[0].data : NULL,
                     .beta = affine ? n.on_device[1].data : NULL,
                     .mean = n.on_device[2].data,
                     .variance = n.on_device[3].data,
                     .momentum = momentum,
                     .epsilon = epsilon,
                     .saved = n.on_device[4].data};
    if (!affine)
        for (size_t i = 0; i < c; i++) {
            n.gamma[i] = 1;
            n.beta[i] = 0;
        }
    return n;
}

static void norm_case_destroy(norm_case *n)
{
    for (int i = 0; i < 5; i++)
        device_destroy(&n->on_device[i]);
    device_destroy(&n->scratch);
    device_destroy(&n->affine);
    free(n->gamma);
    free(n->beta);
    free(n->mean);
    free(n->variance);
    free(n->saved);
}

/* Sums over a channel's elements that belong to images: of f(i). */
typedef double term(const norm_case *n, size_t i);

static double channel_sum(const norm_case *n, int channel, term *f, double *size)
{
    const dck_view v = n->o->out.host.view;
    double sum = 0;
    for (size_t i = 0; i < elements_of(n->o); i++)
        if (channel_of(v, i) == channel && image_of(v, i) < n->o->s.n) {
            sum += f(n, i);
            *size += fabs(f(n, i));
        }
    return sum;
}

static double one(const norm_case *n, size_t i)
{
    (void)n;
    (void)i;
    return 1;
}

static double x_of(const norm_case *n, size_t i)
{
    return host_at(&n->o->x[0], i);
}

static double dy_of(const norm_case *n, size_t i)
{
    return host_at(&n->o->x[1], i);
}

static double centred(const norm_case *n, size_t i)
{
    return x_of(n, i) - (double)n->saved[channel_of(n->o->out.host.view, i)];
}

static double square(const norm_case *n, size_t i)
{
    return centred(n, i) * centred(n, i);
}

static double product(const norm_case *n, size_t i)
{
    return dy_of(n, i) * centred(n, i);
}

/* Fills saved, and mean and variance as they are after the step. */
static void right_statistics(norm_case *n)
{
    for (int c = 0; c < n->o->s.c; c++) {
        double size = 0, count = channel_sum(n, c, one, &size), mean = channel_sum(n, c, x_of, &size) / count;
        n->saved[c] = (float)mean;
        double sum = channel_sum(n, c, square, &size), variance = sum / count;
        n->saved[n->o->s.c + c] = (float)(1 / sqrt(variance + (double)epsilon));
        n->mean[c] += momentum * ((float)mean - n->mean[c]);
        n->variance[c] += momentum * ((float)(count > 1 ? sum / (count - 1) : 0) - n->variance[c]);
    }
}

/* Measured, and seen through by who copies. */
static cudaError_t call_deferred_norm(const dck_queue *queue, const void *context, bool accumulate, int images)
{
    const norm_case *n = context;
    dck_view seen = n->o->x[0].view;
    seen.affine = n->affine.data;
    const cudaError_t error =
        dck_cuda_norm_measure(queue, &n->k, n->o->x[0].view, n->affine.data, images, n->training, n->scratch.data);
    return error != cudaSuccess ? error : dck_cuda_copy(queue, seen, n->o->out.view, accumulate, images);
}

static cudaError_t call_norm(const dck_queue *queue, const void *context, bool accumulate, int images)
{
    const norm_case *n = context;
    (void)accumulate;
    return dck_cuda_norm_forward(queue, &n->k, n->o->x[0].view, n->o->out.view, images, n->training, n->scratch.data);
}

static void assert_close(device_memory memory, const float *right, int count, float tolerance)
{
    float *is = malloc((size_t)count * sizeof *is);
    assert_non_null(is);
    device_get(memory, is);
    for (int i = 0; i < count; i++)
        if (!(fabsf(is[i] - right[i]) <= tolerance * (1 + fabsf(right[i]))))
            fail_msg("%d of %d: %.9g is not %.9g", i, count, (double)is[i], (double)right[i]);
    free(is);
}

static void right_output(norm_case *n, const float *mean, const float *inverse)
{
    operands *o = n->o;
    for (size_t i = 0; i < elements_of(o); i++) {
        const int c = channel_of(o->out.host.view, i);
        const double scale = (double)n->gamma[c] * (double)inverse[c];
        o->right.value[i] = (x_of(n, i) - (double)mean[c]) * scale + (double)n->beta[c];
        o->right.size[i] = (fabs(x_of(n, i)) + fabs((double)mean[c])) * fabs(scale) + fabs((double)n->beta[c]);
    }
}

static void check_forward(operands *o, bool affine, float offset, call_with *call)
{
    tensor_randomize(o->x[0].host);
    const dck_view v = o->x[0].host.view;
    for (int b = 0; b < BLOCKS; b++)
        for (size_t i = 0; i < block_elements(v); i++)
            v.data[b * v.stride + i] += offset;
    device_tensor_put(&o->x[0]);
    norm_case n = norm_case_create(o, affine);
    right_statistics(&n);
    right_output(&n, n.saved, n.saved + o->s.c);
    check_output(call, &n, false, &o->queue, &o->out, o->s.n, o->right);
    assert_close(n.on_device[2], n.mean, o->s.c, 1e-6f);
    assert_close(n.on_device[3], n.variance, o->s.c, 2e-6f);
    assert_close(n.on_device[4], n.saved, 2 * o->s.c, 2e-6f);
    norm_case_destroy(&n);
}

static void check_training(operands *o)
{
    check_forward(o, true, 0, call_norm);
    check_forward(o, false, 0, call_norm);
    check_forward(o, true, 1000, call_norm); /* of which float squares would leave nothing */
    check_forward(o, true, 0, call_deferred_norm);
    check_forward(o, false, 10, call_deferred_norm);
}

static void check_evaluation(operands *o)
{
    norm_case n = norm_case_create(o, true);
    float *inverse = malloc((size_t)o->s.c * sizeof *inverse);
    assert_non_null(inverse);
    for (int c = 0; c < o->s.c; c++)
        inverse[c] = 1 / sqrtf(n.variance[c] + epsilon);
    right_output(&n, n.mean, inverse);
    n.training = false;
    check_output(call_norm, &n, false, &o->queue, &o->out, o->s.n, o->right);
    check_output(call_deferred_norm, &n, false, &o->queue, &o->out, o->s.n, o->right);
    assert_close(n.on_device[2], n.mean, o->s.c, 0);
    assert_close(n.on_device[3], n.variance, o->s.c, 0);
    norm_case_destroy(&n);
    free(inverse);
}

typedef struct norm_gradients {
    norm_case n;
    device_memory dgamma, dbeta;
    bool wants_parameters;
} norm_gradients;

static cudaError_t call_norm_backward(const dck_queue *queue, const void *context, bool accumulate, int images)
{
    const norm_gradients *g = context;
    const operands *o = g->n.o;
    return dck_cuda_norm_backward(queue, &g->n.k, o->x[0].view, o->x[1].view, o->out.view, accumulate,
                                  g->wants_parameters ? g->dgamma.data : NULL,
                                  g->wants_parameters ? g->dbeta.data : NULL, images, g->n.scratch.data);
}

static void check_sum(device_memory gradient, int channel, double right, double size)
{
    float is[64];
    assert_true(gradient.bytes <= sizeof is);
    device_get(gradient, is);
    if (!(fabs((double)is[channel] - right) <= 2e-6 * size + 1e-9))
        fail_msg("channel %d: %.9g is not %.9g", channel, (double)is[channel], right);
}

static void check_backward_of(operands *o, bool affine, bool wants_parameters)
{
    const size_t bytes = (size_t)o->s.c * sizeof(float);
    device_tensor_end(&o->x[1], o->s.n);
    norm_gradients g = {norm_case_create(o, affine), device_create(bytes), device_create(bytes), wants_parameters};
    right_statistics(&g.n);
    device_put(g.n.on_device[4], g.n.saved);
    double sum[64], products[64], sum_size[64] = {0}, products_size[64] = {0}, count = 0;
    for (int c = 0; c < o->s.c; c++) {
        sum[c] = channel_sum(&g.n, c, dy_of, &sum_size[c]);
        products[c] = channel_sum(&g.n, c, product, &products_size[c]);
        count = (double)o->s.n * o->s.h * o->s.w;
    }
    for (size_t i = 0; i < elements_of(o); i++) {
        const int c = channel_of(o->out.host.view, i);
        const double inverse = (double)g.n.saved[o->s.c + c], a = (double)g.n.gamma[c] * inverse;
        const double slope = inverse * inverse * centred(&g.n, i) / count;
        const bool present = image_of(o->out.host.view, i) < o->s.n;
        o->right.value[i] = present ? a * (dy_of(&g.n, i) - sum[c] / count - slope * products[c]) : 0;
        o->right.size[i] = fabs(a) * (fabs(dy_of(&g.n, i)) + sum_size[c] / count + fabs(slope) * products_size[c]);
    }
    check_output(call_norm_backward, &g, true, &o->queue, &o->out, o->s.n, o->right);
    for (int c = 0; wants_parameters && c < o->s.c; c++) {
        const double inverse = (double)g.n.saved[o->s.c + c];
        check_sum(g.dbeta, c, sum[c], sum_size[c]);
        check_sum(g.dgamma, c, products[c] * inverse, products_size[c] * inverse);
    }
    norm_case_destroy(&g.n);
    device_destroy(&g.dgamma);
    device_destroy(&g.dbeta);
}

static void check_backward(operands *o)
{
    check_backward_of(o, true, true);
    check_backward_of(o, false, false);
}

static void norm_matches_loops_in_training(void **state)
{
    (void)state;
    for_each_case(check_training);
}

static void norm_matches_loops_in_evaluation(void **state)
{
    (void)state;
    for_each_case(check_evaluation);
}

static void gradients_of_norm_match_loops(void **state)
{
    (void)state;
    for_each_case(check_backward);
}

/* Chunks of one channel that end within a plane, and one of which lies in both blocks. */
static void norm_matches_loops_over_several_chunks(void **state)
{
    (void)state;
    for (int type = DCK_F32; type <= DCK_BF16; type++) {
        operands o = operands_create((dck_type)type, (shape_case){2, 30, 31, 27});
        check_forward(&o, true, 1000, call_norm);
        check_backward_of(&o, true, true);
        operands_destroy(&o);
    }
}

/* ---- mix ---- */

enum { FEATURES = 7, WEIGHTS = 9 };
static const int indices[FEATURES] = {2, 8, 0, 2, 5, 1, 7}; /* two features with one weight */

typedef struct mixture {
    operands *o;
    int features;
    device_tensor x[FEATURES], dx[FEATURES];
    float weight[WEIGHTS], dweight[WEIGHTS];
    device_memory weights, dweights, scratch;
    bool weighted;
} mixture;

static void views_of(int n, const device_tensor *from, dck_view *to)
{
    for (int i = 0; i < n; i++)
        to[i] = from[i].view;
}

static mixture mixture_create(operands *o, int features, bool weighted)
{
    mixture m = {.o = o, .features = features, .weighted = weighted};
    for (int i = 0; i < features; i++) {
        m.x[i] = device_tensor_create(o->out.type, o->s.c, o->s.h, o->s.w);
        m.dx[i] = device_tensor_create(o->out.type, o->s.c, o->s.h, o->s.w);
        device_tensor_end(&m.dx[i], o->s.n);
        if (i % 2)
            device_tensor_add_affine(&m.x[i]);
    }
    for (int i = 0; i < WEIGHTS; i++) {
        m.weight[i] = random_float();
        m.dweight[i] = random_float();
    }
    m.weights = device_create_from(m.weight, sizeof m.weight);
    m.dweights = device_create_from(m.dweight, sizeof m.dweight);
    m.scratch = device_create(dck_cuda_mix_backward_scratch_bytes(features, o->out.view, BLOCKS));
    return m;
}

static void mixture_destroy(mixture *m)
{
    for (int i = 0; i < m->features; i++) {
        device_tensor_destroy(&m->x[i]);
        device_tensor_destroy(&m->dx[i]);
    }
    device_destroy(&m->weights);
    device_destroy(&m->dweights);
    device_destroy(&m->scratch);
}

static double weight_of(const mixture *m, int feature)
{
    return m->weighted ? (double)m->weight[indices[feature]] : 1;
}

static cudaError_t call_mix(const dck_queue *queue, const void *context, bool accumulate, int n)
{
    const mixture *m = context;
    dck_view x[FEATURES];
    views_of(m->features, m->x, x);
    return dck_cuda_mix_forward(queue, m->features, x, m->weighted ? m->weights.data : NULL,
                                m->weighted ? indices : NULL, m->o->out.view, accumulate, n);
}

static void check_mix_of(operands *o, bool weighted)
{
    mixture m = mixture_create(o, FEATURES, weighted);
    memset(o->right.value, 0, elements_of(o) * sizeof(double));
    memset(o->right.size, 0, elements_of(o) * sizeof(double));
    for (size_t i = 0; i < elements_of(o); i++)
        for (int f = 0; f < m.features; f++)
            expect_add(o->right, i, weight_of(&m, f) * host_at(&m.x[f], i));
    check_output(call_mix, &m, true, &o->queue, &o->out, o->s.n, o->right);
    mixture_destroy(&m);
}

static void check_mix(operands *o)
{
    check_mix_of(o, true);
    check_mix_of(o, false);
}

static void check_feature_gradient(mixture *m, int f, bool accumulate, const float *was)
{
    operands *o = m->o;
    for (size_t i = 0; i < elements_of(o); i++) {
        o->right.value[i] = weight_of(m, f) * host_at(&o->x[0], i);
        o->right.size[i] = fabs(o->right.value[i]);
    }
    assert_device_tensor(&m->dx[f], o->right.value, o->right.size, accumulate ? was : NULL,
                         (o->s.n + DCK_LANES - 1) / DCK_LANES, was);
}

static void check_weight_gradients(mixture *m, bool wanted)
{
    double right[WEIGHTS], size[WEIGHTS] = {0};
    float is[WEIGHTS];
    for (int w = 0; w < WEIGHTS; w++)
        right[w] = (double)m->dweight[w];
    for (int f = 0; wanted && f < m->features; f++)
        for (size_t i = 0; i < elements_of(m->o); i++)
            if (image_of(m->o->out.host.view, i) < m->o->s.n) {
                const double d = host_at(&m->o->x[0], i) * host_at(&m->x[f], i);
                right[indices[f]] += d;
                size[indices[f]] += fabs(d);
            }
    device_get(m->dweights, is);
    for (int w = 0; w < WEIGHTS; w++)
        if (!(fabs((double)is[w] - right[w]) <= 1e-6 * (size[w] + 1)))
            fail_msg("weight %d: %.9g is not %.9g", w, (double)is[w], right[w]);
}

static void check_mix_backward_of(operands *o, int features, bool weighted)
{
    enum { NOT_WANTED = 4 };
    mixture m = mixture_create(o, features, weighted);
    dck_view x[FEATURES], dx[FEATURES];
    bool accumulate[FEATURES];
    float *was[FEATURES];
    device_tensor_end(&o->x[0], o->s.n);
    views_of(features, m.x, x);
    views_of(features, m.dx, dx);
    for (int f = 0; f < features; f++) {
        accumulate[f] = f % 3 == 0;
        was[f] = malloc(m.dx[f].host.count * sizeof(float));
        assert_non_null(was[f]);
        memcpy(was[f], m.dx[f].host.all, m.dx[f].host.count * sizeof(float));
    }
    dx[NOT_WANTED].data = NULL;
    device_ok(dck_cuda_mix_backward(&o->queue, features, x, weighted ? m.weights.data : NULL, weighted ? indices : NULL,
                                    o->x[0].view, dx, accumulate, weighted ? m.dweights.data : NULL, o->s.n,
                                    m.scratch.data));
    for (int f = 0; f < features; f++) {
        if (f != NOT_WANTED)
            check_feature_gradient(&m, f, accumulate[f], was[f]);
        free(was[f]);
    }
    check_weight_gradients(&m, weighted);
    mixture_destroy(&m);
}

static void check_mix_backward(operands *o)
{
    check_mix_backward_of(o, FEATURES, true);
    check_mix_backward_of(o, FEATURES, false);
}

static void mix_matches_loops(void **state)
{
    (void)state;
    for_each_case(check_mix);
}

static void gradients_of_mix_match_loops(void **state)
{
    (void)state;
    for_each_case(check_mix_backward);
}

/* More chunks than parts: some blocks of threads have several. */
static void gradients_of_a_large_mix_match_loops(void **state)
{
    (void)state;
    operands o = operands_create(DCK_F32, (shape_case){125, 33, 32, 31});
    check_mix_backward_of(&o, 1, true);
    operands_destroy(&o);
}

static void too_many_inputs_are_refused(void **state)
{
    (void)state;
    operands o = operands_create(DCK_F32, shape_cases[0]);
    const dck_view x[DCK_MIX_INPUTS + 1] = {{0}};
    assert_int_equal(dck_cuda_mix_forward(&o.queue, DCK_MIX_INPUTS + 1, x, NULL, NULL, o.out.view, false, o.s.n),
                     cudaErrorInvalidValue);
    operands_destroy(&o);
}

int main(void)
{
    device_require();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm_matches_loops_in_training),
        cmocka_unit_test(norm_matches_loops_in_evaluation),
        cmocka_unit_test(gradients_of_norm_match_loops),
        cmocka_unit_test(norm_matches_loops_over_several_chunks),
        cmocka_unit_test(mix_matches_loops),
        cmocka_unit_test(gradients_of_mix_match_loops),
        cmocka_unit_test(gradients_of_a_large_mix_match_loops),
        cmocka_unit_test(too_many_inputs_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
