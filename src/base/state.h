/* State files (HDF5): checkpoints, lug.h5, data sets. Written in one instant, checked when read.
 *
 * Names are paths: "search/weights/values" is an array in groups, made as needed. A number or text "search/epoch" is
 * the attribute `epoch` of the object "search" (a group, or an array that was put before), "seed" one of the file
 * itself.
 *
 *     dc_state *state;
 *     DC_TRY(dc_state_create(path, &state));
 *     dc_state_put_i64(state, "search/epoch", epoch);
 *     dc_state_put_floats(state, "search/alpha", 2, (int64_t[]){14, 8}, alpha);
 *     return dc_state_commit(state, true);
 *
 *     DC_TRY(dc_state_open_newest(path, &state));
 *     dc_state_get_i64(state, "search/epoch", &epoch);
 *     dc_state_get_floats(state, "search/alpha", 2, (int64_t[]){14, 8}, alpha);
 *     return dc_state_close(state);
 *
 * The first error sticks: later calls do nothing, and commit or close returns it. Nothing reaches `path` before commit.
 *
 * Safety. The first 512 bytes of a file (an HDF5 user block: any HDF5 tool ignores it) hold its size and the XXH3 hash
 * of every byte after them. Opening reads and compares all of it before HDF5 sees a byte, so that no damaged file is
 * ever parsed. Arrays besides carry fletcher32. Equal contents give equal bytes. One mutex guards HDF5, which is not
 * thread-safe: different states may be used by different threads. */
#ifndef DC_BASE_STATE_H
#define DC_BASE_STATE_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct dc_state dc_state;

enum { DC_STATE_MAX_RANK = 4 };

typedef enum dc_state_type {
    DC_STATE_FLOAT,
    DC_STATE_DOUBLE,
    DC_STATE_INT32,
    DC_STATE_INT64,
    DC_STATE_UINT8,
    DC_STATE_UINT32,
    DC_STATE_UINT64
} dc_state_type;

/* ---- writing ---- */

/* A state built in memory; for anything that fits there (checkpoints, LUGs, small data sets). */
dc_status dc_state_create(const char *path, dc_state **state);

/* A state built in `path`.tmp, for data sets larger than memory. */
dc_status dc_state_create_large(const char *path, dc_state **state);

/* Copies an array. dims has rank entries (0 <= rank <= 4; slowest first). A name is put once. */
void dc_state_put(dc_state *state, const char *name, dc_state_type type, int rank, const int64_t *dims,
                  const void *data);
void dc_state_put_i64(dc_state *state, const char *name, int64_t value);
void dc_state_put_u64(dc_state *state, const char *name, uint64_t value);
void dc_state_put_double(dc_state *state, const char *name, double value);
void dc_state_put_text(dc_state *state, const char *name, const char *text);

/* An array to be filled piece by piece, stored contiguously so that a reader can map it (dc_state_offset). Its rows
 * (along dims[0]) are zero until written. */
void dc_state_reserve(dc_state *state, const char *name, dc_state_type type, int rank, const int64_t *dims);
void dc_state_put_rows(dc_state *state, const char *name, int64_t first, int64_t n, const void *rows);

/* One line about what the state holds, for dc_state_about; cut at DC_STATE_ABOUT_CHARS. */
void dc_state_put_about(dc_state *state, const char *format, ...) __attribute__((format(printf, 2, 3)));
enum { DC_STATE_ABOUT_CHARS = 320 };

/* The first error so far. */
dc_status dc_state_check(const dc_state *state);

/* Writes `path`.tmp, fsync, renames it to `path`, fsync of the directory. keep_previous: what stood at `path` becomes
 * `path`.previous, if it is whole. At every instant at least one whole file stands. After any failure (a full disk) the
 * old files stand as they were and no .tmp is left. Always frees the state. */
dc_status dc_state_commit(dc_state *state, bool keep_previous);

