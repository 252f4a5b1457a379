#include "base/lock.h"

#include "base/clock.h"
#include "base/files.h"
#include "base/signals.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { RECORD_BYTES = 1024, SUFFIX_CHARS = 40 }; /* a record is one write of this size */

struct dc_lock {
    char path[DC_PATH_CHARS], what[DC_PATH_CHARS];
    int64_t generation, beat;
    double timeout_s;
    void (*lost)(dc_status);
    bool owner, stopping;
    pthread_t thread; /* the owner's */
    pthread_mutex_t mutex;
    pthread_cond_t wake;
};

/* ---- this process, and another one of this machine ---- */

typedef struct identity {
    char host[128], boot[64], space[64], job[64];
    long process, started; /* started: in clock ticks since boot, so that a number that was given again is another */
    int restarts;
} identity;

/* Field 22 of /proc/PID/stat; 0 for a process that is gone or a zombie. */
static long start_of(long process)
{
    char path[64], *text, state = 'X';
    long started = 0;
    snprintf(path, sizeof path, "/proc/%ld/stat", process);
    if (dc_file_read(path, &text, NULL) != DC_OK)
        return 0;
    const char *after = strrchr(text, ')'); /* the name may hold anything */
    if (!after || sscanf(after + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %ld",
                         &state, &started) != 2)
        started = 0;
    free(text);
    return state == 'Z' || state == 'X' ? 0 : started;
}

static void copy_line(const char *from, char *to, size_t size)
{
    snprintf(to, size, "%.*s", (int)strcspn(from, "\n"), from);
}

