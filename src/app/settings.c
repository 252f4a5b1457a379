#include "app/settings.h"

#include <string.h>

#define AT(field)   offsetof(dc_settings, field)
#define SIZE(field) sizeof(((dc_settings *)0)->field)

#define INT_KEY(s, n, field, init, lo, hi, text)                                                                       \
    {                                                                                                                  \
        .section = s, .name = n, .type = DC_KEY_INT, .offset = AT(field), .initial = init, .minimum = lo,              \
        .maximum = hi, .help = text                                                                                    \
    }
#define FLOAT_KEY(s, n, field, init, lo, hi, text)                                                                     \
    {                                                                                                                  \
        .section = s, .name = n, .type = DC_KEY_FLOAT, .offset = AT(field), .initial = init, .minimum = lo,            \
        .maximum = hi, .help = text                                                                                    \
    }
#define BOOL_KEY(s, n, field, init, text)                                                                              \
    {                                                                                                                  \
        .section = s, .name = n, .type = DC_KEY_BOOL, .offset = AT(field), .initial = init, .help = text               \
    }
#define CHOICE_KEY(s, n, field, init, all, text)                                                                       \
    {                                                                                                                  \
        .section = s, .name = n, .type = DC_KEY_CHOICE, .offset = AT(field), .initial = init, .choices = all,          \
        .help = text                                                                                                   \
    }
#define COUNT_KEY(s, n, field, init, lo, hi, text)                                                                     \
    {                                                                                                                  \
        .section = s, .name = n, .type = DC_KEY_COUNT, .offset = AT(field), .initial = init, .minimum = lo,            \
        .maximum = hi, .help = text                                                                                    \
    }
/* The keys that [target] and [search] share; the initial values of the latter are DARTS' search with the batch of
 * DCA-NAS, of the former DARTS' evaluation on CIFAR-10. */
#define RECIPE(s, f, channels_, cells_, epochs_, batch_, rate_, nesterov_, pad_, flip_, cutout_)                       \
    INT_KEY(s, "channels", f.channels, channels_, 2, 1024, "channels of a node in the first cell"),                    \
        INT_KEY(s, "cells", f.cells, cells_, 3, 100, "cells; reductions stand at 1/3 and 2/3"),                        \
        INT_KEY(s, "epochs", f.epochs, epochs_, 1, 100000, "passes over the training images"),                         \
        INT_KEY(s, "batch", f.batch, batch_, 1, 65536, "images in a step, over all ranks that work together"),         \
        INT_KEY(s, "micro_batch", f.micro_batch, "0", 0, 65536,                                                        \
                "images that a rank computes at once, adding up gradients; a multiple of 16; 0: all of its share"),    \
        FLOAT_KEY(s, "learning_rate", f.learning_rate, rate_, 0, 100, "of SGD, after its warm-up"),                    \
        INT_KEY(s, "learning_rate_batch", f.learning_rate_batch, "0", 0, 65536,                                        \
                "the batch that the learning rates are meant for: they grow as batch does; 0: they are as given"),     \
        FLOAT_KEY(s, "minimum_learning_rate", f.minimum_learning_rate, "0", 0, 100, "at the end (cosine, linear)"),    \
        CHOICE_KEY(s, "schedule", f.schedule, "cosine", "cosine|linear|step", "how the learning rate falls"),          \
        FLOAT_KEY(s, "schedule_warmup_epochs", f.schedule_warmup_epochs, "0", 0, 1000,                                 \
                  "epochs over which the learning rate rises from 0"),                                                 \
        FLOAT_KEY(s, "step_epochs", f.step_epochs, "30", 0.001, 100000, "step: epochs between two falls"),             \
        FLOAT_KEY(s, "step_decay", f.step_decay, "0.97", 0, 1, "step: factor of each fall"),                           \
        FLOAT_KEY(s, "momentum", f.momentum, "0.9", 0, 0.9999, "of SGD"),                                              \
        BOOL_KEY(s, "nesterov", f.nesterov, nesterov_, "Nesterov's momentum"),                                         \
        FLOAT_KEY(s, "weight_decay", f.weight_decay, "3e-4", 0, 1, "of SGD"),                                          \
        FLOAT_KEY(s, "clip", f.clip, "5", 0, 1e6, "largest norm of the gradient; 0: no clipping"),                     \
        FLOAT_KEY(s, "label_smoothing", f.label_smoothing, "0", 0, 0.99, "of the cross entropy"),                      \
        INT_KEY(s, "crop_padding", f.crop_padding, pad_, 0, 64,                                                        \
                "pad each side by this many pixels and crop back at random; 0: no"),                                   \
        BOOL_KEY(s, "flip", f.flip, flip_, "mirror half of the images"),                                               \
        INT_KEY(s, "cutout", f.cutout, cutout_, 0, 1024, "side of a square that is blanked at random; 0: no"),         \
        BOOL_KEY(s, "random_resized_crop", f.resized_crop, "no", "take a random part of each image, resized"),         \
        FLOAT_KEY(s, "smallest_crop", f.smallest_crop, "0.08", 0.001, 1, "its least share of the image's area"),       \
        FLOAT_KEY(s, "brightness", f.brightness, "0", 0, 1, "change it by a factor of 1 - this to 1 + this; 0: no"),   \
        FLOAT_KEY(s, "contrast", f.contrast, "0", 0, 1, "the same of the distance from the mean grey"),                \
        FLOAT_KEY(s, "saturation", f.saturation, "0", 0, 1, "the same of the distance from a pixel's grey"),           \
        FLOAT_KEY(s, "hue", f.hue, "0", 0, 0.5, "turn the colour circle by up to this, in turns; 0: no"),              \
        FLOAT_KEY(s, "lighting", f.lighting, "0", 0, 1,                                                                \
                  "standard deviation of noise along the principal colours of ImageNet; 0: no")

