/* The GPU's losses and optimizers, against plain loops on the host. */
#include "tests/cuda/expect.h"

static void assert_floats(device_memory memory, const double *right, int count, double tolerance)
{
    float *is = malloc((size_t)count * sizeof *is);
    assert_non_null(is);
    device_get(memory, is);
    for (int i = 0; i < count; i++)
        if (!(fabs((double)is[i] - right[i]) <= tolerance * (1 + fabs(right[i]))))
            fail_msg("%d of %d: %.9g is not %.9g", i, count, (double)is[i], right[i]);
    free(is);
}

/* ---- softmax ---- */

static void check_softmax(int rows, int columns)
{
    const int count = rows * columns;
    const size_t bytes = (size_t)count * sizeof(float);
    float *alpha = malloc(bytes), *dp = malloc(bytes);
    double *p = malloc(2 * bytes), *dalpha = malloc(2 * bytes);
    assert_true(alpha && dp && p && dalpha);
    for (int i = 0; i < count; i++) {
        alpha[i] = 30 + 10 * random_float();
        dp[i] = random_float();
    }
    for (int r = 0; r < count; r += columns) {
        double total = 0, mean = 0;
        for (int c = 0; c < columns; c++)
            total += exp((double)alpha[r + c] - 30);
        for (int c = 0; c < columns; c++) {
            p[r + c] = exp((double)alpha[r + c] - 30) / total;
            mean += p[r + c] * (double)dp[r + c];
        }
        for (int c = 0; c < columns; c++)
            dalpha[r + c] = p[r + c] * ((double)dp[r + c] - mean);
    }
    dck_queue queue = device_queue_create(DCK_BF16); /* these are floats all the same */
    device_memory from = device_create_from(alpha, bytes), to = device_create(bytes);
    device_memory gradient = device_create_from(dp, bytes), out = device_create(bytes);
    device_ok(dck_cuda_softmax_forward(&queue, from.data, to.data, rows, columns));
    device_ok(dck_cuda_softmax_backward(&queue, to.data, gradient.data, out.data, rows, columns));
    assert_floats(to, p, count, 2e-6);
    assert_floats(out, dalpha, count, 2e-6);
    device_destroy(&from);
    device_destroy(&to);
    device_destroy(&gradient);
    device_destroy(&out);
    device_queue_destroy(&queue);
    free(alpha);
    free(dp);
    free(p);
    free(dalpha);
}

static void softmax_matches_loops(void **state)
{
    (void)state;
    check_softmax(28, 8);
    check_softmax(300, 3);
}

/* ---- cross-entropy ---- */

enum { MOST_CLASSES = 65 };

typedef struct loss_case {
    dck_queue queue;
    device_tensor logits, out;
    int32_t label[BLOCKS * DCK_LANES];
    device_memory labels, saved, result, scratch;
    int classes, n;
    float smoothing, weight;
    double right[4];
    expect probability, gradient;
} loss_case;

static loss_case loss_case_create(dck_type type, int classes, int n, float smoothing)
{
    const size_t images = BLOCKS * DCK_LANES;
    loss_case c = {.queue = device_queue_create(type),
                   .logits = device_tensor_create(type, classes, 1, 1),
                   .out = device_tensor_create(type, classes, 1, 1),
                   .classes = classes,
                   .n = n,
                   .smoothing = smoothing,
                   .weight = 0.4f};
    assert_true(classes <= MOST_CLASSES);
    for (int b = 0; b < BLOCKS; b++)
        for (int i = 0; i < classes * DCK_LANES; i++)
            c.logits.host.view.data[b * c.logits.host.view.stride + i] *= 9;
    *at(c.logits.host.view, 0, 1, 0, 0, 0) = *at(c.logits.host.view, 0, 0, 0, 0, 0); /* a tie counts against */
    device_tensor_put(&c.logits);
    for (int i = 0; i < n; i++)
        c.label[i] = i == 0 ? 0 : (int)((random_float() + 1) / 2 * classes);
    c.labels = device_create_from(c.label, (size_t)n * sizeof *c.label);
    c.saved = device_create(images * (size_t)classes * sizeof(float));
    c.result = device_create(4 * sizeof(float));
    c.scratch = device_create(4 * images * sizeof(float));
    c.probability = expect_create(c.out.host.view);
    c.gradient = expect_create(c.out.host.view);
    return c;
}