/* Of Slurm, PBS or LSF. */
static const char *batch_job(void)
{
    static const char *const names[] = {"SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (getenv(names[i]))
            return getenv(names[i]);
    return "";
}

static identity identity_of_this(void)
{
    identity me = {.process = (long)getpid()};
    char *boot;
    gethostname(me.host, sizeof me.host - 1);
    if (dc_file_read("/proc/sys/kernel/random/boot_id", &boot, NULL) == DC_OK) {
        copy_line(boot, me.boot, sizeof me.boot);
        free(boot);
    }
    if (readlink("/proc/self/ns/pid", me.space, sizeof me.space - 1) < 0)
        me.space[0] = 0;
    copy_line(batch_job(), me.job, sizeof me.job);
    const char *restarts = getenv("SLURM_RESTART_COUNT");
    me.restarts = restarts ? atoi(restarts) : 0;
    me.started = start_of(me.process);
    return me;
}

/* ---- the files ---- */

static void beside(const char *path, const char *suffix, int64_t number, char out[DC_PATH_CHARS + SUFFIX_CHARS])
{
    if (number < 0)
        snprintf(out, DC_PATH_CHARS + SUFFIX_CHARS, "%s%s", path, suffix);
    else
        snprintf(out, DC_PATH_CHARS + SUFFIX_CHARS, "%s%s%lld", path, suffix, (long long)number);
}

/* One line of JSON, filled up with blanks: a reader sees the old record, the new one, or none. */
static dc_status write_record(const char *path, cJSON *record)
{
    char text[RECORD_BYTES];
    memset(text, ' ', sizeof text);
    bool fits = record && cJSON_PrintPreallocated(record, text, (int)sizeof text - 8, 0);
    cJSON_Delete(record);
    if (!fits)
        return dc_fail(DC_ERR_MEMORY, "out of memory while %s was written", path);
    size_t length = strlen(text);
    memset(text + length, ' ', sizeof text - length);
    text[sizeof text - 1] = '\n';
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return dc_fail(DC_ERR_IO, "cannot create %s: %s", path, strerror(errno));
    dc_status status = dc_file_write_all(fd, path, text, sizeof text);
    if (status == DC_OK && fsync(fd))
        status = dc_fail(DC_ERR_IO, "cannot write %s: %s", path, strerror(errno));
    close(fd);
    return status;
}

static cJSON *read_record(const char *path)
{
    char *text;
    if (dc_file_read(path, &text, NULL) != DC_OK)
        return NULL;
    cJSON *record = cJSON_Parse(text);
    free(text);
    return record;
}

static double number_of(const cJSON *record, const char *name)
{
    const cJSON *item = cJSON_GetObjectItem(record, name);
    return cJSON_IsNumber(item) && item->valuedouble >= 0 && item->valuedouble < 1e15 ? item->valuedouble : 0;
}

static void text_of(const cJSON *record, const char *name, char *out, size_t size)
{
    const cJSON *item = cJSON_GetObjectItem(record, name);
    copy_line(cJSON_IsString(item) ? item->valuestring : "", out, size);
}

/* path: the record, or a claim. */
static dc_status write_owner(const char *path, const dc_lock *lock)
{
    identity me = identity_of_this();
    cJSON *record = cJSON_CreateObject();
    cJSON_AddNumberToObject(record, "generation", (double)lock->generation);
    cJSON_AddStringToObject(record, "host", me.host);
    cJSON_AddNumberToObject(record, "process", (double)me.process);
    cJSON_AddNumberToObject(record, "started", (double)me.started);
    cJSON_AddStringToObject(record, "boot", me.boot);
    cJSON_AddStringToObject(record, "space", me.space);
    cJSON_AddStringToObject(record, "job", me.job);
    cJSON_AddNumberToObject(record, "restarts", me.restarts);
    return write_record(path, record);
}

static dc_status write_beat(const dc_lock *lock, bool ended)
{
    char path[DC_PATH_CHARS + SUFFIX_CHARS];
    beside(lock->path, ".beat", -1, path);
    cJSON *record = cJSON_CreateObject();
    cJSON_AddNumberToObject(record, "generation", (double)lock->generation);
    cJSON_AddNumberToObject(record, "beat", (double)lock->beat);
    cJSON_AddBoolToObject(record, "ended", ended);
    return write_record(path, record);
}

/* ---- looking ---- */

/* Of the process that a record names; unknown without a record. */
static dc_lock_life life_of(const cJSON *record)
{
    if (!record)
        return DC_LOCK_UNKNOWN;
    identity me = identity_of_this();
    char host[sizeof me.host], boot[sizeof me.boot], space[sizeof me.space];
    text_of(record, "host", host, sizeof host);
    text_of(record, "boot", boot, sizeof boot);
    text_of(record, "space", space, sizeof space);
    if (strcmp(host, me.host) != 0 || strcmp(space, me.space) != 0)
        return DC_LOCK_UNKNOWN;
    if (strcmp(boot, me.boot) != 0) /* this machine has been started since */
        return DC_LOCK_DEAD;
    long started = start_of((long)number_of(record, "process"));
    return started != 0 && started == (long)number_of(record, "started") ? DC_LOCK_LIVES : DC_LOCK_DEAD;
}

dc_lock_view dc_lock_look(const char *path)
{
    char beat_path[DC_PATH_CHARS + SUFFIX_CHARS];
    struct stat info;
    dc_lock_view view = {0};
    beside(path, ".beat", -1, beat_path);
    cJSON *record = read_record(path), *beat = read_record(beat_path);
    int64_t beats_for = (int64_t)number_of(beat, "generation");
    view.generation = record ? (int64_t)number_of(record, "generation") : beats_for;
    text_of(record, "host", view.host, sizeof view.host);
    text_of(record, "job", view.job, sizeof view.job);
    view.process = (long)number_of(record, "process");
    view.restarts = (int)number_of(record, "restarts");
    bool of_owner = beats_for == view.generation;
    view.beat = of_owner ? (int64_t)number_of(beat, "beat") : 0;
    if (stat(beat_path, &info) == 0)
        view.beat_age_s = dc_clock_wall() - (double)info.st_mtim.tv_sec;
    if (view.beat_age_s < 0)
        view.beat_age_s = 0;
    bool ended = of_owner && cJSON_IsTrue(cJSON_GetObjectItem(beat, "ended"));
    view.life = view.generation == 0 || ended ? DC_LOCK_FREE : life_of(record);
    cJSON_Delete(record);
    cJSON_Delete(beat);
    return view;
}

static dc_status in_use(const char *what, const dc_lock_view *owner)
{
    char job[96] = "";
    if (*owner->job)
        snprintf(job, sizeof job, ", job %s", owner->job);
    return dc_fail(DC_ERR_INPUT,
                   "%s is in use by another job (host %s, process %ld%s): wait for it, or choose another directory",
                   what, *owner->host ? owner->host : "unknown", owner->process, job);
}

/* ---- taking ---- */

static dc_status pause_s(double seconds, const char *what)
{
    struct timespec pause = {(time_t)seconds, (long)(1e9 * (seconds - (double)(time_t)seconds))};
    nanosleep(&pause, NULL);
    return dc_signals_received() ? dc_fail(DC_INTERRUPTED, "interrupted while waiting for %s", what) : DC_OK;
}

/* Looks again and again, until the owner is known to be gone (*gone), shows life, or timeout_s is over: an owner that
 * has been silent for so long is taken for dead. patient: life is no reason to end. */
static dc_status watch(const dc_lock *lock, dc_lock_view *owner, bool patient, bool *gone)
{
    double began = dc_clock_seconds(), heard = began;
    for (;;) {
        double now = dc_clock_seconds();
        dc_lock_view view = dc_lock_look(lock->path);
        bool same = view.generation == owner->generation;
        *gone = same && (view.life == DC_LOCK_FREE || view.life == DC_LOCK_DEAD);
        if (!same || *gone)
            break;
        if (view.life == DC_LOCK_LIVES || view.beat != owner->beat)
            heard = now;
        *owner = view;
        if (now - heard > lock->timeout_s) {
            *gone = true;
            break;
        }
        if (heard > began && !patient)
            break;
        if (now - began > lock->timeout_s)
            break;
        DC_TRY(pause_s(lock->timeout_s / 50, lock->what));
    }
    return DC_OK;
}

/* Whether the process that made this claim is known to be gone. One that was killed before it wrote its name is not. */
static bool is_left(const char *claim)
{
    cJSON *record = read_record(claim);
    dc_lock_life life = life_of(record);
    cJSON_Delete(record);
    return life == DC_LOCK_DEAD;
}

/* Creates the file that lets this process write the next record: of lock->generation, the first after the owner's that
 * is free. One that stands there although the record does not change is left of a process that died over it. *made:
 * false when somebody else has become the owner. */
static dc_status make_claim(dc_lock *lock, const dc_lock_view *owner, bool *made)
{
    char path[DC_PATH_CHARS + SUFFIX_CHARS];
    double began = dc_clock_seconds();
    lock->generation = owner->generation + 1;
    for (;;) {
        beside(lock->path, ".claim-", lock->generation, path);
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        int error = errno;
        if (fd >= 0)
            close(fd);
        else if (error != EEXIST)
            return dc_fail(DC_ERR_IO, "cannot create %s: %s", path, strerror(error));
        *made = fd >= 0;
        if (*made || dc_lock_look(lock->path).generation != owner->generation)
            return DC_OK;
        if (is_left(path) || dc_clock_seconds() - began > lock->timeout_s) {
            lock->generation++;
            began = dc_clock_seconds();
            continue;
        }
        DC_TRY(pause_s(lock->timeout_s / 50, lock->what));
    }
}

/* Makes this process the owner after `owner`, if nobody is faster (*taken). */
static dc_status claim(dc_lock *lock, const dc_lock_view *owner, bool *taken)
{
    char path[DC_PATH_CHARS + SUFFIX_CHARS];
    dc_status status = DC_OK;
    *taken = false;
    DC_TRY(make_claim(lock, owner, taken));
    if (!*taken)
        return DC_OK;
    beside(lock->path, ".claim-", lock->generation, path);
    status = write_owner(path, lock); /* so that who finds it left need not wait */
    /* the claim may be newer than the end of somebody else's on the same generation */
    *taken = status == DC_OK && dc_lock_look(lock->path).generation == owner->generation;
    if (*taken) {
        lock->beat = 1;
        status = write_owner(lock->path, lock);
        if (status == DC_OK)
            status = write_beat(lock, false);
    }
    for (int64_t g = owner->generation; g <= lock->generation; g++) {
        beside(lock->path, ".claim-", g, path);
        unlink(path);
    }
    return status;
}

/* An earlier start of the same batch job, which has been requeued since. */
static bool is_predecessor(const dc_lock_view *owner)
{
    identity me = identity_of_this();
    return *me.job && strcmp(me.job, owner->job) == 0 && owner->restarts < me.restarts;
}

static dc_status take(dc_lock *lock)
{
    for (bool taken = false, gone; !taken;) {
        dc_lock_view owner = dc_lock_look(lock->path);
        gone = owner.life == DC_LOCK_FREE || owner.life == DC_LOCK_DEAD;
        bool predecessor = !gone && is_predecessor(&owner);
        if (!gone && !predecessor && owner.life == DC_LOCK_LIVES)
            return in_use(lock->what, &owner);
        int64_t generation = owner.generation;
        if (!gone)
            DC_TRY(watch(lock, &owner, predecessor, &gone));
        if (dc_lock_look(lock->path).generation != generation)
            continue; /* somebody else was faster */
        if (!gone && !predecessor)
            return in_use(lock->what, &owner);
        DC_TRY(claim(lock, &owner, &taken));
        for (double until = dc_clock_seconds() + lock->timeout_s; taken && !gone && dc_clock_seconds() < until;)
            DC_TRY(pause_s(lock->timeout_s / 50, lock->what)); /* a write that it had begun ends */
    }
    return DC_OK;
}

/* ---- holding ---- */

static void *beat_on(void *context)
{
    dc_lock *lock = context;
    dc_status status = DC_OK;
    pthread_mutex_lock(&lock->mutex);
    while (!lock->stopping && status == DC_OK) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        double at = (double)until.tv_nsec * 1e-9 + lock->timeout_s / 6;
        until.tv_sec += (time_t)at;
        until.tv_nsec = (long)(1e9 * (at - (double)(time_t)at));
        if (pthread_cond_timedwait(&lock->wake, &lock->mutex, &until) != ETIMEDOUT)
            continue;
        status = dc_lock_check(lock);
        lock->beat++;
        if (status == DC_OK)
            write_beat(lock, false); /* one that fails is only a sign of life less */
    }
    pthread_mutex_unlock(&lock->mutex);
    if (status != DC_OK && lock->lost)
        lock->lost(status);
    return NULL;
}

