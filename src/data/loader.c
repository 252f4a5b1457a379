#include "data/loader.h"

#include "base/rng.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* Two are in work while the step uses one: enough to even out the thread's scheduling. */
enum { N_BUFFERS = 3, ALIGNMENT = 64, MESSAGE_CHARS = 1024 };

typedef struct buffer {
    float *images;
    int32_t *labels;
    dc_batch batch;
} buffer;

struct dc_loader {
    const dc_dataset *dataset;
    dc_loader_options options;
    dc_normalise normalise;
    uint32_t n;      /* images in the list */
    uint32_t *list;  /* NULL: the whole split */
    uint32_t *order; /* the thread's: this epoch's list */
    bool has_order;
    uint32_t order_epoch;
    uint32_t steps;
    int capacity;
    buffer buffers[N_BUFFERS];
    pthread_t thread;
    bool has_thread;

    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    bool stop;
    bool active;                    /* batches remain to be made */
    bool busy;                      /* the thread is making one */
    uint32_t epoch, step;           /* of the next batch to be made */
    uint64_t made, taken, released; /* batches since the last begin; made - released buffers are in use */
    dc_status status;
    char message[MESSAGE_CHARS];
};

static uint32_t steps_of(uint32_t n, const dc_loader_options *options)
{
    uint32_t batch = (uint32_t)options->batch;
    return n / batch + (n % batch != 0 && !options->drop_last);
}

static int capacity_of(const dc_loader_options *options)
{
    return (dc_loader_local_share(options->batch, options->size) + options->lane - 1) / options->lane * options->lane;
}

static size_t images_bytes_of(const dc_dataset *dataset, int capacity)
{
    dc_shape shape = dataset->shape;
    return (size_t)capacity * (size_t)shape.c * (size_t)shape.h * (size_t)shape.w * sizeof(float);
}

/* ---- the thread ---- */

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

static dc_status make_batch(dc_loader *loader, uint32_t epoch, uint32_t step, buffer *slot)
{
    const dc_loader_options *options = &loader->options;
    DC_TRY(dc_dataset_check_unchanged(loader->dataset));
    make_order(loader, epoch);
    uint64_t begin = (uint64_t)step * (uint64_t)options->batch, left = loader->n - begin;
    int64_t n_global = left < (uint64_t)options->batch ? (int64_t)left : options->batch;
    int first = (int)(n_global * options->rank / options->size);
    int n = (int)(n_global * (options->rank + 1) / options->size) - first;
    const uint32_t *indices = loader->order + begin + first;
    dc_assembly assembly = {.dataset = loader->dataset,
                            .split = options->split,
                            .normalise = &loader->normalise,
                            .augment = options->augment,
                            .seed = options->seed,
                            .epoch = epoch,
                            .lane = options->lane,
                            .capacity = loader->capacity};
    dc_augment_assemble(&assembly, n, indices, slot->images);
    const int32_t *labels = loader->dataset->split[options->split].labels;
    for (int i = 0; i < loader->capacity; i++)
        slot->labels[i] = i < n ? labels[indices[i]] : 0;
    slot->batch = (dc_batch){.images = slot->images,
                             .labels = slot->labels,
                             .n_images = n,
                             .n_global = (int)n_global,
                             .first_image = first,
                             .epoch = epoch,
                             .step = step};
    return DC_OK;
}

/* Mutex held. */
static void advance(dc_loader *loader)
{
    loader->made++;
    if (++loader->step < loader->steps)
        return;
    loader->step = 0;
    loader->epoch++;
    loader->active = loader->options.repeat;
}

static void *run(void *argument)
{
    dc_loader *loader = argument;
    pthread_mutex_lock(&loader->mutex);
    while (!loader->stop) {
        if (!loader->active || loader->made - loader->released == N_BUFFERS) {
            pthread_cond_wait(&loader->changed, &loader->mutex);
            continue;
        }
        buffer *slot = &loader->buffers[loader->made % N_BUFFERS];
        uint32_t epoch = loader->epoch, step = loader->step;
        loader->busy = true;
        pthread_mutex_unlock(&loader->mutex);
        dc_status status = make_batch(loader, epoch, step, slot);
        pthread_mutex_lock(&loader->mutex);
        loader->busy = false;
        if (loader->active && status == DC_OK)
            advance(loader);
        else if (loader->active) { /* not active: a new epoch begins, and this batch is not wanted any more */
            loader->active = false;
            loader->status = status;
            strncpy(loader->message, dc_status_message(), MESSAGE_CHARS - 1);
        }
        pthread_cond_broadcast(&loader->changed);
    }
    pthread_mutex_unlock(&loader->mutex);
    return NULL;
}

