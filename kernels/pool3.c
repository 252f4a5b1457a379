/* 3x3 pooling, axis by axis: a strip of a row is reduced downwards into a buffer that stays in the level-1 cache, and
 * the buffer sideways. The other way, what the windows over a row give to each of their columns is in buffers that the
 * pixels add up, so that a pixel is written once.
 *
 * All is memory's: at stride 1 8 bytes an element forward and for the gradient of averages, 16 for that of maxima.
 * AVX2, Zen 3, 16 channels of 32x32, a batch of 64: forward 36 (maximum) and 43 GB/s (average), gradients 20 and 28,
 * where a copy in memory moves 20. */
#include "pool.h"

#include <math.h>

enum {
    STRIP = 32,         /* pixels of a row done at a time */
    BUFFER_PIXELS = 40, /* with all that windows over them hold */
    BUFFER = BUFFER_PIXELS * DCK_PER_PIXEL,
};

/* Where `rows` rows of an array begin, each of `width` pixels. */
typedef struct plane_rows {
    const dck_vec *x;
    int rows, width;
} plane_rows;

DCK_INLINE void fill(dck_vec *to, int begin, int end, dck_vec value)
{
    for (int v = begin * DCK_PER_PIXEL; v < end * DCK_PER_PIXEL; v++)
        to[v] = value;
}

/* What [first, first + n) has in [0, width), counted from first. */
static dck_range inside(int first, int n, int width)
{
    dck_range in = {first < 0 ? -first : 0, first + n > width ? width - first : n};
    return in.end > in.begin ? in : (dck_range){n, n};
}

/* ---- forward ---- */

/* The first reduction: columns [first, first + n) of rows. */
DCK_INLINE void reduce_down(bool max, int rows, dck_on_load on_load, plane_rows from, int first, int n, dck_vec *to)
{
    const size_t row = (size_t)from.width * DCK_PER_PIXEL;
    const dck_range in = inside(first, n, from.width);
    const dck_vec none = dck_set(max ? -INFINITY : 0), *x = from.x + (ptrdiff_t)first * DCK_PER_PIXEL;
    fill(to, 0, in.begin, none);
    for (int v = in.begin * DCK_PER_PIXEL; v < in.end * DCK_PER_PIXEL; v++) {
        dck_vec value = max ? dck_read(on_load, x[v]) : x[v];
        DCK_UNROLL
        for (int r = 1; r < rows; r++)
            value = dck_join(max, value, max ? dck_read(on_load, x[r * row + v]) : x[r * row + v]);
        to[v] = value;
    }
    fill(to, in.end, n, none);
}

/* The second: n outputs. */
DCK_INLINE void reduce_across(bool max, int stride, dck_on_load on_load, float factor, const dck_vec *from, int n,
                              dck_vec *y)
{
    for (int i = 0; i < n; i++)
        DCK_UNROLL
    for (int part = 0; part < DCK_PER_PIXEL; part++) {
        const dck_vec *x = from + (size_t)i * stride * DCK_PER_PIXEL + part;
        dck_vec value = dck_join(max, dck_join(max, x[0], x[DCK_PER_PIXEL]), x[2 * DCK_PER_PIXEL]);
        y[i * DCK_PER_PIXEL + part] = max ? value : dck_read(on_load, value * factor);
    }
}

/* Outputs [begin, begin + n) of a row of averages; those at the sides have fewer columns. */
static void average_across(const dck_pool *k, dck_on_load on_load, int rows, int width, const dck_vec *from, int begin,
                           int n, dck_vec *y)
{
    for (int i = 0, m; i < n; i += m) {
        dck_range across = dck_window(k, begin + i, width);
        const int columns = across.end - across.begin;
        const int alike = (width - 3 + k->pad) / k->stride + 1 - (begin + i); /* have three columns, if this one has */
        m = columns < 3 ? 1 : alike < n - i ? alike : n - i;
        const dck_vec *x = from + (size_t)i * k->stride * DCK_PER_PIXEL;
        if (k->stride == 1)
            reduce_across(false, 1, on_load, 1 / (float)(rows * columns), x, m, y + (size_t)i * DCK_PER_PIXEL);
        else
            reduce_across(false, 2, on_load, 1 / (float)(rows * columns), x, m, y + (size_t)i * DCK_PER_PIXEL);
    }
}

DCK_INLINE void forward_row(bool max, const dck_pool *k, dck_on_load on_load, plane_rows x, dck_vec *y, int out_width)
{
    dck_vec buffer[BUFFER];
    const int most = (STRIP - 1) / k->stride + 1;
    for (int begin = 0, n; begin < out_width; begin += n, y += n * DCK_PER_PIXEL) {
        n = out_width - begin < most ? out_width - begin : most;
        const int first = begin * k->stride - k->pad, columns = (n - 1) * k->stride + 3;
        if (x.rows == 3)
            reduce_down(max, 3, on_load, x, first, columns, buffer);
        else if (x.rows == 2)
            reduce_down(max, 2, on_load, x, first, columns, buffer);
        else
            reduce_down(max, 1, on_load, x, first, columns, buffer);
        if (!max)
            average_across(k, on_load, x.rows, x.width, buffer, begin, n, y);
        else if (k->stride == 1)
            reduce_across(true, 1, on_load, 1, buffer, n, y);
        else
            reduce_across(true, 2, on_load, 1, buffer, n, y);
    }
}

