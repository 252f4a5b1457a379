/* The GPU's elementwise kernels, layout, augmentation and the classifier's bias, against plain loops on the host. */
#include "tests/cuda/expect.h"

#include "base/rng.h"
#include "data/augment.h"

/* ---- relu, copy, zero ---- */

static cudaError_t call_relu(const dck_queue *queue, const void *context, bool accumulate, int n)
{
    const operands *o = context;
    (void)accumulate;
    return dck_cuda_relu_forward(queue, o->x[0].view, o->out.view, n);
}

static cudaError_t call_relu_backward(const dck_queue *queue, const void *context, bool accumulate, int n)
{
    const operands *o = context;
    return dck_cuda_relu_backward(queue, o->x[0].view, o->x[1].view, o->out.view, accumulate, n);
}

static cudaError_t call_copy(const dck_queue *queue, const void *context, bool accumulate, int n)
{
    const operands *o = context;
    return dck_cuda_copy(queue, o->x[0].view, o->out.view, accumulate, n);
}

static cudaError_t call_zero(const dck_queue *queue, const void *context, bool accumulate, int n)
{
    const operands *o = context;
    (void)accumulate;
    return dck_cuda_zero(queue, o->out.view, n);
}

static void check_relu(operands *o)
{
    for (int seen = 0; seen < 2; seen++) {
        if (seen)
            device_tensor_add_affine(&o->x[0]);
        for (size_t i = 0; i < elements_of(o); i++)
            o->right.value[i] = fmax(host_at(&o->x[0], i), 0);
        check_output(call_relu, o, false, &o->queue, &o->out, o->s.n, o->right);
    }
}

static void check_relu_backward(operands *o)
{
    tensor_randomize(o->x[0].host);
    o->x[0].host.view.data[3] = 0; /* as a relu leaves it: its gradient is zero */
    device_tensor_put(&o->x[0]);
    device_tensor_end(&o->x[1], o->s.n);
    for (size_t i = 0; i < elements_of(o); i++)
        o->right.value[i] = host_at(&o->x[0], i) > 0 ? host_at(&o->x[1], i) : 0;
    check_output(call_relu_backward, o, true, &o->queue, &o->out, o->s.n, o->right);
}

static void check_copy(operands *o)
{
    for (int seen = 0; seen < 2; seen++) {
        if (seen)
            device_tensor_add_affine(&o->x[0]);
        for (size_t i = 0; i < elements_of(o); i++)
            o->right.value[i] = host_at(&o->x[0], i);
        check_output(call_copy, o, true, &o->queue, &o->out, o->s.n, o->right);
    }
}

static void check_zero(operands *o)
{
    check_output(call_zero, o, false, &o->queue, &o->out, o->s.n, o->right);
}

static void relu_matches_loops(void **state)
{
    (void)state;
    for_each_case(check_relu);
    for_each_case(check_relu_backward);
}

static void copy_and_zero_match_loops(void **state)
{
    (void)state;
    for_each_case(check_copy);
    for_each_case(check_zero);
}

static void relu_keeps_what_is_not_a_number(void **state)
{
    (void)state;
    for (int type = DCK_F32; type <= DCK_BF16; type++) {
        operands o = operands_create((dck_type)type, shape_cases[0]);
        o.x[0].host.view.data[5] = NAN;
        device_tensor_put(&o.x[0]);
        device_ok(dck_cuda_relu_forward(&o.queue, o.x[0].view, o.out.view, o.s.n));
        device_tensor_get(&o.out);
        assert_true(isnan(o.out.host.view.data[5]));
        operands_destroy(&o);
    }
}

/* ---- random masks ---- */

enum { STEP = 1234567, FIRST_IMAGE = 100 };
static const dc_rng_key mask_key = {.seed = 0x123456789abcdefu, .stream = 0xfedcba9876543210u};
static const float dropout_rate = 0.3f;

typedef struct masked {
    operands *o;
    device_memory moment;
} masked;

static cudaError_t call_drop_path(const dck_queue *queue, const void *context, bool accumulate, int n)
{
    const masked *m = context;
    return dck_cuda_drop_path(queue, m->o->x[0].view, m->o->out.view, accumulate, m->moment.data, mask_key.seed,
                              mask_key.stream, n);
}

