#include "app/json.h"

dc_status dc_json_print(cJSON *root, FILE *out)
{
    char *text = root ? cJSON_Print(root) : NULL;
    cJSON_Delete(root);
    if (!text)
        return dc_fail(DC_ERR_MEMORY, "out of memory while JSON was written");
    fprintf(out, "%s\n", text);
    cJSON_free(text);
    return DC_OK;
}
