#include "train/statistics.h"

#include "train/checkpoint.h"

#include <string.h>

size_t dc_statistics_count(const dc_params *params)
{
    size_t n = 0;
    for (int i = 0; i < params->n; i++)
        if (params->items[i].param.role == DC_ROLE_STATE)
            n += params->items[i].param.count;
    return n;
}

dc_status dc_statistics_read(const dc_params *params, float *packed)
{
    for (int i = 0; i < params->n; i++) {
        if (params->items[i].param.role != DC_ROLE_STATE)
            continue;
        DC_TRY(dc_params_read(params, i, packed));
        packed += params->items[i].param.count;
    }
    return DC_OK;
}

dc_status dc_statistics_write(dc_params *params, const float *packed)
{
    for (int i = 0; i < params->n; i++) {
        if (params->items[i].param.role != DC_ROLE_STATE)
            continue;
        DC_TRY(dc_params_write(params, i, packed));
        packed += params->items[i].param.count;
    }
    return DC_OK;
}

size_t dc_statistics_row_bytes(const dc_params *params, bool average)
{
    return DC_METRICS_NUMBERS * sizeof(double) + (average ? 2 : 1) * dc_statistics_count(params) * sizeof(float);
}

void dc_statistics_mean(const dc_params *params, const unsigned char *rows, int64_t n_rows, size_t row_bytes,
                        bool average, float *mean)
{
    const size_t n = dc_statistics_count(params);
    rows += DC_METRICS_NUMBERS * sizeof(double) + (average ? n * sizeof *mean : 0);
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (int64_t r = 0; r < n_rows; r++) {
            float value;
            memcpy(&value, rows + (size_t)r * row_bytes + i * sizeof value, sizeof value);
            sum += (double)value;
        }
        mean[i] = (float)(sum / (double)n_rows);
    }
}