static cudaError_t call_dropout(const dck_queue *queue, const void *context, bool accumulate, int n)
{
    const masked *m = context;
    return dck_cuda_dropout(queue, m->o->x[0].view, m->o->out.view, accumulate, dropout_rate, m->moment.data,
                            mask_key.seed, mask_key.stream, n);
}

static void check_mask(operands *o, float drop_path_rate, call_with *call)
{
    const dck_moment moment = {.step = STEP, .first_image = FIRST_IMAGE, .drop_path_rate = drop_path_rate};
    masked m = {o, device_create_from(&moment, sizeof moment)};
    check_output(call, &m, true, &o->queue, &o->out, o->s.n, o->right);
    device_destroy(&m.moment);
}

static void check_drop_path_at(operands *o, float rate)
{
    const float keep = 1 - rate;
    for (size_t i = 0; i < elements_of(o); i++) {
        const float u = dc_rng_uniform(mask_key, STEP, FIRST_IMAGE + (uint64_t)image_of(o->out.host.view, i));
        o->right.value[i] = u < keep ? host_at(&o->x[0], i) / (double)keep : 0;
    }
    check_mask(o, rate, call_drop_path);
}

static void check_drop_path(operands *o)
{
    for (int seen = 0; seen < 2; seen++) {
        if (seen)
            device_tensor_add_affine(&o->x[0]);
        check_drop_path_at(o, 0.4f);
        check_drop_path_at(o, 0);
    }
}

static void check_dropout(operands *o)
{
    const dck_view v = o->out.host.view;
    const uint64_t elements = block_elements(v) / DCK_LANES, groups = (elements + 3) / 4;
    for (size_t i = 0; i < elements_of(o); i++) {
        const uint64_t e = i % block_elements(v) / DCK_LANES, image = FIRST_IMAGE + (uint64_t)image_of(v, i);
        uint32_t word[4];
        dc_rng_block(mask_key, STEP, image * groups + e / 4, word);
        const bool dropped = (float)(word[e % 4] >> 8) * 0x1p-24f < dropout_rate;
        o->right.value[i] = dropped ? 0 : host_at(&o->x[0], i) / (1 - (double)dropout_rate);
    }
    check_mask(o, 0, call_dropout);
}

static void masks_are_the_cpus(void **state)
{
    (void)state;
    for_each_case(check_drop_path);
    for_each_case(check_dropout);
}

/* ---- layout ---- */

typedef struct plain {
    operands *o;
    device_memory nchw;
} plain;

static cudaError_t call_from_nchw(const dck_queue *queue, const void *context, bool accumulate, int n)
{
    const plain *p = context;
    (void)accumulate;
    return dck_cuda_from_nchw(queue, p->nchw.data, n, p->o->out.view);
}

static void check_layout(operands *o)
{
    const dck_view v = o->out.host.view;
    const size_t features = block_elements(v) / DCK_LANES, floats = (size_t)o->s.n * features;
    float *nchw = malloc(floats * sizeof *nchw), *back = malloc(floats * sizeof *back);
    assert_true(nchw && back);
    for (size_t i = 0; i < floats; i++)
        nchw[i] = random_float();
    for (size_t i = 0; i < elements_of(o); i++) {
        const size_t image = (size_t)image_of(v, i), feature = i % block_elements(v) / DCK_LANES;
        o->right.value[i] = image < (size_t)o->s.n ? (double)nchw[image * features + feature] : 0;
    }
    plain p = {o, device_create_from(nchw, floats * sizeof *nchw)};
    check_output(call_from_nchw, &p, false, &o->queue, &o->out, o->s.n, o->right);
    device_memory to = device_create(floats * sizeof *back); /* what was written, now rounded, comes back as it is */
    device_ok(dck_cuda_to_nchw(&o->queue, o->out.view, o->s.n, to.data));
    device_get(to, back);
    for (size_t i = 0; i < floats; i++)
        assert_true(back[i] == (o->out.type == DCK_BF16 ? device_float_of(device_bf16_of(nchw[i])) : nchw[i]));
    device_tensor_add_affine(&o->out);
    device_ok(dck_cuda_to_nchw(&o->queue, o->out.view, o->s.n, to.data));
    device_get(to, back);
    for (size_t i = 0; i < elements_of(o); i++) {
        const size_t image = (size_t)image_of(v, i), feature = i % block_elements(v) / DCK_LANES;
        if (image < (size_t)o->s.n)
            assert_true(fabs((double)back[image * features + feature] - host_at(&o->out, i)) < 1e-6);
    }
    device_destroy(&p.nchw);
    device_destroy(&to);
    free(nchw);
    free(back);
}

