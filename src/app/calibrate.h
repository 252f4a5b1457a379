/* How fast this machine makes the steps of a run: some seconds of them are made, on one rank, and thrown away. */
#ifndef DC_APP_CALIBRATE_H
#define DC_APP_CALIBRATE_H

#include "app/pipeline.h"

typedef struct dc_speed {
    double step_s;          /* of the longest step seen, the first (which prepares kernels) left out */
    double seconds_per_mac; /* of forward and backward, counted as the plan counts */
} dc_speed;

/* Of a search; macs: of one image's forward through its supernet. About seconds_s of work, at least two steps. */
dc_status dc_calibrate_search(const dc_pipeline *p, const dc_search_options *options, double macs, double seconds_s,
                              dc_speed *speed);

/* The same of a training; options->batch: the share of one rank. */
dc_status dc_calibrate_training(const dc_pipeline *p, const dc_train_options *options, const dc_genotype *genotype,
                                double macs, double seconds_s, dc_speed *speed);

#endif
