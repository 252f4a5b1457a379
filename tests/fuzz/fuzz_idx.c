/* Any bytes as an IDX file, of images and of labels, plain or gzip. */
#include "data/import.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (int n_dims = 1; n_dims <= 3; n_dims += 2) {
        dc_idx idx;
        dc_status status = dc_idx_parse(data, size, n_dims, "fuzz", &idx);
        if (status == DC_OK) {
            uint32_t sum = 0; /* every byte that the dimensions promise must be there */
            size_t n = (size_t)idx.dims[0] * idx.dims[1] * idx.dims[2];
            for (size_t i = 0; i < n; i++)
                sum += idx.data[i];
            if (sum > n * 255)
                abort();
        } else if (idx.data || !dc_status_message()[0] || strchr(dc_status_message(), '\n'))
            abort();
        free(idx.data);
    }
    return 0;
}