static const dc_key keys[] = {
    {.section = "run",
     .name = "name",
     .type = DC_KEY_TEXT,
     .offset = AT(run.name),
     .size = SIZE(run.name),
     .initial = "",
     .maximum = 1,
     .flags = DC_KEY_NO_HASH,
     .help = "names the output folder; empty: the config file's name"},
    {.section = "run",
     .name = "output",
     .type = DC_KEY_TEXT,
     .offset = AT(run.output),
     .size = SIZE(run.output),
     .initial = "output",
     .minimum = 1,
     .maximum = 1,
     .flags = DC_KEY_NO_HASH,
     .help = "folder in which the run's own folder is made"},
    COUNT_KEY("run", "seed", run.seed, "1", 0, 1e15, "of every random number; equal seeds give equal results"),
    {.section = "run",
     .name = "device",
     .type = DC_KEY_TEXT,
     .offset = AT(run.device),
     .size = SIZE(run.device),
     .initial = "auto",
     .minimum = 1,
     .maximum = 1,
     .flags = DC_KEY_NO_HASH,
     .help = "what computes: auto (a GPU a rank where the driver shows some, else the CPU), cpu, cuda"},
    CHOICE_KEY(
        "run", "precision", run.precision, "float", "float|tf32|bf16",
        "of products: tf32 needs a GPU; bf16 is the faster on CPUs with AVX512-BF16, and on GPUs, where it also halves "
        "the memory of activations; weights, statistics, losses and optimizers stay float. It decides results: "
        "a run goes on in its own only"),
    {.section = "run",
     .name = "autotune",
     .type = DC_KEY_BOOL,
     .offset = AT(run.autotune),
     .initial = "no",
     .flags = DC_KEY_NO_HASH,
     .help = "GPUs: time cuDNN's engines at the start and take the fastest; last bits then differ from start to start"},
    {.section = "run",
     .name = "threads",
     .type = DC_KEY_INT,
     .offset = AT(run.threads),
     .initial = "0",
     .minimum = 0,
     .maximum = 1024,
     .flags = DC_KEY_NO_HASH,
     .help = "threads of each rank; 0: the cores that the launcher binds it to, or its share of the machine's"},
    {.section = "run",
     .name = "log_interval",
     .type = DC_KEY_DURATION_S,
     .offset = AT(run.log_interval_s),
     .initial = "30",
     .minimum = 0.1,
     .maximum = 86400,
     .flags = DC_KEY_NO_HASH,
     .help = "time between two progress lines where output is no terminal"},
    {.section = "run",
     .name = "watchdog",
     .type = DC_KEY_DURATION_S,
     .offset = AT(run.watchdog_s),
     .initial = "10m",
     .minimum = 0,
     .maximum = 1e6,
     .flags = DC_KEY_NO_HASH,
     .help = "a job of which a rank has not moved for so long is ended; longer than any step; 0: never"},
    {.section = "run",
     .name = "lock_timeout",
     .type = DC_KEY_DURATION_S,
     .offset = AT(run.lock_timeout_s),
     .initial = "30",
     .minimum = 1,
     .maximum = 3600,
     .flags = DC_KEY_NO_HASH,
     .help = "a job on another machine that has shown no sign of life in the folder for so long is taken for dead"},

    {.section = "data",
     .name = "file",
     .type = DC_KEY_TEXT,
     .offset = AT(data_file),
     .size = SIZE(data_file),
     .initial = "",
     .maximum = 1,
     .flags = DC_KEY_NO_HASH, /* its contents decide, not its name */
     .help = "the data set file made by `dcanas data import`"},
    INT_KEY("data", "image_size", image_size, "0", 0, DC_MAX_IMAGE_SIDE,
            "side of the images that the network gets; 0: of pictures stored as JPEG 224, else as they are stored"),
    {.section = "data",
     .name = "stage",
     .type = DC_KEY_TEXT,
     .offset = AT(data_stage),
     .size = SIZE(data_stage),
     .initial = "no",
     .minimum = 1,
     .maximum = 1,
     .flags = DC_KEY_NO_HASH,
     .help = "copy the file to each node's own storage first: no; auto, where it lies on a network and there is room; "
             "or a folder"},
    {.section = "data",
     .name = "decode_threads",
     .type = DC_KEY_INT,
     .offset = AT(decode_threads),
     .initial = "0",
     .minimum = 0,
     .maximum = DC_MAX_DECODE_THREADS,
     .flags = DC_KEY_NO_HASH,
     .help = "threads of each rank that make batches; 0: a share of its cores, by device and kind of data"},
    {.section = "data",
     .name = "prefetch",
     .type = DC_KEY_INT,
     .offset = AT(prefetch),
     .initial = "2",
     .minimum = 1,
     .maximum = DC_MAX_PREFETCH,
     .flags = DC_KEY_NO_HASH,
     .help = "batches that are made ahead of the one in use"},

    COUNT_KEY("budget", "params", budget[DC_METRIC_PARAMS], "0", 0, 1e15,
              "parameters that the network may have (without auxiliary head); 0: no limit"),
    COUNT_KEY("budget", "macs", budget[DC_METRIC_MACS], "0", 0, 1e18,
              "multiply-accumulates that one image may cost; 0: no limit"),

    CHOICE_KEY("space", "network", network, "cifar", "cifar|imagenet",
               "stem and head of the networks: cifar for small images, imagenet (three stride-2 convolutions first)"),

    RECIPE("target", target, "36", "20", "600", "96", "0.025", "no", "4", "yes", "16"),
    BOOL_KEY("target", "auxiliary", target_auxiliary, "yes", "train with an auxiliary head at 2/3 of the depth"),
    FLOAT_KEY("target", "auxiliary_weight", target_auxiliary_weight, "0.4", 0, 10, "of its loss"),
    FLOAT_KEY("target", "dropout", target_dropout, "0", 0, 0.99, "before the classifier"),
    FLOAT_KEY("target", "drop_path", target_drop_path, "0.2", 0, 0.99,
              "rate of dropped paths at the last epoch; rises linearly from 0"),
    FLOAT_KEY("target", "ema_decay", target_ema_decay, "0", 0, 0.999999,
              "weights are averaged, each step keeping this share of the average, which is evaluated; 0: no"),

    RECIPE("search", search, "16", "8", "50", "512", "0.2", "no", "4", "yes", "0"),
    BOOL_KEY("search", "sharing", sharing, "yes", "an operation on a source is computed once for all nodes"),
    BOOL_KEY("search", "bottleneck", bottleneck, "yes", "candidate operations work on a quarter of the channels"),
    BOOL_KEY("search", "derived_cells", derived_cells, "yes",
             "only the first cell of each type mixes all operations; the others run the derived architecture"),
    FLOAT_KEY("search", "train_fraction", train_fraction, "0.5", 0, 1,
              "of each class's training images: for the weights"),
    FLOAT_KEY("search", "validation_fraction", validation_fraction, "0.5", 0, 1, "the same for alpha"),
    COUNT_KEY("search", "train_images", train_images, "0", 0, 4e9, "at most so many of them; 0: no limit"),
    COUNT_KEY("search", "validation_images", validation_images, "0", 0, 4e9, "at most so many; 0: no limit"),
    INT_KEY("search", "alpha_warmup_epochs", alpha_warmup_epochs, "15", 0, 100000,
            "first epochs, in which alpha rests while the weights learn"),
    FLOAT_KEY("search", "alpha_learning_rate", alpha_learning_rate, "6e-4", 0, 1, "of Adam"),
    BOOL_KEY("search", "alpha_anneal", alpha_anneal, "yes", "lower alpha's rate to 0 by a cosine, so that it settles"),
    FLOAT_KEY("search", "alpha_beta1", alpha_beta1, "0.5", 0, 0.9999, "of Adam"),
    FLOAT_KEY("search", "alpha_beta2", alpha_beta2, "0.999", 0, 0.999999, "of Adam"),
    FLOAT_KEY("search", "alpha_weight_decay", alpha_weight_decay, "1e-3", 0, 1, "of Adam"),
    FLOAT_KEY("search", "alpha_init", alpha_init, "1e-3", 0, 1, "standard deviation of alpha at the start"),
    INT_KEY("search", "runs", runs, "5", 1, 10000,
            "searches at the target that the lookup graph gives; the best is kept"),

    BOOL_KEY("constraint", "enabled", constrained, "yes", "hold the search to its target size"),
    CHOICE_KEY("constraint", "estimate", estimate, "derived", "derived|soft",
               "what stands for the network's size during the search: the size of what would be derived now, or the "
               "softmax's mean over all operations (the paper's)"),
    FLOAT_KEY("constraint", "rho", rho, "3", 0, 1000, "strength of the immediate answer to a size above the target"),
    FLOAT_KEY("constraint", "eta", eta, "4", 0, 1000,
              "what the multiplier gathers over a whole search at twice the target size"),

    {.section = "lug",
     .name = "file",
     .type = DC_KEY_TEXT,
     .offset = AT(lug_file),
     .size = SIZE(lug_file),
     .initial = "",
     .minimum = 0,
     .maximum = 1,
     .flags = DC_KEY_NO_HASH,
     .help = "a lookup graph to use and extend; empty: lug.h5 in the run's folder"},
    {.section = "lug",
     .name = "points",
     .type = DC_KEY_INT,
     .offset = AT(lug_points),
     .initial = "8",
     .minimum = 1,
     .maximum = 100000,
     .flags = DC_KEY_NO_HASH,
     .help = "targets, spread over the range of the budget's metrics; a later run may ask for more"},
    {.section = "lug",
     .name = "seeds",
     .type = DC_KEY_INT,
     .offset = AT(lug_seeds),
     .initial = "1",
     .minimum = 1,
     .maximum = 1000,
     .flags = DC_KEY_NO_HASH,
     .help = "searches at each target; a later run may ask for more"},
    FLOAT_KEY("lug", "lowest", lug_lowest, "0", 0, 1,
              "the targets cover this part of the range from the space's smallest (0) to its largest (1) network"),
    FLOAT_KEY("lug", "highest", lug_highest, "1", 0, 1, "see lowest"),
    {.section = "lug",
     .name = "ranks_per_search",
     .type = DC_KEY_INT,
     .offset = AT(ranks_per_search),
     .initial = "1",
     .minimum = 1,
     .maximum = 4096,
     .help = "ranks that do one search together, data-parallel"},

    INT_KEY("select", "epochs", select_epochs, "3", 1, 100000,
            "epochs of the short training by which the candidates are compared"),
    INT_KEY("select", "candidates", select_candidates, "3", 0, 1000,
            "candidates taken from the lookup graph, besides the searches at the target"),

    {.section = "checkpoint",
     .name = "interval",
     .type = DC_KEY_DURATION_S,
     .offset = AT(checkpoint_interval_s),
     .initial = "5m",
     .minimum = 0,
     .maximum = 1e6,
     .flags = DC_KEY_NO_HASH,
     .help = "time between two checkpoints of a search or training, besides those at ends and on signals"},
    {.section = "checkpoint",
     .name = "max_starts_without_progress",
     .type = DC_KEY_INT,
     .offset = AT(max_idle_starts),
     .initial = "5",
     .minimum = 0,
     .maximum = 1000000,
     .flags = DC_KEY_NO_HASH,
     .help = "after so many starts in a row that brought nothing further the next is refused; 0: never"},
};