static void loss_case_destroy(loss_case *c)
{
    device_memory *memories[] = {&c->labels, &c->saved, &c->result, &c->scratch};
    for (int i = 0; i < 4; i++)
        device_destroy(memories[i]);
    device_tensor_destroy(&c->logits);
    device_tensor_destroy(&c->out);
    device_queue_destroy(&c->queue);
    expect_destroy(&c->probability);
    expect_destroy(&c->gradient);
}

/* Of one image: fills its probabilities and gradients, adds to what is right. */
static void right_image(loss_case *c, int image)
{
    const dck_view v = c->logits.host.view;
    const int block = image / DCK_LANES, lane = image % DCK_LANES;
    double z[MOST_CLASSES], highest = -INFINITY, total = 0, loss = 0;
    int rivals = 0;
    for (int k = 0; k < c->classes; k++) {
        z[k] = (double)*at(v, block, k, 0, 0, lane);
        highest = fmax(highest, z[k]);
    }
    for (int k = 0; k < c->classes; k++)
        total += exp(z[k] - highest);
    for (int k = 0; k < c->classes; k++) {
        const size_t i = flat(v, block, k, 0, 0, lane);
        const double p = exp(z[k] - highest) / total;
        const double target = (k == c->label[image] ? 1 - (double)c->smoothing : 0) + (double)c->smoothing / c->classes;
        loss -= target * (z[k] - highest - log(total));
        rivals += k != c->label[image] && z[k] >= z[c->label[image]];
        c->probability.value[i] = p;
        c->gradient.value[i] = (double)c->weight / c->n * (p - target);
    }
    c->right[0] += loss / c->n;
    c->right[1] += rivals == 0;
    c->right[2] += rivals < 5;
    c->right[3] += 1;
}

static cudaError_t call_gradient(const dck_queue *queue, const void *context, bool accumulate, int n)
{
    const loss_case *c = context;
    return dck_cuda_cross_entropy_backward(queue, c->saved.data, c->labels.data, c->smoothing, c->weight, n,
                                           c->out.view, accumulate);
}

static void forward(loss_case *c)
{
    device_ok(dck_cuda_cross_entropy_forward(&c->queue, c->logits.view, c->labels.data, c->smoothing, c->n,
                                             c->saved.data, c->result.data, c->scratch.data));
}

static void check_loss(dck_type type, int classes, int n, float smoothing)
{
    loss_case c = loss_case_create(type, classes, n, smoothing);
    const size_t places = BLOCKS * block_elements(c.out.host.view);
    float *saved = malloc(places * sizeof *saved);
    assert_non_null(saved);
    for (int image = 0; image < n; image++)
        right_image(&c, image);
    forward(&c);
    assert_floats(c.result, c.right, 4, 2e-6);
    device_get(c.saved, saved);
    for (size_t i = 0; i < places; i++)
        if (image_of(c.out.host.view, i) < n)
            assert_true(fabs((double)saved[i] - c.probability.value[i]) <= 2e-6);
    check_output(call_gradient, &c, true, &c.queue, &c.out, n, c.gradient);
    loss_case_destroy(&c);
    free(saved);
}

static void cross_entropy_matches_loops(void **state)
{
    (void)state;
    for (int type = DCK_F32; type <= DCK_BF16; type++) {
        check_loss((dck_type)type, 10, 21, 0);
        check_loss((dck_type)type, 65, 32, 0.1f);
        check_loss((dck_type)type, 2, 5, 0.3f);
    }
}

