/* Everything that a configuration file can say, and what the modules make of it. */
#ifndef DC_APP_SETTINGS_H
#define DC_APP_SETTINGS_H

#include "base/args.h"
#include "base/config.h"
#include "search/search.h"
#include "train/gradients.h"
#include "train/train.h"

typedef struct dc_settings_run {
    char name[128], output[1024], device[16];
    int64_t seed;
    int precision; /* dc_precision */
    bool autotune;
    int threads;
    double log_interval_s, lock_timeout_s, watchdog_s;
} dc_settings_run;

/* How weights are trained: the keys that [target] and [search] share. */
typedef struct dc_settings_recipe {
    int channels, cells, epochs, batch, micro_batch;
    double learning_rate, minimum_learning_rate;
    int learning_rate_batch;
    int schedule;
    double schedule_warmup_epochs, step_epochs, step_decay;
    double momentum;
    bool nesterov;
    double weight_decay, clip;
    int crop_padding;
    bool flip;
    int cutout;
    bool resized_crop;
    double smallest_crop, brightness, contrast, saturation, hue, lighting;
    double label_smoothing;
} dc_settings_recipe;

typedef struct dc_settings {
    dc_settings_run run;
    char data_file[1024];
    int image_size; /* 0: the data set's own or default */
    char data_stage[1024];
    int decode_threads, prefetch;
    int usual_decode_threads;   /* what decode_threads = 0 means here: no key, who knows the device says it */
    int network;                /* dc_network_kind */
    int64_t budget[DC_METRICS]; /* 0: none */
    dc_settings_recipe target, search;
    bool target_auxiliary;
    double target_auxiliary_weight, target_dropout, target_drop_path, target_ema_decay;
    bool alpha_anneal;
    bool sharing, bottleneck, derived_cells, constrained;
    int alpha_warmup_epochs, runs;
    double alpha_learning_rate, alpha_beta1, alpha_beta2, alpha_weight_decay, alpha_init;
    double train_fraction, validation_fraction;
    int64_t train_images, validation_images;
    int estimate;
    double rho, eta;
    char lug_file[1024];
    int lug_points, lug_seeds, ranks_per_search;
    double lug_lowest, lug_highest;
    int select_epochs, select_candidates;
    double checkpoint_interval_s;
    int max_idle_starts;
} dc_settings;

extern const dc_schema dc_settings_schema;

/* Defaults, then the file, then every --set of the arguments in order. */
dc_status dc_settings_load(const char *path, const dc_args *args, dc_settings *settings);

/* What the modules take, for a data set. */
dc_train_options dc_settings_train(const dc_settings *settings, const dc_dataset *dataset);
dc_train_options dc_settings_select(const dc_settings *settings, const dc_dataset *dataset); /* short trainings */
dc_search_options dc_settings_search(const dc_settings *settings, const dc_dataset *dataset);
dc_network_options dc_settings_network(const dc_settings *settings, const dc_dataset *dataset);

/* The metrics that have a budget, with their tables (DC_METRICS of them). Budgets may be 0 in number. */
dc_budgets dc_settings_budgets(const dc_settings *settings, const dc_cost_table *tables);

/* Checks across keys, which a range for each cannot express. */
dc_status dc_settings_check(const dc_settings *settings);

#endif