/* Frees a state without writing it; NULL is legal. */
void dc_state_abandon(dc_state *state);

/* ---- reading ---- */

/* Is there something to open: `path` or `path`.previous? */
bool dc_state_exists(const char *path);

/* The line of dc_state_put_about, "" without one. Reads the file's first bytes and its size only: what somebody may do
 * while others write, and for many files. DC_ERR_IO, DC_ERR_INPUT as dc_state_open. */
dc_status dc_state_about(const char *path, char about[DC_STATE_ABOUT_CHARS]);

/* Reads one file and verifies it. DC_ERR_IO when it cannot be read, DC_ERR_INPUT when it is damaged or no state. */
dc_status dc_state_open(const char *path, dc_state **state);

/* The same of `path`, or, when that is damaged or missing, of `path`.previous, with a warning in dc_state_warning. When
 * both are damaged the error names both. */
dc_status dc_state_open_newest(const char *path, dc_state **state);

/* Without reading it into memory. verify: still compares the hash of the whole file first; without it only the file's
 * size is checked. */
dc_status dc_state_open_large(const char *path, bool verify, dc_state **state);

/* What was wrong with the newest file, or NULL. Lives as long as the state. */
const char *dc_state_warning(const dc_state *state);

/* The file that was opened or will be written. */
const char *dc_state_path(const dc_state *state);

/* Is there an array, group, number or text of that name? */
bool dc_state_has(dc_state *state, const char *name);

/* Type, rank and dims of an array; any of the results may be NULL. dims gets DC_STATE_MAX_RANK entries, 1 past the
 * rank. */
dc_status dc_state_shape(dc_state *state, const char *name, dc_state_type *type, int *rank, int64_t *dims);

/* Reads an array whose type, rank and dims must be as given. */
dc_status dc_state_get(dc_state *state, const char *name, dc_state_type type, int rank, const int64_t *dims,
                       void *data);

dc_status dc_state_get_i64(dc_state *state, const char *name, int64_t *value);
dc_status dc_state_get_u64(dc_state *state, const char *name, uint64_t *value);
dc_status dc_state_get_double(dc_state *state, const char *name, double *value);
dc_status dc_state_get_text(dc_state *state, const char *name, char **text); /* caller frees */

/* Where a reserved array's bytes lie in the file, for mmap. DC_ERR_INPUT for one that is stored in chunks. */
dc_status dc_state_offset(dc_state *state, const char *name, int64_t *offset_bytes, int64_t *size_bytes);

/* Frees the state and returns its first error. NULL is legal. */
dc_status dc_state_close(dc_state *state);

/* ---- typed shorthands ---- */

#define DC_STATE_SHORTHANDS(suffix, ctype, tag)                                                                        \
    static inline void dc_state_put_##suffix(dc_state *state, const char *name, int rank, const int64_t *dims,         \
                                             const ctype *data)                                                        \
    {                                                                                                                  \
        dc_state_put(state, name, tag, rank, dims, data);                                                              \
    }                                                                                                                  \
    static inline dc_status dc_state_get_##suffix(dc_state *state, const char *name, int rank, const int64_t *dims,    \
                                                  ctype *data)                                                         \
    {                                                                                                                  \
        return dc_state_get(state, name, tag, rank, dims, data);                                                       \
    }

DC_STATE_SHORTHANDS(floats, float, DC_STATE_FLOAT)
DC_STATE_SHORTHANDS(doubles, double, DC_STATE_DOUBLE)
DC_STATE_SHORTHANDS(int32s, int32_t, DC_STATE_INT32)
DC_STATE_SHORTHANDS(int64s, int64_t, DC_STATE_INT64)
DC_STATE_SHORTHANDS(bytes, uint8_t, DC_STATE_UINT8)
DC_STATE_SHORTHANDS(uint32s, uint32_t, DC_STATE_UINT32)
DC_STATE_SHORTHANDS(uint64s, uint64_t, DC_STATE_UINT64)

#endif
