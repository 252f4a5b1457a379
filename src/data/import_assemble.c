#include "base/hash.h"
#include "base/signals.h"
#include "base/units.h"
#include "data/import_pictures.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LISTED = 24, BATCH = 1024 };

/* One picture of the source. */
typedef struct entry {
    const char *name;
    size_t place; /* of its record */
    size_t twin;  /* an equal picture, or one of the same name, that came before; itself: none */
    int32_t label;
    uint8_t splits; /* as dc_layout has it; 0: left out */
} entry;

typedef struct assembly {
    dc_import_job *job;
    dc_record_place *places; /* sorted by stamp */
    size_t n_places;
    entry *entries; /* once they are laid out: in the order in which they are written */
    size_t n;
    size_t *order; /* of what one split holds */
    dc_layout layout;
    dc_dataset_head head;
    dc_dataset_writer *writer;
    size_t n_written;
} assembly;

static const dc_record *record_of(const assembly *a, const entry *e)
{
    return &a->places[e->place].record;
}

/* ---- which pictures there are ---- */

static int by_stamp(const void *a, const void *b)
{
    const dc_record_place *x = a, *y = b;
    return (x->record.stamp > y->record.stamp) - (x->record.stamp < y->record.stamp);
}

static dc_status find_records(assembly *a)
{
    const dc_import_list *list = &a->job->pictures;
    DC_TRY(dc_spool_scan(a->job->spool, &a->places, &a->n_places));
    qsort(a->places, a->n_places, sizeof *a->places, by_stamp);
    if (!(a->entries = dc_alloc((list->n + 1) * sizeof *a->entries)))
        return DC_ERR_MEMORY;
    for (size_t i = 0; i < list->n; i++) {
        const dc_record_place wanted = {.record.stamp = list->stamps[i]};
        const dc_record_place *found = bsearch(&wanted, a->places, a->n_places, sizeof wanted, by_stamp);
        if (!found)
            return dc_fail(DC_ERR_IO, "%s: %s was changed during the import", a->job->rules.source, list->names[i]);
        a->entries[i] = (entry){.name = list->names[i], .place = (size_t)(found - a->places), .twin = i};
    }
    a->n = list->n;
    return DC_OK;
}

typedef struct content {
    uint64_t hash, bytes;
    size_t entry;
} content;

static int by_content(const void *a, const void *b)
{
    const content *x = a, *y = b;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    return (x->entry > y->entry) - (x->entry < y->entry);
}

static int by_name(const void *a, const void *b)
{
    const entry *const *x = a, *const *y = b;
    int order = strcmp((*x)->name, (*y)->name);
    return order ? order : (*x > *y) - (*x < *y);
}

/* An archive may hold a name twice. */
static dc_status find_namesakes(assembly *a)
{
    entry **sorted = dc_alloc((a->n + 1) * sizeof *sorted);
    if (!sorted)
        return DC_ERR_MEMORY;
    for (size_t i = 0; i < a->n; i++)
        sorted[i] = &a->entries[i];
    qsort(sorted, a->n, sizeof *sorted, by_name);
    for (size_t i = 1; i < a->n; i++)
        if (strcmp(sorted[i]->name, sorted[i - 1]->name) == 0)
            sorted[i]->twin = sorted[i - 1]->twin;
    free(sorted);
    return DC_OK;
}

static dc_status find_equals(assembly *a)
{
    content *contents = dc_alloc((a->n + 1) * sizeof *contents);
    if (!contents)
        return DC_ERR_MEMORY;
    for (size_t i = 0; i < a->n; i++) {
        const dc_record *record = record_of(a, &a->entries[i]);
        contents[i] = (content){record->source_hash, record->source_bytes, i};
    }
    qsort(contents, a->n, sizeof *contents, by_content);
    for (size_t i = 1; i < a->n; i++)
        if (contents[i].hash == contents[i - 1].hash && contents[i].bytes == contents[i - 1].bytes)
            a->entries[contents[i].entry].twin = a->entries[contents[i - 1].entry].twin;
    free(contents);
    return DC_OK;
}

static bool is_bad(const assembly *a, const entry *e)
{
    return record_of(a, e)->form == DC_RECORD_BAD || &a->entries[e->twin] != e;
}

