#include "data/loader.h"

#include "base/clock.h"
#include "base/rng.h"
#include "data/crop.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Stored pixels are cheap: threads take so many images of them at a time, or a block where that is more. */
enum { MANY = 16, ALIGNMENT = 64, MESSAGE_CHARS = 1024 };

/* A batch in the making or made. Parts: images that are to be cropped, or runs of MANY. */
typedef struct slot {
    uint32_t *indices; /* [capacity] of this rank's images */
    uint8_t *bytes;    /* [capacity][C][H][W] of crops, or as pixels; NULL: stored pixels are used where they are */
    const uint8_t **images;  /* [capacity] */
    float *blocks;           /* NULL as pixels; then: */
    dck_augment_draw *draws; /* [capacity] */
    int32_t *labels;
    int *missing; /* [capacity / lane] crops that a block still lacks */
    int n_parts, begun, done;
    dc_batch batch;
    dc_status status; /* of the first part that failed, so that errors are as reproducible as batches */
    int failed_part;
    char message[MESSAGE_CHARS];
} slot;

typedef struct worker {
    dc_loader *loader;
    dc_cropper *cropper; /* NULL: none needed */
    pthread_t thread;
    bool started;
} worker;

struct dc_loader {
    const dc_dataset *dataset;
    dc_loader_options options;
    dc_normalise normalise;
    bool crops;
    uint32_t n;      /* images in the list */
    uint32_t *list;  /* NULL: the whole split */
    uint32_t *order; /* of the thread that prepares: this epoch's list */
    bool has_order;
    uint32_t order_epoch;
    uint32_t steps;
    int capacity;
    size_t block_floats, image_bytes;
    int n_slots, n_workers;
    slot *slots;
    worker *workers;
    double wait_s;

    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t work, ready;
    bool stop;
    bool active;          /* batches remain to be prepared */
    bool preparing;       /* a thread prepares one */
    int busy;             /* threads that work on a slot */
    uint32_t epoch, step; /* of the next batch to be prepared */
    /* Batches since the last begin: prepared >= filling (parts are handed out) >= ..., prepared >= taken >= released.
     */
    uint64_t prepared, filling, taken, released;
};

int dc_loading_threads(const dc_dataset *dataset, int cores, bool on_gpu)
{
    const int share = on_gpu ? cores - 1 : cores / 4;
    if (dataset->storage == DC_STORAGE_PIXELS || share < 1)
        return 1;
    return share < DC_MAX_DECODE_THREADS ? share : DC_MAX_DECODE_THREADS;
}

static uint32_t steps_of(uint32_t n, const dc_loader_options *options)
{
    uint32_t batch = (uint32_t)options->batch;
    return n / batch + (n % batch != 0 && !options->drop_last);
}

static int capacity_of(const dc_loader_options *options)
{
    return (dc_loader_local_share(options->batch, options->size) + options->lane - 1) / options->lane * options->lane;
}

static int slots_of(const dc_loader_options *options)
{
    return 1 + (options->loading.prefetch > 0 ? options->loading.prefetch : DC_DEFAULT_PREFETCH);
}

static int workers_of(const dc_loader_options *options)
{
    return options->loading.threads > 0 ? options->loading.threads : 1;
}

static size_t image_bytes_of(const dc_dataset *dataset)
{
    return (size_t)dataset->shape.c * (size_t)dataset->shape.h * (size_t)dataset->shape.w;
}

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* ---- preparing a batch: which images it has ---- */

static void make_order(dc_loader *loader, uint32_t epoch)
{
    bool shuffle = loader->options.shuffle;
    if (loader->has_order && (!shuffle || loader->order_epoch == epoch))
        return;
    if (shuffle)
        dc_rng_permutation((dc_rng_key){loader->options.seed, dc_rng_stream("order")}, epoch, loader->n, loader->order);
    else
        for (uint32_t i = 0; i < loader->n; i++)
            loader->order[i] = i;
    if (loader->list)
        for (uint32_t i = 0; i < loader->n; i++)
            loader->order[i] = loader->list[loader->order[i]];
    loader->has_order = true;
    loader->order_epoch = epoch;
}

static int part_images(const dc_loader *loader)
{
    return loader->crops                 ? 1
           : loader->options.lane > MANY ? loader->options.lane
                                         : MANY / loader->options.lane * loader->options.lane;
}

