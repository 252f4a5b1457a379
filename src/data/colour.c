#include "data/crop.h"

#include "base/rng.h"
#include "kernels.h"

/* Of the colours of ImageNet's pixels: eigenvectors (rows: red, green, blue) and roots of eigenvalues. */
static const double axes[3][3] = {{-0.5675, 0.7192, 0.4009}, {-0.5808, -0.0045, -0.8140}, {-0.5836, -0.6948, 0.4203}};
static const double spread[3] = {0.2175, 0.0188, 0.0045};

/* Uniform in low..high. */
static float between(uint32_t word, double low, double high)
{
    return (float)(low + (high - low) * (word / 4294967296.0));
}

dc_colour_draw dc_colour_image_draw(const dc_augment *augment, uint64_t seed, uint32_t epoch, uint32_t index)
{
    const double strength[] = {augment->brightness, augment->contrast, augment->saturation};
    uint32_t word[2][4];
    for (uint64_t k = 0; k < 2; k++)
        dc_rng_block((dc_rng_key){seed, dc_rng_stream("colour")}, epoch, k << 32 | index, word[k]);
    dc_colour_draw draw = {.order = {DC_BRIGHTNESS, DC_CONTRAST, DC_SATURATION, DC_HUE}};
    for (int i = 0; i < DC_HUE; i++)
        draw.amount[i] = between(word[0][i], strength[i] < 1 ? 1 - strength[i] : 0, 1 + strength[i]);
    draw.amount[DC_HUE] = between(word[0][DC_HUE], -augment->hue, augment->hue);
    for (int i = DC_COLOUR_CHANGES - 1; i > 0; i--) {
        int j = (int)((uint64_t)word[1][i] * ((uint64_t)i + 1) >> 32), held = draw.order[i];
        draw.order[i] = draw.order[j];
        draw.order[j] = held;
    }
    for (uint64_t k = 0; augment->lighting > 0 && k < 3; k++) {
        const dc_rng_key key = {seed, dc_rng_stream("lighting")};
        double along = augment->lighting * (double)dc_rng_normal(key, epoch, k << 32 | index) * spread[k];
        for (int c = 0; c < 3; c++)
            draw.light[c] += (float)(255 * along * axes[c][k]);
    }
    return draw;
}

static void contrast(const dck_kernels *kernels, int channels, size_t n, float factor, uint8_t *image)
{
    uint64_t sum = 0;
    if (channels == 3)
        sum = kernels->sum_grey(image, n);
    else
        for (size_t i = 0; i < n; i++)
            sum += image[i];
    const float mean = (float)((sum + n / 2) / n); /* a whole level, as PIL's */
    for (int c = 0; c < channels; c++)
        kernels->scale_bytes(image + (size_t)c * n, n, mean, factor, mean);
}

dc_status dc_colour_apply(const dc_colour_draw *draw, int channels, size_t n, uint8_t *image)
{
    const dck_kernels *kernels = dck_kernels_for(NULL);
    if (channels != 1 && channels != 3)
        return dc_fail(DC_ERR_INTERNAL, "colours of %d channels", channels);
    for (int i = 0; i < DC_COLOUR_CHANGES; i++) {
        const float amount = draw->amount[draw->order[i]];
        switch (draw->order[i]) {
        case DC_BRIGHTNESS:
            if (amount != 1)
                kernels->scale_bytes(image, (size_t)channels * n, 0, amount, 0);
            break;
        case DC_CONTRAST:
            if (amount != 1)
                contrast(kernels, channels, n, amount, image);
            break;
        case DC_SATURATION:
            if (amount != 1 && channels == 3)
                kernels->saturate(image, n, amount);
            break;
        default:
            if (amount != 0 && channels == 3)
                kernels->shift_hue(image, n, amount);
        }
    }
    for (int c = 0; c < channels; c++)
        if (draw->light[c] != 0) /* + 0.5: to the nearest */
            kernels->scale_bytes(image + (size_t)c * n, n, 0, 1, draw->light[c] + 0.5f);
    return DC_OK;
}