/* Why a picture is bad, as a text to free; NULL: for want of memory. */
static char *reason_of(const assembly *a, const entry *e)
{
    const dc_record_place *place = &a->places[e->place];
    const char *twin = a->entries[e->twin].name;
    char *text = NULL;
    if (place->record.form == DC_RECORD_BAD) {
        if ((text = dc_alloc_zeroed(place->record.n_bytes + 1)) && dc_spool_read(a->job->spool, place, text) != DC_OK)
            snprintf(text, place->record.n_bytes + 1, "unreadable");
    } else if (strcmp(twin, e->name) == 0 ? asprintf(&text, "another picture has the same name") < 0
                                          : asprintf(&text, "the same picture as %s", twin) < 0) {
        text = NULL;
    }
    return text;
}

/* Lists what cannot be taken, and fails unless it may be left out. */
static dc_status list_bad(const assembly *a)
{
    size_t n_bad = 0;
    char first[512] = "";
    for (size_t i = 0; i < a->n; i++) {
        const entry *e = &a->entries[i];
        if (!is_bad(a, e))
            continue;
        char *reason = n_bad < MAX_LISTED ? reason_of(a, e) : NULL;
        if (!n_bad)
            snprintf(first, sizeof first, "%s: %s", e->name, reason ? reason : "");
        if (reason)
            dc_log_warn(a->job->log, "%s: %s", e->name, reason);
        free(reason);
        n_bad++;
    }
    if (!n_bad)
        return DC_OK;
    if (n_bad > MAX_LISTED)
        dc_log_warn(a->job->log, "... and %zu more", n_bad - MAX_LISTED);
    if (!a->job->options->skip_bad)
        return dc_fail(DC_ERR_INPUT,
                       "%s: %zu of %zu pictures cannot be read or are there twice (--skip-bad leaves them out), the "
                       "first: %s",
                       a->job->rules.source, n_bad, a->n, first);
    dc_log_warn(a->job->log, "%zu of %zu pictures are left out", n_bad, a->n);
    return DC_OK;
}

/* ---- what is made of them ---- */

static int by_label_and_name(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->label != y->label)
        return x->label < y->label ? -1 : 1;
    return strcmp(x->name, y->name);
}

static dc_status lay_out(assembly *a)
{
    dc_import_job *job = a->job;
    const char **names = dc_alloc((a->n + 1) * sizeof *names);
    bool *bad = dc_alloc((a->n + 1) * sizeof *bad);
    const dc_layout_truth truth = {job->truth_name, job->truth_text, job->options->labels != NULL};
    dc_status status = names && bad ? DC_OK : DC_ERR_MEMORY;
    for (size_t i = 0; status == DC_OK && i < a->n; i++) {
        names[i] = a->entries[i].name;
        bad[i] = is_bad(a, &a->entries[i]);
    }
    if (status == DC_OK)
        status = dc_layout_make(&job->rules, a->n, names, bad, job->folders.n, (const char *const *)job->folders.names,
                                truth, &a->layout);
    free(names);
    free(bad);
    DC_TRY(status);
    for (size_t i = 0; i < a->n; i++) {
        a->entries[i].label = a->layout.labels[i];
        a->entries[i].splits = a->layout.labels[i] >= 0 ? a->layout.splits[i] : 0;
    }
    qsort(a->entries, a->n, sizeof *a->entries, by_label_and_name);
    return DC_OK;
}

static bool is_in(const entry *e, dc_split split)
{
    return e->splits >> split & 1;
}

/* All of one size that is small: pixels; else JPEG. */
static void choose_storage(assembly *a)
{
    const dc_record *first = NULL;
    bool small = true;
    for (size_t i = 0; i < a->n; i++) {
        const dc_record *r = record_of(a, &a->entries[i]);
        if (!a->entries[i].splits)
            continue;
        first = first ? first : r;
        small = small && r->h == first->h && r->w == first->w && r->h <= DC_IMPORT_SMALL_SIDE &&
                r->w <= DC_IMPORT_SMALL_SIDE;
    }
    bool pixels = a->job->size || (small && !a->job->options->reencode);
    a->head.storage = pixels ? DC_STORAGE_PIXELS : DC_STORAGE_JPEG;
    if (pixels && first)
        a->head.shape = (dc_shape){3, first->h, first->w};
}

