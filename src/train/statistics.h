/* Batch norm's running statistics of a parameter store as one packed array, in the order of the store. In a training
 * each rank has its own, until they are averaged at the end of an epoch. */
#ifndef DC_TRAIN_STATISTICS_H
#define DC_TRAIN_STATISTICS_H

#include "nn/params.h"

/* Floats in the array. */
size_t dc_statistics_count(const dc_params *params);

dc_status dc_statistics_read(const dc_params *params, float *packed);
dc_status dc_statistics_write(dc_params *params, const float *packed);

/* What differs from rank to rank in the middle of an epoch is a row of bytes in a training's checkpoint: the metrics so
 * far (DC_METRICS_NUMBERS doubles), the statistics of the trained store, and those of its average, if there is one. */
size_t dc_statistics_row_bytes(const dc_params *params, bool average);

/* The mean over the rows of the statistics of one of the two stores. Equal ones have themselves for mean. */
void dc_statistics_mean(const dc_params *params, const unsigned char *rows, int64_t n_rows, size_t row_bytes,
                        bool average, float *mean);

#endif
