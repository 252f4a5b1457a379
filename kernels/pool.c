/* Max and average pooling, any kernel, stride and padding; average counts only positions inside the image. 3x3 at
 * strides 1 and 2 is in pool3.c; what remains here makes a row of outputs for one vector of a pixel at a time. */
#include "pool.h"

#include <string.h>

/* `rows` vectors below one another, reduced; of a maximum's each is read by on_load, as the gradient reads it. */
DCK_INLINE dck_vec column(bool max, dck_on_load on_load, const dck_vec *x, size_t row, int rows)
{
    dck_vec v = max ? dck_read(on_load, x[0]) : x[0];
    for (int r = 1; r < rows; r++)
        v = dck_join(max, v, max ? dck_read(on_load, x[(size_t)r * row]) : x[(size_t)r * row]);
    return v;
}

DCK_INLINE void row_of_any(bool max, const dck_pool *k, dck_on_load on_load, const dck_vec *x, int rows, int width,
                           dck_vec *y, int out_width)
{
    const size_t row = (size_t)width * DCK_PER_PIXEL;
    for (int i = 0; i < out_width; i++) {
        dck_range across = dck_window(k, i, width);
        dck_vec v = column(max, on_load, x + (size_t)across.begin * DCK_PER_PIXEL, row, rows);
        for (int at = across.begin + 1; at < across.end; at++)
            v = dck_join(max, v, column(max, on_load, x + (size_t)at * DCK_PER_PIXEL, row, rows));
        if (!max)
            v = dck_read(on_load, v * (1 / (float)(rows * (across.end - across.begin))));
        y[(size_t)i * DCK_PER_PIXEL] = v;
    }
}

DCK_INLINE void pool_plane(bool max, const dck_pool *k, dck_view x, dck_view y, int block, int channel)
{
    const dck_on_load on_load = dck_on_load_of(x, channel);
    for (int i = 0; i < y.h; i++) {
        dck_range down = dck_window(k, i, x.h);
        const float *from = dck_plane(x, block, channel) + (size_t)down.begin * (size_t)x.w * DCK_LANES;
        float *to = dck_plane(y, block, channel) + (size_t)i * (size_t)y.w * DCK_LANES;
        for (int part = 0; part < DCK_PER_PIXEL; part++)
            row_of_any(max, k, on_load, (const dck_vec *)from + part, down.end - down.begin, x.w, (dck_vec *)to + part,
                       y.w);
    }
}

DCK_INLINE void pool_forward(bool max, const dck_pool *k, dck_view x, dck_view y, int blocks, int threads)
{
    const int tasks = blocks * x.c;
#pragma omp parallel for schedule(static)                                                                              \
    num_threads(threads) if (dck_plane_floats(x) * (size_t)tasks > DCK_SERIAL_FLOATS)
    for (int t = 0; t < tasks; t++)
        if (dck_is_pool3(k))
            DCK(pool3_forward)(max, k, x, y, t / x.c, t % x.c);
        else
            pool_plane(max, k, x, y, t / x.c, t % x.c);
}

void DCK(max_pool_forward)(const dck_pool *k, dck_view x, dck_view y, int blocks, int threads)
{
    pool_forward(true, k, x, y, blocks, threads);
}

void DCK(avg_pool_forward)(const dck_pool *k, dck_view x, dck_view y, int blocks, int threads)
{
    pool_forward(false, k, x, y, blocks, threads);
}

/* Gives one output's gradient to the first position of its window that equals the maximum. */
DCK_INLINE void give_to_maximum(dck_on_load on_load, const dck_vec *x, dck_vec *dx, size_t row, int rows, int columns,
                                dck_vec maximum, dck_vec dy)
{
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) {
            size_t at = (size_t)r * row + (size_t)c * DCK_PER_PIXEL;
            dck_mask here = dck_read(on_load, x[at]) == maximum;
            dx[at] += dck_where(here, dy);
            dy = dck_where(~here, dy); /* what is given is gone */
        }
}

/* One vector of a pixel of one row of outputs; x and dx: the first column of the window's first row. */
static void max_backward_row(const dck_pool *k, dck_on_load on_load, const dck_vec *x, dck_vec *dx, int rows, int width,
                             const dck_vec *y, const dck_vec *dy, int out_width)
{
    const size_t row = (size_t)width * DCK_PER_PIXEL;
    for (int j = 0; j < out_width; j++) {
        dck_range across = dck_window(k, j, width);
        size_t first = (size_t)across.begin * DCK_PER_PIXEL, out = (size_t)j * DCK_PER_PIXEL;
        give_to_maximum(on_load, x + first, dx + first, row, rows, across.end - across.begin, y[out], dy[out]);
    }
}

static void max_backward_plane(const dck_pool *k, dck_on_load on_load, dck_view x, dck_view y, const float *x_plane,
                               const float *y_plane, const float *dy_plane, float *dx_plane)
{
    for (int i = 0; i < y.h; i++) {
        dck_range down = dck_window(k, i, x.h);
        size_t in = (size_t)down.begin * (size_t)x.w * DCK_LANES, out = (size_t)i * (size_t)y.w * DCK_LANES;
        for (int part = 0; part < DCK_PER_PIXEL; part++)
            max_backward_row(k, on_load, (const dck_vec *)(x_plane + in) + part, (dck_vec *)(dx_plane + in) + part,
                             down.end - down.begin, x.w, (const dck_vec *)(y_plane + out) + part,
                             (const dck_vec *)(dy_plane + out) + part, y.w);
    }
}

