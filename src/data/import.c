#include "data/import.h"

#include "base/files.h"

#include <stdlib.h>
#include <string.h>

const char *dc_import_kinds(void)
{
    return "idx, cifar10, cifar100";
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

static dc_status read_source(const char *kind, const char *source, const dc_import_options *options,
                             dc_dataset_content *content, dc_import_store *store)
{
    if (strcmp(kind, "idx") == 0)
        return dc_import_idx(source, options, content, store);
    bool hundred = strcmp(kind, "cifar100") == 0;
    if (!hundred && strcmp(kind, "cifar10") != 0)
        return dc_fail(DC_ERR_INPUT, "cannot import '%s': known kinds are %s", kind, dc_import_kinds());
    bool files = false;
    for (int i = 0; i < DC_IDX_FILES; i++)
        files |= options->files[i] != NULL;
    if (options->classes_from || options->n_classes || files)
        return dc_fail(DC_ERR_INPUT, "class names, their number and single files are options of kind idx, not of %s",
                       kind);
    if (!source)
        return dc_fail(DC_ERR_INPUT, "kind %s needs the folder of the archive", kind);
    content->name = kind;
    return dc_import_cifar(source, hundred, content, store);
}

static dc_status make_directory_of(const char *path)
{
    char directory[DC_PATH_CHARS];
    DC_TRY(dc_path_directory(path, directory));
    return dc_directory_create(directory);
}

dc_status dc_import(const char *kind, const char *source, const char *destination, const dc_import_options *options)
{
    dc_import_options none = {0};
    if (!options)
        options = &none;
    dc_dataset_content content = {0};
    dc_import_store store = {0};
    dc_status status = read_source(kind, source, options, &content, &store);
    if (status == DC_OK)
        status = make_directory_of(destination);
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