static void layout_matches_loops(void **state)
{
    (void)state;
    for_each_case(check_layout);
}

static void cast_rounds_any_run(void **state)
{
    enum { COUNT = 1031 };
    (void)state;
    for (int type = DCK_F32; type <= DCK_BF16; type++)
        for (size_t skip = 0; skip < 2; skip++) { /* aligned and not */
            dck_queue queue = device_queue_create((dck_type)type);
            const size_t bytes = dck_type_bytes(queue.type), count = COUNT - skip;
            float x[COUNT];
            char out[COUNT * sizeof(float)];
            for (size_t i = 0; i < COUNT; i++)
                x[i] = 100 * random_float();
            device_memory from = device_create_from(x, sizeof x), to = device_create(COUNT * bytes);
            device_ok(dck_cuda_cast(&queue, (float *)from.data + skip, (char *)to.data + skip * bytes, count));
            device_get(to, out);
            for (size_t i = skip; i < COUNT; i++) {
                const uint16_t half = device_bf16_of(x[i]);
                assert_memory_equal(out + i * bytes, type == DCK_BF16 ? (const void *)&half : &x[i], bytes);
            }
            device_destroy(&from);
            device_destroy(&to);
            device_queue_destroy(&queue);
        }
}

/* ---- augmentation ---- */

enum { IMAGES = 21, CHANNELS = 3, HEIGHT = 9, WIDTH = 13, PAD = 4 };

typedef struct batch {
    device_memory bytes, draws, table;
    dck_view y;
} batch;

static cudaError_t call_augment(const dck_queue *queue, const void *context, bool accumulate, int n)
{
    const batch *b = context;
    (void)accumulate;
    return dck_cuda_augment(queue, b->bytes.data, b->draws.data, b->table.data, PAD, b->y, n);
}

static void check_augment(dck_type type, const uint8_t *pixels, const dc_assembly *assembly, const float *images)
{
    dck_queue queue = device_queue_create(type);
    device_tensor y = device_tensor_create(type, CHANNELS, HEIGHT, WIDTH);
    expect right = expect_create(y.host.view);
    dck_augment_draw draws[IMAGES];
    for (size_t i = 0; i < BLOCKS * block_elements(y.host.view); i++)
        right.value[i] = (double)images[i];
    for (uint32_t i = 0; i < IMAGES; i++)
        draws[i] = dc_augment_image_draw(assembly->augment, assembly->shape, assembly->seed, assembly->epoch, i);
    batch b = {device_create_from(pixels, (size_t)IMAGES * CHANNELS * HEIGHT * WIDTH),
               device_create_from(draws, sizeof draws),
               device_create_from(assembly->normalise->value, sizeof(float) * CHANNELS * 256), y.view};
    check_output(call_augment, &b, false, &queue, &y, IMAGES, right);
    device_destroy(&b.bytes);
    device_destroy(&b.draws);
    device_destroy(&b.table);
    device_tensor_destroy(&y);
    device_queue_destroy(&queue);
    expect_destroy(&right);
}