void DCK(max_pool_backward)(const dck_pool *k, dck_view x, dck_view y, dck_view dy, dck_view dx, bool accumulate,
                            int blocks, int threads)
{
    const int tasks = blocks * x.c;
    const size_t floats = dck_plane_floats(x);
#pragma omp parallel for schedule(static) num_threads(threads) if (floats * (size_t)tasks > DCK_SERIAL_FLOATS)
    for (int t = 0; t < tasks; t++) {
        int block = t / x.c, channel = t % x.c;
        float *to = dck_plane(dx, block, channel);
        if (dck_is_pool3(k)) {
            DCK(max_pool3_backward)(k, x, y, dy, dx, accumulate, block, channel);
            continue;
        }
        if (!accumulate)
            memset(to, 0, floats * sizeof(float));
        max_backward_plane(k, dck_on_load_of(x, channel), x, y, dck_plane(x, block, channel),
                           dck_plane(y, block, channel), dck_plane(dy, block, channel), to);
    }
}

/* One column of output gradients, each divided by how many positions its window has. */
static inline dck_vec spread(const dck_pool *k, const dck_vec *dy, size_t row, dck_range down, int at, int h, int w)
{
    dck_range across = dck_window(k, at, w);
    dck_vec v = {0};
    for (int i = down.begin; i < down.end; i++) {
        dck_range rows = dck_window(k, i, h);
        int count = (rows.end - rows.begin) * (across.end - across.begin);
        v += dy[(size_t)i * row + (size_t)at * DCK_PER_PIXEL] * (1 / (float)count);
    }
    return v;
}

static void avg_backward_row(const dck_pool *k, dck_view dy, dck_view dx, const float *from, int at, float *to,
                             bool accumulate)
{
    const dck_range down = dck_windows_over(k, at, dy.h);
    for (int part = 0; part < DCK_PER_PIXEL; part++) {
        const dck_vec *source = (const dck_vec *)from + part;
        dck_vec *d = (dck_vec *)to + part;
        for (int i = 0; i < dx.w; i++) {
            dck_range across = dck_windows_over(k, i, dy.w);
            dck_vec v = {0};
            for (int j = across.begin; j < across.end; j++)
                v += spread(k, source, (size_t)dy.w * DCK_PER_PIXEL, down, j, dx.h, dx.w);
            dck_put(d + (size_t)i * DCK_PER_PIXEL, v, accumulate);
        }
    }
}

void DCK(avg_pool_backward)(const dck_pool *k, dck_view dy, dck_view dx, bool accumulate, int blocks, int threads)
{
    const int tasks = blocks * dx.c;
#pragma omp parallel for schedule(static)                                                                              \
    num_threads(threads) if (dck_plane_floats(dx) * (size_t)tasks > DCK_SERIAL_FLOATS)
    for (int t = 0; t < tasks; t++) {
        if (dck_is_pool3(k)) {
            DCK(avg_pool3_backward)(k, dy, dx, accumulate, t / dx.c, t % dx.c);
            continue;
        }
        const float *from = dck_plane(dy, t / dx.c, t % dx.c);
        float *to = dck_plane(dx, t / dx.c, t % dx.c);
        for (int i = 0; i < dx.h; i++)
            avg_backward_row(k, dy, dx, from, i, to + (size_t)i * (size_t)dx.w * DCK_LANES, accumulate);
    }
}

void DCK(global_avg_pool_forward)(dck_view x, dck_view y, int blocks, int threads)
{
    const int tasks = blocks * x.c, pixels = x.h * x.w;
    const float scale = 1 / (float)pixels;
#pragma omp parallel for schedule(static)                                                                              \
    num_threads(threads) if (dck_plane_floats(x) * (size_t)tasks > DCK_SERIAL_FLOATS)
    for (int t = 0; t < tasks; t++) {
        const dck_vec *from = (const dck_vec *)dck_plane(x, t / x.c, t % x.c);
        dck_vec *to = (dck_vec *)dck_plane(y, t / x.c, t % x.c);
        for (int part = 0; part < DCK_PER_PIXEL; part++)
            to[part] = dck_read(dck_on_load_of(x, t % x.c),
                                column(false, (dck_on_load){1, 0}, from + part, DCK_PER_PIXEL, pixels) * scale);
    }
}

void DCK(global_avg_pool_backward)(dck_view dy, dck_view dx, bool accumulate, int blocks, int threads)
{
    const int tasks = blocks * dx.c, pixels = dx.h * dx.w;
    const float scale = 1 / (float)pixels;
#pragma omp parallel for schedule(static)                                                                              \
    num_threads(threads) if (dck_plane_floats(dx) * (size_t)tasks > DCK_SERIAL_FLOATS)
    for (int t = 0; t < tasks; t++) {
        const dck_vec *from = (const dck_vec *)dck_plane(dy, t / dx.c, t % dx.c);
        dck_vec *to = (dck_vec *)dck_plane(dx, t / dx.c, t % dx.c);
        for (int i = 0; i < pixels * DCK_PER_PIXEL; i++)
            dck_put(to + i, from[i % DCK_PER_PIXEL] * scale, accumulate);
    }
}