static void what_is_not_a_number_counts_against(void **state)
{
    (void)state;
    for (int type = DCK_F32; type <= DCK_BF16; type++)
        for (int class = 0; class < 8; class += 7) {
            float is[4];
            loss_case c = loss_case_create((dck_type)type, 8, 1, 0);
            c.label[0] = 7;
            device_put(c.labels, c.label);
            *at(c.logits.host.view, 0, 7, 0, 0, 0) = 100;
            *at(c.logits.host.view, 0, class, 0, 0, 0) = NAN; /* the label's own, or another's */
            device_tensor_put(&c.logits);
            forward(&c);
            device_get(c.result, is);
            assert_true(isnan(is[0]));
            assert_true(is[1] == 0);
            assert_true(is[2] == (class == 7 ? 0 : 1));
            loss_case_destroy(&c);
        }
}

/* ---- optimizers ---- */

enum { ARRAYS = 4, GAP = 3, MANY = 1060001 };
enum { VALUE, GRAD, FIRST, SECOND };

/* Runs of odd lengths, between which nothing may be touched; the same arrays in double. */
typedef struct parameters {
    dck_queue queue;
    int n_runs;
    size_t total, room; /* floats of all runs, and with the gaps */
    size_t *begin, *count;
    float *at_first[ARRAYS];
    double *right[ARRAYS];
    device_memory array[ARRAYS], runs;
} parameters;

static const size_t lengths[] = {1, 4, 5, 1023, 64, 0, 7, 2050, 3};
enum { LENGTHS = sizeof lengths / sizeof *lengths };

static void fill_arrays(parameters *p)
{
    for (int a = 0; a < ARRAYS; a++) {
        p->at_first[a] = malloc(p->room * sizeof(float));
        p->right[a] = malloc(p->room * sizeof(double));
        assert_true(p->at_first[a] && p->right[a]);
        for (size_t i = 0; i < p->room; i++) {
            p->at_first[a][i] = a == SECOND ? 1 + random_float() : random_float();
            p->right[a][i] = (double)p->at_first[a][i];
        }
        p->array[a] = device_create_from(p->at_first[a], p->room * sizeof(float));
    }
}

/* first: floats of the first run; gap: between runs, 0: all of them aligned. */
static parameters parameters_create(int n_runs, size_t first, size_t gap)
{
    parameters p = {.queue = device_queue_create(DCK_BF16), .n_runs = n_runs};
    p.begin = malloc((size_t)n_runs * sizeof *p.begin);
    p.count = malloc((size_t)n_runs * sizeof *p.count);
    dck_run *runs = malloc((size_t)n_runs * sizeof *runs);
    assert_true(p.begin && p.count && runs);
    for (int r = 0; r < n_runs; r++) {
        p.begin[r] = p.room;
        p.count[r] = r == 0 ? first : lengths[r % LENGTHS];
        p.total += p.count[r];
        p.room += gap ? p.count[r] + gap : (p.count[r] + 3) / 4 * 4;
    }
    fill_arrays(&p);
    for (int r = 0; r < n_runs; r++)
        runs[r] = (dck_run){(float *)p.array[VALUE].data + p.begin[r], (float *)p.array[GRAD].data + p.begin[r],
                            (float *)p.array[FIRST].data + p.begin[r], (float *)p.array[SECOND].data + p.begin[r],
                            p.count[r]};
    p.runs = device_create_from(runs, (size_t)n_runs * sizeof *runs);
    free(runs);
    return p;
}

static void parameters_destroy(parameters *p)
{
    for (int a = 0; a < ARRAYS; a++) {
        device_destroy(&p->array[a]);
        free(p->at_first[a]);
        free(p->right[a]);
    }
    device_destroy(&p->runs);
    device_queue_destroy(&p->queue);
    free(p->begin);
    free(p->count);
}

/* What is in no run is as it was. */
static void assert_parameters(const parameters *p, double tolerance)
{
    for (int a = 0; a < ARRAYS; a++)
        assert_floats(p->array[a], p->right[a], (int)p->room, tolerance);
}

static const double learning_rate = 0.1, momentum = 0.9, weight_decay = 0.01;

static void right_sgd(parameters *p, bool nesterov, double scale)
{
    for (int r = 0; r < p->n_runs; r++)
        for (size_t i = p->begin[r]; i < p->begin[r] + p->count[r]; i++) {
            double g = p->right[GRAD][i] * scale + weight_decay * p->right[VALUE][i];
            double v = momentum * p->right[FIRST][i] + g;
            p->right[FIRST][i] = v;
            p->right[VALUE][i] -= learning_rate * (nesterov ? g + momentum * v : v);
        }
}