void DCK(pool3_forward)(bool max, const dck_pool *k, dck_view x, dck_view y, int block, int channel)
{
    const dck_on_load on_load = dck_on_load_of(x, channel);
    const dck_vec *from = (const dck_vec *)dck_plane(x, block, channel);
    dck_vec *to = (dck_vec *)dck_plane(y, block, channel);
    for (int i = 0; i < y.h; i++, to += (size_t)y.w * DCK_PER_PIXEL) {
        dck_range down = dck_window(k, i, x.h);
        plane_rows rows = {from + (size_t)down.begin * x.w * DCK_PER_PIXEL, down.end - down.begin, x.w};
        if (max)
            forward_row(true, k, on_load, rows, to, y.w);
        else
            forward_row(false, k, on_load, rows, to, y.w);
    }
}

/* ---- backward ---- */

/* Columns [begin, begin + columns) of dx and the windows over them. */
typedef struct strip {
    int begin, columns, first, windows;
} strip;

static strip strip_at(const dck_pool *k, int begin, int width)
{
    const int columns = width - begin < STRIP ? width - begin : STRIP, lowest = begin + k->pad - 2; /* may be -2 */
    const int first = k->stride == 1 ? lowest : (lowest + 3) / 2 - 1;
    return (strip){begin, columns, first, (begin + columns - 1 + k->pad) / k->stride - first + 1};
}

/* dx (+)= what windows give to their first, second and third column. */
static void gather(const dck_pool *k, strip s, const dck_vec *one, const dck_vec *two, const dck_vec *three,
                   dck_vec *dx, bool accumulate)
{
    enum { P = DCK_PER_PIXEL };
    dx += (size_t)s.begin * P;
    if (k->stride == 1 && accumulate) {
        for (int v = 0; v < s.columns * P; v++)
            dx[v] += one[v + 2 * P] + two[v + P] + three[v];
        return;
    }
    if (k->stride == 1) {
        for (int v = 0; v < s.columns * P; v++)
            dx[v] = one[v + 2 * P] + two[v + P] + three[v];
        return;
    }
    for (int x = 0; x < s.columns; x++) {
        const int at = s.begin + x + k->pad, j = (at / 2 - s.first) * P;
        DCK_UNROLL
        for (int part = 0; part < P; part++)
            if (at % 2)
                dck_put(dx + x * P + part, two[j + part], accumulate);
            else
                dck_put(dx + x * P + part, one[j + part] + three[j + part - P], accumulate);
    }
}

/* sum of scale[r] * row r */
DCK_INLINE void weigh_down(int rows, const float *scale, plane_rows from, strip s, dck_vec *to)
{
    const size_t row = (size_t)from.width * DCK_PER_PIXEL;
    const dck_range in = inside(s.first, s.windows, from.width);
    const dck_vec *dy = from.x + (ptrdiff_t)s.first * DCK_PER_PIXEL;
    fill(to, 0, in.begin, (dck_vec){0});
    for (int v = in.begin * DCK_PER_PIXEL; v < in.end * DCK_PER_PIXEL; v++) {
        dck_vec value = dy[v] * scale[0];
        DCK_UNROLL
        for (int r = 1; r < rows; r++)
            value += dy[r * row + v] * scale[r];
        to[v] = value;
    }
    fill(to, in.end, s.windows, (dck_vec){0});
}

static void average_backward_row(const dck_pool *k, plane_rows dy, const float *scale, dck_vec *dx, int width,
                                 bool accumulate)
{
    dck_vec buffer[BUFFER];
    for (int begin = 0; begin < width; begin += STRIP) {
        const strip s = strip_at(k, begin, width);
        if (dy.rows == 3)
            weigh_down(3, scale, dy, s, buffer);
        else if (dy.rows == 2)
            weigh_down(2, scale, dy, s, buffer);
        else if (dy.rows == 1)
            weigh_down(1, scale, dy, s, buffer);
        else
            fill(buffer, 0, s.windows, (dck_vec){0});
        for (int j = 0; j < s.windows; j++) {
            dck_range across = dck_window(k, s.first + j, width);
            const int columns = across.end - across.begin;
            for (int part = 0; columns > 0 && columns < 3 && part < DCK_PER_PIXEL; part++)
                buffer[j * DCK_PER_PIXEL + part] *= 3 / (float)columns;
        }
        gather(k, s, buffer, buffer, buffer, dx, accumulate);
    }
}

