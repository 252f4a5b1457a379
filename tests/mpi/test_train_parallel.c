/* Data-parallel training follows the training of one rank on the same global batches, also when ranks compute their
 * shares in pieces. The network has no batch norm, whose statistics are each rank's and piece's own; everything else
 * that a step may hold is in it: two losses, random masks, augmented images, clipping, momentum, and last batches that
 * leave some ranks few images or none. On the CPU, or on GPUs, one a rank, with DCANAS_TEST_DEVICE=cuda: then also how
 * much of a step is replayed, which the emulated device tells. */
#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "nn/model.h"
#include "tests/emulator/counts.h"
#include "tests/support/temp_dir.h"
#include "train/evaluate.h"
#include "train/gradients.h"

enum { SIDE = 8, CLASSES = 3, BATCH = 70, IMAGES = 4 * BATCH + 2, EPOCHS = 2, STEPS = EPOCHS * 5 };

#pragma weak emulator_enqueued

/* One training: what it ends with. */
typedef struct training {
    dc_backend *backend;
    dc_params *params;
    dc_step_arena arena;
    dc_model *model;
    dc_loader *loader;
    dc_gradients gradients;
    dc_reducer *reducer;
    int idle; /* steps of this rank without an image */
    double loss[STEPS], norm[STEPS];
    unsigned long enqueued[STEPS]; /* by the host until the end of each step; 0: nobody tells */
} training;

static void write_data(const char *path)
{
    static uint8_t pixels[IMAGES * SIDE * SIDE];
    static int32_t labels[IMAGES];
    for (int i = 0; i < IMAGES; i++) {
        labels[i] = i % CLASSES;
        for (int k = 0; k < SIDE * SIDE; k++)
            pixels[i * SIDE * SIDE + k] = (uint8_t)((i * 31 + k * (7 + 40 * labels[i]) + k * k) % 251);
    }
    const dc_dataset_content content = {.name = "stripes",
                                        .shape = {1, SIDE, SIDE},
                                        .n_classes = CLASSES,
                                        .classes = (const char *const[]){"a", "b", "c"},
                                        .split = {{.n = IMAGES, .pixels = pixels, .labels = labels},
                                                  {.n = IMAGES, .pixels = pixels, .labels = labels}}};
    CHECK_OK(dc_dataset_write(path, &content));
}

static dc_graph *make_graph(void)
{
    dc_graph *g = dc_graph_create((dc_shape){1, SIDE, SIDE});
    CHECK(g);
    int x = dc_graph_conv(g, "first", g->input, 8, 3, 1, 1, 1, 1, 1);
    int a = dc_graph_relu(g, "relu", x);
    int deep = dc_graph_conv(g, "depthwise", a, 8, 5, 1, 4, 4, 2, 8);
    int path = dc_graph_drop_path(g, "drop_path", deep);
    int sum = dc_graph_add(g, "sum", 2, (const int[]){x, path});
    int pool = dc_graph_max_pool(g, "pool", sum, 3, 2, 1);
    int both = dc_graph_concat(g, "both", 2, (const int[]){pool, dc_graph_avg_pool(g, "average", a, 3, 2, 1)});
    int mixed = dc_graph_conv(g, "pointwise", both, 12, 1, 1, 0, 0, 1, 1);
    g->building_auxiliary = true;
    int side = dc_graph_linear(g, "side", dc_graph_global_avg_pool(g, "side_pool", both), CLASSES);
    dc_graph_cross_entropy(g, "side_loss", side, 0, 0.4f);
    g->building_auxiliary = false;
    int flat = dc_graph_global_avg_pool(g, "flat", dc_graph_relu(g, "relu2", mixed));
    int logits = dc_graph_linear(g, "classifier", dc_graph_dropout(g, "dropout", flat, 0.2f), CLASSES);
    g->logits = logits;
    dc_graph_cross_entropy(g, "loss", logits, 0.1f, 1);
    CHECK_OK(dc_graph_check(g));
    return g;
}