const dc_schema dc_settings_schema = {keys, sizeof keys / sizeof keys[0]};

dc_status dc_settings_load(const char *path, const dc_args *args, dc_settings *settings)
{
    memset(settings, 0, sizeof *settings);
    DC_TRY(dc_config_defaults(&dc_settings_schema, settings));
    DC_TRY(dc_config_load(&dc_settings_schema, path, settings));
    const char *assignment;
    for (int i = 0; args && (assignment = dc_args_values(args, "set", i)) != NULL; i++)
        DC_TRY(dc_config_set(&dc_settings_schema, assignment, settings));
    static const char *const options[] = {"device", "precision"}; /* keys of [run] by their own names */
    for (int i = 0; args && i < 2; i++) {
        const char *value = dc_args_value(args, options[i]);
        char chosen[64];
        snprintf(chosen, sizeof chosen, "run.%s=%s", options[i], value ? value : "");
        if (value)
            DC_TRY(dc_config_set(&dc_settings_schema, chosen, settings));
    }
    if (!*settings->run.name) {
        const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, *dot = strrchr(base, '.');
        size_t n = dot && dot > base ? (size_t)(dot - base) : strlen(base);
        if (n >= sizeof settings->run.name)
            return dc_fail(DC_ERR_INPUT, "%s: the file's name is too long for a run's name; set [run] name", path);
        memcpy(settings->run.name, base, n);
    }
    return dc_settings_check(settings);
}

