#include "nn/schedule.h"

#include <math.h>

double dc_schedule_rate(const dc_schedule *s, double epoch)
{
    if (epoch < s->warmup_epochs)
        return s->learning_rate * epoch / s->warmup_epochs;
    if (s->kind == DC_SCHEDULE_STEP)
        return s->learning_rate * pow(s->decay, floor(epoch / s->step_epochs));
    double length = s->epochs - s->warmup_epochs;
    double t = length > 0 ? (epoch - s->warmup_epochs) / length : 1;
    t = t > 1 ? 1 : t;
    double share = s->kind == DC_SCHEDULE_COSINE ? (1 + cos(3.14159265358979323846 * t)) / 2 : 1 - t;
    return s->minimum + (s->learning_rate - s->minimum) * share;
}
