/* Max and average pooling, any kernel, stride and padding; average counts only positions inside the image.
 *
 * A row of outputs is made for one vector of a pixel at a time, walking along the row. A 3x3 window's columns are
 * shared with its neighbours', so each column of inputs is reduced once and kept in a register: three loads an output
 * at stride 1 instead of nine, which brings both to the speed of memory (8 bytes an element forward). */
#include "internal.h"
#include "plane.h"

#include <math.h>
#include <string.h>

typedef struct range {
    int begin, end;
} range;

/* The positions inside [0, size) of the window of output `at`. */
static inline range window(const dck_pool *k, int at, int size)
{
    int begin = at * k->stride - k->pad, end = begin + k->kernel;
    return (range){begin < 0 ? 0 : begin, end > size ? size : end};
}

/* The outputs in [0, out_size) whose windows hold input `at`. */
static inline range windows_over(const dck_pool *k, int at, int out_size)
{
    int last = (at + k->pad) / k->stride, before = at + k->pad - k->kernel;
    int begin = before < 0 ? 0 : before / k->stride + 1;
    return (range){begin, last + 1 > out_size ? out_size : last + 1};
}

DCK_INLINE dck_vec join(bool max, dck_vec a, dck_vec b)
{
    if (max)
        return dck_max(a, b);
    return a + b;
}

/* `rows` vectors below one another, reduced; of a maximum's each is read by on_load, as the gradient reads it. */
DCK_INLINE dck_vec column(bool max, dck_on_load on_load, const dck_vec *x, size_t row, int rows)
{
    dck_vec v = max ? dck_read(on_load, x[0]) : x[0];
    for (int r = 1; r < rows; r++)
        v = join(max, v, max ? dck_read(on_load, x[(size_t)r * row]) : x[(size_t)r * row]);
    return v;
}

/* As column(), for a column that may lie outside the image. */
DCK_INLINE dck_vec column_or_none(bool max, dck_on_load on_load, const dck_vec *x, size_t row, int rows, int at,
                                  int width)
{
    if (at < 0 || at >= width)
        return dck_set(max ? -INFINITY : 0);
    return column(max, on_load, x + (size_t)at * DCK_PER_PIXEL, row, rows);
}

/* One row of outputs with a 3x3 kernel: x is the first of the window's `rows` rows. */
DCK_INLINE void row_of_three(bool max, const dck_pool *k, dck_on_load on_load, int stride, const dck_vec *x, int rows,
                             int width, dck_vec *y, int out_width)
{
    const size_t row = (size_t)width * DCK_PER_PIXEL;
    const float inside = 1 / (float)(rows * 3); /* of windows with three columns */
    dck_vec a = column_or_none(max, on_load, x, row, rows, -k->pad, width);
    dck_vec b = column_or_none(max, on_load, x, row, rows, 1 - k->pad, width);
    for (int i = 0; i < out_width; i++) {
        int at = i * stride - k->pad;
        if (stride == 2 && i > 0)
            b = column_or_none(max, on_load, x, row, rows, at + 1, width);
        dck_vec c = column_or_none(max, on_load, x, row, rows, at + 2, width), v = join(max, join(max, a, b), c);
        if (!max) {
            int columns = at >= 0 && at + 3 <= width ? 3 : window(k, i, width).end - window(k, i, width).begin;
            v = dck_read(on_load, v * (columns == 3 ? inside : 1 / (float)(rows * columns)));
        }
        y[(size_t)i * DCK_PER_PIXEL] = v;
        a = stride == 1 ? b : c;
        b = c;
    }
}

DCK_INLINE void row_of_any(bool max, const dck_pool *k, dck_on_load on_load, const dck_vec *x, int rows, int width,
                           dck_vec *y, int out_width)
{
    const size_t row = (size_t)width * DCK_PER_PIXEL;
    for (int i = 0; i < out_width; i++) {
        range across = window(k, i, width);
        dck_vec v = column(max, on_load, x + (size_t)across.begin * DCK_PER_PIXEL, row, rows);
        for (int at = across.begin + 1; at < across.end; at++)
            v = join(max, v, column(max, on_load, x + (size_t)at * DCK_PER_PIXEL, row, rows));
        if (!max)
            v = dck_read(on_load, v * (1 / (float)(rows * (across.end - across.begin))));
        y[(size_t)i * DCK_PER_PIXEL] = v;
    }
}

