/* What an import has read so far, beside the file that it makes: <destination>.part-R of each rank, to which records
 * are appended. An import that was interrupted goes on from them, on any number of ranks. A record that a kill cut off
 * is dropped. */
#ifndef DC_DATA_SPOOL_H
#define DC_DATA_SPOOL_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum dc_record_form {
    DC_RECORD_JPEG,   /* payload: a JPEG file */
    DC_RECORD_PNG,    /* payload: a PNG file */
    DC_RECORD_PIXELS, /* payload: [3][h][w] */
    DC_RECORD_BAD     /* payload: what is wrong, as text */
} dc_record_form;

/* One picture. */
typedef struct dc_record {
    uint64_t stamp;                     /* dc_source_entry: which file this was made of */
    int32_t form;                       /* dc_record_form */
    int32_t h, w;                       /* of the payload */
    uint32_t n_name;                    /* bytes of its name, without an end */
    uint64_t source_hash, source_bytes; /* of the file it was made of: XXH3-64, size */
    uint64_t hash, n_bytes;             /* of the payload */
    double mean[3], square[3];          /* of all pixels and of their squares, by channel, scaled to 0..1 */
} dc_record;

/* A record and where its payload lies. */
typedef struct dc_record_place {
    dc_record record;
    int part;
    int64_t offset;
} dc_record_place;

typedef struct dc_spool dc_spool;

/* Opens this rank's part for writing; `identity`: of source and options, without which the records are of no use. A
 * part of another identity is begun anew. Fails when another import holds it. Local; the ranks must wait for each other
 * before dc_spool_scan. */
dc_status dc_spool_open(const char *destination, int rank, uint64_t identity, dc_spool **spool);

/* Closes; remove: deletes the parts of all ranks, also of earlier runs. NULL is legal. */
void dc_spool_close(dc_spool *spool, bool remove);

/* Reads what all parts of the same identity hold: *places, the caller's to free, never NULL. Records of one stamp are
 * alike. */
dc_status dc_spool_scan(dc_spool *spool, dc_record_place **places, size_t *n);

/* Bytes of the parts of all ranks, also of earlier runs. */
uint64_t dc_spool_bytes(dc_spool *spool);

/* place: where it went, of use after a scan; or NULL. */
dc_status dc_spool_append(dc_spool *spool, const dc_record *record, const char *name, const void *payload,
                          dc_record_place *place);

/* Reads and checks a payload: n_bytes into out. Thread-safe. */
dc_status dc_spool_read(dc_spool *spool, const dc_record_place *place, void *out);

#endif
