/* From and to plain images: 16 rows of NCHW side by side are 16 lanes. */
#include "internal.h"
#include "plane.h"

void DCK(from_nchw)(const float *nchw, int n, dck_view y)
{
    const size_t pixels = (size_t)y.h * (size_t)y.w, image = (size_t)y.c * pixels;
    for (int block = 0; block < dck_blocks_of(n); block++)
        for (int c = 0; c < y.c; c++) {
            const float *from = nchw + (size_t)block * DCK_LANES * image + (size_t)c * pixels;
            float *to = dck_plane(y, block, c);
            const int lanes = dck_lanes_of(block, n);
            if (lanes == DCK_LANES)
                for (size_t p = 0; p < pixels; p++)
                    for (size_t lane = 0; lane < DCK_LANES; lane++)
                        to[p * DCK_LANES + lane] = from[lane * image + p];
            else
                for (size_t p = 0; p < pixels; p++)
                    for (size_t lane = 0; lane < DCK_LANES; lane++)
                        to[p * DCK_LANES + lane] = (int)lane < lanes ? from[lane * image + p] : 0;
        }
}

void DCK(to_nchw)(dck_view x, int n, float *nchw)
{
    const size_t pixels = (size_t)x.h * (size_t)x.w, image = (size_t)x.c * pixels;
    for (int block = 0; block < dck_blocks_of(n); block++)
        for (int c = 0; c < x.c; c++) {
            const float *from = dck_plane(x, block, c);
            float *to = nchw + (size_t)block * DCK_LANES * image + (size_t)c * pixels;
            for (size_t lane = 0; (int)lane < dck_lanes_of(block, n); lane++)
                for (size_t p = 0; p < pixels; p++)
                    to[lane * image + p] = from[p * DCK_LANES + lane];
        }
}
