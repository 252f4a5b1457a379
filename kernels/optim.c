/* The optimizers, as torch.optim.SGD and torch.optim.Adam, and what averages and sums of their arrays need. Bound by
 * memory: sgd reads three floats and writes two, adam reads four and writes three, blend reads two and writes one. */
#include "internal.h"
#include "plane.h"

#include <math.h>

/* A run that is worth it is cut into PARTS equal parts of whole groups of 16 floats, one a task. */
enum { PARTS = 64, GROUP = 16 };

static int parts_of(size_t count)
{
    return count > DCK_SERIAL_FLOATS ? PARTS : 1;
}

static size_t part_begin(size_t count, int part, int parts)
{
    size_t groups = (count + GROUP - 1) / GROUP, begin = groups * (size_t)part / (size_t)parts * GROUP;
    return begin < count ? begin : count;
}

static void sgd_part(float *restrict value, const float *restrict grad, float *restrict velocity, size_t count,
                     float learning_rate, float momentum, float weight_decay, bool nesterov, float grad_scale)
{
    for (size_t i = 0; i < count; i++) {
        float g = grad[i] * grad_scale + weight_decay * value[i];
        float v = momentum * velocity[i] + g;
        velocity[i] = v;
        value[i] -= learning_rate * (nesterov ? g + momentum * v : v);
    }
}

void DCK(sgd)(float *value, const float *grad, float *velocity, size_t count, float learning_rate, float momentum,
              float weight_decay, bool nesterov, float grad_scale, int threads)
{
    const int parts = parts_of(count);
#pragma omp parallel for schedule(static) num_threads(threads) if (parts > 1)
    for (int part = 0; part < parts; part++) {
        size_t begin = part_begin(count, part, parts), end = part_begin(count, part + 1, parts);
        sgd_part(value + begin, grad + begin, velocity + begin, end - begin, learning_rate, momentum, weight_decay,
                 nesterov, grad_scale);
    }
}

typedef struct adam_factors {
    float step_size, root_scale, beta1, beta2, epsilon, weight_decay;
} adam_factors;

static void adam_part(float *restrict value, const float *restrict grad, float *restrict first, float *restrict second,
                      size_t count, adam_factors f)
{
    for (size_t i = 0; i < count; i++) {
        float g = grad[i] + f.weight_decay * value[i];
        float m = f.beta1 * first[i] + (1 - f.beta1) * g;
        float s = f.beta2 * second[i] + (1 - f.beta2) * g * g;
        first[i] = m;
        second[i] = s;
        value[i] -= f.step_size * m / (sqrtf(s) * f.root_scale + f.epsilon);
    }
}

void DCK(adam)(float *value, const float *grad, float *first, float *second, size_t count, float learning_rate,
               float beta1, float beta2, float epsilon, float weight_decay, uint32_t step, int threads)
{
    const adam_factors factors = {.step_size = (float)((double)learning_rate / (1 - pow((double)beta1, step))),
                                  .root_scale = (float)(1 / sqrt(1 - pow((double)beta2, step))),
                                  .beta1 = beta1,
                                  .beta2 = beta2,
                                  .epsilon = epsilon,
                                  .weight_decay = weight_decay};
    const int parts = parts_of(count);
#pragma omp parallel for schedule(static) num_threads(threads) if (parts > 1)
    for (int part = 0; part < parts; part++) {
        size_t begin = part_begin(count, part, parts), end = part_begin(count, part + 1, parts);
        adam_part(value + begin, grad + begin, first + begin, second + begin, end - begin, factors);
    }
}

static double sum_part(const float *x, size_t count)
{
    double sum[GROUP] = {0}, total = 0;
    size_t i = 0;
    for (; i + GROUP <= count; i += GROUP)
        for (int lane = 0; lane < GROUP; lane++)
            sum[lane] += (double)x[i + (size_t)lane] * (double)x[i + (size_t)lane];
    for (; i < count; i++)
        total += (double)x[i] * (double)x[i];
    for (int lane = 0; lane < GROUP; lane++)
        total += sum[lane];
    return total;
}

double DCK(sum_squares)(const float *x, size_t count, int threads)
{
    const int parts = parts_of(count);
    double partial[PARTS], total = 0;
#pragma omp parallel for schedule(static) num_threads(threads) if (parts > 1)
    for (int part = 0; part < parts; part++) {
        size_t begin = part_begin(count, part, parts), end = part_begin(count, part + 1, parts);
        partial[part] = sum_part(x + begin, end - begin);
    }
    for (int part = 0; part < parts; part++)
        total += partial[part];
    return total;
}

static void blend_part(float *restrict y, const float *restrict x, size_t count, float a, float b)
{
    for (size_t i = 0; i < count; i++)
        y[i] = a * x[i] + b * y[i];
}

void DCK(blend)(float *y, const float *x, size_t count, float a, float b, int threads)
{
    const int parts = parts_of(count);
#pragma omp parallel for schedule(static) num_threads(threads) if (parts > 1)
    for (int part = 0; part < parts; part++) {
        size_t begin = part_begin(count, part, parts), end = part_begin(count, part + 1, parts);
        blend_part(y + begin, x + begin, end - begin, a, b);
    }
}