static void fill_slot(const dc_loader *loader, slot *s, const uint32_t *indices, int n)
{
    const dc_loader_options *options = &loader->options;
    const dc_images *images = &loader->dataset->split[options->split];
    for (int i = 0; i < n; i++) {
        s->indices[i] = indices[i];
        s->images[i] = (loader->crops ? s->bytes + (size_t)i * loader->image_bytes
                                      : images->pixels + indices[i] * loader->image_bytes);
    }
    for (int i = 0; i < loader->capacity; i++)
        s->labels[i] = i < n ? images->labels[indices[i]] : 0;
    for (int block = 0; block < loader->capacity / options->lane; block++) {
        const int left = n - block * options->lane;
        s->missing[block] = left < options->lane ? left : options->lane;
        if (left <= 0 && s->blocks)
            memset(s->blocks + (size_t)block * loader->block_floats, 0, loader->block_floats * sizeof *s->blocks);
    }
}

static dc_raw_images pixels_of(const dc_loader *loader, const slot *s)
{
    if (!loader->options.as_pixels)
        return (dc_raw_images){0};
    return (dc_raw_images){s->bytes, s->draws, loader->normalise.value[0], loader->options.augment.pad};
}

/* By the thread that prepares, without the mutex. */
static void prepare(dc_loader *loader, uint32_t epoch, uint32_t step, slot *s)
{
    const dc_loader_options *options = &loader->options;
    s->n_parts = s->begun = s->done = 0;
    s->status = dc_dataset_check_unchanged(loader->dataset);
    if (s->status != DC_OK) {
        s->failed_part = -1;
        snprintf(s->message, sizeof s->message, "%s", dc_status_message());
        return;
    }
    make_order(loader, epoch);
    uint64_t begin = (uint64_t)step * (uint64_t)options->batch, left = loader->n - begin;
    int64_t n_global = left < (uint64_t)options->batch ? (int64_t)left : options->batch;
    int first = (int)(n_global * options->rank / options->size);
    int n = (int)(n_global * (options->rank + 1) / options->size) - first;
    fill_slot(loader, s, loader->order + begin + first, n);
    s->n_parts = (n + part_images(loader) - 1) / part_images(loader);
    s->batch = (dc_batch){.images = s->blocks,
                          .pixels = pixels_of(loader, s),
                          .labels = s->labels,
                          .n_images = n,
                          .n_global = (int)n_global,
                          .first_image = first,
                          .epoch = epoch,
                          .step = step};
}

/* ---- making its parts ---- */

/* Image i of a batch as pixels. */
static void draw(const dc_loader *loader, slot *s, int i)
{
    const dc_loader_options *options = &loader->options;
    if (!loader->crops)
        memcpy(s->bytes + (size_t)i * loader->image_bytes, s->images[i], loader->image_bytes);
    s->draws[i] =
        dc_augment_image_draw(&options->augment, loader->dataset->shape, options->seed, s->batch.epoch, s->indices[i]);
}

static void assemble(const dc_loader *loader, slot *s, int block)
{
    const dc_loader_options *options = &loader->options;
    const dc_assembly assembly = {loader->dataset->shape, &loader->normalise, &options->augment,
                                  options->seed,          s->batch.epoch,     options->lane};
    const int first = block * options->lane, left = s->batch.n_images - first;
    dc_augment_assemble(&assembly, left < options->lane ? left : options->lane, s->indices + first, s->images + first,
                        s->blocks + (size_t)block * loader->block_floats);
}

/* One image; who brings a block's last assembles it. */
static dc_status make_crop(worker *w, slot *s, int i)
{
    const dc_loader *loader = w->loader;
    const dc_loader_options *options = &loader->options;
    DC_TRY(dc_crop_make(w->cropper, loader->dataset, options->split, s->indices[i], &options->augment, options->seed,
                        s->batch.epoch, s->bytes + (size_t)i * loader->image_bytes));
    if (options->as_pixels) {
        draw(loader, s, i);
        return DC_OK;
    }
    const int block = i / options->lane;
    if (__atomic_sub_fetch(&s->missing[block], 1, __ATOMIC_ACQ_REL) == 0)
        assemble(loader, s, block);
    return DC_OK;
}