/* Signals are the main thread's affair. */
static dc_status start_thread(dc_loader *loader)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = pthread_create(&loader->thread, NULL, run, loader);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error)
        return dc_fail(DC_ERR_IO, "cannot start the thread that loads data: %s", strerror(error));
    loader->has_thread = true;
    return DC_OK;
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
    if (dataset->storage != DC_STORAGE_PIXELS)
        return dc_fail(DC_ERR_INPUT, "%s: stored as JPEG, which cannot be trained on yet: import it with --size",
                       dataset->path);
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

static dc_status allocate(dc_loader *loader, const dc_indices *indices)
{
    if (!(loader->order = dc_alloc(loader->n * sizeof *loader->order)))
        return DC_ERR_MEMORY;
    if (indices) {
        if (!(loader->list = dc_alloc(loader->n * sizeof *loader->list)))
            return DC_ERR_MEMORY;
        memcpy(loader->list, indices->items, loader->n * sizeof *loader->list);
    }
    size_t bytes = images_bytes_of(loader->dataset, loader->capacity);
    bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    for (int i = 0; i < N_BUFFERS; i++) {
        if (!(loader->buffers[i].images = aligned_alloc(ALIGNMENT, bytes)))
            return dc_fail(DC_ERR_MEMORY, "out of memory: %zu bytes for a batch of images were refused", bytes);
        if (!(loader->buffers[i].labels = dc_alloc((size_t)loader->capacity * sizeof(int32_t))))
            return DC_ERR_MEMORY;
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
    loader->n = options->indices ? options->indices->n : dataset->split[options->split].n;
    loader->steps = steps_of(loader->n, options);
    loader->capacity = capacity_of(options);
    dc_normalise_init(&loader->normalise, dataset);
    pthread_mutex_init(&loader->mutex, NULL);
    pthread_cond_init(&loader->changed, NULL);
    dc_status status = allocate(loader, options->indices);
    if (status == DC_OK)
        status = start_thread(loader);
    if (status != DC_OK) {
        dc_loader_destroy(loader);
        return status;
    }
    *out = loader;
    return DC_OK;
}

void dc_loader_destroy(dc_loader *loader)
{
    if (!loader)
        return;
    if (loader->has_thread) {
        pthread_mutex_lock(&loader->mutex);
        loader->stop = true;
        pthread_cond_broadcast(&loader->changed);
        pthread_mutex_unlock(&loader->mutex);
        pthread_join(loader->thread, NULL);
    }
    pthread_cond_destroy(&loader->changed);
    pthread_mutex_destroy(&loader->mutex);
    for (int i = 0; i < N_BUFFERS; i++) {
        free(loader->buffers[i].images);
        free(loader->buffers[i].labels);
    }
    free(loader->order);
    free(loader->list);
    free(loader);
}

size_t dc_loader_bytes(const dc_dataset *dataset, const dc_loader_options *options)
{
    size_t capacity = (size_t)capacity_of(options);
    size_t n = options->indices ? options->indices->n : dataset->split[options->split].n;
    return N_BUFFERS * (images_bytes_of(dataset, (int)capacity) + capacity * sizeof(int32_t)) +
           n * sizeof(uint32_t) * (options->indices ? 2 : 1);
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
    while (loader->busy)
        pthread_cond_wait(&loader->changed, &loader->mutex);
    loader->made = loader->taken = loader->released = 0;
    loader->status = DC_OK;
    loader->epoch = epoch;
    loader->step = start_step;
    loader->active = start_step < loader->steps;
    pthread_cond_broadcast(&loader->changed);
    pthread_mutex_unlock(&loader->mutex);
    return DC_OK;
}

dc_status dc_loader_next(dc_loader *loader, const dc_batch **batch)
{
    *batch = NULL;
    dc_status status = DC_OK;
    pthread_mutex_lock(&loader->mutex);
    loader->released = loader->taken;
    pthread_cond_broadcast(&loader->changed);
    while (loader->made == loader->taken && loader->active)
        pthread_cond_wait(&loader->changed, &loader->mutex);
    if (loader->made > loader->taken)
        *batch = &loader->buffers[loader->taken++ % N_BUFFERS].batch;
    else
        status = loader->status;
    pthread_mutex_unlock(&loader->mutex);
    return status == DC_OK ? DC_OK : dc_fail(status, "%s", loader->message);
}
