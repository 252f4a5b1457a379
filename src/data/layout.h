/* Which picture of a source belongs to which class and split, by its name alone.
 *
 * Class folders: [anything/]train/CLASS/.../picture and [anything/]val|test/CLASS/.../picture, or CLASS/.../picture
 * alone, of which a share is held out for testing. Classes are sorted by name. Tiny-ImageNet's and ImageNet's val/, in
 * which pictures of all classes lie together, needs a file of labels (dc_layout_is_truth). */
#ifndef DC_DATA_LAYOUT_H
#define DC_DATA_LAYOUT_H

#include "data/dataset.h"

typedef struct dc_layout_rules {
    const char *source; /* for messages */
    bool own_test;      /* test/ has no labels and is left out: ImageNet, Tiny-ImageNet */
    bool imagenet16;    /* the classes of ImageNet-16-120 in their own order, all others left out */
    double held_out;    /* share of each class that becomes the test split where there is none; negative: all
                           pictures are in both splits */
    int max_classes;    /* the first ones only; 0: all */
} dc_layout_rules;

/* A file of labels: its lines are "PICTURE CLASS ...", "PICTURE,CLASS ..." (Kaggle's, with a line of titles), "PICTURE
 * NUMBER" (of the class, from 0), "CLASS" or "NUMBER" (ILSVRC2012_validation_ground_truth.txt, from 1 in ImageNet's own
 * order) for the pictures sorted by name. */
typedef struct dc_layout_truth {
    const char *name; /* for messages */
    const char *text; /* NULL: there is none */
    bool required;    /* asked for: an error when no picture needs it */
} dc_layout_truth;

/* Is a file of this name one: val_annotations.txt, ILSVRC2012_validation_ground_truth.txt, LOC_val_solution.csv,
 * ..._synset_labels.txt? */
bool dc_layout_is_truth(const char *name);

/* Is a file a picture by its name, and one that may be wanted? */
bool dc_layout_wants(const dc_layout_rules *rules, const char *name);

typedef struct dc_layout {
    int n_classes;
    char (*classes)[DC_CLASS_NAME_CHARS];
    int32_t *labels; /* [n pictures]; -1: left out */
    uint8_t *splits; /* [n pictures]; 1 << DC_SPLIT_TRAIN and 1 << DC_SPLIT_TEST */
} dc_layout;

/* n pictures, n_folders folders that were found, each by its name in the source. Those that are bad are left out: they
 * only count where labels go by order. DC_ERR_INPUT for what does not fit: no pictures, a class or its folder without
 * good pictures, a class that only the test split has, pictures without a label. Cleared by dc_layout_clear in any
 * case.
 */
dc_status dc_layout_make(const dc_layout_rules *rules, size_t n, const char *const *pictures, const bool *bad,
                         size_t n_folders, const char *const *folders, dc_layout_truth truth, dc_layout *layout);
void dc_layout_clear(dc_layout *layout);

#endif