dc_status dc_settings_check(const dc_settings *s)
{
    if (!*s->data_file)
        return dc_fail(DC_ERR_INPUT, "[data] file is not set: give the file that `dcanas data import` made");
    if (strchr(s->run.name, '/') || strcmp(s->run.name, ".") == 0 || strcmp(s->run.name, "..") == 0)
        return dc_fail(DC_ERR_INPUT, "[run] name = %s: a name, not a path (the folder is [run] output)", s->run.name);
    if (s->bottleneck && s->search.channels % 4)
        return dc_fail(DC_ERR_INPUT, "[search] channels = %d must be a multiple of 4 when [search] bottleneck = yes",
                       s->search.channels);
    if (s->alpha_warmup_epochs >= s->search.epochs)
        return dc_fail(DC_ERR_INPUT, "[search] alpha_warmup_epochs = %d leaves alpha no epoch of [search] epochs = %d",
                       s->alpha_warmup_epochs, s->search.epochs);
    if (s->ranks_per_search > s->search.batch)
        return dc_fail(DC_ERR_INPUT, "[lug] ranks_per_search = %d leaves ranks without an image of [search] batch = %d",
                       s->ranks_per_search, s->search.batch);
    if (s->train_fraction + s->validation_fraction > 1 + 1e-9)
        return dc_fail(DC_ERR_INPUT,
                       "[search] train_fraction = %g and validation_fraction = %g are together more than 1",
                       s->train_fraction, s->validation_fraction);
    if (s->lug_lowest >= s->lug_highest)
        return dc_fail(DC_ERR_INPUT, "[lug] lowest = %g must be less than highest = %g", s->lug_lowest, s->lug_highest);
    const dc_settings_recipe *recipes[] = {&s->target, &s->search};
    for (int i = 0; i < 2; i++) {
        const char *section = i ? "search" : "target";
        if (recipes[i]->schedule_warmup_epochs >= recipes[i]->epochs)
            return dc_fail(DC_ERR_INPUT, "[%s] schedule_warmup_epochs = %g must be less than epochs = %d", section,
                           recipes[i]->schedule_warmup_epochs, recipes[i]->epochs);
        if (recipes[i]->resized_crop && recipes[i]->crop_padding)
            return dc_fail(DC_ERR_INPUT,
                           "[%s] random_resized_crop = yes crops at random already: set crop_padding = 0 (it is %d)",
                           section, recipes[i]->crop_padding);
        if (recipes[i]->micro_batch % DC_MICRO_BATCH_UNIT)
            return dc_fail(DC_ERR_INPUT, "[%s] micro_batch = %d must be a multiple of %d (0: a rank's share at once)",
                           section, recipes[i]->micro_batch, DC_MICRO_BATCH_UNIT);
    }
    return DC_OK;
}

