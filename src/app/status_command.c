#include "app/status_command.h"

#include "app/json.h"
#include "app/starts.h"
#include "app/survey.h"
#include "base/clock.h"
#include "base/units.h"

#include <stdlib.h>
#include <string.h>

static const dc_option options[] = {{"json", NULL, "prints JSON"}};

static const dc_command command = {
    "status",
    "OUTPUT",
    1,
    1,
    options,
    sizeof options / sizeof *options,
    "tells how far a run is, without touching it",
    "OUTPUT is a run's folder, such as output/NAME. Only reads, takes no lock, and may be called on any machine that\n"
    "sees the folder, while the run works in it, after it was stopped, and after it died. How far a phase is, and the\n"
    "time left, is as of the newest checkpoints. A job on another machine is known by its sign of life only."};

typedef enum run_state { FINISHED, RUNNING, SILENT, STOPPED } run_state;
static const char *const state_names[] = {"finished", "running", "silent", "stopped"};

typedef struct status {
    const char *folder;
    dc_settings settings;
    dc_survey survey;
    dc_starts starts;
    dc_lock_view lock;
    run_state state;
    double seconds_left; /* of the phases that can be told; negative: of none */
    int told_until;      /* the first phase whose time is not among them */
} status;

/* ---- what it all means ---- */

static bool phase_done(const dc_survey_phase *phase)
{
    return phase->done == phase->items;
}

/* The first phase that is not done; DC_PHASES: none. */
static int present_phase(const dc_survey *survey)
{
    int f = 0;
    while (f < DC_PHASES && phase_done(&survey->phase[f]))
        f++;
    return f;
}

static run_state state_of(const status *s)
{
    switch (s->lock.life) {
    case DC_LOCK_LIVES:
        return RUNNING;
    case DC_LOCK_UNKNOWN:
        return s->lock.beat_age_s < 3 * s->settings.run.lock_timeout_s ? RUNNING : SILENT;
    default:
        return s->survey.finished ? FINISHED : STOPPED;
    }
}

static const char *phase_state(const status *s, int f)
{
    const dc_survey_phase *phase = &s->survey.phase[f];
    if (phase->items == 0)
        return "not needed";
    if (phase_done(phase))
        return "done";
    if (phase->begun == 0 && phase->done == 0)
        return "waiting";
    return s->state == RUNNING ? "running" : s->state == SILENT ? "silent" : "stopped";
}

/* Items of a phase are worked on side by side. Searches at the target are like those of the lookup graph, whose speed
 * stands for theirs before they begin. */
static void estimate(status *s)
{
    const dc_survey_phase *lug = &s->survey.phase[DC_PHASE_LUG];
    s->seconds_left = -1;
    int f = present_phase(&s->survey);
    double left = f == DC_PHASES ? 0 : -1;
    for (; f < DC_PHASES; f++) {
        const dc_survey_phase *phase = &s->survey.phase[f];
        double work = phase->work_left_s;
        if (work < 0 && f == DC_PHASE_SEARCH && lug->share * lug->items > 0)
            work = lug->work_s / (lug->share * lug->items) * phase->items;
        if (work < 0)
            break;
        int workers = f == DC_PHASE_TRAIN ? 1 : f == DC_PHASE_SELECT ? s->starts.ranks : s->starts.workers;
        int items = phase->items - phase->done;
        workers = workers < 1 ? 1 : workers < items ? workers : items;
        left = (left < 0 ? 0 : left) + work / (workers > 0 ? workers : 1);
    }
    s->seconds_left = left;
    s->told_until = f;
}

static dc_status look(const char *folder, status *s)
{
    char path[DC_PATH_CHARS];
    *s = (status){.folder = folder};
    DC_TRY(dc_path_join(folder, "config.ini", path));
    if (!dc_file_exists(path))
        return dc_fail(DC_ERR_INPUT, "%s holds no run: there is no %s", folder, path);
    DC_TRY(dc_config_defaults(&dc_settings_schema, &s->settings));
    DC_TRY(dc_config_load(&dc_settings_schema, path, &s->settings));
    DC_TRY(dc_survey_take(folder, &s->settings, &s->survey));
    s->starts = dc_starts_read(folder);
    DC_TRY(dc_path_join(folder, "lock", path));
    s->lock = dc_lock_look(path);
    s->state = state_of(s);
    estimate(s);
    return DC_OK;
}

/* Seconds since then, by this machine's clock; another's may be ahead of it. */
static double age(double then_s)
{
    double seconds = dc_clock_wall() - then_s;
    return seconds > 0 ? seconds : 0;
}

