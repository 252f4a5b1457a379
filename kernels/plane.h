/* What the kernels that stream through memory share: planes, pieces of equal work, lanes. */
#ifndef DCK_PLANE_H
#define DCK_PLANE_H

#include "kernels.h"
#include "vector.h"

/* Below this many floats one thread does the work: waking others costs more than it saves. */
enum { DCK_SERIAL_FLOATS = 1 << 15 };

/* Streaming kernels cut a block's contiguous c*h*w*16 floats into pieces; a piece is one thread's task. */
enum { DCK_PIECE_FLOATS = 1 << 14 };

/* About so many pixels of a plane (whole rows, where work goes by rows) are summed in float before their sum goes on in
 * double. */
enum { DCK_SUMMED_PIXELS = 256 };

typedef struct dck_pieces {
    size_t block_floats;
    int per_block, count;
    bool threaded;
} dck_pieces;

typedef struct dck_piece {
    int block;
    size_t first, floats; /* in the block */
} dck_piece;

static inline dck_pieces dck_cut(dck_view view, int blocks)
{
    size_t floats = (size_t)view.c * (size_t)view.h * (size_t)view.w * DCK_LANES;
    int per_block = (int)((floats + DCK_PIECE_FLOATS - 1) / DCK_PIECE_FLOATS);
    return (dck_pieces){.block_floats = floats,
                        .per_block = per_block,
                        .count = per_block * blocks,
                        .threaded = floats * (size_t)blocks > DCK_SERIAL_FLOATS};
}

static inline dck_piece dck_piece_at(const dck_pieces *pieces, int task)
{
    size_t first = (size_t)(task % pieces->per_block) * DCK_PIECE_FLOATS, left = pieces->block_floats - first;
    return (dck_piece){
        .block = task / pieces->per_block, .first = first, .floats = left < DCK_PIECE_FLOATS ? left : DCK_PIECE_FLOATS};
}

static inline float *dck_at(dck_view view, dck_piece piece)
{
    return view.data + (size_t)piece.block * view.stride + piece.first;
}

static inline size_t dck_plane_floats(dck_view view)
{
    return (size_t)view.h * (size_t)view.w * DCK_LANES;
}

static inline float *dck_plane(dck_view view, int block, int channel)
{
    return view.data + (size_t)block * view.stride + (size_t)channel * dck_plane_floats(view);
}

/* How many lanes of a block hold images, of n in all. */
static inline int dck_lanes_of(int block, int n)
{
    int left = n - block * DCK_LANES;
    return left < DCK_LANES ? left : DCK_LANES;
}

static inline int dck_blocks_of(int n)
{
    return (n + DCK_LANES - 1) / DCK_LANES;
}

/* What reading a channel of a view does to what is stored there; 1 * x + 0 changes nothing. Forward and backward must
 * agree to the last bit (which position was the maximum?): everyone reads by dck_read(). */
typedef struct dck_on_load {
    float scale, shift;
} dck_on_load;

DCK_INLINE dck_on_load dck_on_load_of(dck_view view, int channel)
{
    return view.affine ? (dck_on_load){view.affine[2 * channel], view.affine[2 * channel + 1]} : (dck_on_load){1, 0};
}

DCK_INLINE dck_vec dck_read(dck_on_load on, dck_vec stored)
{
    return stored * on.scale + on.shift;
}

/* How a result is written: false and true of `accumulate`, and instead of the first, where whoever reads next would not
 * find it in a cache anyway, past the caches. */
typedef enum dck_how { DCK_SET = false, DCK_ADD = true, DCK_STREAM } dck_how;

/* Where a thread's part of a tensor has more bytes, a few of them at once are more than a core's share of the caches.
 */
enum { DCK_CACHED_BYTES = 1 << 20 };

static inline dck_how dck_how_to_write(dck_view y, bool accumulate, int blocks, int threads)
{
    if (accumulate)
        return DCK_ADD;
    const size_t bytes = (size_t)blocks * (size_t)y.c * dck_plane_floats(y) * sizeof(float);
    return DCK_VECTOR == DCK_LANES && bytes > (size_t)threads * DCK_CACHED_BYTES ? DCK_STREAM : DCK_SET;
}

/* At the end of a piece of work that wrote so. */
static inline void dck_written(dck_how how)
{
    if (how == DCK_STREAM)
        dck_settle();
}

DCK_INLINE void dck_put(dck_vec *to, dck_vec value, dck_how how)
{
    if (how == DCK_ADD)
        *to += value;
    else if (how == DCK_STREAM)
        dck_stream(to, value);
    else
        *to = value;
}

#endif