DCK_INLINE void pool_row(bool max, const dck_pool *k, dck_on_load on_load, const dck_vec *x, int rows, int width,
                         dck_vec *y, int out_width)
{
    if (k->kernel == 3 && k->stride == 1 && rows == 3)
        row_of_three(max, k, on_load, 1, x, 3, width, y, out_width);
    else if (k->kernel == 3 && k->stride == 1)
        row_of_three(max, k, on_load, 1, x, rows, width, y, out_width);
    else if (k->kernel == 3 && k->stride == 2)
        row_of_three(max, k, on_load, 2, x, rows, width, y, out_width);
    else
        row_of_any(max, k, on_load, x, rows, width, y, out_width);
}

DCK_INLINE void pool_plane(bool max, const dck_pool *k, dck_on_load on_load, const float *x, int h, int w, float *y,
                           int out_h, int out_w)
{
    for (int i = 0; i < out_h; i++) {
        range down = window(k, i, h);
        const float *first = x + (size_t)down.begin * (size_t)w * DCK_LANES;
        float *to = y + (size_t)i * (size_t)out_w * DCK_LANES;
        for (int part = 0; part < DCK_PER_PIXEL; part++)
            pool_row(max, k, on_load, (const dck_vec *)first + part, down.end - down.begin, w, (dck_vec *)to + part,
                     out_w);
    }
}

void DCK(max_pool_forward)(const dck_pool *k, dck_view x, dck_view y, int blocks, int threads)
{
    const int tasks = blocks * x.c;
#pragma omp parallel for schedule(static)                                                                              \
    num_threads(threads) if (dck_plane_floats(x) * (size_t)tasks > DCK_SERIAL_FLOATS)
    for (int t = 0; t < tasks; t++)
        pool_plane(true, k, dck_on_load_of(x, t % x.c), dck_plane(x, t / x.c, t % x.c), x.h, x.w,
                   dck_plane(y, t / x.c, t % x.c), y.h, y.w);
}

void DCK(avg_pool_forward)(const dck_pool *k, dck_view x, dck_view y, int blocks, int threads)
{
    const int tasks = blocks * x.c;
#pragma omp parallel for schedule(static)                                                                              \
    num_threads(threads) if (dck_plane_floats(x) * (size_t)tasks > DCK_SERIAL_FLOATS)
    for (int t = 0; t < tasks; t++)
        pool_plane(false, k, dck_on_load_of(x, t % x.c), dck_plane(x, t / x.c, t % x.c), x.h, x.w,
                   dck_plane(y, t / x.c, t % x.c), y.h, y.w);
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

/* As give_to_maximum for a window of three columns, whose gradients are kept in registers. */
DCK_INLINE void give_in_registers(dck_on_load on_load, const dck_vec *x, dck_vec (*d)[3], size_t row, int rows,
                                  dck_vec maximum, dck_vec dy)
{
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < 3; c++) {
            dck_mask here = dck_read(on_load, x[(size_t)r * row + (size_t)c * DCK_PER_PIXEL]) == maximum;
            d[r][c] += dck_where(here, dy);
            dy = dck_where(~here, dy);
        }
}

/* The outputs [begin, end) of a row, 3x3 at stride 1, none of whose windows leaves the image at the sides; x and dx
 * point at the first window. A column's gradient goes to memory once, when the windows have passed it. */
DCK_INLINE void max_backward_three(dck_on_load on_load, const dck_vec *x, dck_vec *dx, size_t row, int rows,
                                   const dck_vec *y, const dck_vec *dy, int begin, int end)
{
    dck_vec d[3][3] = {{{0}}};
    for (int j = begin; j < end; j++, x += DCK_PER_PIXEL, dx += DCK_PER_PIXEL) {
        give_in_registers(on_load, x, d, row, rows, y[(size_t)j * DCK_PER_PIXEL], dy[(size_t)j * DCK_PER_PIXEL]);
        for (int r = 0; r < rows; r++) {
            dx[(size_t)r * row] += d[r][0];
            d[r][0] = d[r][1];
            d[r][1] = d[r][2];
            d[r][2] = (dck_vec){0};
        }
    }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < 2; c++)
            dx[(size_t)r * row + (size_t)c * DCK_PER_PIXEL] += d[r][c];
}

