#include "base/hash.h"
#include "base/signals.h"
#include "data/import_pictures.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Pictures that are read before they are decoded, while the threads decode as many. */
enum { BATCH = 512, BATCH_BYTES = 64 << 20 };
/* Mean and deviation are taken of pictures that were shrunk to about the network's own view of them. */
enum { STATISTICS_SIDE = 224 };
enum { FAILED_TAG = 71 };

/* A picture on its way. */
typedef struct item {
    char *name;
    uint8_t *bytes;
    size_t n_bytes;
    dc_record record;
    uint8_t *payload; /* may be bytes */
    dc_status status;
    char message[256]; /* of a failure that is not the picture's */
} item;

typedef struct batch {
    item items[BATCH];
    int n;
    size_t n_bytes;
} batch;

/* ---- one picture ---- */

static void measure(const dc_rgb *rgb, dc_record *record)
{
    uint64_t sum[3] = {0}, squares[3] = {0};
    for (int y = 0; y < rgb->h; y++) {
        const uint8_t *p = rgb->pixels + y * rgb->stride;
        for (int x = 0; x < rgb->w; x++)
            for (int c = 0; c < 3; c++) {
                unsigned value = p[3 * x + c];
                sum[c] += value;
                squares[c] += value * value;
            }
    }
    double n = (double)rgb->w * rgb->h;
    for (int c = 0; c < 3; c++) {
        record->mean[c] = (double)sum[c] / n / 255;
        record->square[c] = (double)squares[c] / n / (255 * 255);
    }
}

static dc_status keep_payload(item *it, dc_record_form form, uint8_t *payload, size_t n_bytes, int h, int w)
{
    it->payload = payload;
    it->record.form = form;
    it->record.n_bytes = n_bytes;
    it->record.h = h;
    it->record.w = w;
    return DC_OK;
}

static dc_status make_pixels(const dc_import_job *job, const dc_rgb *rgb, item *it)
{
    size_t side = (size_t)job->size;
    uint8_t *planes = dc_alloc(3 * side * side);
    if (!planes)
        return DC_ERR_MEMORY;
    keep_payload(it, DC_RECORD_PIXELS, planes, 3 * side * side, job->size, job->size);
    return dc_picture_box(rgb, job->size, planes);
}

/* With a shorter side of `reencode`, unless that is 0 or it is shorter already. */
static dc_status make_jpeg(const dc_import_job *job, dc_picture_reader *reader, const dc_rgb *original, item *it)
{
    uint8_t *bytes;
    size_t n_bytes;
    int wanted = job->options->reencode, shorter = original->w < original->h ? original->w : original->h;
    dc_rgb scaled = *original;
    const dc_rgb *rgb = &scaled;
    if (wanted && shorter > wanted)
        DC_TRY(dc_picture_scale(reader, original, (int)lround((double)original->w * wanted / shorter),
                                (int)lround((double)original->h * wanted / shorter), &scaled));
    DC_TRY(dc_picture_encode(rgb, dc_import_quality(job->options), &bytes, &n_bytes));
    return keep_payload(it, DC_RECORD_JPEG, bytes, n_bytes, rgb->h, rgb->w);
}

static dc_status prepare(const dc_import_job *job, dc_picture_reader *reader, item *it)
{
    dc_picture picture;
    int reencode = job->options->reencode;
    it->record.source_hash = dc_hash_of(it->bytes, it->n_bytes);
    it->record.source_bytes = it->n_bytes;
    DC_TRY(dc_picture_decode(reader, it->bytes, it->n_bytes,
                             job->size  ? 0
                             : reencode ? reencode
                                        : STATISTICS_SIDE,
                             &picture));
    measure(&picture.rgb, &it->record);
    if (job->size)
        return make_pixels(job, &picture.rgb, it);
    bool small = picture.w <= DC_IMPORT_SMALL_SIDE && picture.h <= DC_IMPORT_SMALL_SIDE; /* may be stored decoded */
    bool larger = reencode && picture.w > reencode && picture.h > reencode;
    if (larger || (picture.png && (!small || reencode)))
        return make_jpeg(job, reader, &picture.rgb, it);
    return keep_payload(it, picture.png ? DC_RECORD_PNG : DC_RECORD_JPEG, it->bytes, it->n_bytes, picture.h, picture.w);
}

