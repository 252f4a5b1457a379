#include "data/import_pictures.h"

#include "base/clock.h"
#include "base/files.h"
#include "base/hash.h"
#include "base/units.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Parts of a failed import that are larger than this stay, to go on from. */
static const uint64_t worth_keeping_bytes = (uint64_t)1 << 30;

void dc_import_show(const dc_import_job *job, const char *what, double progress, size_t n_pictures)
{
    enum { BAR = 30 };
    double seconds = dc_clock_seconds() - job->started_s;
    dc_watchdog_moved(job->comm->watchdog, what, (int64_t)n_pictures);
    if (job->comm->rank != 0 || seconds < 1 || !dc_log_status_due(job->log))
        return;
    char bar[BAR + 1], line[256];
    const char *const lines[] = {line};
    int filled = (int)(progress * BAR);
    for (int i = 0; i < BAR; i++)
        bar[i] = i < filled ? '#' : '.';
    bar[BAR] = '\0';
    snprintf(line, sizeof line, "%s [%s] %3.0f %%  %s pictures, %s", what, bar, 100 * progress,
             dc_format_count((int64_t)n_pictures).s, dc_format_duration(seconds).s);
    if (progress > 0.02)
        snprintf(line + strlen(line), sizeof line - strlen(line), ", %s left",
                 dc_format_duration(seconds * (1 - progress) / progress).s);
    dc_log_status(job->log, 1, lines);
}

/* ---- what an earlier import left ---- */

static int by_number(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static dc_status find_done(dc_import_job *job)
{
    dc_record_place *places;
    size_t n;
    DC_TRY(dc_spool_scan(job->spool, &places, &n));
    job->done = dc_alloc((n + 1) * sizeof *job->done);
    for (size_t i = 0; job->done && i < n; i++)
        job->done[i] = places[i].record.stamp;
    free(places);
    if (!job->done)
        return DC_ERR_MEMORY;
    job->n_done = n;
    qsort(job->done, n, sizeof *job->done, by_number);
    return DC_OK;
}

/* Of all that a record depends on. */
static uint64_t identity_of(const dc_import_job *job)
{
    const dc_import_options *o = job->options;
    dc_hash hash;
    dc_hash_init(&hash);
    char *path = realpath(job->rules.source, NULL);
    dc_hash_text(&hash, path ? path : job->rules.source);
    free(path);
    dc_hash_i64(&hash, job->size);
    dc_hash_i64(&hash, o->reencode);
    dc_hash_i64(&hash, o->quality);
    return dc_hash_end(&hash);
}

/* ---- a job ---- */

/* The source's name without folder and ending. */
static dc_status name_set(dc_import_job *job)
{
    if (job->options->name) {
        if (snprintf(job->name, sizeof job->name, "%s", job->options->name) >= (int)sizeof job->name)
            return dc_fail(DC_ERR_INPUT, "--name %.80s...: at most %d characters", job->options->name,
                           DC_CLASS_NAME_CHARS - 1);
        return DC_OK;
    }
    char *path = realpath(job->rules.source, NULL);
    if (!path)
        return dc_fail(DC_ERR_IO, "cannot read %s", job->rules.source);
    const char *base = strrchr(path, '/') + 1, *dot = strchr(base, '.');
    int n = dot && dot > base ? (int)(dot - base) : (int)strlen(base);
    snprintf(job->name, sizeof job->name, "%.*s", n, *base ? base : "pictures");
    free(path);
    return DC_OK;
}

/* Labels that the source does not hold. */
static dc_status read_labels(dc_import_job *job)
{
    const char *path = job->options->labels;
    if (!path || job->comm->rank != 0)
        return DC_OK;
    DC_TRY(dc_file_read(path, &job->truth_text, NULL));
    if (asprintf(&job->truth_name, "%s", path) < 0) {
        job->truth_name = NULL;
        return dc_fail(DC_ERR_MEMORY, "%s", path);
    }
    return DC_OK;
}

static dc_status prepare(dc_import_job *job)
{
    DC_TRY(name_set(job));
    DC_TRY(read_labels(job));
    if (!(job->readers = dc_alloc_zeroed((size_t)job->threads * sizeof *job->readers)))
        return DC_ERR_MEMORY;
    for (int i = 0; i < job->threads; i++)
        DC_TRY(dc_picture_reader_create(&job->readers[i]));
    return dc_spool_open(job->destination, job->comm->rank, identity_of(job), &job->spool);
}

static void list_clear(dc_import_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        free(list->names[i]);
    free(list->names);
    free(list->stamps);
}

static void job_clear(dc_import_job *job, bool remove_parts)
{
    for (int i = 0; job->readers && i < job->threads; i++)
        dc_picture_reader_destroy(job->readers[i]);
    free(job->readers);
    free(job->done);
    free(job->truth_name);
    free(job->truth_text);
    list_clear(&job->pictures);
    list_clear(&job->folders);
    dc_spool_close(job->spool, remove_parts);
}

static dc_status run(dc_import_job *job)
{
    const dc_comm *comm = job->comm;
    DC_TRY_ALL(comm, prepare(job));
    DC_TRY_ALL(comm, find_done(job));
    if (job->n_done)
        dc_log_info(job->log, "going on from %s pictures that an earlier import has read",
                    dc_format_count((int64_t)job->n_done).s);
    DC_TRY(dc_import_read(job));
    dc_status status = comm->rank == 0 ? dc_import_assemble(job) : DC_OK;
    DC_TRY(dc_comm_barrier(comm));
    return dc_comm_agree(comm, status);
}

/* Parts are removed when the file is whole, and after a failure when there is little in them. */
static bool wants_parts_removed(const dc_import_job *job, dc_status status)
{
    if (job->comm->rank != 0 || status == DC_INTERRUPTED)
        return false;
    if (status == DC_OK || !job->spool || dc_spool_bytes(job->spool) < worth_keeping_bytes)
        return true;
    dc_log_warn(job->log, "what has been read stays in %s.part-*, and another import goes on from there",
                job->destination);
    return false;
}

dc_status dc_import_pictures(const dc_comm *comm, dc_log *log, const char *source, const char *destination,
                             const dc_layout_rules *rules, int size, const dc_import_options *options)
{
    dc_import_job job = {.comm = comm,
                         .log = log,
                         .destination = destination,
                         .options = options,
                         .rules = *rules,
                         .size = size,
                         .threads = options->threads ? options->threads : comm->cores,
                         .started_s = dc_clock_seconds()};
    job.rules.source = source;
    dc_status status = run(&job);
    char message[1024];
    snprintf(message, sizeof message, "%s", dc_status_message());
    dc_log_status(log, 0, NULL);
    job_clear(&job, wants_parts_removed(&job, status));
    return status == DC_OK ? DC_OK : dc_fail(status, "%s", message);
}