/* One vector of a pixel of one row of outputs; x and dx: the first column of the window's first row. */
static void max_backward_row(const dck_pool *k, dck_on_load on_load, const dck_vec *x, dck_vec *dx, int rows, int width,
                             const dck_vec *y, const dck_vec *dy, int out_width)
{
    const size_t row = (size_t)width * DCK_PER_PIXEL;
    int inner = 0, inner_end = 0; /* outputs that the fast path does */
    if (k->kernel == 3 && k->stride == 1 && width > 2 && rows > 1) {
        inner = k->pad; /* the one whose window begins at x */
        inner_end = width - 2 + k->pad;
        if (rows == 3)
            max_backward_three(on_load, x, dx, row, 3, y, dy, inner, inner_end);
        else
            max_backward_three(on_load, x, dx, row, 2, y, dy, inner, inner_end);
    }
    for (int j = 0; j < out_width; j++) {
        if (j == inner && inner_end > inner)
            j = inner_end;
        if (j == out_width)
            break;
        range across = window(k, j, width);
        size_t first = (size_t)across.begin * DCK_PER_PIXEL, out = (size_t)j * DCK_PER_PIXEL;
        int columns = across.end - across.begin;
        if (rows == 3 && columns == 3)
            give_to_maximum(on_load, x + first, dx + first, row, 3, 3, y[out], dy[out]);
        else
            give_to_maximum(on_load, x + first, dx + first, row, rows, columns, y[out], dy[out]);
    }
}

static void max_backward_plane(const dck_pool *k, dck_on_load on_load, dck_view x, dck_view y, const float *x_plane,
                               const float *y_plane, const float *dy_plane, float *dx_plane)
{
    for (int i = 0; i < y.h; i++) {
        range down = window(k, i, x.h);
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
        if (!accumulate)
            memset(to, 0, floats * sizeof(float));
        max_backward_plane(k, dck_on_load_of(x, channel), x, y, dck_plane(x, block, channel),
                           dck_plane(y, block, channel), dck_plane(dy, block, channel), to);
    }
}

/* One column of output gradients, each divided by how many positions its window has. */
static inline dck_vec spread(const dck_pool *k, const dck_vec *dy, size_t row, range down, int at, int h, int w)
{
    range across = window(k, at, w);
    dck_vec v = {0};
    for (int i = down.begin; i < down.end; i++) {
        range rows = window(k, i, h);
        int count = (rows.end - rows.begin) * (across.end - across.begin);
        v += dy[(size_t)i * row + (size_t)at * DCK_PER_PIXEL] * (1 / (float)count);
    }
    return v;
}

/* A row of input gradients with a 3x3 kernel at stride 1: the columns of outputs are reduced once each. dy is the first
 * of the `rows` rows of outputs over it; scale: for windows of three columns. */
DCK_INLINE void spread_row_of_three(const dck_pool *k, const dck_vec *dy, int rows, const float *scale, int out_w,
                                    int w, dck_vec *dx, bool accumulate)
{
    const size_t row = (size_t)out_w * DCK_PER_PIXEL;
    dck_vec a = {0}, b = {0};
    for (int at = k->pad - 2; at < k->pad + w; at++) { /* the column of outputs that enters */
        dck_vec c = {0};
        if (at >= 0 && at < out_w) {
            const dck_vec *from = dy + (size_t)at * DCK_PER_PIXEL;
            for (int r = 0; r < rows; r++)
                c += from[(size_t)r * row] * scale[r];
            if (at < k->pad || at - k->pad + 3 > w) {
                range across = window(k, at, w);
                c *= 3 / (float)(across.end - across.begin);
            }
        }
        if (at >= k->pad)
            dck_put(dx + (size_t)(at - k->pad) * DCK_PER_PIXEL, a + b + c, accumulate);
        a = b;
        b = c;
    }
}

static void avg_backward_row(const dck_pool *k, dck_view dy, dck_view dx, const float *from, int at, float *to,
                             bool accumulate)
{
    const range down = windows_over(k, at, dy.h);
    const bool three = k->kernel == 3 && k->stride == 1;
    const int rows = down.end - down.begin;
    float scale[3] = {0}; /* of the windows over this row that have three columns */
    for (int i = down.begin; three && i < down.end; i++) {
        range over = window(k, i, dx.h);
        scale[i - down.begin] = 1 / (float)(3 * (over.end - over.begin));
    }
    for (int part = 0; part < DCK_PER_PIXEL; part++) {
        const dck_vec *source = (const dck_vec *)from + part;
        dck_vec *d = (dck_vec *)to + part;
        const dck_vec *first = source + (size_t)down.begin * (size_t)dy.w * DCK_PER_PIXEL;
        if (three && rows == 3)
            spread_row_of_three(k, first, 3, scale, dy.w, dx.w, d, accumulate);
        else if (three)
            spread_row_of_three(k, first, rows, scale, dy.w, dx.w, d, accumulate);
        for (int i = 0; !three && i < dx.w; i++) {
            range across = windows_over(k, i, dy.w);
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