/* What is wrong with a picture becomes its record. */
static void work(const dc_import_job *job, item *it)
{
    it->status = prepare(job, job->readers[omp_get_thread_num()], it);
    if (it->status == DC_ERR_INPUT) {
        const char *reason = dc_status_message();
        if (it->payload != it->bytes)
            free(it->payload);
        it->payload = dc_alloc(strlen(reason) + 1);
        if (it->payload) {
            strcpy((char *)it->payload, reason);
            it->status = keep_payload(it, DC_RECORD_BAD, it->payload, strlen(reason), 0, 0);
        }
    }
    if (it->status != DC_OK)
        snprintf(it->message, sizeof it->message, "%s", dc_status_message());
    else
        it->record.hash = dc_hash_of(it->payload, it->record.n_bytes);
}

/* ---- batches ---- */

static void batch_clear(batch *b)
{
    for (int i = 0; i < b->n; i++) {
        item *it = &b->items[i];
        if (it->payload != it->bytes)
            free(it->payload);
        free(it->bytes);
        free(it->name);
        *it = (item){0};
    }
    b->n = 0;
    b->n_bytes = 0;
}

/* Writes what the threads made of a batch, and empties it. */
static dc_status batch_store(dc_import_job *job, batch *b, dc_status status)
{
    for (int i = 0; i < b->n && status == DC_OK; i++) {
        const item *it = &b->items[i];
        if (it->status != DC_OK)
            status = dc_fail(it->status, "%s: %s", it->name, it->message);
        else
            status = dc_spool_append(job->spool, &it->record, it->name, it->payload, NULL);
    }
    batch_clear(b);
    return status;
}

static dc_status remember(dc_import_list *list, const char *name, uint64_t stamp)
{
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 1024;
        char **names = dc_realloc(list->names, capacity * sizeof *names);
        list->names = names ? names : list->names;
        uint64_t *stamps = dc_realloc(list->stamps, capacity * sizeof *stamps);
        list->stamps = stamps ? stamps : list->stamps;
        if (!names || !stamps)
            return DC_ERR_MEMORY;
        list->capacity = capacity;
    }
    if (!(list->names[list->n] = dc_alloc(strlen(name) + 1)))
        return DC_ERR_MEMORY;
    strcpy(list->names[list->n], name);
    list->stamps[list->n++] = stamp;
    return DC_OK;
}

