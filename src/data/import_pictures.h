/* Private to import*.c: pictures from folders and archives into a data set.
 *
 * Each rank goes through the whole source and decodes its share of the pictures, by which any damage shows, into its
 * part of a spool (data/spool.h). Rank 0 then puts everything in order. The file depends on the pictures and options
 * only, not on ranks or threads. */
#ifndef DC_DATA_IMPORT_PICTURES_H
#define DC_DATA_IMPORT_PICTURES_H

#include "data/import.h"
#include "data/layout.h"
#include "data/picture.h"
#include "data/source.h"
#include "data/spool.h"

/* Pictures of one size up to this are stored decoded. */
enum { DC_IMPORT_SMALL_SIDE = 96 };

/* The quality of JPEG that is made. */
static inline int dc_import_quality(const dc_import_options *options)
{
    return options->quality ? options->quality : 90;
}

/* What rank 0 remembers of the source, in its order. */
typedef struct dc_import_list {
    char **names;
    uint64_t *stamps;
    size_t n, capacity;
} dc_import_list;

typedef struct dc_import_job {
    const dc_comm *comm;
    dc_log *log;
    const char *destination;
    const dc_import_options *options;
    dc_layout_rules rules;
    int size; /* pictures become this size; 0: they keep theirs */
    int threads;
    char name[DC_CLASS_NAME_CHARS];
    dc_spool *spool;
    dc_picture_reader **readers; /* [threads] */
    uint64_t *done;              /* stamps of what is in the spool already, sorted */
    size_t n_done;
    dc_import_list pictures, folders; /* rank 0 */
    char *truth_name, *truth_text;    /* rank 0; NULL: none was found */
    double started_s;
} dc_import_job;

/* Goes through the source. Collective; a rank that fails makes the others stop soon. */
dc_status dc_import_read(dc_import_job *job);

/* Makes the data set of what all ranks have read. Rank 0 alone. */
dc_status dc_import_assemble(dc_import_job *job);

/* Notes that it has come further, for the watchdog, and shows how far; rank 0, at most five times a second. rest: what
 * comes after "12 %". */
void dc_import_show(const dc_import_job *job, const char *what, double progress, size_t n_pictures);

/* Collective. box_size: not 0: ImageNet-16-120's. */
dc_status dc_import_pictures(const dc_comm *comm, dc_log *log, const char *source, const char *destination,
                             const dc_layout_rules *rules, int size, const dc_import_options *options);

#endif