static dc_status make_part(worker *w, slot *s, int part)
{
    const dc_loader *loader = w->loader;
    if (loader->crops)
        return make_crop(w, s, part);
    const int lane = loader->options.lane, first = part * part_images(loader), end = first + part_images(loader);
    const bool as_pixels = loader->options.as_pixels;
    for (int i = first; i < end && i < s->batch.n_images; i += as_pixels ? 1 : lane)
        if (as_pixels)
            draw(loader, s, i);
        else
            assemble(loader, s, i / lane);
    return DC_OK;
}

/* ---- the threads; mutex held but for the work itself ---- */

static void prepare_next(dc_loader *loader)
{
    slot *s = &loader->slots[loader->prepared % (uint64_t)loader->n_slots];
    const uint32_t epoch = loader->epoch, step = loader->step;
    loader->preparing = true;
    loader->busy++;
    pthread_mutex_unlock(&loader->mutex);
    prepare(loader, epoch, step, s);
    pthread_mutex_lock(&loader->mutex);
    loader->preparing = false;
    loader->busy--;
    if (loader->active) { /* else a new epoch begins, and this batch is not wanted any more */
        if (s->n_parts == 0)
            loader->filling++;
        loader->prepared++;
        if (++loader->step == loader->steps) {
            loader->step = 0;
            loader->epoch++;
            loader->active = loader->options.repeat;
        }
        loader->active = loader->active && s->status == DC_OK;
    }
    pthread_cond_broadcast(&loader->work);
    pthread_cond_broadcast(&loader->ready);
}

static void make_next(worker *w)
{
    dc_loader *loader = w->loader;
    slot *s = &loader->slots[loader->filling % (uint64_t)loader->n_slots];
    const int part = s->begun++;
    if (s->begun == s->n_parts)
        loader->filling++;
    loader->busy++;
    pthread_mutex_unlock(&loader->mutex);
    dc_status status = make_part(w, s, part);
    pthread_mutex_lock(&loader->mutex);
    loader->busy--;
    if (status != DC_OK && (s->status == DC_OK || part < s->failed_part)) {
        s->status = status;
        s->failed_part = part;
        snprintf(s->message, sizeof s->message, "%s", dc_status_message());
        loader->active = false;
    }
    s->done++;
    if (s->done == s->n_parts || loader->busy == 0)
        pthread_cond_broadcast(&loader->ready);
}

static void *run(void *argument)
{
    worker *w = argument;
    dc_loader *loader = w->loader;
    pthread_mutex_lock(&loader->mutex);
    while (!loader->stop) {
        if (loader->filling < loader->prepared)
            make_next(w);
        else if (loader->active && !loader->preparing &&
                 loader->prepared - loader->released < (uint64_t)loader->n_slots)
            prepare_next(loader);
        else
            pthread_cond_wait(&loader->work, &loader->mutex);
    }
    pthread_mutex_unlock(&loader->mutex);
    return NULL;
}

/* Signals are the main thread's affair. */
static dc_status start_threads(dc_loader *loader)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = 0;
    for (int i = 0; i < loader->n_workers && !error; i++) {
        error = pthread_create(&loader->workers[i].thread, NULL, run, &loader->workers[i]);
        loader->workers[i].started = !error;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return error ? dc_fail(DC_ERR_IO, "cannot start the %d threads that load data: %s", loader->n_workers,
                           strerror(error))
                 : DC_OK;
}

/* ---- creation ---- */

static const char *images_name(dc_split split)
{
    return split == DC_SPLIT_TRAIN ? "training images" : "test images";
}

static dc_status check_options(const dc_dataset *dataset, const dc_loader_options *options)
{
    const dc_images *images = &dataset->split[options->split];
    uint32_t n = options->indices ? options->indices->n : images->n;
    if (options->batch < 1 || options->size < 1 || options->rank < 0 || options->rank >= options->size ||
        options->lane < 1 || options->lane > DC_MAX_LANE)
        return dc_fail(DC_ERR_INTERNAL, "loader: batch %d, rank %d of %d, lane %d", options->batch, options->rank,
                       options->size, options->lane);
    if (options->augment.pad < 0 || options->augment.cutout < 0)
        return dc_fail(DC_ERR_INTERNAL, "loader: pad %d, cutout %d", options->augment.pad, options->augment.cutout);
    if (!n)
        return dc_fail(DC_ERR_INPUT, "%s: no %s to load", dataset->path, images_name(options->split));
    if ((options->shuffle || options->drop_last) && (uint32_t)options->batch > n)
        return dc_fail(DC_ERR_INPUT, "a batch of %d images is larger than the %u %s of %s that it is taken from",
                       options->batch, n, images_name(options->split), dataset->path);
    for (uint32_t i = 0; options->indices && i < n; i++)
        if (options->indices->items[i] >= images->n)
            return dc_fail(DC_ERR_INTERNAL, "loader: index %u of %u %s", options->indices->items[i], images->n,
                           images_name(options->split));
    return DC_OK;
}

