#include "data/layout_truth.h"

#include "data/imagenet_synsets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct line {
    char *picture; /* without its ending; NULL: the file tells by order only */
    char *class;
} line;

struct dc_truth {
    const char *name;
    char *text; /* cut into the lines' words */
    line *lines;
    size_t n;
    char (*numbered)[DC_CLASS_NAME_CHARS]; /* the names that numbers stand for; NULL: none did */
};

bool dc_layout_is_truth(const char *name)
{
    static const char *const endings[] = {"val_annotations.txt", "validation_ground_truth.txt", "val_solution.csv",
                                          "synset_labels.txt"};
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t n = strlen(endings[i]);
        if (length >= n && strcasecmp(name + length - n, endings[i]) == 0)
            return true;
    }
    return false;
}

const char *dc_truth_name(const dc_truth *truth)
{
    return truth->name;
}

/* "ILSVRC2012_val_00000001.JPEG" and "ILSVRC2012_val_00000001" are the same picture. */
static size_t stem_length(const char *picture)
{
    const char *dot = strrchr(picture, '.');
    return dot ? (size_t)(dot - picture) : strlen(picture);
}

static int compare_stems(const char *a, const char *b)
{
    size_t n = stem_length(a), m = stem_length(b);
    int order = strncmp(a, b, n < m ? n : m);
    return order ? order : (n > m) - (n < m);
}

static int by_picture(const void *a, const void *b)
{
    return compare_stems(((const line *)a)->picture, ((const line *)b)->picture);
}

static int by_stem(const void *a, const void *b)
{
    return compare_stems(*(const char *const *)a, *(const char *const *)b);
}

/* The first two words of a line, which blanks, tabs or commas part. */
static void cut(char *s, char **first, char **second)
{
    static const char parts[] = " \t\r,";
    char *rest = NULL;
    *first = strtok_r(s, parts, &rest);
    *second = *first ? strtok_r(NULL, parts, &rest) : NULL;
    if (*second) /* a path in front of the name says nothing */
        *first = strrchr(*first, '/') ? strrchr(*first, '/') + 1 : *first;
}

static dc_status cut_lines(dc_truth *truth)
{
    size_t capacity = 1;
    for (const char *s = truth->text; *s; s++)
        capacity += *s == '\n';
    if (!(truth->lines = dc_alloc(capacity * sizeof *truth->lines)))
        return DC_ERR_MEMORY;
    char *rest = truth->text;
    for (char *s; (s = strsep(&rest, "\n"));) {
        char *first, *second;
        cut(s, &first, &second);
        if (!first || strcmp(first, "ImageId") == 0) /* Kaggle's titles */
            continue;
        line *l = &truth->lines[truth->n++];
        *l = second ? (line){first, second} : (line){NULL, first};
        if (truth->n > 1 && !l->picture != !truth->lines[0].picture)
            return dc_fail(DC_ERR_INPUT, "%s: line %zu ('%s') is not like the first", truth->name, truth->n, first);
    }
    return DC_OK;
}

static bool is_number(const char *s)
{
    return *s && s[strspn(s, "0123456789")] == '\0' && strlen(s) <= 6;
}

/* Numbers become the names of classes: ImageNet's own from 1 in a file of numbers only, else from 0 in the order of the
 * classes. */
static dc_status name_numbers(dc_truth *truth, int n_classes, char (*classes)[DC_CLASS_NAME_CHARS])
{
    bool own = !truth->lines[0].picture;
    int first = own ? 1 : 0, n = own ? DC_IMAGENET_CLASSES : n_classes;
    if (!is_number(truth->lines[0].class))
        return DC_OK;
    if (!(truth->numbered = dc_alloc((size_t)n * sizeof *truth->numbered)))
        return DC_ERR_MEMORY;
    for (int i = 0; i < n; i++)
        if (own)
            snprintf(truth->numbered[i], DC_CLASS_NAME_CHARS, "n%08d", dc_imagenet_synsets[i]);
        else
            memcpy(truth->numbered[i], classes[i], DC_CLASS_NAME_CHARS);
    for (size_t i = 0; i < truth->n; i++) {
        line *l = &truth->lines[i];
        int number = is_number(l->class) ? atoi(l->class) : -1;
        if (number < first || number >= first + n)
            return dc_fail(DC_ERR_INPUT, "%s: line %zu: '%s' is no class: %d..%d expected", truth->name, i + 1,
                           l->class, first, first + n - 1);
        l->class = truth->numbered[number - first];
    }
    return DC_OK;
}

/* Sorted by picture, a picture must not come again. */
static dc_status check_twice(const dc_truth *truth)
{
    for (size_t i = 1; i < truth->n; i++)
        if (by_picture(&truth->lines[i - 1], &truth->lines[i]) == 0)
            return dc_fail(DC_ERR_INPUT, "%s: two labels for %s: %s and %s", truth->name, truth->lines[i].picture,
                           truth->lines[i - 1].class, truth->lines[i].class);
    return DC_OK;
}

/* The i-th line is of the i-th picture. */
static dc_status take_by_order(dc_truth *truth, size_t n, const char **names)
{
    if (truth->n != n)
        return dc_fail(DC_ERR_INPUT, "%s: %zu labels for %zu pictures", truth->name, truth->n, n);
    for (size_t i = 0; i < n; i++)
        truth->lines[i].picture = (char *)names[i]; /* not written to */
    return DC_OK;
}

static dc_status fill(dc_truth *truth, const char *text, size_t n, const char **names, int n_classes,
                      char (*classes)[DC_CLASS_NAME_CHARS])
{
    if (!(truth->text = dc_alloc(strlen(text) + 1)))
        return DC_ERR_MEMORY;
    strcpy(truth->text, text);
    DC_TRY(cut_lines(truth));
    if (!truth->n)
        return dc_fail(DC_ERR_INPUT, "%s: holds no labels", truth->name);
    qsort(names, n, sizeof *names, by_stem);
    DC_TRY(name_numbers(truth, n_classes, classes));
    if (!truth->lines[0].picture)
        DC_TRY(take_by_order(truth, n, names));
    qsort(truth->lines, truth->n, sizeof *truth->lines, by_picture);
    return check_twice(truth);
}

dc_status dc_truth_make(dc_layout_truth given, size_t n, const char **names, int n_classes,
                        char (*classes)[DC_CLASS_NAME_CHARS], dc_truth **out)
{
    *out = NULL;
    dc_truth *truth = dc_alloc_zeroed(sizeof *truth);
    if (!truth)
        return DC_ERR_MEMORY;
    truth->name = given.name;
    dc_status status = fill(truth, given.text, n, names, n_classes, classes);
    if (status != DC_OK) {
        dc_truth_destroy(truth);
        return status;
    }
    *out = truth;
    return DC_OK;
}

void dc_truth_destroy(dc_truth *truth)
{
    if (!truth)
        return;
    free(truth->text);
    free(truth->lines);
    free(truth->numbered);
    free(truth);
}

dc_status dc_truth_class(const dc_truth *truth, const char *picture, const char **class)
{
    const line wanted = {(char *)picture, NULL};
    const line *found = bsearch(&wanted, truth->lines, truth->n, sizeof wanted, by_picture);
    if (!found)
        return dc_fail(DC_ERR_INPUT, "%s: no label for %s", truth->name, picture);
    *class = found->class;
    return DC_OK;
}
