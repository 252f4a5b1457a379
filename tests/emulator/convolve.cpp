#include "convolve.hpp"

#include "emulator.hpp"

#include <algorithm>
#include <vector>

namespace emulator
{

const char *mismatch(const convolution &c)
{
    for (const extent *e : {&c.x, &c.w, &c.y}) {
        for (int i = 0; i < 5; i++) {
            if (e->size[i] < 1 || e->stride[i] < 1)
                return "an extent or a stride is not positive";
        }
    }
    if (c.x.size[0] != c.y.size[0])
        return "the batches of x and y differ";
    if (c.w.size[0] != c.y.size[1] || c.w.size[1] != c.x.size[1])
        return "the channels of x, w and y do not fit";
    for (int i = 0; i < 3; i++) {
        if (c.stride[i] < 1 || c.dilation[i] < 1 || c.before[i] < 0 || c.after[i] < 0)
            return "a stride, dilation or padding is out of range";
        const int64_t window = c.dilation[i] * (c.w.size[i + 2] - 1) + 1;
        const int64_t padded = c.x.size[i + 2] + c.before[i] + c.after[i];
        if (padded < window || c.y.size[i + 2] != (padded - window) / c.stride[i] + 1)
            return "the output has another size";
    }
    return nullptr;
}

namespace
{

/* A tensor without gaps, in double: cuDNN's sums are in float, ours are right. */
using packed = std::vector<double>;

template <class Visit> void for_elements(const extent &e, Visit visit)
{
    size_t i = 0;
    for (int64_t a = 0; a < e.size[0]; a++) {
        for (int64_t b = 0; b < e.size[1]; b++) {
            for (int64_t d = 0; d < e.size[2]; d++) {
                for (int64_t h = 0; h < e.size[3]; h++) {
                    const int64_t row = a * e.stride[0] + b * e.stride[1] + d * e.stride[2] + h * e.stride[3];
                    for (int64_t w = 0; w < e.size[4]; w++)
                        visit(i++, (size_t)(row + w * e.stride[4]));
                }
            }
        }
    }
}

packed gather(const extent &e, const void *data, bool tf32)
{
    packed out((size_t)e.packed());
    for_elements(e, [&](size_t i, size_t at) {
        const float x = load(data, e.type, at);
        out[i] = tf32 ? to_tf32(x) : x;
    });
    return out;
}

/* Positions of the output at which a tap of one dimension reads inside the input: begin up to end. */
struct run {
    int64_t begin, end;
};

run inside(const convolution &c, int i, int64_t tap)
{
    const int64_t shift = tap * c.dilation[i] - c.before[i], stride = c.stride[i];
    const int64_t begin = shift >= 0 ? 0 : (-shift + stride - 1) / stride, last = c.x.size[i + 2] - 1 - shift;
    return {begin, last < 0 ? 0 : std::min(c.y.size[i + 2], last / stride + 1)};
}

size_t at(const extent &e, int64_t a, int64_t b, int64_t d, int64_t h)
{
    return (size_t)(((a * e.size[1] + b) * e.size[2] + d) * e.size[3] + h) * (size_t)e.size[4];
}

/* visit(index in x, in w, in y, run's length): elements of x are stride[2] apart, those of y are neighbours. */
template <class Visit> void for_rows(const convolution &c, int64_t n, int64_t k, int64_t ch, Visit visit)
{
    for (int64_t td = 0; td < c.w.size[2]; td++) {
        const run d = inside(c, 0, td);
        for (int64_t th = 0; th < c.w.size[3]; th++) {
            const run h = inside(c, 1, th);
            for (int64_t tw = 0; tw < c.w.size[4]; tw++) {
                const run w = inside(c, 2, tw);
                const int64_t first = w.begin * c.stride[2] + tw * c.dilation[2] - c.before[2];
                const size_t iw = at(c.w, k, ch, td, th) + (size_t)tw;
                for (int64_t yd = d.begin; yd < d.end; yd++) {
                    const int64_t xd = yd * c.stride[0] + td * c.dilation[0] - c.before[0];
                    for (int64_t yh = h.begin; yh < h.end; yh++) {
                        const int64_t xh = yh * c.stride[1] + th * c.dilation[1] - c.before[1];
                        visit(at(c.x, n, ch, xd, xh) + (size_t)first, iw, at(c.y, n, k, yd, yh) + (size_t)w.begin,
                              w.end - w.begin);
                    }
                }
            }
        }
    }
}

} // namespace

void convolve(const convolution &c, engine_kind kind, void *x, void *w, void *y)
{
    const bool tf32 = kind == engine_kind::tf32;
    const auto operand = [&](const extent &e, const void *data, direction computed) {
        return c.to == computed ? packed((size_t)e.packed()) : gather(e, data, tf32 && e.type == number::f32);
    };
    packed px = operand(c.x, x, direction::data), pw = operand(c.w, w, direction::weights);
    packed py = operand(c.y, y, direction::forward);
    const size_t step = (size_t)c.stride[2];
    for (int64_t n = 0; n < c.x.size[0]; n++) {
        for (int64_t k = 0; k < c.w.size[0]; k++) {
            for (int64_t ch = 0; ch < c.w.size[1]; ch++) {
                for_rows(c, n, k, ch, [&](size_t ix, size_t iw, size_t iy, int64_t length) {
                    for (size_t i = 0; i < (size_t)std::max<int64_t>(length, 0); i++) {
                        if (c.to == direction::forward)
                            py[iy + i] += pw[iw] * px[ix + i * step];
                        else if (c.to == direction::data)
                            px[ix + i * step] += pw[iw] * py[iy + i];
                        else
                            pw[iw] += px[ix + i * step] * py[iy + i];
                    }
                });
            }
        }
    }
    const extent &e = c.result();
    const packed &sums = c.to == direction::forward ? py : c.to == direction::data ? px : pw;
    void *data = c.to == direction::forward ? y : c.to == direction::data ? x : w;
    for_elements(e, [&](size_t i, size_t where) {
        const double sum = kind == engine_kind::drifting ? sums[i] * (1 + random_number(1000) * 1e-6) : sums[i];
        const double was = c.beta == 0 ? 0 : (double)c.beta * load(data, e.type, where);
        store(data, e.type, where, (float)(c.alpha * sum + was));
    });
}

} // namespace emulator
