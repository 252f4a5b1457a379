#include "data/import.h"

#include "base/files.h"
#include "base/state.h"
#include "data/import_pictures.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { IMAGENET16_SIDE = 16 };

static const double default_held_out = 0.1;

/* What a kind's archive is: arrays that fit in memory, or pictures. */
typedef struct kind {
    const char *name;
    dc_status (*read)(const char *source, const dc_import_options *options, dc_dataset_content *content,
                      dc_import_store *store); /* NULL: pictures */
    bool own_test, imagenet16;                 /* dc_layout_rules */
} kind;

static const kind kinds[] = {
    {"folders", NULL, false, false},
    {"tiny-imagenet", NULL, true, false},
    {"imagenet", NULL, true, false},
    {"imagenet16-120", NULL, true, true},
    {"cifar10", dc_import_cifar10, false, false},
    {"cifar100", dc_import_cifar100, false, false},
    {"idx", dc_import_idx, false, false},
};

const char *dc_import_kinds(void)
{
    return "folders, tiny-imagenet, imagenet, imagenet16-120, cifar10, cifar100, idx";
}

static void store_clear(dc_import_store *store)
{
    for (int s = 0; s < DC_SPLIT_COUNT; s++) {
        free(store->pixels[s]);
        free(store->labels[s]);
    }
    for (char **name = store->classes; name && *name; name++)
        free(*name);
    free(store->classes);
}

/* Makes the folder. What stands there already must be an earlier data set: anything else is not replaced, an archive
 * for instance that was named in the wrong place. */
static dc_status prepare_destination(const char *path)
{
    char directory[DC_PATH_CHARS], about[DC_STATE_ABOUT_CHARS];
    struct stat info;
    DC_TRY(dc_path_directory(path, directory));
    DC_TRY(dc_directory_create(directory));
    DC_TRY(dc_file_check_writable(path));
    if (stat(path, &info) == 0 && info.st_size && dc_state_about(path, about) != DC_OK)
        return dc_fail_within(DC_ERR_INPUT, "only a data set is replaced: give another name, or remove the file");
    return DC_OK;
}

/* A data set that is read as a whole, by one rank. */
static dc_status import_arrays(const kind *k, const char *source, const char *destination,
                               const dc_import_options *options)
{
    dc_dataset_content content = {.name = k->name};
    dc_import_store store = {0};
    dc_status status = k->read(source, options, &content, &store);
    if (status == DC_OK) {
        if (options->name)
            content.name = options->name;
        for (int s = 0; s < DC_SPLIT_COUNT; s++) {
            content.split[s].pixels = store.pixels[s];
            content.split[s].labels = store.labels[s];
        }
        content.classes = (const char *const *)store.classes;
        status = dc_dataset_write(destination, &content);
    }
    store_clear(&store);
    return status;
}

/* Options of another kind are refused, not ignored. */
static dc_status check_options(const kind *k, const char *source, const dc_import_options *o)
{
    bool idx = k->read == dc_import_idx, pictures = !k->read, files = false;
    for (int i = 0; i < DC_IDX_FILES; i++)
        files |= o->files[i] != NULL;
    if (!idx && (o->classes_from || files))
        return dc_fail(DC_ERR_INPUT, "class names and single files are options of kind idx, not of %s", k->name);
    if (!idx && !pictures && o->n_classes)
        return dc_fail(DC_ERR_INPUT, "a number of classes is no option of kind %s, which has its own", k->name);
    if (!pictures && (o->size || o->reencode || o->quality || o->held_out || o->skip_bad || o->labels))
        return dc_fail(DC_ERR_INPUT,
                       "--size, --reencode, --quality, --held-out, --skip-bad and --labels are options of "
                       "pictures, not of kind %s",
                       k->name);
    if (o->size && o->reencode)
        return dc_fail(DC_ERR_INPUT, "--size %d stores pixels, --reencode %d JPEG: give one of them", o->size,
                       o->reencode);
    if (k->imagenet16 && (o->size || o->reencode || o->n_classes))
        return dc_fail(DC_ERR_INPUT, "kind %s has its own size and classes: no --size, --reencode, --classes", k->name);
    if (!idx && !source)
        return dc_fail(DC_ERR_INPUT, "kind %s needs a source: a folder or an archive", k->name);
    return DC_OK;
}

static dc_status find_kind(const char *name, const kind **found)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, name) == 0) {
            *found = &kinds[i];
            return DC_OK;
        }
    return dc_fail(DC_ERR_INPUT, "cannot import '%s': known kinds are %s", name, dc_import_kinds());
}

/* ImageNet-16-120: pictures, or its published batches? The first file that is either tells. */
static dc_status find_batches(const char *path, bool *found)
{
    const dc_layout_rules any = {0};
    dc_source *source;
    dc_source_entry entry;
    DC_TRY(dc_source_open(path, &source));
    dc_status status;
    *found = false;
    while ((status = dc_source_next(source, &entry)) == DC_OK && entry.name && !*found) {
        const char *slash = strrchr(entry.name, '/');
        if (!entry.folder && dc_layout_wants(&any, entry.name))
            break;
        *found = strncmp(slash ? slash + 1 : entry.name, "train_data_batch_", 17) == 0;
    }
    dc_source_close(source);
    return status;
}

static const kind batches = {"imagenet16-120", dc_import_imagenet16, false, true};

/* The kind as it is to be read, the same on every rank. */
static dc_status choose_form(const dc_comm *comm, const char *source, const kind **k)
{
    bool found = false;
    if (!(*k)->imagenet16)
        return DC_OK;
    DC_TRY_ALL(comm, comm->rank == 0 ? find_batches(source, &found) : DC_OK);
    DC_TRY(dc_comm_bcast(comm, 0, &found, sizeof found));
    *k = found ? &batches : *k;
    return DC_OK;
}

dc_status dc_import(const dc_comm *comm, dc_log *log, const char *name, const char *source, const char *destination,
                    const dc_import_options *options)
{
    const dc_import_options none = {0};
    const kind *k = NULL;
    options = options ? options : &none;
    DC_TRY(find_kind(name, &k));
    DC_TRY(check_options(k, source, options));
    DC_TRY_ALL(comm, comm->rank == 0 ? prepare_destination(destination) : DC_OK);
    DC_TRY(choose_form(comm, source, &k));
    if (k->read) {
        dc_status status = comm->rank == 0 ? import_arrays(k, source, destination, options) : DC_OK;
        DC_TRY(dc_comm_barrier(comm));
        return dc_comm_agree(comm, status);
    }
    const dc_layout_rules rules = {.own_test = k->own_test,
                                   .imagenet16 = k->imagenet16,
                                   .held_out = options->held_out ? options->held_out : default_held_out,
                                   .max_classes = options->n_classes};
    return dc_import_pictures(comm, log, source, destination, &rules, k->imagenet16 ? IMAGENET16_SIDE : options->size,
                              options);
}