/* Small PNG among pictures of other sizes. */
static dc_status convert_png(assembly *a, const entry *e)
{
    dc_record_place *place = &a->places[e->place];
    dc_picture picture;
    uint8_t *bytes = dc_alloc(place->record.n_bytes), *jpeg = NULL;
    size_t n_jpeg = 0;
    dc_status status = bytes ? dc_spool_read(a->job->spool, place, bytes) : DC_ERR_MEMORY;
    if (status == DC_OK)
        status = dc_picture_decode(a->job->readers[0], bytes, place->record.n_bytes, 0, &picture);
    if (status == DC_OK)
        status = dc_picture_encode(&picture.rgb, dc_import_quality(a->job->options), &jpeg, &n_jpeg);
    if (status == DC_OK) {
        dc_record record = place->record;
        record.form = DC_RECORD_JPEG;
        record.n_bytes = n_jpeg;
        record.hash = dc_hash_of(jpeg, n_jpeg);
        record.n_name = (uint32_t)strlen(e->name);
        status = dc_spool_append(a->job->spool, &record, e->name, jpeg, place);
    }
    free(jpeg);
    free(bytes);
    return status;
}

static dc_status make_head(assembly *a)
{
    dc_import_job *job = a->job;
    dc_dataset_head *head = &a->head;
    double sum[3] = {0}, squares[3] = {0};
    head->name = job->name;
    head->n_classes = a->layout.n_classes;
    choose_storage(a);
    for (size_t i = 0; i < a->n; i++) {
        const entry *e = &a->entries[i];
        if (!e->splits)
            continue;
        if (head->storage == DC_STORAGE_JPEG && record_of(a, e)->form == DC_RECORD_PNG) {
            DC_TRY(convert_png(a, e));
            dc_import_show(job, "converting", (double)i / (double)a->n, i);
        }
        for (int s = 0; s < DC_SPLIT_COUNT; s++)
            if (is_in(&a->entries[i], (dc_split)s)) {
                head->n[s]++;
                head->jpeg_bytes[s] += record_of(a, e)->n_bytes;
            }
        for (int c = 0; c < 3 && is_in(e, DC_SPLIT_TRAIN); c++) {
            sum[c] += record_of(a, e)->mean[c];
            squares[c] += record_of(a, e)->square[c];
        }
    }
    for (int c = 0; c < 3; c++) {
        double n = head->n[DC_SPLIT_TRAIN];
        head->mean[c] = sum[c] / n;
        head->deviation[c] = sqrt(fmax(0, squares[c] / n - head->mean[c] * head->mean[c]));
    }
    return DC_OK;
}

/* ---- writing ---- */

static void show(assembly *a, size_t n)
{
    a->n_written += n;
    size_t all = a->head.n[DC_SPLIT_TRAIN] + (size_t)a->head.n[DC_SPLIT_TEST];
    dc_import_show(a->job, "writing", (double)a->n_written / (double)all, a->n_written);
}

static dc_status write_jpegs(assembly *a, size_t n)
{
    uint8_t *bytes = NULL;
    size_t capacity = 0;
    dc_status status = DC_OK;
    for (size_t i = 0; i < n && status == DC_OK; i++) {
        const entry *e = &a->entries[a->order[i]];
        const dc_record *record = record_of(a, e);
        if (record->n_bytes > capacity) {
            free(bytes);
            capacity = record->n_bytes;
            if (!(bytes = dc_alloc(capacity)))
                return DC_ERR_MEMORY;
        }
        status = dc_spool_read(a->job->spool, &a->places[e->place], bytes);
        if (status == DC_OK)
            status = dc_dataset_writer_put_jpeg(a->writer, e->label, (dc_picture_size){record->h, record->w}, bytes,
                                                record->n_bytes);
        if (status == DC_OK && dc_signals_received())
            status = dc_fail(DC_INTERRUPTED, "stopped; the same command goes on from here");
        show(a, 1);
    }
    free(bytes);
    return status;
}

