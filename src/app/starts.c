#include "app/starts.h"

#include "app/survey.h"
#include "base/clock.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char file_name[] = "starts.json";
static const double negligible = 1e-9; /* of a search's steps */

static double number(const cJSON *root, const char *name, double most)
{
    const cJSON *item = cJSON_GetObjectItem(root, name);
    return cJSON_IsNumber(item) && item->valuedouble > -most && item->valuedouble < most ? item->valuedouble : 0;
}

static void text(const cJSON *root, const char *name, char *out, size_t size)
{
    const cJSON *item = cJSON_GetObjectItem(root, name);
    snprintf(out, size, "%s", cJSON_IsString(item) ? item->valuestring : "");
}

dc_starts dc_starts_read(const char *folder)
{
    char path[DC_PATH_CHARS], *json;
    dc_starts starts = {0};
    if (dc_path_join(folder, file_name, path) != DC_OK || dc_file_read(path, &json, NULL) != DC_OK)
        return starts;
    cJSON *root = cJSON_Parse(json);
    free(json);
    starts.starts = (int)number(root, "starts", 1e9);
    starts.idle = (int)number(root, "idle", 1e9);
    starts.progress = number(root, "progress", 1e15);
    starts.ranks = (int)number(root, "ranks", 1e9);
    starts.workers = (int)number(root, "workers", 1e9);
    starts.started_s = number(root, "started", 1e15);
    text(root, "command", starts.command, sizeof starts.command);
    text(root, "last", starts.last, sizeof starts.last);
    cJSON_Delete(root);
    return starts;
}

static dc_status write_starts(const char *folder, const dc_starts *starts)
{
    char path[DC_PATH_CHARS];
    DC_TRY(dc_path_join(folder, file_name, path));
    cJSON *root = cJSON_CreateObject();
    cJSON_AddNumberToObject(root, "starts", starts->starts);
    cJSON_AddNumberToObject(root, "idle", starts->idle);
    cJSON_AddNumberToObject(root, "progress", starts->progress);
    cJSON_AddStringToObject(root, "command", starts->command);
    cJSON_AddNumberToObject(root, "ranks", starts->ranks);
    cJSON_AddNumberToObject(root, "workers", starts->workers);
    cJSON_AddNumberToObject(root, "started", starts->started_s);
    cJSON_AddStringToObject(root, "last", starts->last);
    char *json = cJSON_Print(root);
    cJSON_Delete(root);
    dc_status status =
        json ? dc_file_replace_text(path, json) : dc_fail(DC_ERR_MEMORY, "out of memory while %s was written", path);
    cJSON_free(json);
    return status;
}

dc_status dc_starts_begin(const dc_pipeline *p)
{
    const dc_settings *s = &p->settings;
    dc_starts starts = dc_starts_read(p->own);
    dc_survey survey;
    DC_TRY(dc_survey_take(p->folder, s, &survey));
    double progress = dc_survey_progress(&survey);
    bool idle = starts.starts > 0 && starts.progress >= 0 && progress <= starts.progress + negligible;
    starts.idle = idle ? starts.idle + 1 : 0;
    if (s->max_idle_starts > 0 && starts.idle >= s->max_idle_starts)
        return dc_fail(DC_ERR_STALLED,
                       "%s: the last %d starts brought nothing further%s%s%s: see its log.txt; to go on all the same, "
                       "--set checkpoint.max_starts_without_progress=0",
                       p->own, starts.idle, *starts.last ? " (the last one: " : "", starts.last,
                       *starts.last ? ")" : "");
    starts.starts++;
    starts.progress = progress;
    starts.ranks = p->world->size;
    starts.workers = p->world->size / s->ranks_per_search;
    starts.started_s = dc_clock_wall();
    starts.last[0] = 0;
    snprintf(starts.command, sizeof starts.command, "%s", p->command);
    return write_starts(p->own, &starts);
}

void dc_starts_end(const dc_pipeline *p, dc_status status)
{
    char message[1024];
    snprintf(message, sizeof message, "%s", dc_status_message()); /* what follows may fail */
    dc_starts starts = dc_starts_read(p->own);
    if (status == DC_OK) {
        starts.idle = 0;
        starts.progress = -1;
    }
    snprintf(starts.last, sizeof starts.last, "%.*s", (int)sizeof starts.last - 1, status == DC_OK ? "done" : message);
    if (dc_lock_check(p->lock) == DC_OK)
        write_starts(p->own, &starts);
    dc_fail(status, "%s", message);
}