static double newest_checkpoint(const dc_survey *survey)
{
    double newest = 0;
    for (int f = 0; f < DC_PHASES; f++)
        if (survey->phase[f].checkpoint_s > newest)
            newest = survey->phase[f].checkpoint_s;
    return newest;
}

/* ---- for people ---- */

static void print_owner(const status *s, FILE *out)
{
    const dc_lock_view *l = &s->lock;
    fprintf(out, "%s: %s", s->folder, state_names[s->state]);
    if (l->life == DC_LOCK_LIVES || l->life == DC_LOCK_UNKNOWN) {
        fprintf(out, " on %s, process %ld", *l->host ? l->host : "an unknown machine", l->process);
        if (l->life == DC_LOCK_UNKNOWN)
            fprintf(out, " (last sign of life %s ago)", dc_format_duration(l->beat_age_s).s);
    } else if (l->life == DC_LOCK_DEAD) {
        fprintf(out, "; its last job ended without a word (host %s, process %ld)", l->host, l->process);
    }
    fprintf(out, "\n");
    if (s->starts.starts > 0) {
        fprintf(out, "  started %d time%s", s->starts.starts, s->starts.starts == 1 ? "" : "s");
        if (s->starts.idle > 0)
            fprintf(out, ", of which the last %d brought nothing further", s->starts.idle);
        fprintf(out, "; last by `dcanas %s` with %d rank%s, %s ago", s->starts.command, s->starts.ranks,
                s->starts.ranks == 1 ? "" : "s", dc_format_duration(age(s->starts.started_s)).s);
        if (*l->job)
            fprintf(out, " in job %s, queued again %d time%s", l->job, l->restarts, l->restarts == 1 ? "" : "s");
        if (*s->starts.last && strcmp(s->starts.last, "done") != 0)
            fprintf(out, "\n  ended with: %s", s->starts.last);
        fprintf(out, "\n");
    }
}

static void print_phase(const status *s, int f, FILE *out)
{
    const dc_survey_phase *phase = &s->survey.phase[f];
    const dc_survey *v = &s->survey;
    fprintf(out, "  %-13s %-10s", dc_phase_names[f], phase_state(s, f));
    if (f != DC_PHASE_TRAIN && phase->items > 0)
        fprintf(out, " %d of %s%d done, %d begun, %d left", phase->done,
                f == DC_PHASE_SELECT && !phase_done(phase) ? "at most " : "", phase->items, phase->begun,
                phase->items - phase->done - phase->begun);
    if (f == DC_PHASE_TRAIN && phase->begun + phase->done > 0)
        fprintf(out, " %d of %d epochs", v->epoch, v->epochs);
    if (f == DC_PHASE_TRAIN && phase->begun > 0)
        fprintf(out, ", step %d of %d", v->step, v->steps);
    if (phase->begun > 0)
        fprintf(out, " (%.1f %%)", 100 * phase->share);
    if (f == DC_PHASE_TRAIN && v->last_accuracy >= 0)
        fprintf(out, ", test accuracy %.2f %%, best %.2f %% in epoch %d", 100 * v->last_accuracy, 100 * phase->accuracy,
                v->best_epoch);
    else if (phase->accuracy >= 0)
        fprintf(out, ", best validation accuracy %.2f %%", 100 * phase->accuracy);
    if (v->seconds[f] > 0)
        fprintf(out, ", %s", dc_format_duration(v->seconds[f]).s);
    fprintf(out, "\n");
}

static void print_text(const status *s, FILE *out)
{
    print_owner(s, out);
    for (int f = 0; f < DC_PHASES; f++)
        print_phase(s, f, out);
    double newest = newest_checkpoint(&s->survey);
    if (newest > 0)
        fprintf(out, "  last checkpoint %s ago\n", dc_format_duration(age(newest)).s);
    if (s->state == FINISHED)
        return;
    if (s->seconds_left >= 0)
        fprintf(out, "  time left, estimated: %s of work", dc_format_duration(s->seconds_left).s);
    else
        fprintf(out, "  time left: not known yet");
    if (s->seconds_left >= 0 && s->told_until < DC_PHASES) {
        fprintf(out, "; not known yet for");
        for (int f = s->told_until; f < DC_PHASES; f++)
            fprintf(out, "%s %s", f > s->told_until ? "," : "", dc_phase_names[f]);
    }
    fprintf(out, "\n");
}

/* ---- for machines ---- */

