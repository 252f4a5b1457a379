/* What the convolution files share. Dense convolution (pointwise is one with a single tap) is a matrix product over
 * panels: small cache-resident copies of the input, row r = (channel, tap), column = pixel of a grid, gathered so that
 * strides, dilations, padding and ReLU are dealt with once, outside the inner loops. */
#ifndef DCK_CONV_H
#define DCK_CONV_H

#include "internal.h"
#include "plane.h"

enum {
    DCK_PANEL_ROWS = 72,              /* a multiple of every tile height */
    DCK_PANEL_PIXELS = 36,            /* 72 * 37 * 64 bytes = 170 kB: two panels stay in a level-2 cache of 512 kB */
    DCK_DY_ROWS = 2 * DCK_PANEL_ROWS, /* of a panel of dy, where backward takes both gradients at once */
    DCK_MAX_AHEAD = 2 * DCK_DY_ROWS + DCK_PANEL_ROWS, /* rows: dz and y of dy, and x; a band has no more prefetched */
    DCK_MAX_UNITS = 32,
    DCK_PANEL_BYTES = DCK_PANEL_ROWS * (DCK_PANEL_PIXELS + 1) * DCK_PIXEL_BYTES,
};

/* The pixel that a tap reads: (grid_y * step + y, grid_x * step + x); outside of the image it is zero. */
typedef struct dck_tap {
    int y, x;
} dck_tap;

typedef struct dck_gather {
    int h, w;   /* of the image */
    int grid_w; /* columns are pixels of the grid in row-major order */
    int step;
    int n_taps;
    const dck_tap *tap;
    bool relu;
} dck_gather;

/* The planes of one block that are gathered, and what is done to them on the way: nothing, a view's affine, or what
 * dck_grad says (y not NULL). */
typedef struct dck_source {
    const float *image, *y; /* the first channel's plane */
    const float *change;    /* of the first channel: affine or factors; NULL: none */
    int lanes;              /* gradients are zero from this lane on */
} dck_source;

/* The numbers of a panel, and the weights that meet them. Pairs of bfloat16 lie where floats do, half as many: */
typedef enum dck_form { DCK_FLOATS, DCK_PAIRS } dck_form;

DCK_INLINE dck_form dck_form_of(const dck_conv *k)
{
    return k->bf16 ? DCK_PAIRS : DCK_FLOATS;
}

/* How many n numbers in a row make; an odd one's neighbour is zero. */
DCK_INLINE int dck_words(dck_form form, int n)
{
    return form == DCK_PAIRS ? (n + 1) / 2 : n;
}

/* panel[r][p] for rows first_row.. (channel * n_taps + tap) and pixels first_pixel..; ld: pixels from row to row. */
void DCK(gather)(const dck_gather *g, dck_source from, int first_row, int rows, int first_pixel, int pixels,
                 float *panel, int ld);

/* The same as a product takes it, in words of rows, and as an outer product does, in words of pixels. */
void DCK(gather_rows)(dck_form form, const dck_gather *g, dck_source from, int first_row, int rows, int first_pixel,
                      int pixels, float *panel, int ld);
void DCK(gather_pixels)(dck_form form, const dck_gather *g, dck_source from, int first_row, int rows, int first_pixel,
                        int pixels, float *panel, int ld);
/* Pairs of these from floats. */
void DCK(pair_rows)(const float *from, int ld_from, int rows, int pixels, float *to, int ld);
void DCK(pair_pixels)(const float *from, int ld_from, int rows, int pixels, float *to, int ld);
/* So many rows of floats are paired at a time: they stay in the level-1 cache. */
enum { DCK_LINES = 8, DCK_LINES_FLOATS = DCK_LINES * (DCK_PANEL_PIXELS + 1) * DCK_LANES };
/* Rows of weights as arrays of bfloat16, each of dck_words words. Called by all threads of a parallel region. */
void DCK(pair_weights)(const float *from, int n, int rows, float *to);

/* What the next panels are made of: where their rows begin in memory. A product prefetches it into the level-2 cache
 * while it computes, so that gathering does not wait for memory: rows lie a plane apart, which no hardware foresees.
 * Not into the first level's, where rows of a panel share a few sets. Addresses may lie past a tensor's end, and are
 * never read. */
typedef struct dck_ahead {
    int n; /* rows */
    const float *row[DCK_MAX_AHEAD];
} dck_ahead;

/* Tensors of fewer channels are small, and their panels few. */
DCK_INLINE bool dck_worth_prefetching(int in, int out)
{
    return in + out >= 8;
}