static dc_status allocate_slot(const dc_loader *loader, slot *s)
{
    const size_t capacity = (size_t)loader->capacity;
    const size_t bytes = aligned(capacity * loader->image_bytes * sizeof *s->blocks);
    const bool as_pixels = loader->options.as_pixels;
    if (!as_pixels && !(s->blocks = aligned_alloc(ALIGNMENT, bytes)))
        return dc_fail(DC_ERR_MEMORY, "out of memory: %zu bytes for a batch of images were refused", bytes);
    if ((loader->crops || as_pixels) && !(s->bytes = dc_alloc(capacity * loader->image_bytes)))
        return DC_ERR_MEMORY;
    if (as_pixels && !(s->draws = dc_alloc(capacity * sizeof *s->draws)))
        return DC_ERR_MEMORY;
    s->labels = dc_alloc(capacity * sizeof *s->labels);
    s->indices = dc_alloc(capacity * sizeof *s->indices);
    s->images = dc_alloc(capacity * sizeof *s->images);
    s->missing = dc_alloc(capacity / (size_t)loader->options.lane * sizeof *s->missing);
    return s->labels && s->indices && s->images && s->missing ? DC_OK : DC_ERR_MEMORY;
}

static dc_status allocate(dc_loader *loader, const dc_indices *indices)
{
    if (!(loader->order = dc_alloc(loader->n * sizeof *loader->order)))
        return DC_ERR_MEMORY;
    if (indices) {
        if (!(loader->list = dc_alloc(loader->n * sizeof *loader->list)))
            return DC_ERR_MEMORY;
        memcpy(loader->list, indices->items, loader->n * sizeof *loader->list);
    }
    loader->slots = dc_alloc_zeroed((size_t)loader->n_slots * sizeof *loader->slots);
    loader->workers = dc_alloc_zeroed((size_t)loader->n_workers * sizeof *loader->workers);
    if (!loader->slots || !loader->workers)
        return DC_ERR_MEMORY;
    for (int i = 0; i < loader->n_slots; i++)
        DC_TRY(allocate_slot(loader, &loader->slots[i]));
    for (int i = 0; i < loader->n_workers; i++) {
        loader->workers[i].loader = loader;
        if (loader->crops)
            DC_TRY(dc_cropper_create(&loader->workers[i].cropper));
    }
    return DC_OK;
}

dc_status dc_loader_create(const dc_dataset *dataset, const dc_loader_options *options, dc_loader **out)
{
    *out = NULL;
    DC_TRY(check_options(dataset, options));
    dc_loader *loader = dc_alloc_zeroed(sizeof *loader);
    if (!loader)
        return DC_ERR_MEMORY;
    loader->dataset = dataset;
    loader->options = *options;
    loader->options.indices = NULL;
    loader->crops = dc_crop_needed(dataset, &options->augment);
    loader->n = options->indices ? options->indices->n : dataset->split[options->split].n;
    loader->steps = steps_of(loader->n, options);
    loader->capacity = capacity_of(options);
    loader->image_bytes = image_bytes_of(dataset);
    loader->block_floats = loader->image_bytes * (size_t)options->lane;
    loader->n_slots = slots_of(options);
    loader->n_workers = workers_of(options);
    dc_normalise_init(&loader->normalise, dataset);
    pthread_mutex_init(&loader->mutex, NULL);
    pthread_cond_init(&loader->work, NULL);
    pthread_cond_init(&loader->ready, NULL);
    dc_status status = allocate(loader, options->indices);
    if (status == DC_OK)
        status = start_threads(loader);
    if (status != DC_OK) {
        dc_loader_destroy(loader);
        return status;
    }
    *out = loader;
    return DC_OK;
}