/* ---- what the modules take ---- */

/* The linear rule (Goyal et al. 2017): k times the batch, k times the rate. */
static dc_schedule schedule_of(const dc_settings_recipe *r)
{
    const double scale = r->learning_rate_batch ? (double)r->batch / r->learning_rate_batch : 1;
    return (dc_schedule){.kind = (dc_schedule_kind)r->schedule,
                         .learning_rate = scale * r->learning_rate,
                         .minimum = scale * r->minimum_learning_rate,
                         .epochs = r->epochs,
                         .warmup_epochs = r->schedule_warmup_epochs,
                         .step_epochs = r->step_epochs,
                         .decay = r->step_decay};
}

static dc_sgd_options sgd_of(const dc_settings_recipe *r)
{
    return (dc_sgd_options){r->momentum, r->weight_decay, r->nesterov, r->clip};
}

static dc_augment augment_of(const dc_settings_recipe *r)
{
    return (dc_augment){.pad = r->crop_padding,
                        .flip = r->flip,
                        .cutout = r->cutout,
                        .resized_crop = r->resized_crop,
                        .smallest_crop = r->smallest_crop,
                        .brightness = r->brightness,
                        .contrast = r->contrast,
                        .saturation = r->saturation,
                        .hue = r->hue,
                        .lighting = r->lighting};
}

