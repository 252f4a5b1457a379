#include "app/data_command.h"

#include "app/json.h"
#include "base/args.h"
#include "base/units.h"
#include "data/dataset.h"
#include "data/import.h"

#include <inttypes.h>
#include <sys/stat.h>

static const dc_option import_options[] = {
    {"name", "TEXT", "the data set's name (default: the source folder's)"},
    {"classes-from", "NAME", "idx: class names of fashion-mnist or mnist (default: by the source folder's name)"},
    {"classes", "N", "idx: number of classes where no names are known (default 10)"},
    {"train-images", "FILE", "idx: the four files one by one, in place of SOURCE"},
    {"train-labels", "FILE", "as above"},
    {"test-images", "FILE", "as above"},
    {"test-labels", "FILE", "as above"},
};

static const dc_option info_options[] = {
    {"json", NULL, "prints JSON"},
    {"verify", NULL, "reads every image and compares with the stored hash"},
};

static const dc_command commands[] = {
    {"import", "KIND [SOURCE] DEST", 2, 3, import_options, sizeof import_options / sizeof *import_options,
     "makes a data set file of a public archive",
     "KIND is idx (the MNIST family: a folder with train-images-idx3-ubyte and so on, plain or .gz),\n"
     "cifar10 or cifar100 (the folder of the binary version). DEST is the file to write, for example data/cifar10.h5."},
    {"info", "FILE", 1, 1, info_options, sizeof info_options / sizeof *info_options, "shows what a data set file holds",
     NULL},
};

enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_text(const dc_dataset *dataset, bool verified, FILE *out)
{
    dc_shape shape = dataset->shape;
    struct stat info;
    fprintf(out, "%s: %s\n", dataset->path, dataset->name);
    fprintf(out, "  images    %s for training, %s for testing, %dx%dx%d (channels x height x width)\n",
            dc_format_count(dataset->split[DC_SPLIT_TRAIN].n).s, dc_format_count(dataset->split[DC_SPLIT_TEST].n).s,
            shape.c, shape.h, shape.w);
    fprintf(out, "  classes   %d:", dataset->n_classes);
    for (int i = 0; i < dataset->n_classes && i < 10; i++)
        fprintf(out, "%s %s", i ? "," : "", dataset->classes[i]);
    fprintf(out, "%s\n  mean     ", dataset->n_classes > 10 ? ", ..." : "");
    for (int c = 0; c < shape.c; c++)
        fprintf(out, " %.4f", dataset->mean[c]);
    fprintf(out, "\n  std      ");
    for (int c = 0; c < shape.c; c++)
        fprintf(out, " %.4f", dataset->deviation[c]);
    fprintf(out, "\n  hash      %016" PRIx64 "%s\n", dataset->hash, verified ? " (verified)" : "");
    if (stat(dataset->path, &info) == 0)
        fprintf(out, "  size      %s\n", dc_format_bytes((double)info.st_size).s);
}

static dc_status print_json(const dc_dataset *dataset, bool verified, FILE *out)
{
    char hash[17];
    snprintf(hash, sizeof hash, "%016" PRIx64, dataset->hash);
    dc_shape shape = dataset->shape;
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "file", dataset->path);
    cJSON_AddStringToObject(root, "name", dataset->name);
    cJSON_AddNumberToObject(root, "train_images", dataset->split[DC_SPLIT_TRAIN].n);
    cJSON_AddNumberToObject(root, "test_images", dataset->split[DC_SPLIT_TEST].n);
    cJSON_AddItemToObject(root, "shape", cJSON_CreateIntArray((int[]){shape.c, shape.h, shape.w}, 3));
    cJSON_AddItemToObject(root, "mean", cJSON_CreateDoubleArray(dataset->mean, shape.c));
    cJSON_AddItemToObject(root, "std", cJSON_CreateDoubleArray(dataset->deviation, shape.c));
    cJSON_AddStringToObject(root, "hash", hash);
    cJSON_AddBoolToObject(root, "verified", verified);
    cJSON *classes = cJSON_AddArrayToObject(root, "classes");
    for (int i = 0; i < dataset->n_classes; i++)
        cJSON_AddItemToArray(classes, cJSON_CreateString(dataset->classes[i]));
    return dc_json_print(root, out);
}

static dc_status info(const dc_args *args, FILE *out)
{
    dc_dataset *dataset;
    DC_TRY(dc_dataset_open(dc_args_at(args, 0), &dataset));
    bool verify = dc_args_has(args, "verify");
    dc_status status = verify ? dc_dataset_verify(dataset) : DC_OK;
    if (status == DC_OK && dc_args_has(args, "json"))
        status = print_json(dataset, verify, out);
    else if (status == DC_OK)
        print_text(dataset, verify, out);
    dc_dataset_close(dataset);
    return status;
}

static dc_status import(const dc_args *args, FILE *out)
{
    bool folder = dc_args_count(args) == 3;
    const char *destination = dc_args_at(args, folder ? 2 : 1);
    dc_import_options options = {
        .name = dc_args_value(args, "name"),
        .classes_from = dc_args_value(args, "classes-from"),
        .files = {dc_args_value(args, "train-images"), dc_args_value(args, "train-labels"),
                  dc_args_value(args, "test-images"), dc_args_value(args, "test-labels")},
    };
    DC_TRY(dc_args_int(args, "classes", 1, DC_MAX_CLASSES, &options.n_classes));
    DC_TRY(dc_import(dc_args_at(args, 0), folder ? dc_args_at(args, 1) : NULL, destination, &options));
    dc_dataset *dataset;
    DC_TRY(dc_dataset_open(destination, &dataset));
    print_text(dataset, false, out);
    dc_dataset_close(dataset);
    return DC_OK;
}

dc_status dc_data_command(int argc, char *const *argv, FILE *out)
{
    if (argc < 1 || argv[0][0] == '-') {
        dc_args_print_commands("dcanas data", commands, N_COMMANDS, out);
        return argc < 1 ? dc_fail(DC_ERR_INPUT, "data: say import or info") : DC_OK;
    }
    const dc_command *command;
    dc_args *args;
    DC_TRY(dc_args_command(commands, N_COMMANDS, argv[0], &command));
    DC_TRY(dc_args_parse(command, argc - 1, argv + 1, &args));
    dc_status status = DC_OK;
    if (dc_args_has(args, "help"))
        dc_args_print_help("dcanas data", command, out);
    else
        status = command == &commands[0] ? import(args, out) : info(args, out);
    dc_args_destroy(args);
    return status;
}
