/* The classifier: y = W x + b over all features of an image.
 *
 * Bound by arithmetic: 2 * in * out operations an image in forward, twice that in backward. A tile of outputs (or of
 * features) stays in registers while the other index runs, each weight broadcast to a vector of images. */
#include "internal.h"
#include "plane.h"

enum { TILE = 4 };

static size_t features_of(dck_view x)
{
    return (size_t)x.c * (size_t)x.h * (size_t)x.w;
}

/* y[o] = b[o] + sum over f of w[o * o_step + f * f_step] * x[f], for n <= TILE rows o. Forward with steps (features, 1)
 * and, with x and y exchanged and steps (1, features), the gradient of the input. */
DCK_INLINE void multiply_tile(int n, const float *x, size_t count, const float *w, size_t o_step, size_t f_step,
                              const float *b, float *y, bool accumulate)
{
    dck_vec sum[TILE][DCK_PER_PIXEL];
    dck_vec *to = (dck_vec *)y;
    for (int o = 0; o < n; o++)
        for (int p = 0; p < DCK_PER_PIXEL; p++)
            sum[o][p] = accumulate ? to[o * DCK_PER_PIXEL + p] : dck_set(b ? b[o] : 0);
    const dck_vec *from = (const dck_vec *)x;
    for (size_t f = 0; f < count; f++) {
        DCK_UNROLL
        for (int o = 0; o < n; o++) {
            float weight = w[(size_t)o * o_step + f * f_step];
            DCK_UNROLL
            for (int p = 0; p < DCK_PER_PIXEL; p++)
                sum[o][p] += from[f * DCK_PER_PIXEL + (size_t)p] * weight;
        }
    }
    for (int o = 0; o < n; o++)
        for (int p = 0; p < DCK_PER_PIXEL; p++)
            to[o * DCK_PER_PIXEL + p] = sum[o][p];
}

static void multiply(const float *x, size_t count, const float *w, size_t o_step, size_t f_step, const float *b,
                     float *y, size_t rows, bool accumulate)
{
    size_t o = 0;
    for (; o + TILE <= rows; o += TILE)
        multiply_tile(TILE, x, count, w + o * o_step, o_step, f_step, b ? b + o : NULL, y + o * DCK_LANES, accumulate);
    for (; o < rows; o++)
        multiply_tile(1, x, count, w + o * o_step, o_step, f_step, b ? b + o : NULL, y + o * DCK_LANES, accumulate);
}

void DCK(linear_forward)(dck_view x, const float *w, const float *b, dck_view y, int blocks, int threads)
{
    const size_t features = features_of(x);
    const size_t work = features * (size_t)y.c * (size_t)blocks * DCK_LANES;
#pragma omp parallel for schedule(static) num_threads(threads) if (work > 4 * DCK_SERIAL_FLOATS)
    for (int block = 0; block < blocks; block++)
        multiply(x.data + (size_t)block * x.stride, features, w, features, 1, b, y.data + (size_t)block * y.stride,
                 (size_t)y.c, false);
}

/* dw[f] for n <= TILE features f: the sum over images of dy * x[f]. */
DCK_INLINE void weight_gradients(int n, dck_view x, const float *dy, size_t dy_stride, size_t f, float *dw, int blocks)
{
    dck_vec sum[TILE][DCK_PER_PIXEL] = {{{0}}};
    for (int block = 0; block < blocks; block++) {
        const dck_vec *from = (const dck_vec *)(x.data + (size_t)block * x.stride + f * DCK_LANES);
        const dck_vec *by = (const dck_vec *)(dy + (size_t)block * dy_stride);
        DCK_UNROLL
        for (int i = 0; i < n; i++) {
            DCK_UNROLL
            for (int p = 0; p < DCK_PER_PIXEL; p++)
                sum[i][p] += from[i * DCK_PER_PIXEL + p] * by[p];
        }
    }
    for (int i = 0; i < n; i++) {
        for (int p = 1; p < DCK_PER_PIXEL; p++)
            sum[i][0] += sum[i][p];
        dw[i] = dck_sum_lanes(sum[i][0]);
    }
}

static float bias_gradient(const float *dy, size_t dy_stride, int blocks)
{
    dck_vec sum = {0};
    for (int block = 0; block < blocks; block++)
        for (int p = 0; p < DCK_PER_PIXEL; p++)
            sum += ((const dck_vec *)(dy + (size_t)block * dy_stride))[p];
    return dck_sum_lanes(sum);
}

static void gradient_row(dck_view x, const float *dy, size_t dy_stride, size_t features, float *dw, int blocks)
{
    size_t f = 0;
    for (; f + TILE <= features; f += TILE)
        weight_gradients(TILE, x, dy, dy_stride, f, dw + f, blocks);
    for (; f < features; f++)
        weight_gradients(1, x, dy, dy_stride, f, dw + f, blocks);
}

void DCK(linear_backward)(dck_view x, const float *w, dck_view dy, dck_view dx, bool accumulate, float *dw, float *db,
                          int blocks, int threads)
{
    const size_t features = features_of(x), out = (size_t)dy.c;
    const size_t work = features * out * (size_t)blocks * DCK_LANES;
#pragma omp parallel num_threads(threads) if (work > 4 * DCK_SERIAL_FLOATS)
    {
        if (dx.data) {
#pragma omp for schedule(static) nowait
            for (int block = 0; block < blocks; block++)
                multiply(dy.data + (size_t)block * dy.stride, out, w, 1, features, NULL,
                         dx.data + (size_t)block * dx.stride, features, accumulate);
        }
#pragma omp for schedule(static)
        for (int o = 0; o < dy.c; o++) { /* a row of dw is one thread's, which walks over the blocks in order */
            const float *row = dy.data + (size_t)o * DCK_LANES;
            if (dw)
                gradient_row(x, row, dy.stride, features, dw + (size_t)o * features, blocks);
            if (db)
                db[o] = bias_gradient(row, dy.stride, blocks);
        }
    }
}
