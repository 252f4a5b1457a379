/* Learning-rate schedules as functions of time in epochs (fractions count), so that they need no state. */
#ifndef DC_NN_SCHEDULE_H
#define DC_NN_SCHEDULE_H

typedef enum dc_schedule_kind { DC_SCHEDULE_COSINE, DC_SCHEDULE_LINEAR, DC_SCHEDULE_STEP } dc_schedule_kind;

typedef struct dc_schedule {
    dc_schedule_kind kind;
    double learning_rate; /* after warm-up */
    double minimum;       /* cosine, linear: at the end */
    double epochs;        /* the whole length, warm-up included */
    double warmup_epochs; /* linear from 0 to learning_rate */
    double step_epochs;   /* step: times decay after every so many epochs */
    double decay;
} dc_schedule;

/* cosine: minimum + (rate - minimum) (1 + cos(pi t)) / 2 (Loshchilov & Hutter 2017), linear: straight down, t being the
 * share of the epochs after warm-up; step: rate * decay^floor(epoch / step_epochs). */
double dc_schedule_rate(const dc_schedule *schedule, double epoch);

#endif
