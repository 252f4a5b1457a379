#include "app/survey.h"

#include "base/state.h"
#include "lug/searches.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Where one item stands, by its checkpoint. */
typedef struct item {
    bool begun;
    double share, seconds, accuracy;
    double written_s; /* seconds since 1970 */
} item;

/* "key=value key=value ...": the number of a key, or what is given for none. */
static double number(const char *about, const char *key, double otherwise)
{
    size_t length = strlen(key);
    for (const char *at = about; (at = strstr(at, key)) != NULL; at += length)
        if ((at == about || at[-1] == ' ') && at[length] == '=')
            return strtod(at + length + 1, NULL);
    return otherwise;
}

static double clamp(double x)
{
    return x > 0 ? (x < 1 ? x : 1) : 0; /* also what is no number */
}

/* The line of the newest checkpoint that is whole; false when there is none. */
static bool newest_about(const char *path, char about[DC_STATE_ABOUT_CHARS], double *written_s)
{
    char previous[DC_PATH_CHARS + 16];
    snprintf(previous, sizeof previous, "%s.previous", path);
    const char *const paths[] = {path, previous};
    for (int i = 0; i < 2; i++) {
        struct stat info;
        if (stat(paths[i], &info) == 0 && dc_state_about(paths[i], about) == DC_OK) {
            *written_s = (double)info.st_mtim.tv_sec + 1e-9 * (double)info.st_mtim.tv_nsec;
            return true;
        }
    }
    return false;
}

static item look_at(const char *checkpoint, const char *table)
{
    char about[DC_STATE_ABOUT_CHARS];
    item it = {.accuracy = -1};
    it.begun = newest_about(checkpoint, about, &it.written_s);
    if (it.begun) {
        double epochs = number(about, "epochs", 0), steps = number(about, "steps", 0), step = number(about, "step", 0);
        if (epochs > 0) /* a training */
            it.share = clamp((number(about, "epoch", 0) + (steps > 0 ? step / steps : 0)) / epochs);
        else if (steps > 0)
            it.share = clamp(step / steps);
        it.seconds = number(about, "seconds", 0);
        if (number(about, "epoch", epochs > 0 ? 0 : 1) > 0)
            it.accuracy = number(about, "accuracy", -1);
    }
    it.begun |= table && dc_file_exists(table);
    return it;
}

static void add(dc_survey_phase *phase, const item *it)
{
    bool done = it->share >= 1;
    phase->done += done;
    phase->begun += it->begun && !done;
    phase->share += it->share; /* a sum until it is averaged */
    phase->work_s += it->seconds;
    if (it->written_s > phase->checkpoint_s)
        phase->checkpoint_s = it->written_s;
    if (it->accuracy > phase->accuracy)
        phase->accuracy = it->accuracy;
}

/* Shares become a mean; speed so far tells what is left. */
static void conclude(dc_survey_phase *phase)
{
    double done = phase->share, left = phase->items - done;
    phase->work_left_s = left <= 0 ? 0 : done > 0 ? phase->work_s / done * left : -1;
    if (phase->items > 0)
        phase->share = clamp(done / phase->items);
}

static dc_status look_at_search(const char *folder, const char *name, item *it)
{
    char checkpoint[DC_PATH_CHARS], table[DC_PATH_CHARS], file[96];
    snprintf(file, sizeof file, "searches/%s.h5", name);
    DC_TRY(dc_path_join(folder, file, checkpoint));
    snprintf(file, sizeof file, "searches/%s.csv", name);
    DC_TRY(dc_path_join(folder, file, table));
    *it = look_at(checkpoint, table);
    return DC_OK;
}

/* Searches that the lookup graph has are done; their checkpoints are gone then. */
static dc_status survey_lug(const char *folder, const dc_settings *s, dc_survey_phase *phase)
{
    char path[DC_PATH_CHARS];
    dc_lug lug = {0};
    DC_TRY(dc_path_join(*s->lug_file ? "" : folder, *s->lug_file ? s->lug_file : "lug.h5", path));
    phase->items = s->lug_points * s->lug_seeds;
    if (dc_state_exists(path) && dc_lug_load(&lug, path, NULL) != DC_OK)
        lug = (dc_lug){0};
    dc_status status = DC_OK;
    for (int i = 0; i < phase->items && status == DC_OK; i++) {
        char name[DC_SEARCH_NAME_CHARS];
        const dc_lug_entry *entry = dc_lug_find(&lug, i / s->lug_seeds, i % s->lug_seeds);
        item it;
        dc_search_point_name(i / s->lug_seeds, i % s->lug_seeds, name);
        if (entry)
            it = (item){.share = 1, .seconds = entry->seconds, .accuracy = entry->validation_accuracy};
        else
            status = look_at_search(folder, name, &it);
        if (status == DC_OK)
            add(phase, &it);
    }
    dc_lug_clear(&lug);
    return status;
}

static dc_status survey_searches(const char *folder, const dc_settings *s, dc_survey_phase *phase)
{
    phase->items = s->runs;
    for (int i = 0; i < phase->items; i++) {
        char name[32];
        item it;
        snprintf(name, sizeof name, "run-%d", i);
        DC_TRY(look_at_search(folder, name, &it));
        add(phase, &it);
    }
    return DC_OK;
}

