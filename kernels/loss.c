/* Softmax cross-entropy with label smoothing (Szegedy et al. 2016), as torch.nn.CrossEntropyLoss: the target is
 * 1 - s at the label plus s / classes everywhere; mean over the images. */
#include "internal.h"
#include "plane.h"

#include <math.h>

/* e^x for x <= 0 within 2 units in the last place: x = n ln 2 + r, a polynomial in r, n into the exponent. */
DCK_INLINE dck_vec exponential(dck_vec x)
{
    x = dck_select(x < -87, dck_set(-87), x); /* not a number stays so */
    const float round = 12582912.0f;          /* 1.5 * 2^23: adding it leaves the nearest integer in the low bits */
    dck_vec shifted = x * 1.44269504f + round, n = shifted - round;
    dck_vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    dck_vec p = dck_set(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    dck_mask power = ((dck_mask)shifted + 127) << 23; /* the rounding constant's own bits are shifted out */
    return p * (dck_vec)power;
}

/* Probabilities of one block, and per lane the logarithm of the sum of exponentials (with its maximum) and the sum of
 * logits. */
static void softmax_block(const float *logits, int classes, float *probability, float log_sum[DCK_LANES],
                          float logit_sum[DCK_LANES])
{
    for (int part = 0; part < DCK_PER_PIXEL; part++) {
        const dck_vec *z = (const dck_vec *)logits + part;
        dck_vec *p = (dck_vec *)probability + part;
        dck_vec highest = z[0], all = {0}, total = {0};
        for (int c = 1; c < classes; c++)
            highest = dck_max(highest, z[c * DCK_PER_PIXEL]);
        for (int c = 0; c < classes; c++) {
            dck_vec e = exponential(z[c * DCK_PER_PIXEL] - highest);
            p[c * DCK_PER_PIXEL] = e;
            total += e;
            all += z[c * DCK_PER_PIXEL];
        }
        dck_vec scale = 1 / total;
        for (int c = 0; c < classes; c++)
            p[c * DCK_PER_PIXEL] *= scale;
        for (int i = 0; i < DCK_VECTOR; i++) {
            log_sum[part * DCK_VECTOR + i] = highest[i] + logf(total[i]);
            logit_sum[part * DCK_VECTOR + i] = all[i];
        }
    }
}

/* How many other classes score no less than the label's; one that is not a number counts against. */
static int rivals(const float *logits, int classes, int lane, int32_t label)
{
    const float own = logits[(size_t)label * DCK_LANES + (size_t)lane];
    int count = 0;
    for (int c = 0; c < classes; c++)
        count += c != label && !(logits[(size_t)c * DCK_LANES + (size_t)lane] < own);
    return count;
}

void DCK(cross_entropy_forward)(dck_view logits, const int32_t *labels, float smoothing, int n, float *saved,
                                float result[4])
{
    const int classes = logits.c;
    double loss = 0;
    int top1 = 0, top5 = 0;
    for (int block = 0; block < dck_blocks_of(n); block++) {
        const float *z = logits.data + (size_t)block * logits.stride;
        float log_sum[DCK_LANES], logit_sum[DCK_LANES];
        softmax_block(z, classes, saved + (size_t)block * (size_t)classes * DCK_LANES, log_sum, logit_sum);
        for (int lane = 0, lanes = dck_lanes_of(block, n); lane < lanes; lane++) {
            int32_t label = labels[block * DCK_LANES + lane];
            double own = z[(size_t)label * DCK_LANES + (size_t)lane], mean = logit_sum[lane] / (float)classes;
            loss += (double)log_sum[lane] - (1 - (double)smoothing) * own - (double)smoothing * mean;
            int against = rivals(z, classes, lane, label);
            top1 += against == 0;
            top5 += against < 5;
        }
    }
    result[0] = (float)(loss / n);
    result[1] = (float)top1;
    result[2] = (float)top5;
    result[3] = (float)n;
}

void DCK(cross_entropy_backward)(const float *saved, const int32_t *labels, float smoothing, float weight, int n,
                                 dck_view dlogits, bool accumulate)
{
    const int classes = dlogits.c;
    const float scale = weight / (float)n, everywhere = smoothing / (float)classes;
    for (int block = 0; block < dck_blocks_of(n); block++) {
        const float *p = saved + (size_t)block * (size_t)classes * DCK_LANES;
        float *to = dlogits.data + (size_t)block * dlogits.stride;
        const int lanes = dck_lanes_of(block, n);
        float factor[DCK_LANES];
        for (int lane = 0; lane < DCK_LANES; lane++)
            factor[lane] = lane < lanes ? scale : 0;
        for (size_t i = 0; i < (size_t)classes * DCK_LANES; i++) {
            float d = factor[i % DCK_LANES] * (p[i] - everywhere);
            to[i] = accumulate ? to[i] + d : d;
        }
        for (int lane = 0; lane < lanes; lane++)
            to[(size_t)labels[block * DCK_LANES + lane] * DCK_LANES + (size_t)lane] -= scale * (1 - smoothing);
    }
}