/* The pixels of a picture as planes. */
static dc_status decode(const assembly *a, dc_picture_reader *reader, const entry *e, uint8_t *planes)
{
    const dc_record_place *place = &a->places[e->place];
    if (place->record.form == DC_RECORD_PIXELS)
        return dc_spool_read(a->job->spool, place, planes);
    uint8_t *bytes = dc_alloc(place->record.n_bytes);
    if (!bytes)
        return DC_ERR_MEMORY;
    dc_picture picture;
    dc_status status = dc_spool_read(a->job->spool, place, bytes);
    if (status == DC_OK)
        status = dc_picture_decode(reader, bytes, place->record.n_bytes, 0, &picture);
    free(bytes);
    DC_TRY(status);
    const dc_rgb *rgb = &picture.rgb;
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < rgb->h; y++)
            for (int x = 0; x < rgb->w; x++)
                *planes++ = rgb->pixels[y * rgb->stride + 3 * x + c];
    return DC_OK;
}

static dc_status write_batch(assembly *a, size_t first, int n, int32_t *labels, uint8_t *pixels)
{
    size_t image_bytes = 3 * (size_t)a->head.shape.h * (size_t)a->head.shape.w;
    dc_status status = DC_OK;
    char message[512] = "";
#pragma omp parallel for schedule(dynamic, 16) num_threads(a->job->threads)
    for (int i = 0; i < n; i++) {
        const entry *e = &a->entries[a->order[first + (size_t)i]];
        labels[i] = e->label;
        dc_status mine = decode(a, a->job->readers[omp_get_thread_num()], e, pixels + (size_t)i * image_bytes);
        if (mine != DC_OK) {
#pragma omp critical
            {
                status = mine;
                snprintf(message, sizeof message, "%s: %s", e->name, dc_status_message());
            }
        }
    }
    if (status != DC_OK)
        return dc_fail(status, "%s", message);
    show(a, (size_t)n);
    return dc_dataset_writer_put_pixels(a->writer, (uint32_t)n, labels, pixels);
}

static dc_status write_pixels(assembly *a, size_t n)
{
    size_t image_bytes = 3 * (size_t)a->head.shape.h * (size_t)a->head.shape.w;
    uint8_t *pixels = dc_alloc(BATCH * image_bytes);
    int32_t *labels = dc_alloc(BATCH * sizeof *labels);
    dc_status status = pixels && labels ? DC_OK : DC_ERR_MEMORY;
    for (size_t first = 0; first < n && status == DC_OK; first += BATCH) {
        size_t left = n - first;
        status = write_batch(a, first, left < BATCH ? (int)left : BATCH, labels, pixels);
        if (status == DC_OK && dc_signals_received())
            status = dc_fail(DC_INTERRUPTED, "stopped; the same command goes on from here");
    }
    free(pixels);
    free(labels);
    return status;
}

static dc_status write_splits(assembly *a)
{
    for (int s = 0; s < DC_SPLIT_COUNT; s++) {
        size_t n = 0;
        for (size_t i = 0; i < a->n; i++)
            if (is_in(&a->entries[i], (dc_split)s))
                a->order[n++] = i;
        DC_TRY((a->head.storage == DC_STORAGE_PIXELS ? write_pixels : write_jpegs)(a, n));
    }
    return DC_OK;
}

static dc_status write_file(assembly *a)
{
    const char **classes = dc_alloc((size_t)a->layout.n_classes * sizeof *classes);
    if (!classes || !(a->order = dc_alloc((a->n + 1) * sizeof *a->order))) {
        free(classes);
        return DC_ERR_MEMORY;
    }
    for (int c = 0; c < a->layout.n_classes; c++)
        classes[c] = a->layout.classes[c];
    a->head.classes = classes;
    dc_status status = dc_dataset_writer_create(a->job->destination, &a->head, &a->writer);
    free(classes);
    DC_TRY(status);
    status = write_splits(a);
    if (status != DC_OK) {
        dc_dataset_writer_abandon(a->writer);
        return status;
    }
    return dc_dataset_writer_commit(a->writer);
}

/* ---- the whole ---- */

static dc_status assemble(assembly *a)
{
    DC_TRY(find_records(a));
    DC_TRY(find_equals(a));
    DC_TRY(find_namesakes(a));
    DC_TRY(list_bad(a));
    DC_TRY(lay_out(a));
    DC_TRY(make_head(a));
    return write_file(a);
}

dc_status dc_import_assemble(dc_import_job *job)
{
    assembly a = {.job = job};
    dc_status status = assemble(&a);
    free(a.places);
    free(a.entries);
    free(a.order);
    dc_layout_clear(&a.layout);
    return status;
}
