#include "app/data_info.h"

#include "app/json.h"
#include "base/units.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { LISTED_CLASSES = 10 };

/* Images of a class in a split, over all classes. */
typedef struct class_counts {
    uint32_t fewest, most;
    int fewest_class, most_class;
} class_counts;

/* Sides of the pictures of both splits in pixels. */
typedef struct sides {
    int min, median, max;
} sides;

typedef struct facts {
    class_counts counts[DC_SPLIT_COUNT];
    sides height, width; /* jpeg */
} facts;

static dc_status count_classes(const dc_dataset *dataset, dc_split split, class_counts *counts)
{
    const dc_images *images = &dataset->split[split];
    uint32_t *n = dc_alloc_zeroed((size_t)dataset->n_classes * sizeof *n);
    if (!n)
        return DC_ERR_MEMORY;
    for (uint32_t i = 0; i < images->n; i++)
        n[images->labels[i]]++;
    *counts = (class_counts){n[0], n[0], 0, 0};
    for (int c = 1; c < dataset->n_classes; c++) {
        if (n[c] < counts->fewest)
            counts->fewest = n[counts->fewest_class = c];
        if (n[c] > counts->most)
            counts->most = n[counts->most_class = c];
    }
    free(n);
    return DC_OK;
}

/* From the number of pictures of each side. */
static sides sides_of(const uint32_t *n_of_side, uint32_t n)
{
    sides s = {0};
    uint32_t before = 0;
    for (int side = 1; side <= DC_MAX_PICTURE_SIDE; side++) {
        if (!n_of_side[side])
            continue;
        s.min = s.min ? s.min : side;
        s.median = before <= n / 2 ? side : s.median;
        s.max = side;
        before += n_of_side[side];
    }
    return s;
}

static dc_status measure_sides(const dc_dataset *dataset, facts *f)
{
    uint32_t *heights = dc_alloc_zeroed((DC_MAX_PICTURE_SIDE + 1) * sizeof *heights), n = 0;
    uint32_t *widths = dc_alloc_zeroed((DC_MAX_PICTURE_SIDE + 1) * sizeof *widths);
    dc_status status = heights && widths ? DC_OK : DC_ERR_MEMORY;
    for (int s = 0; s < DC_SPLIT_COUNT && status == DC_OK; s++) {
        const dc_images *images = &dataset->split[s];
        for (uint32_t i = 0; i < images->n; i++) {
            heights[images->sizes[i].height]++;
            widths[images->sizes[i].width]++;
        }
        n += images->n;
    }
    if (status == DC_OK) {
        f->height = sides_of(heights, n);
        f->width = sides_of(widths, n);
    }
    free(heights);
    free(widths);
    return status;
}

static dc_status gather(const dc_dataset *dataset, facts *f)
{
    *f = (facts){0};
    for (int s = 0; s < DC_SPLIT_COUNT; s++)
        DC_TRY(count_classes(dataset, (dc_split)s, &f->counts[s]));
    return dataset->storage == DC_STORAGE_JPEG ? measure_sides(dataset, f) : DC_OK;
}

/* ---- text ---- */

static void print_counts(const dc_dataset *dataset, dc_split split, const class_counts *counts, FILE *out)
{
    fprintf(out, "  %-9s %s images, ", dc_split_name(split), dc_format_count(dataset->split[split].n).s);
    if (counts->fewest == counts->most)
        fprintf(out, "%s of each class\n", dc_format_count(counts->most).s);
    else
        fprintf(out, "%s (%s) to %s (%s) of a class\n", dc_format_count(counts->fewest).s,
                dataset->classes[counts->fewest_class], dc_format_count(counts->most).s,
                dataset->classes[counts->most_class]);
}

static void print_storage(const dc_dataset *dataset, const facts *f, FILE *out)
{
    dc_shape shape = dataset->shape;
    if (dataset->storage == DC_STORAGE_PIXELS) {
        fprintf(out, "  storage   pixels, %dx%dx%d (channels x height x width)\n", shape.c, shape.h, shape.w);
        return;
    }
    uint64_t bytes = 0, n = 0;
    for (int s = 0; s < DC_SPLIT_COUNT; s++) {
        bytes += dataset->split[s].offsets[dataset->split[s].n];
        n += dataset->split[s].n;
    }
    fprintf(out, "  storage   JPEG, %s a picture\n", dc_format_bytes((double)bytes / (double)n).s);
    fprintf(out, "  heights   %d to %d, median %d\n", f->height.min, f->height.max, f->height.median);
    fprintf(out, "  widths    %d to %d, median %d\n", f->width.min, f->width.max, f->width.median);
}

