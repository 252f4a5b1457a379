#include "app/data_command.h"

#include "app/data_info.h"
#include "base/args.h"
#include "data/dataset.h"
#include "data/import.h"

#include <stdlib.h>

static const dc_option import_options[] = {
    {"name", "TEXT", "the data set's name (default: the source's)"},
    {"size", "S", "pictures: store them decoded, each scaled to SxS (default: only those of one size up to 96)"},
    {"reencode", "S", "pictures: store JPEG whose shorter side is at most S (default: the files as they are)"},
    {"quality", "Q", "pictures: of JPEG that is made by --reencode or of PNG, 1..100 (default 90)"},
    {"held-out", "SHARE",
     "pictures: share of each class to test with where there is no folder for it, 0: none (default 0.1)"},
    {"labels", "FILE", "pictures: the labels of a validation folder without class folders (default: in the source)"},
    {"classes", "N", "pictures: only the first N classes; idx: how many there are where no names are known"},
    {"skip-bad", NULL, "pictures: leaves out what cannot be read or is there twice, and names it"},
    {"threads", "N", "of each rank (default: its cores)"},
    {"classes-from", "NAME", "idx: class names of fashion-mnist or mnist (default: by the source folder's name)"},
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
     "makes a data set file of pictures or of a public archive",
     "SOURCE is a folder, a tar, a compressed tar or a zip, DEST the file to write, for example data/cifar10.h5.\n"
     "KIND is one of\n"
     "  folders         class folders of JPEG or PNG in train/ and test/ (or val/), or class folders alone\n"
     "  tiny-imagenet   Tiny-ImageNet as it is\n"
     "  imagenet        ImageNet-1k: train/ and val/ of synset folders, or val/ with a file of labels\n"
     "                  (LOC_val_solution.csv, ILSVRC2012_validation_ground_truth.txt, ...), or a folder with the\n"
     "                  original ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar\n"
     "  imagenet16-120  16x16 pixels of 120 classes, from the same or from its published batches\n"
     "  cifar10         the binary or the python version; cifar100 likewise\n"
     "  idx             the MNIST family: train-images-idx3-ubyte and so on, plain or .gz\n"
     "Under mpirun the ranks share the work. Run the same command again to go on after an interruption."},
    {"info", "FILE", 1, 1, info_options, sizeof info_options / sizeof *info_options, "shows what a data set file holds",
     NULL},
};

enum { N_COMMANDS = sizeof commands / sizeof *commands };

static dc_status info(const dc_args *args, FILE *out)
{
    dc_dataset *dataset;
    DC_TRY(dc_dataset_open(dc_args_at(args, 0), &dataset));
    bool verify = dc_args_has(args, "verify");
    dc_status status = verify ? dc_dataset_verify(dataset) : DC_OK;
    if (status == DC_OK && dc_args_has(args, "json"))
        status = dc_data_info_json(dataset, verify, out);
    else if (status == DC_OK)
        status = dc_data_info_text(dataset, verify, out);
    dc_dataset_close(dataset);
    return status;
}

static dc_status import_settings(const dc_args *args, dc_import_options *options)
{
    DC_TRY(dc_args_int(args, "classes", 1, DC_MAX_CLASSES, &options->n_classes));
    DC_TRY(dc_args_int(args, "size", 1, DC_MAX_IMAGE_SIDE, &options->size));
    DC_TRY(dc_args_int(args, "reencode", 16, DC_MAX_PICTURE_SIDE, &options->reencode));
    DC_TRY(dc_args_int(args, "quality", 1, 100, &options->quality));
    DC_TRY(dc_args_int(args, "threads", 1, 1024, &options->threads));
    const char *share = dc_args_value(args, "held-out");
    if (!share)
        return DC_OK;
    char *end;
    double held_out = strtod(share, &end);
    if (end == share || *end || !(held_out >= 0 && held_out <= 0.9))
        return dc_fail(DC_ERR_INPUT, "--held-out %s: must be a number in 0..0.9", share);
    options->held_out = held_out > 0 ? held_out : -1;
    return DC_OK;
}

static dc_status import(const dc_comm *world, const dc_args *args, FILE *out)
{
    bool folder = dc_args_count(args) == 3;
    const char *destination = dc_args_at(args, folder ? 2 : 1);
    dc_import_options options = {
        .name = dc_args_value(args, "name"),
        .classes_from = dc_args_value(args, "classes-from"),
        .files = {dc_args_value(args, "train-images"), dc_args_value(args, "train-labels"),
                  dc_args_value(args, "test-images"), dc_args_value(args, "test-labels")},
        .skip_bad = dc_args_has(args, "skip-bad"),
        .labels = dc_args_value(args, "labels"),
    };
    DC_TRY(import_settings(args, &options));
    DC_TRY(dc_comm_watch(world));
    dc_log *log;
    DC_TRY(dc_log_open(world->rank, world->size, dc_log_on_terminal(), NULL, &log));
    dc_status status =
        dc_import(world, log, dc_args_at(args, 0), folder ? dc_args_at(args, 1) : NULL, destination, &options);
    dc_log_close(log);
    if (status != DC_OK || world->rank != 0)
        return status;
    dc_dataset *dataset;
    DC_TRY(dc_dataset_open(destination, &dataset));
    status = dc_data_info_text(dataset, false, out);
    dc_dataset_close(dataset);
    return status;
}

dc_status dc_data_command(const dc_comm *world, int argc, char *const *argv, FILE *out)
{
    if (argc < 1 || argv[0][0] == '-') {
        if (world->rank == 0)
            dc_args_print_commands("dcanas data", commands, N_COMMANDS, out);
        return argc < 1 ? dc_fail(DC_ERR_INPUT, "data: say import or info") : DC_OK;
    }
    const dc_command *command;
    dc_args *args;
    DC_TRY(dc_args_command(commands, N_COMMANDS, argv[0], &command));
    DC_TRY(dc_args_parse(command, argc - 1, argv + 1, &args));
    dc_status status = DC_OK;
    if (dc_args_has(args, "help")) {
        if (world->rank == 0)
            dc_args_print_help("dcanas data", command, out);
    } else if (command == &commands[0]) {
        status = import(world, args, out);
    } else {
        dc_watchdog_begun(world->watchdog); /* not watched */
        if (world->rank == 0)
            status = info(args, out);
    }
    dc_args_destroy(args);
    return status;
}