static dc_status begin_beating(dc_lock *lock)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&lock->mutex, NULL);
    pthread_cond_init(&lock->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    int error = pthread_create(&lock->thread, NULL, beat_on, lock);
    lock->owner = error == 0;
    return error ? dc_fail(DC_ERR_MEMORY, "no thread for the lock of %s: %s", lock->what, strerror(error)) : DC_OK;
}

static dc_status make(const char *path, const char *what, dc_lock **lock)
{
    dc_lock *made = dc_alloc_zeroed(sizeof *made);
    if (!made)
        return DC_ERR_MEMORY;
    snprintf(made->path, sizeof made->path, "%s", path);
    snprintf(made->what, sizeof made->what, "%s", what);
    *lock = made;
    return DC_OK;
}

dc_status dc_lock_acquire(const char *path, const char *what, double timeout_s, void (*lost)(dc_status), dc_lock **lock)
{
    dc_lock *made;
    DC_TRY(make(path, what, &made));
    made->timeout_s = timeout_s;
    made->lost = lost;
    dc_status status = take(made);
    if (status == DC_OK)
        status = begin_beating(made);
    if (status != DC_OK) {
        free(made);
        return status;
    }
    *lock = made;
    return DC_OK;
}

dc_status dc_lock_join(const char *path, const char *what, int64_t generation, dc_lock **lock)
{
    DC_TRY(make(path, what, lock));
    (*lock)->generation = generation;
    return DC_OK;
}

int64_t dc_lock_generation(const dc_lock *lock)
{
    return lock->generation;
}

/* A record that cannot be read says nothing: the disk's errors are met by what is written next. */
dc_status dc_lock_check(const dc_lock *lock)
{
    if (!lock)
        return DC_OK;
    cJSON *record = read_record(lock->path);
    int64_t generation = (int64_t)number_of(record, "generation");
    cJSON_Delete(record);
    if (generation <= lock->generation)
        return DC_OK;
    return dc_fail(DC_ERR_IO, "%s was taken over by a later start (generation %lld): this one, %lld, stops writing",
                   lock->what, (long long)generation, (long long)lock->generation);
}

void dc_lock_release(dc_lock *lock)
{
    if (!lock)
        return;
    if (lock->owner) {
        pthread_mutex_lock(&lock->mutex);
        lock->stopping = true;
        pthread_cond_signal(&lock->wake);
        pthread_mutex_unlock(&lock->mutex);
        pthread_join(lock->thread, NULL);
        if (dc_lock_check(lock) == DC_OK)
            write_beat(lock, true);
        pthread_mutex_destroy(&lock->mutex);
        pthread_cond_destroy(&lock->wake);
    }
    free(lock);
}