static void add_known(cJSON *object, const char *name, double value)
{
    if (value >= 0)
        cJSON_AddNumberToObject(object, name, value);
    else
        cJSON_AddNullToObject(object, name);
}

static void add_lock(const status *s, cJSON *root)
{
    static const char *const lives[] = {"free", "lives", "dead", "unknown"};
    cJSON *lock = cJSON_AddObjectToObject(root, "lock");
    cJSON_AddNumberToObject(lock, "generation", (double)s->lock.generation);
    cJSON_AddStringToObject(lock, "owner", lives[s->lock.life]);
    cJSON_AddStringToObject(lock, "host", s->lock.host);
    cJSON_AddNumberToObject(lock, "process", (double)s->lock.process);
    cJSON_AddStringToObject(lock, "job", s->lock.job);
    cJSON_AddNumberToObject(lock, "job_restarts", s->lock.restarts);
    cJSON_AddNumberToObject(lock, "last_sign_of_life_age", s->lock.beat_age_s);
}

static void add_phases(const status *s, cJSON *root)
{
    cJSON *list = cJSON_AddArrayToObject(root, "phases");
    for (int f = 0; f < DC_PHASES; f++) {
        const dc_survey_phase *phase = &s->survey.phase[f];
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "name", dc_phase_names[f]);
        cJSON_AddStringToObject(item, "state", phase_state(s, f));
        cJSON_AddNumberToObject(item, "items", phase->items);
        cJSON_AddNumberToObject(item, "done", phase->done);
        cJSON_AddNumberToObject(item, "begun", phase->begun);
        cJSON_AddNumberToObject(item, "share", phase->share);
        add_known(item, "best_accuracy", phase->accuracy);
        add_known(item, "work_left", phase->work_left_s);
        cJSON_AddNumberToObject(item, "seconds", s->survey.seconds[f]);
        cJSON_AddItemToArray(list, item);
    }
    cJSON *training = cJSON_AddObjectToObject(root, "training");
    cJSON_AddNumberToObject(training, "epoch", s->survey.epoch);
    cJSON_AddNumberToObject(training, "epochs", s->survey.epochs);
    cJSON_AddNumberToObject(training, "step", s->survey.step);
    cJSON_AddNumberToObject(training, "steps", s->survey.steps);
    add_known(training, "accuracy", s->survey.last_accuracy);
    cJSON_AddNumberToObject(training, "best_epoch", s->survey.best_epoch);
}

static dc_status print_json(const status *s, FILE *out)
{
    cJSON *root = cJSON_CreateObject();
    double newest = newest_checkpoint(&s->survey);
    cJSON_AddStringToObject(root, "folder", s->folder);
    cJSON_AddStringToObject(root, "state", state_names[s->state]);
    cJSON_AddBoolToObject(root, "finished", s->survey.finished);
    cJSON_AddNumberToObject(root, "starts", s->starts.starts);
    cJSON_AddNumberToObject(root, "starts_without_progress", s->starts.idle);
    cJSON_AddStringToObject(root, "command", s->starts.command);
    cJSON_AddNumberToObject(root, "ranks", s->starts.ranks);
    add_known(root, "started_age", s->starts.starts ? age(s->starts.started_s) : -1);
    cJSON_AddStringToObject(root, "ended_with", s->starts.last);
    add_lock(s, root);
    add_phases(s, root);
    add_known(root, "last_checkpoint_age", newest > 0 ? age(newest) : -1);
    add_known(root, "seconds_left", s->seconds_left);
    cJSON *unknown = cJSON_AddArrayToObject(root, "phases_without_estimate");
    for (int f = s->told_until; f < DC_PHASES; f++)
        cJSON_AddItemToArray(unknown, cJSON_CreateString(dc_phase_names[f]));
    return dc_json_print(root, out);
}

dc_status dc_status_command(int argc, char *const *argv, FILE *out)
{
    dc_args *args;
    DC_TRY(dc_args_parse(&command, argc, argv, &args));
    dc_status result = DC_OK;
    if (dc_args_has(args, "help")) {
        dc_args_print_help("dcanas", &command, out);
    } else {
        status *s = dc_alloc(sizeof *s);
        result = s ? look(dc_args_at(args, 0), s) : DC_ERR_MEMORY;
        if (result == DC_OK && dc_args_has(args, "json"))
            result = print_json(s, out);
        else if (result == DC_OK)
            print_text(s, out);
        free(s);
    }
    dc_args_destroy(args);
    return result;
}