static void sgd(const parameters *p, bool nesterov, const float *scale)
{
    device_ok(dck_cuda_sgd(&p->queue, p->n_runs, p->runs.data, p->total, (float)learning_rate, (float)momentum,
                           (float)weight_decay, nesterov, scale));
}

static void check_sgd(int n_runs, size_t first, size_t gap)
{
    const float factor = 0.25f;
    parameters p = parameters_create(n_runs, first, gap);
    device_memory scale = device_create_from(&factor, sizeof factor);
    sgd(&p, false, NULL);
    right_sgd(&p, false, 1);
    assert_parameters(&p, 1e-6);
    sgd(&p, true, scale.data);
    right_sgd(&p, true, (double)factor);
    assert_parameters(&p, 1e-6);
    device_destroy(&scale);
    parameters_destroy(&p);
}

/* A few runs, more than are looked up at a time, and one along which blocks of threads walk. */
static void sgd_matches_loops(void **state)
{
    (void)state;
    check_sgd(LENGTHS, 1, GAP);
    check_sgd(LENGTHS, 1, 0);
    check_sgd(300, 1, GAP);
    check_sgd(LENGTHS, MANY, GAP);
}

static void sgd_leaves_out_a_step_that_is_not_finite(void **state)
{
    (void)state;
    const float factors[] = {NAN, INFINITY, -INFINITY};
    parameters p = parameters_create(LENGTHS, 1, GAP);
    for (int i = 0; i < 3; i++) {
        device_memory scale = device_create_from(&factors[i], sizeof factors[i]);
        sgd(&p, false, scale.data);
        assert_parameters(&p, 0);
        device_destroy(&scale);
    }
    parameters_destroy(&p);
}

static void right_adam(parameters *p, int step)
{
    const double beta1 = 0.5, beta2 = 0.999;
    for (int r = 0; r < p->n_runs; r++)
        for (size_t i = p->begin[r]; i < p->begin[r] + p->count[r]; i++) {
            double g = p->right[GRAD][i] + weight_decay * p->right[VALUE][i];
            double m = beta1 * p->right[FIRST][i] + (1 - beta1) * g;
            double s = beta2 * p->right[SECOND][i] + (1 - beta2) * g * g;
            p->right[FIRST][i] = m;
            p->right[SECOND][i] = s;
            p->right[VALUE][i] -=
                learning_rate * (m / (1 - pow(beta1, step))) / (sqrt(s / (1 - pow(beta2, step))) + 1e-8);
        }
}

static void check_adam(int n_runs, size_t first, size_t gap)
{
    parameters p = parameters_create(n_runs, first, gap);
    for (int step = 1; step <= 2; step++) {
        device_ok(dck_cuda_adam(&p.queue, n_runs, p.runs.data, p.total, (float)learning_rate, 0.5f, 0.999f, 1e-8f,
                                (float)weight_decay, (uint32_t)step));
        right_adam(&p, step);
    }
    assert_parameters(&p, 2e-6);
    parameters_destroy(&p);
}

static void adam_matches_loops(void **state)
{
    (void)state;
    check_adam(LENGTHS, 1, GAP);
    check_adam(LENGTHS, 1, 0);
}

/* Arrays of any length; a count below it leaves the rest alone. */
static void check_blend(size_t room, size_t count)
{
    const float a = 0.25f, b = 0.75f;
    parameters p = parameters_create(1, room, 0);
    device_ok(dck_cuda_blend(&p.queue, p.array[VALUE].data, p.array[GRAD].data, count, a, b));
    for (size_t i = 0; i < count; i++)
        p.right[VALUE][i] = (double)a * p.right[GRAD][i] + (double)b * p.right[VALUE][i];
    assert_parameters(&p, 1e-6);
    parameters_destroy(&p);
}

