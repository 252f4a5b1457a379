/* A tile of TILE_FEATURES features of 16 images in shared memory, as floats: images are its rows, as in NCHW. */
#ifndef DCK_TILE_CUH
#define DCK_TILE_CUH

#include "plane.cuh"

enum {
    TILE_FEATURES = 64,
    TILE_ROW = TILE_FEATURES + 1, /* odd: neither rows nor columns meet in one bank */
    TILE_FLOATS = DCK_LANES * TILE_ROW
};

static_assert(TILE_FEATURES * PIXEL_FOURS == THREADS, "a thread has one four of a tile");

/* A block of threads for each tile of each block of images. */
static inline dim3 tile_grid(dck_view x, int n)
{
    return dim3(ceil_div((size_t)x.c * (size_t)x.h * (size_t)x.w, TILE_FEATURES), blocks_of(n));
}

static __device__ inline float &tile_at(float *tile, unsigned lane, unsigned feature)
{
    return tile[lane * TILE_ROW + feature];
}

/* A thread's feature of the tile, and the first of its four lanes. */
static __device__ inline unsigned tile_feature()
{
    return threadIdx.x / PIXEL_FOURS;
}

static __device__ inline unsigned tile_lane()
{
    return threadIdx.x % PIXEL_FOURS * 4;
}

/* to: where the block of images begins; first: the tile's first feature. */
template <class T> static __device__ inline void store_tile(float *tile, T *to, size_t first, size_t features)
{
    const size_t feature = first + tile_feature();
    dck_four v;
    for (unsigned j = 0; j < 4; j++)
        v.v[j] = tile_at(tile, tile_lane() + j, tile_feature());
    if (feature < features)
        store_four(to + feature * DCK_LANES + tile_lane(), v);
}

template <class T> static __device__ inline void load_tile(float *tile, const T *from, size_t first, size_t features)
{
    const size_t feature = first + tile_feature();
    if (feature >= features)
        return;
    const dck_four v = load_four(from + feature * DCK_LANES + tile_lane());
    for (unsigned j = 0; j < 4; j++)
        tile_at(tile, tile_lane() + j, tile_feature()) = v.v[j];
}

#endif