static void open_training(training *t, const dc_comm *comm, const dc_dataset *dataset, int micro_batch)
{
    const dc_loader_options loader = {.batch = BATCH,
                                      .rank = comm->rank,
                                      .size = comm->size,
                                      .lane = t->backend->layout.lane,
                                      .as_pixels = t->backend->call->stage_batch != NULL,
                                      .seed = 5,
                                      .shuffle = true,
                                      .augment = {.pad = 1, .flip = true, .cutout = 2}};
    const dc_plan_options plan = {.batch = dc_gradients_piece(BATCH, comm->size, micro_batch), .training = true};
    dc_graph *graph = make_graph();
    CHECK_OK(dc_params_create(t->backend, &t->params));
    CHECK_OK(dc_params_add_graph(t->params, graph));
    CHECK_OK(dc_params_allocate(t->params, 3));
    CHECK_OK(dc_gradients_init(&t->gradients, t->params, BATCH, comm->size, micro_batch));
    CHECK_OK(dc_model_create(graph, &plan, &t->arena, t->params, &t->model));
    CHECK_OK(dc_loader_create(dataset, &loader, &t->loader));
    CHECK_OK(dc_reducer_create(comm, t->params, &t->reducer));
}

static void take_step(training *t, const dc_comm *comm, int i)
{
    static const dc_sgd_options sgd = {.momentum = 0.9, .weight_decay = 1e-3, .nesterov = true, .clip = 0.5};
    const dc_batch *batch;
    dc_metrics metrics = {0};
    CHECK_OK(dc_loader_next(t->loader, &batch));
    CHECK(batch);
    const dc_step step = {.training = true, .drop_path_rate = 0.3f, .seed = 11, .index = (uint32_t)i};
    CHECK_OK(dc_reducer_begin(t->reducer, t->model->graph, DC_GRAD_WEIGHTS));
    CHECK_OK(dc_gradients_compute(&t->gradients, t->model, batch, &step, DC_GRAD_WEIGHTS, t->reducer, &metrics));
    t->idle += batch->n_images == 0;
    int n_global = batch->n_global;
    CHECK_OK(dc_reducer_finish(t->reducer));
    CHECK_OK(dc_model_sgd(t->model, &sgd, 0.2, &t->norm[i]));
    CHECK_OK(dc_metrics_sum(comm, &metrics));
    CHECK(metrics.n == n_global);
    t->loss[i] = (metrics.loss + 0.4 * metrics.auxiliary) / (double)metrics.n;
    t->enqueued[i] = emulator_enqueued ? emulator_enqueued(t->backend->call->stream(t->backend)) : 0;
}

static training train(const dc_comm *comm, dc_backend *backend, const dc_dataset *dataset, int micro_batch)
{
    training t = {.backend = backend, .arena = {.backend = backend}};
    open_training(&t, comm, dataset, micro_batch);
    for (int i = 0; i < STEPS; i++) {
        if (i % (STEPS / EPOCHS) == 0)
            CHECK_OK(dc_loader_begin_epoch(t.loader, (uint32_t)(i / (STEPS / EPOCHS)), 0));
        take_step(&t, comm, i);
    }
    return t;
}

static void clear_training(training *t)
{
    dc_reducer_destroy(t->reducer);
    dc_loader_destroy(t->loader);
    dc_model_destroy(t->model);
    dc_gradients_clear(&t->gradients);
    dc_step_arena_clear(&t->arena);
    dc_params_destroy(t->params);
}

static bool close_to(double a, double b, double tolerance)
{
    return fabs(a - b) <= tolerance * fabs(b);
}

/* Each parameter, norm-wise, against the one rank's. */
static void compare_weights(const training *t, const training *one)
{
    for (int i = 0; i < t->params->n; i++) {
        size_t n = t->params->items[i].param.count;
        float *mine = malloc(n * sizeof *mine), *theirs = malloc(n * sizeof *theirs);
        CHECK(mine && theirs);
        CHECK_OK(dc_params_read(t->params, i, mine));
        CHECK_OK(dc_params_read(one->params, i, theirs));
        double difference = 0, norm = 0;
        for (size_t k = 0; k < n; k++) {
            difference += ((double)mine[k] - (double)theirs[k]) * ((double)mine[k] - (double)theirs[k]);
            norm += (double)theirs[k] * (double)theirs[k];
        }
        CHECK(norm > 0);
        CHECK(sqrt(difference) <= 1e-4 * sqrt(norm));
        free(mine);
        free(theirs);
    }
}

/* The store's bytes are the same on every rank. */
static void check_equal_ranks(const training *t, const dc_comm *comm)
{
    size_t bytes = t->params->count * sizeof(float);
    float *mine = malloc(bytes), *first = malloc(bytes);
    CHECK(mine && first);
    CHECK_OK(t->backend->call->copy_out(t->backend, mine, t->params->values, bytes));
    memcpy(first, mine, bytes);
    CHECK_OK(dc_comm_bcast(comm, 0, first, bytes));
    CHECK(memcmp(mine, first, bytes) == 0);
    free(mine);
    free(first);
}