static void stop_threads(dc_loader *loader)
{
    pthread_mutex_lock(&loader->mutex);
    loader->stop = true;
    pthread_cond_broadcast(&loader->work);
    pthread_mutex_unlock(&loader->mutex);
    for (int i = 0; loader->workers && i < loader->n_workers; i++) {
        if (loader->workers[i].started)
            pthread_join(loader->workers[i].thread, NULL);
        dc_cropper_destroy(loader->workers[i].cropper);
    }
}

void dc_loader_destroy(dc_loader *loader)
{
    if (!loader)
        return;
    stop_threads(loader);
    pthread_cond_destroy(&loader->work);
    pthread_cond_destroy(&loader->ready);
    pthread_mutex_destroy(&loader->mutex);
    for (int i = 0; loader->slots && i < loader->n_slots; i++) {
        slot *s = &loader->slots[i];
        free(s->blocks);
        free(s->bytes);
        free(s->draws);
        free(s->labels);
        free(s->indices);
        free(s->images);
        free(s->missing);
    }
    free(loader->slots);
    free(loader->workers);
    free(loader->order);
    free(loader->list);
    free(loader);
}

size_t dc_loader_bytes(const dc_dataset *dataset, const dc_loader_options *options)
{
    const size_t capacity = (size_t)capacity_of(options), image = image_bytes_of(dataset);
    const size_t n = options->indices ? options->indices->n : dataset->split[options->split].n;
    const bool as_pixels = options->as_pixels, has_bytes = as_pixels || dc_crop_needed(dataset, &options->augment);
    const size_t of_image = image * ((as_pixels ? 0 : sizeof(float)) + has_bytes) +
                            (as_pixels ? sizeof(dck_augment_draw) : 0) + sizeof(int32_t) + sizeof(uint32_t) +
                            sizeof(uint8_t *);
    return (size_t)slots_of(options) * capacity * of_image + n * sizeof(uint32_t) * (options->indices ? 2 : 1);
}

/* ---- use ---- */

uint32_t dc_loader_steps(const dc_loader *loader)
{
    return loader->steps;
}

dc_status dc_loader_begin_epoch(dc_loader *loader, uint32_t epoch, uint32_t start_step)
{
    if (start_step > loader->steps)
        return dc_fail(DC_ERR_INTERNAL, "loader: step %u of an epoch of %u", start_step, loader->steps);
    if (start_step == loader->steps && loader->options.repeat) {
        start_step = 0;
        epoch++;
    }
    pthread_mutex_lock(&loader->mutex);
    loader->active = false;
    loader->filling = loader->prepared; /* what has not begun is not wanted any more */
    while (loader->busy)
        pthread_cond_wait(&loader->ready, &loader->mutex);
    loader->prepared = loader->filling = loader->taken = loader->released = 0;
    loader->epoch = epoch;
    loader->step = start_step;
    loader->active = start_step < loader->steps;
    pthread_cond_broadcast(&loader->work);
    pthread_mutex_unlock(&loader->mutex);
    return DC_OK;
}

/* Mutex held: the next batch when it is there, whole or failed; *end: none will come. */
static slot *next_slot(const dc_loader *loader, bool *end)
{
    *end = loader->taken == loader->prepared && !loader->active && !loader->preparing;
    if (loader->taken == loader->prepared)
        return NULL;
    slot *s = &loader->slots[loader->taken % (uint64_t)loader->n_slots];
    return s->done == s->n_parts ? s : NULL;
}

dc_status dc_loader_next(dc_loader *loader, const dc_batch **batch)
{
    *batch = NULL;
    bool end;
    slot *s;
    pthread_mutex_lock(&loader->mutex);
    loader->released = loader->taken;
    pthread_cond_broadcast(&loader->work);
    if (!(s = next_slot(loader, &end)) && !end) {
        const double begun_s = dc_clock_seconds();
        do
            pthread_cond_wait(&loader->ready, &loader->mutex);
        while (!(s = next_slot(loader, &end)) && !end);
        loader->wait_s += dc_clock_seconds() - begun_s;
    }
    const dc_status status = s ? s->status : DC_OK;
    if (s && status == DC_OK) { /* a failed one stays: the error comes again */
        loader->taken++;
        *batch = &s->batch;
    }
    pthread_mutex_unlock(&loader->mutex);
    return status == DC_OK ? DC_OK : dc_fail(status, "%s", s->message);
}

double dc_loader_wait_seconds(const dc_loader *loader)
{
    return loader->wait_s;
}