/* Which candidates there are is known only when they are made: their files tell. */
static dc_status survey_candidates(const char *folder, const dc_settings *s, dc_survey_phase *phase)
{
    char directory[DC_PATH_CHARS], checkpoint[DC_PATH_CHARS], table[DC_PATH_CHARS];
    DC_TRY(dc_path_join(folder, "candidates", directory));
    phase->items = s->runs + s->select_candidates;
    DIR *open = opendir(directory);
    dc_status status = DC_OK;
    for (struct dirent *entry; open && status == DC_OK && (entry = readdir(open)) != NULL;) {
        const char *dot = strrchr(entry->d_name, '.');
        char name[NAME_MAX + 8];
        if (!dot || strcmp(dot, ".csv") != 0)
            continue;
        snprintf(name, sizeof name, "%.*s.h5", (int)(dot - entry->d_name), entry->d_name);
        status = dc_path_join(directory, name, checkpoint);
        if (status == DC_OK)
            status = dc_path_join(directory, entry->d_name, table);
        if (status == DC_OK) {
            item it = look_at(checkpoint, table);
            add(phase, &it);
        }
    }
    if (open)
        closedir(open);
    return status;
}

static dc_status survey_training(const char *folder, dc_survey *survey)
{
    char path[DC_PATH_CHARS], about[DC_STATE_ABOUT_CHARS];
    double written_s;
    dc_survey_phase *phase = &survey->phase[DC_PHASE_TRAIN];
    phase->items = 1;
    DC_TRY(dc_path_join(folder, "training/checkpoint.h5", path));
    item it = look_at(path, NULL);
    if (it.begun && newest_about(path, about, &written_s)) {
        survey->epoch = (int)number(about, "epoch", 0);
        survey->epochs = (int)number(about, "epochs", 0);
        survey->step = (int)number(about, "step", 0);
        survey->steps = (int)number(about, "steps", 0);
        survey->last_accuracy = it.accuracy;
        survey->best_epoch = survey->epoch > 0 ? (int)number(about, "best_epoch", 0) : 0;
        it.accuracy = survey->epoch > 0 ? number(about, "best", -1) : -1;
    }
    add(phase, &it);
    return DC_OK;
}

static dc_status read_seconds(const char *folder, double seconds[DC_PHASES])
{
    char path[DC_PATH_CHARS];
    dc_state *state;
    DC_TRY(dc_path_join(folder, "run.h5", path));
    if (dc_state_exists(path) && dc_state_open_newest(path, &state) == DC_OK) {
        if (dc_state_get_doubles(state, "seconds", 1, (int64_t[]){DC_PHASES}, seconds) != DC_OK)
            memset(seconds, 0, DC_PHASES * sizeof *seconds);
        dc_state_close(state);
    }
    return DC_OK;
}

/* What is past is done, whatever its files say: a training has its genotype, a lookup graph may hold other searches;
 * and what was never begun, as the searches of a training whose genotype was given, was not needed. */
static void close_past_phases(dc_survey *survey)
{
    bool past = survey->finished;
    for (int f = DC_PHASES - 1; f >= 0; f--) {
        dc_survey_phase *phase = &survey->phase[f];
        bool begun = phase->begun > 0 || phase->done > 0;
        if (past && begun && f == DC_PHASE_SELECT) {
            phase->items = phase->done = phase->done + phase->begun;
            phase->begun = 0;
            phase->share = phase->items;
        }
        if (past && !begun)
            phase->items = 0;
        past |= begun;
    }
}

dc_status dc_survey_take(const char *folder, const dc_settings *settings, dc_survey *survey)
{
    char path[DC_PATH_CHARS];
    *survey = (dc_survey){.last_accuracy = -1};
    for (int f = 0; f < DC_PHASES; f++)
        survey->phase[f].accuracy = -1;
    bool constrained = false;
    for (int m = 0; m < DC_METRICS; m++)
        constrained |= settings->constrained && settings->budget[m] > 0;
    DC_TRY(dc_path_join(folder, "result.json", path));
    survey->finished = dc_file_exists(path);
    DC_TRY(read_seconds(folder, survey->seconds));
    if (constrained)
        DC_TRY(survey_lug(folder, settings, &survey->phase[DC_PHASE_LUG]));
    DC_TRY(survey_searches(folder, settings, &survey->phase[DC_PHASE_SEARCH]));
    DC_TRY(survey_candidates(folder, settings, &survey->phase[DC_PHASE_SELECT]));
    DC_TRY(survey_training(folder, survey));
    close_past_phases(survey);
    for (int f = 0; f < DC_PHASES; f++)
        conclude(&survey->phase[f]);
    return DC_OK;
}

double dc_survey_progress(const dc_survey *survey)
{
    double progress = 0;
    for (int f = 0; f < DC_PHASES; f++)
        progress += survey->phase[f].share * survey->phase[f].items;
    return progress;
}
