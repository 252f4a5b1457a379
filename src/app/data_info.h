/* What a data set file holds, for dcanas data. */
#ifndef DC_APP_DATA_INFO_H
#define DC_APP_DATA_INFO_H

#include "data/dataset.h"

#include <stdio.h>

/* verified: its hashes were compared. */
dc_status dc_data_info_text(const dc_dataset *dataset, bool verified, FILE *out);
dc_status dc_data_info_json(const dc_dataset *dataset, bool verified, FILE *out);

#endif