void DCK(avg_pool3_backward)(const dck_pool *k, dck_view dy, dck_view dx, bool accumulate, int block, int channel)
{
    const dck_vec *from = (const dck_vec *)dck_plane(dy, block, channel);
    dck_vec *to = (dck_vec *)dck_plane(dx, block, channel);
    for (int y = 0; y < dx.h; y++, to += (size_t)dx.w * DCK_PER_PIXEL) {
        const dck_range over = dck_windows_over(k, y, dy.h);
        float scale[3] = {0}; /* of windows of three columns */
        for (int i = over.begin; i < over.end; i++) {
            dck_range down = dck_window(k, i, dx.h);
            scale[i - over.begin] = 1 / (float)(3 * (down.end - down.begin));
        }
        plane_rows rows = {from + (size_t)over.begin * dy.w * DCK_PER_PIXEL, over.end - over.begin, dy.w};
        average_backward_row(k, rows, scale, to, dx.w, accumulate);
    }
}

/* What of a strip's windows has not been given to a row above, for those of three rows of windows that hold a row; the
 * row itself, as read; and what the windows over it give to its columns. */
typedef struct max_strip {
    dck_vec left[3][BUFFER], x[BUFFER], one[BUFFER], two[BUFFER], three[BUFFER];
} max_strip;

/* One row of windows over a row of x: their maxima, what they have to give, and where what is left goes. */
typedef struct giver {
    const dck_vec *y, *has;
    dck_vec *left;
} giver;

/* The windows whose maximum is in this row of x give what they have to the first of its columns that is the maximum. */
DCK_INLINE void give(int stride, int givers, const giver *g, dck_range in, max_strip *m)
{
    for (int v = in.begin * DCK_PER_PIXEL; v < in.end * DCK_PER_PIXEL; v++) {
        const dck_vec *x = m->x + v + v / DCK_PER_PIXEL * (stride - 1) * DCK_PER_PIXEL;
        const dck_vec a = x[0], b = x[DCK_PER_PIXEL], c = x[2 * DCK_PER_PIXEL];
        const dck_vec most = dck_max(dck_max(a, b), c);
        dck_vec given = {0};
        DCK_UNROLL
        for (int i = 0; i < givers; i++) {
            const dck_mask here = most == g[i].y[v];
            const dck_vec has = g[i].has[v];
            given += dck_where(here, has);
            g[i].left[v] = dck_where(~here, has);
        }
        const dck_mask first = a == most, second = b == most;
        const dck_vec rest = dck_where(~first, given);
        m->one[v] = dck_where(first, given);
        m->two[v] = dck_where(second, rest);
        m->three[v] = dck_where(~second, rest);
    }
}

static void give_any(int stride, int givers, const giver *g, int windows, dck_range in, max_strip *m)
{
    dck_vec *const to[] = {m->one, m->two, m->three};
    if (givers == 0)
        in = (dck_range){0, 0};
    for (int i = 0; i < 3; i++) {
        fill(to[i], 0, in.begin, (dck_vec){0});
        fill(to[i], in.end, windows, (dck_vec){0});
    }
    if (givers == 3) /* there are at most two at stride 2 */
        give(1, 3, g, in, m);
    else if (givers == 2 && stride == 1)
        give(1, 2, g, in, m);
    else if (givers == 2)
        give(2, 2, g, in, m);
    else if (stride == 1)
        give(1, 1, g, in, m);
    else
        give(2, 1, g, in, m);
}

void DCK(max_pool3_backward)(const dck_pool *k, dck_view x, dck_view y, dck_view dy, dck_view dx, bool accumulate,
                             int block, int channel)
{
    const dck_on_load on_load = dck_on_load_of(x, channel);
    const dck_vec *x_plane = (const dck_vec *)dck_plane(x, block, channel);
    const dck_vec *y_plane = (const dck_vec *)dck_plane(y, block, channel);
    const dck_vec *dy_plane = (const dck_vec *)dck_plane(dy, block, channel);
    dck_vec *dx_plane = (dck_vec *)dck_plane(dx, block, channel);
    max_strip m;
    for (int begin = 0; begin < x.w; begin += STRIP) {
        const strip s = strip_at(k, begin, x.w);
        const dck_range in = inside(s.first, s.windows, y.w);
        for (int row = 0; row < x.h; row++) {
            const size_t at = (size_t)row * x.w * DCK_PER_PIXEL;
            const plane_rows from = {x_plane + at, 1, x.w};
            reduce_down(true, 1, on_load, from, s.first * k->stride - k->pad, (s.windows - 1) * k->stride + 3, m.x);
            const dck_range over = dck_windows_over(k, row, y.h);
            giver g[3];
            for (int i = over.begin; i < over.end; i++) {
                const ptrdiff_t out = ((ptrdiff_t)i * y.w + s.first) * DCK_PER_PIXEL;
                const bool fresh = dck_window(k, i, x.h).begin == row; /* it has all of dy still */
                g[i - over.begin] = (giver){y_plane + out, fresh ? dy_plane + out : m.left[i % 3], m.left[i % 3]};
            }
            give_any(k->stride, over.end - over.begin, g, s.windows, in, &m);
            gather(k, s, m.one, m.two, m.three, dx_plane + at, accumulate);
        }
    }
}