static void blend_matches_loops(void **state)
{
    (void)state;
    check_blend(8, 0);
    check_blend(8, 3);
    check_blend(1030, 1027);
    check_blend(MANY, MANY - 2);
}

/* The host's numbers may change as soon as the call has returned. */
static void check_add(size_t room, size_t count)
{
    parameters p = parameters_create(1, room, 0);
    float *values = malloc((count + 1) * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++) {
        values[i] = (float)i - 0.5f;
        p.right[VALUE][i] += (double)values[i];
    }
    device_ok(dck_cuda_add(&p.queue, p.array[VALUE].data, values, count));
    memset(values, 0xff, (count + 1) * sizeof *values);
    assert_parameters(&p, 1e-6);
    free(values);
    parameters_destroy(&p);
}

static void add_matches_loops(void **state)
{
    (void)state;
    check_add(8, 0);
    check_add(130, 112);
    check_add(1030, 1027);
}

/* ---- the gradient's norm ---- */

typedef struct norm {
    double sum;
    float scale;
} norm;

static norm sum_squares(const parameters *p, float clip)
{
    norm is;
    device_memory sum = device_create(sizeof(double)), scale = device_create(sizeof(float));
    device_memory scratch = device_create(dck_cuda_sum_squares_scratch_bytes());
    device_ok(
        dck_cuda_sum_squares(&p->queue, p->n_runs, p->runs.data, p->total, clip, sum.data, scale.data, scratch.data));
    device_get(sum, &is.sum);
    device_get(scale, &is.scale);
    device_destroy(&sum);
    device_destroy(&scale);
    device_destroy(&scratch);
    return is;
}

static void check_sum_squares(int n_runs, size_t first, size_t gap)
{
    parameters p = parameters_create(n_runs, first, gap);
    double right = 0;
    for (int r = 0; r < p.n_runs; r++)
        for (size_t i = p.begin[r]; i < p.begin[r] + p.count[r]; i++)
            right += p.right[GRAD][i] * p.right[GRAD][i];
    const norm free_norm = sum_squares(&p, 0), long_norm = sum_squares(&p, 0.5f), short_norm = sum_squares(&p, 1e6f);
    assert_true(fabs(free_norm.sum - right) <= 1e-6 * right);
    assert_true(free_norm.scale == 1 && short_norm.scale == 1);
    assert_true(fabs((double)long_norm.scale - 0.5 / (sqrt(right) + 1e-6)) <= 1e-6);
    assert_true(long_norm.sum == free_norm.sum);

    ((float *)p.at_first[GRAD])[p.begin[3]] = INFINITY;
    device_put(p.array[GRAD], p.at_first[GRAD]);
    const norm broken = sum_squares(&p, 1);
    assert_true(!isfinite(broken.sum) && isnan(broken.scale));
    parameters_destroy(&p);
}

static void sum_of_squares_matches_loops(void **state)
{
    (void)state;
    check_sum_squares(LENGTHS, 1, GAP);
    check_sum_squares(LENGTHS, 1, 0);
    check_sum_squares(LENGTHS, MANY, GAP);
}

static void no_parameters_have_no_norm(void **state)
{
    (void)state;
    parameters p = parameters_create(1, 1, GAP);
    p.n_runs = 0;
    p.total = 0;
    const norm none = sum_squares(&p, 1);
    assert_true(none.sum == 0 && none.scale == 1);
    sgd(&p, false, NULL);
    assert_parameters(&p, 0);
    p.n_runs = 1;
    parameters_destroy(&p);
}

int main(void)
{
    device_require();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(softmax_matches_loops),
        cmocka_unit_test(cross_entropy_matches_loops),
        cmocka_unit_test(what_is_not_a_number_counts_against),
        cmocka_unit_test(sgd_matches_loops),
        cmocka_unit_test(sgd_leaves_out_a_step_that_is_not_finite),
        cmocka_unit_test(adam_matches_loops),
        cmocka_unit_test(blend_matches_loops),
        cmocka_unit_test(add_matches_loops),
        cmocka_unit_test(sum_of_squares_matches_loops),
        cmocka_unit_test(no_parameters_have_no_norm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
