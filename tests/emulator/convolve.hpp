/* Convolutions as emulated cuDNN executes them. */
#ifndef CONVOLVE_HPP
#define CONVOLVE_HPP

#include "numbers.hpp"

namespace emulator
{

enum class direction { forward, data, weights };

/* N, C and three spatial dimensions (K, C and three for weights). */
struct extent {
    int64_t size[5], stride[5];
    number type;

    int64_t packed() const /* elements */
    {
        return size[0] * size[1] * size[2] * size[3] * size[4];
    }
    int64_t span() const /* from the first to the last, with both */
    {
        int64_t last = 0;
        for (int i = 0; i < 5; i++)
            last += (size[i] - 1) * stride[i];
        return last + 1;
    }
};

struct convolution {
    direction to;
    extent x, w, y;
    int64_t before[3], after[3], stride[3], dilation[3];
    float alpha, beta;

    const extent &result() const
    {
        return to == direction::forward ? y : to == direction::data ? x : w;
    }
};

/* What is wrong with the operands' extents, NULL: nothing. */
const char *mismatch(const convolution &c);

enum class engine_kind { exact, tf32, drifting }; /* drifting: sums differ from run to run */

void convolve(const convolution &c, engine_kind kind, void *x, void *w, void *y);

} // namespace emulator

#endif