/* Adds the rows that this gather would read, where it reads runs of pixels as they lie. */
void DCK(prefetch_panel)(const dck_gather *g, dck_source from, int first_row, int rows, int first_pixel,
                         dck_ahead *ahead);

/* Where a product goes: to[i][p] (+)= it where mask[i][p] > 0. */
typedef struct dck_output {
    float *to;
    size_t ld; /* pixels from row to row */
    dck_how how;
    const float *mask; /* NULL: none */
    size_t ld_mask;
    dck_form mask_form;  /* pairs: of two pixels */
    const float *affine; /* of the mask's first row; NULL: none */
    dck_vec *sums; /* [i][2] += what was written less a pivot, and its square, over all pixels; NULL: not wanted, as
                      where there is a mask */
    float *pivot;  /* [i]: one of the numbers written, so that squares stay small whatever the mean is */
    int lanes;     /* in sums */
} dck_output;

/* to = sum_r a[i][r] * panel[r][p]; rows: of the panel, in words; ld_a: words, ld: pixels from row to row. ahead: as
 * many pixels of each of its rows are prefetched on the way; NULL: nothing is. */
void DCK(product)(dck_form form, const float *a, size_t ld_a, const float *panel, int ld, int rows, int m, int pixels,
                  dck_output out, const dck_ahead *ahead);

/* out[i][r] += sum over pixels (in words) and images of left[i][p] * right[r][p]. */
void DCK(outer_product)(dck_form form, const float *left, int m, const float *right, int rows, int ld, int pixels,
                        float *out, size_t ld_out, const dck_ahead *ahead);

/* dw[i] = sum of partial[unit * stride + i] in the order of the units. Called by all threads of a parallel region. */
void DCK(sum_partials)(const float *partial, int units, size_t stride, size_t count, float *dw);

/* The moments of y's channels channel..channel + m over a part of the block with so many pixels, from what a product
 * left: sums [m][2], pivot [m]. */
void DCK(leave_moments)(const dck_moments *moments, dck_view y, int n, const dck_vec *sums, const float *pivot,
                        int block, int channel, int m, int part, int pixels);

/* The two families that conv.c chooses from; as their namesakes in kernels.h. */
size_t DCK(dense_forward_scratch_bytes)(const dck_conv *k, dck_view x, dck_view y, int threads);
/* Of the weights in pairs; 0: they are used as they are. */
size_t DCK(paired_weights_bytes)(const dck_conv *k, dck_view x, dck_view y);
void DCK(dense_forward)(const dck_conv *k, dck_view x, const float *w, dck_view y, int n, dck_moments moments,
                        void *scratch, int threads);
int DCK(dense_parts)(dck_view y); /* depends on its height and width only */
size_t DCK(dense_backward_scratch_bytes)(const dck_conv *k, dck_view x, dck_view y, int blocks, int threads);
void DCK(dense_backward)(const dck_conv *k, dck_view x, const float *w, dck_grad dy, dck_view dx, bool accumulate,
                         float *dw, int n, void *scratch, int threads);
/* dense_backward's part for kernels of one tap whose pixels are each at one place of a square of x's, and for those as
 * large as the image. */
bool DCK(pointwise_fits)(const dck_conv *k, dck_view x, dck_view y);
size_t DCK(pointwise_backward_scratch_bytes)(const dck_conv *k, dck_view x, dck_view y, int blocks, int threads);
void DCK(pointwise_backward)(const dck_conv *k, dck_view x, const float *w, dck_grad dy, dck_view dx, bool accumulate,
                             float *dw, int n, void *scratch, int threads);
size_t DCK(depthwise_forward_scratch_bytes)(const dck_conv *k, dck_view x, dck_view y, int threads);
void DCK(depthwise_forward)(const dck_conv *k, dck_view x, const float *w, dck_view y, int blocks, void *scratch,
                            int threads);
/* Rows first.. of one channel's output to `out`, one after the other. y: its shape. scratch: of one thread, begun. */
void DCK(depthwise_begin)(const dck_conv *k, dck_view x, dck_view y, void *scratch);
void DCK(depthwise_rows)(const dck_conv *k, dck_view x, const float *w, dck_view y, int block, int channel, int first,
                         int rows, void *scratch, float *out, dck_how how);