static void augmentation_is_the_hosts(void **state)
{
    (void)state;
    static uint8_t pixels[IMAGES * CHANNELS * HEIGHT * WIDTH];
    static float images[BLOCKS * CHANNELS * HEIGHT * WIDTH * DCK_LANES];
    static dc_normalise normalise;
    uint32_t indices[IMAGES];
    dc_dataset dataset = {.shape = {CHANNELS, HEIGHT, WIDTH},
                          .mean = {0.3, 0.5, 0.6},
                          .deviation = {0.2, 0.25, 0.3},
                          .split = {[DC_SPLIT_TRAIN] = {.n = IMAGES, .pixels = pixels}}};
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(128 + 127 * random_float());
    for (uint32_t i = 0; i < IMAGES; i++)
        indices[i] = i;
    dc_normalise_init(&normalise, &dataset);
    const dc_augment augment = {.pad = PAD, .flip = true, .cutout = 5};
    const dc_assembly assembly = {dataset.shape, &normalise, &augment, .seed = 7, .epoch = 3, .lane = DCK_LANES};
    const uint8_t *sources[IMAGES];
    for (size_t i = 0; i < IMAGES; i++)
        sources[i] = pixels + i * CHANNELS * HEIGHT * WIDTH;
    for (int first = 0; first < BLOCKS * DCK_LANES; first += DCK_LANES) {
        const int left = IMAGES - first, n = left < 0 ? 0 : left < DCK_LANES ? left : DCK_LANES;
        dc_augment_assemble(&assembly, n, indices + first, sources + first, images + first * CHANNELS * HEIGHT * WIDTH);
    }
    check_augment(DCK_F32, pixels, &assembly, images);
    check_augment(DCK_BF16, pixels, &assembly, images);
}

/* ---- the classifier's bias ---- */

static void check_bias(dck_type type, int classes, int n)
{
    dck_queue queue = device_queue_create(type);
    device_tensor y = device_tensor_create(type, classes, 1, 1), dy = device_tensor_create(type, classes, 1, 1);
    expect right = expect_create(y.host.view);
    float *b = malloc((size_t)classes * sizeof *b), *db = malloc((size_t)classes * sizeof *db);
    assert_true(b && db);
    for (int o = 0; o < classes; o++)
        b[o] = random_float();
    for (size_t i = 0; i < BLOCKS * block_elements(y.host.view); i++) {
        expect_add(right, i, host_at(&y, i));
        expect_add(right, i, (double)b[i % block_elements(y.host.view) / DCK_LANES]);
    }
    device_memory bias = device_create_from(b, (size_t)classes * sizeof *b);
    device_memory gradient = device_create((size_t)classes * sizeof *db);
    device_ok(dck_cuda_linear_bias(&queue, bias.data, y.view, BLOCKS * DCK_LANES));
    assert_device_tensor(&y, right.value, right.size, NULL, BLOCKS, NULL);

    device_tensor_end(&dy, n);
    device_ok(dck_cuda_linear_backward_bias(&queue, dy.view, gradient.data, n));
    device_get(gradient, db);
    for (int o = 0; o < classes; o++) {
        double sum = 0, size = 0;
        for (int i = 0; i < n; i++) {
            sum += (double)*at(dy.host.view, i / DCK_LANES, o, 0, 0, i % DCK_LANES);
            size += fabs((double)*at(dy.host.view, i / DCK_LANES, o, 0, 0, i % DCK_LANES));
        }
        assert_true(fabs((double)db[o] - sum) <= 2e-6 * size);
    }
    device_destroy(&bias);
    device_destroy(&gradient);
    device_tensor_destroy(&y);
    device_tensor_destroy(&dy);
    device_queue_destroy(&queue);
    expect_destroy(&right);
    free(b);
    free(db);
}

static void bias_matches_loops(void **state)
{
    (void)state;
    for (int type = DCK_F32; type <= DCK_BF16; type++) {
        check_bias((dck_type)type, 10, 9);
        check_bias((dck_type)type, 133, 25);
    }
}

int main(void)
{
    device_require();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(relu_matches_loops),        cmocka_unit_test(relu_keeps_what_is_not_a_number),
        cmocka_unit_test(copy_and_zero_match_loops), cmocka_unit_test(masks_are_the_cpus),
        cmocka_unit_test(layout_matches_loops),      cmocka_unit_test(cast_rounds_any_run),
        cmocka_unit_test(augmentation_is_the_hosts), cmocka_unit_test(bias_matches_loops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