static dc_backend *make_backend(const dc_comm *world)
{
    const char *device = getenv("DCANAS_TEST_DEVICE");
    const dc_backend_options options = {.threads = 1, .local_rank = world->local_rank};
    dc_backend *backend;
    CHECK_OK(dc_backend_create(device ? device : "cpu", &options, &backend));
    return backend;
}

/* In a second epoch forward and backward are replayed, in the parts between sums, also of a batch's pieces: what the
 * host still enqueues is for each piece the batch, moments, graphs and what comes back, and then the optimizer. */
static void check_replayed(const training *t, const dc_comm *comm)
{
    const int share = dc_loader_local_share(BATCH, comm->size),
              pieces = (share + t->gradients.piece - 1) / t->gradients.piece;
    for (int i = STEPS - 3; i < STEPS - 1; i++)
        CHECK(t->enqueued[i] - t->enqueued[i - 1] <= 8 + 10 * (unsigned long)pieces);
}

static void check_follows(const dc_comm *world, const dc_dataset *dataset, int micro_batch)
{
    const dc_comm alone = dc_comm_self();
    dc_backend *backend = make_backend(world);
    training one = train(&alone, backend, dataset, 0), all = train(world, backend, dataset, micro_batch);
    for (int i = 0; i < STEPS; i++) {
        CHECK(close_to(all.loss[i], one.loss[i], 1e-5));
        CHECK(close_to(all.norm[i], one.norm[i], 1e-4));
    }
    CHECK(fabs(one.loss[STEPS - 1] - one.loss[0]) > 1e-3); /* it is a training: something moves */
    compare_weights(&all, &one);
    check_equal_ranks(&all, world);
    check_replayed(&all, world);
    int64_t idle = all.idle;
    CHECK_OK(dc_comm_sum_int64(world, &idle, 1));
    CHECK(idle == (world->size > 2 ? EPOCHS * (world->size - 2) : 0)); /* the last batch has two images */
    clear_training(&one);
    clear_training(&all);
    dc_backend_destroy(backend);
}

/* One weight of the last rank's is another. */
static void check_equal_start(const dc_comm *comm, const dc_dataset *dataset)
{
    training t = {0};
    float weights[8 * 3 * 3];
    dc_reducer *reducer = NULL;
    t.backend = t.arena.backend = make_backend(comm);
    open_training(&t, comm, dataset, 0);
    const int item = dc_params_find(t.params, "first.weight");
    CHECK(item >= 0 && t.params->items[item].param.count == sizeof weights / sizeof *weights);
    CHECK_OK(dc_params_read(t.params, item, weights));
    weights[70] += comm->rank == comm->size - 1 ? 1e-6f : 0;
    CHECK_OK(dc_params_write(t.params, item, weights));
    dc_status status = dc_reducer_create(comm, t.params, &reducer);
    CHECK(status == (comm->size > 1 ? DC_ERR_INPUT : DC_OK));
    if (status != DC_OK)
        CHECK_MESSAGE("start from different weights");
    else
        dc_reducer_destroy(reducer);
    clear_training(&t);
    dc_backend_destroy(t.backend);
}

int main(int argc, char **argv)
{
    dc_comm world;
    CHECK_OK(dc_comm_init(&argc, &argv, &world));
    temp_dir dir = {0};
    if (world.rank == 0) {
        dir = temp_dir_make();
        write_data(temp_dir_path(&dir, "stripes.h5").s);
    }
    CHECK_OK(dc_comm_bcast(&world, 0, &dir, sizeof dir));
    dc_dataset *dataset;
    CHECK_OK(dc_dataset_open(temp_dir_path(&dir, "stripes.h5").s, &dataset));
    check_follows(&world, dataset, 0);
    check_follows(&world, dataset, 16); /* shares of 70, 35, 24 and 18 */
    check_equal_start(&world, dataset);
    dc_dataset_close(dataset);
    CHECK_OK(dc_comm_barrier(&world));
    if (world.rank == 0)
        temp_dir_remove(&dir);
    dc_status status = dc_comm_end(&world, DC_OK);
    dc_comm_finalize(&world);
    return dc_status_exit_code(status);
}