size_t DCK(depthwise_backward_scratch_bytes)(const dck_conv *k, dck_view x, dck_view y, int blocks, int threads);
void DCK(depthwise_backward)(const dck_conv *k, dck_view x, const float *w, dck_view dy, dck_view dx, bool accumulate,
                             float *dw, dck_sums sums, int blocks, void *scratch, int threads);

/* Which lanes of vector v of a pixel are below `lanes`. */
DCK_INLINE dck_mask dck_first_lanes(int lanes, int v)
{
    dck_mask mask = {0};
    for (int i = 0; i < DCK_VECTOR; i++)
        mask[i] = v * DCK_VECTOR + i < lanes ? -1 : 0;
    return mask;
}

/* Pixels of a grid are cut into equal chunks, rows into equal ranges. */
typedef struct dck_cut_up {
    int count, size;
} dck_cut_up;

DCK_INLINE dck_cut_up dck_cut_pixels(int pixels)
{
    int count = (pixels + DCK_PANEL_PIXELS - 1) / DCK_PANEL_PIXELS;
    int size = ((pixels + count - 1) / count + 2) / 3 * 3; /* whole tiles */
    return (dck_cut_up){(pixels + size - 1) / size, size};
}

/* At least one, of no rows if there are none; most: a multiple of eight. */
DCK_INLINE dck_cut_up dck_cut_rows_at(int rows, int most)
{
    int count = rows > 0 ? (rows + most - 1) / most : 1;
    int size = ((rows + count - 1) / count + 7) / 8 * 8;
    return (dck_cut_up){rows > 0 ? (rows + size - 1) / size : 1, size};
}

DCK_INLINE dck_cut_up dck_cut_rows(int rows)
{
    return dck_cut_rows_at(rows, DCK_PANEL_ROWS);
}

DCK_INLINE int dck_cut_length(dck_cut_up c, int i, int total)
{
    return total - i * c.size < c.size ? total - i * c.size : c.size;
}

/* The fixed units whose sums make up the weight gradient: ranges of (block, chunk). */
DCK_INLINE dck_cut_up dck_cut_units(dck_view y, int blocks)
{
    int items = blocks * dck_cut_pixels(y.h * y.w).count;
    int size = (items + DCK_MAX_UNITS - 1) / DCK_MAX_UNITS;
    return (dck_cut_up){(items + size - 1) / size, size};
}

/* No fewer than for so many blocks or any part of them: 33 items make fewer units than 32 do. */
DCK_INLINE int dck_most_units(dck_view y, int blocks)
{
    const int items = blocks * dck_cut_pixels(y.h * y.w).count;
    return items < DCK_MAX_UNITS ? items : DCK_MAX_UNITS;
}

/* How many of the threads are worth waking for so many floats and multiply-adds. */
DCK_INLINE int dck_worth(int threads, size_t floats, size_t products)
{
    return floats <= DCK_SERIAL_FLOATS && products <= (size_t)32 * DCK_SERIAL_FLOATS ? 1 : threads;
}

/* An odd number of cache lines from row to row, so that rows spread over the cache's sets. */
DCK_INLINE int dck_leading(int pixels)
{
    return pixels | 1;
}

DCK_INLINE dck_source dck_source_of(dck_view x, int block, int channel)
{
    return (dck_source){.image = dck_plane(x, block, channel), .change = x.affine ? x.affine + 2 * channel : NULL};
}

DCK_INLINE dck_source dck_gradient_source(const dck_grad *dy, int n, int block, int channel)
{
    dck_source from = {.image = dck_plane(dy->dz, block, channel), .lanes = dck_lanes_of(block, n)};
    if (dy->factors) {
        from.y = dck_plane(dy->y, block, channel);
        from.change = dy->factors + 3 * channel;
    }
    return from;
}

/* Scratch is cut into pieces that begin on a cache line. */
DCK_INLINE size_t dck_lines(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

DCK_INLINE size_t dck_taps_bytes(const dck_conv *k)
{
    return dck_lines((size_t)k->kernel * k->kernel * sizeof(dck_tap));
}

/* What y is computed from; tap: kernel^2 of them, which are set. */
DCK_INLINE dck_gather dck_forward_gather(const dck_conv *k, dck_view x, dck_view y, dck_tap *tap)
{
    int n = 0;
    for (int j = 0; j < k->kernel; j++)
        for (int i = 0; i < k->kernel; i++)
            tap[n++] = (dck_tap){j * k->dilation - k->pad_begin, i * k->dilation - k->pad_begin};
    return (dck_gather){x.h, x.w, y.w, k->stride, n, tap, k->relu};
}

#endif