static dc_loading loading_of(const dc_settings *s)
{
    return (dc_loading){s->decode_threads ? s->decode_threads : s->usual_decode_threads, s->prefetch};
}

dc_network_options dc_settings_network(const dc_settings *s, const dc_dataset *dataset)
{
    return (dc_network_options){.kind = (dc_network_kind)s->network,
                                .input = dataset->shape,
                                .classes = dataset->n_classes,
                                .channels = s->target.channels,
                                .cells = s->target.cells,
                                .auxiliary = s->target_auxiliary,
                                .auxiliary_weight = (float)s->target_auxiliary_weight,
                                .label_smoothing = (float)s->target.label_smoothing,
                                .dropout = (float)s->target_dropout};
}

dc_train_options dc_settings_train(const dc_settings *s, const dc_dataset *dataset)
{
    return (dc_train_options){.network = dc_settings_network(s, dataset),
                              .epochs = s->target.epochs,
                              .batch = s->target.batch,
                              .micro_batch = s->target.micro_batch,
                              .sgd = sgd_of(&s->target),
                              .schedule = schedule_of(&s->target),
                              .drop_path_rate = s->target_drop_path,
                              .ema_decay = s->target_ema_decay,
                              .augment = augment_of(&s->target),
                              .loading = loading_of(s)};
}

dc_train_options dc_settings_select(const dc_settings *s, const dc_dataset *dataset)
{
    dc_train_options options = dc_settings_train(s, dataset);
    options.epochs = s->select_epochs;
    options.drop_path_rate = 0; /* regularisation for long trainings only blurs a short one */
    options.ema_decay = 0;
    if (options.schedule.warmup_epochs > options.epochs / 4.0)
        options.schedule.warmup_epochs = options.epochs / 4.0;
    return options;
}

dc_search_options dc_settings_search(const dc_settings *s, const dc_dataset *dataset)
{
    return (dc_search_options){
        .supernet = {.kind = (dc_network_kind)s->network,
                     .input = dataset->shape,
                     .classes = dataset->n_classes,
                     .channels = s->search.channels,
                     .cells = s->search.cells,
                     .sharing = s->sharing,
                     .bottleneck = s->bottleneck,
                     .derived_cells = s->derived_cells,
                     .alpha_init = (float)s->alpha_init,
                     .label_smoothing = (float)s->search.label_smoothing},
        .constrained = s->constrained,
        .constraint = {(dc_estimate)s->estimate, s->rho, s->eta},
        .epochs = s->search.epochs,
        .warmup_epochs = s->alpha_warmup_epochs,
        .batch = s->search.batch,
        .micro_batch = s->search.micro_batch,
        .sgd = sgd_of(&s->search),
        .schedule = schedule_of(&s->search),
        .alpha = {s->alpha_learning_rate, s->alpha_beta1, s->alpha_beta2, s->alpha_weight_decay, s->alpha_anneal},
        .train = {s->train_fraction, (uint32_t)s->train_images},
        .validation = {s->validation_fraction, (uint32_t)s->validation_images},
        .augment = augment_of(&s->search),
        .loading = loading_of(s)};
}

dc_budgets dc_settings_budgets(const dc_settings *s, const dc_cost_table *tables)
{
    dc_budgets budgets = {0};
    for (int m = 0; m < DC_METRICS; m++)
        if (s->budget[m] > 0) {
            budgets.table[budgets.n] = &tables[m];
            budgets.limit[budgets.n++] = (double)s->budget[m];
        }
    return budgets;
}
