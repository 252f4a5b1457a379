/* Private to layout*.c: files of labels. */
#ifndef DC_DATA_LAYOUT_TRUTH_H
#define DC_DATA_LAYOUT_TRUTH_H

#include "data/layout.h"

typedef struct dc_truth dc_truth;

/* Reads the labels of n pictures by their names without folders (sorted by this). The classes are those of the training
 * pictures, by which plain numbers count. */
dc_status dc_truth_make(dc_layout_truth given, size_t n, const char **names, int n_classes,
                        char (*classes)[DC_CLASS_NAME_CHARS], dc_truth **truth);
void dc_truth_destroy(dc_truth *truth); /* NULL is legal */

const char *dc_truth_name(const dc_truth *truth);

/* The class of a picture, alive as long as truth; DC_ERR_INPUT when the file does not tell. */
dc_status dc_truth_class(const dc_truth *truth, const char *picture, const char **class);

#endif