static void print_channels(const char *name, int n, const double *values, FILE *out)
{
    fprintf(out, "  %-9s", name);
    for (int c = 0; c < n; c++)
        fprintf(out, " %.4f", values[c]);
    fprintf(out, "\n");
}

dc_status dc_data_info_text(const dc_dataset *dataset, bool verified, FILE *out)
{
    facts f;
    DC_TRY(gather(dataset, &f));
    struct stat info;
    fprintf(out, "%s: %s\n", dataset->path, dataset->name);
    for (int s = 0; s < DC_SPLIT_COUNT; s++)
        print_counts(dataset, (dc_split)s, &f.counts[s], out);
    fprintf(out, "  classes   %d:", dataset->n_classes);
    for (int i = 0; i < dataset->n_classes && i < LISTED_CLASSES; i++)
        fprintf(out, "%s %s", i ? "," : "", dataset->classes[i]);
    fprintf(out, "%s\n", dataset->n_classes > LISTED_CLASSES ? ", ..." : "");
    print_storage(dataset, &f, out);
    print_channels("mean", dataset->shape.c, dataset->mean, out);
    print_channels("std", dataset->shape.c, dataset->deviation, out);
    fprintf(out, "  hash      %016" PRIx64 "%s\n", dataset->hash, verified ? " (verified)" : "");
    if (stat(dataset->path, &info) == 0)
        fprintf(out, "  size      %s\n", dc_format_bytes((double)info.st_size).s);
    return DC_OK;
}

/* ---- JSON ---- */

static void add_counts(cJSON *root, const char *name, const class_counts *counts)
{
    cJSON *item = cJSON_AddObjectToObject(root, name);
    cJSON_AddNumberToObject(item, "min", counts->fewest);
    cJSON_AddNumberToObject(item, "max", counts->most);
}

static void add_sides(cJSON *root, const char *name, sides s)
{
    cJSON *item = cJSON_AddObjectToObject(root, name);
    cJSON_AddNumberToObject(item, "min", s.min);
    cJSON_AddNumberToObject(item, "median", s.median);
    cJSON_AddNumberToObject(item, "max", s.max);
}

dc_status dc_data_info_json(const dc_dataset *dataset, bool verified, FILE *out)
{
    facts f;
    DC_TRY(gather(dataset, &f));
    char hash[17];
    snprintf(hash, sizeof hash, "%016" PRIx64, dataset->hash);
    dc_shape shape = dataset->shape;
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "file", dataset->path);
    cJSON_AddStringToObject(root, "name", dataset->name);
    cJSON_AddStringToObject(root, "storage", dc_storage_name(dataset->storage));
    cJSON_AddNumberToObject(root, "train_images", dataset->split[DC_SPLIT_TRAIN].n);
    cJSON_AddNumberToObject(root, "test_images", dataset->split[DC_SPLIT_TEST].n);
    add_counts(root, "train_images_per_class", &f.counts[DC_SPLIT_TRAIN]);
    add_counts(root, "test_images_per_class", &f.counts[DC_SPLIT_TEST]);
    cJSON_AddItemToObject(root, "shape", cJSON_CreateIntArray((int[]){shape.c, shape.h, shape.w}, 3));
    if (dataset->storage == DC_STORAGE_JPEG) {
        add_sides(root, "picture_heights", f.height);
        add_sides(root, "picture_widths", f.width);
    }
    cJSON_AddItemToObject(root, "mean", cJSON_CreateDoubleArray(dataset->mean, shape.c));
    cJSON_AddItemToObject(root, "std", cJSON_CreateDoubleArray(dataset->deviation, shape.c));
    cJSON_AddStringToObject(root, "hash", hash);
    cJSON_AddBoolToObject(root, "verified", verified);
    cJSON *classes = cJSON_AddArrayToObject(root, "classes");
    for (int i = 0; i < dataset->n_classes; i++)
        cJSON_AddItemToArray(classes, cJSON_CreateString(dataset->classes[i]));
    return dc_json_print(root, out);
}