static int by_number(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static dc_status keep_truth(dc_import_job *job, dc_source *source, const char *name)
{
    uint8_t *bytes;
    size_t n;
    if (job->truth_text)
        return dc_fail(DC_ERR_INPUT, "%s: files of labels are both %s and %s: --labels chooses", job->rules.source,
                       job->truth_name, name);
    DC_TRY(dc_source_read(source, &bytes, &n));
    job->truth_text = dc_realloc(bytes, n + 1);
    job->truth_name = dc_alloc(strlen(name) + 1);
    if (!job->truth_text || !job->truth_name)
        return DC_ERR_MEMORY;
    job->truth_text[n] = '\0';
    strcpy(job->truth_name, name);
    return DC_OK;
}

static dc_status add_item(dc_source *source, const dc_source_entry *entry, batch *b)
{
    item *it = &b->items[b->n];
    DC_TRY(dc_source_read(source, &it->bytes, &it->n_bytes));
    b->n++; /* from here on it is cleared with the batch */
    b->n_bytes += it->n_bytes;
    it->record.stamp = entry->stamp;
    it->record.n_name = (uint32_t)strlen(entry->name);
    if (!(it->name = dc_alloc(it->record.n_name + 1)))
        return DC_ERR_MEMORY;
    strcpy(it->name, entry->name);
    return DC_OK;
}

/* One file of the source. *turn counts the pictures that somebody has to read. */
static dc_status take(dc_import_job *job, dc_source *source, const dc_source_entry *entry, uint64_t *turn, batch *b)
{
    bool lists = job->comm->rank == 0;
    if (entry->folder)
        return lists ? remember(&job->folders, entry->name, 0) : DC_OK;
    if (dc_layout_is_truth(entry->name) && lists && !job->options->labels)
        return keep_truth(job, source, entry->name);
    if (!dc_layout_wants(&job->rules, entry->name))
        return DC_OK;
    if (lists)
        DC_TRY(remember(&job->pictures, entry->name, entry->stamp));
    if (bsearch(&entry->stamp, job->done, job->n_done, sizeof *job->done, by_number))
        return DC_OK;
    return (*turn)++ % (uint64_t)job->comm->size == (uint64_t)job->comm->rank ? add_item(source, entry, b) : DC_OK;
}

/* ---- ranks that fail ---- */

/* An empty message to all others: they need not read on for an hour. */
static dc_status tell_others(const dc_comm *comm)
{
    for (int rank = 0; rank < comm->size; rank++)
        if (rank != comm->rank)
            DC_MPI(MPI_Send(NULL, 0, MPI_BYTE, rank, FAILED_TAG, comm->mpi));
    return DC_OK;
}

static dc_status check_others(const dc_comm *comm)
{
    int told = 0;
    if (comm->size > 1)
        DC_MPI(MPI_Iprobe(MPI_ANY_SOURCE, FAILED_TAG, comm->mpi, &told, MPI_STATUS_IGNORE));
    return told ? dc_fail(DC_ERR_COMM, "another rank has failed") : DC_OK;
}

/* Takes in the messages, once all ranks have ended. */
static dc_status drain(const dc_comm *comm)
{
    while (check_others(comm) != DC_OK)
        DC_MPI(MPI_Recv(NULL, 0, MPI_BYTE, MPI_ANY_SOURCE, FAILED_TAG, comm->mpi, MPI_STATUS_IGNORE));
    return DC_OK;
}

/* *end: the source is. */
static dc_status fill(dc_import_job *job, dc_source *source, uint64_t *turn, batch *b, bool *end)
{
    while (b->n < BATCH && b->n_bytes < BATCH_BYTES) {
        dc_source_entry entry;
        if (dc_signals_received())
            return dc_fail(DC_INTERRUPTED, "stopped; the same command goes on from here");
        DC_TRY(check_others(job->comm));
        DC_TRY(dc_source_next(source, &entry));
        if ((*end = !entry.name))
            return DC_OK;
        DC_TRY(take(job, source, &entry, turn, b));
        dc_import_show(job, "reading", dc_source_progress(source), job->pictures.n);
    }
    return DC_OK;
}

/* The thread that calls reads and writes; all decode. */
static dc_status run_batches(dc_import_job *job, dc_source *source, batch *reading, batch *working)
{
    dc_status status = DC_OK;
    uint64_t turn = 0;
    bool end = false;
    while (!end && status == DC_OK) {
        status = fill(job, source, &turn, reading, &end);
#pragma omp taskwait
        status = batch_store(job, working, status);
        batch *swap = reading;
        reading = working;
        working = swap;
        for (int i = 0; i < working->n && status == DC_OK; i++) {
            item *it = &working->items[i];
#pragma omp task firstprivate(it)
            work(job, it);
        }
    }
#pragma omp taskwait
    status = batch_store(job, working, status);
    batch_clear(reading);
    return status;
}

static dc_status read_source(dc_import_job *job)
{
    dc_source *source;
    DC_TRY(dc_source_open(job->rules.source, &source));
    batch *batches = dc_alloc_zeroed(2 * sizeof *batches);
    dc_status status = batches ? DC_OK : DC_ERR_MEMORY;
    char message[1024] = ""; /* a message belongs to the thread that failed */
    if (status == DC_OK) {
#pragma omp parallel num_threads(job->threads)
#pragma omp single
        {
            status = run_batches(job, source, &batches[0], &batches[1]);
            if (status != DC_OK)
                snprintf(message, sizeof message, "%s", dc_status_message());
        }
        if (status != DC_OK)
            dc_fail(status, "%s", message);
    }
    free(batches);
    dc_source_close(source);
    return status;
}

dc_status dc_import_read(dc_import_job *job)
{
    const dc_comm *comm = job->comm;
    dc_status status = read_source(job);
    char message[1024];
    snprintf(message, sizeof message, "%s", dc_status_message());
    if (status != DC_OK && status != DC_ERR_COMM)
        DC_TRY(tell_others(comm));
    DC_TRY(dc_comm_barrier(comm)); /* asleep: ranks end at different times */
    DC_TRY(drain(comm));
    if (status != DC_OK)
        dc_fail(status, "%s", message);
    return dc_comm_agree(comm, status);
}
