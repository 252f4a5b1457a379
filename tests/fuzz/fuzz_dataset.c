/* Any bytes as a data set file; and, so that the checksum does not end every attempt at once, a whole state file whose
 * contents (types, shapes, labels, attributes) the bytes choose. Whatever opens is then read completely. */
#include "base/state.h"
#include "data/dataset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The fuzzer's bytes one by one; zeros after the end. */
typedef struct source {
    const uint8_t *bytes;
    size_t left;
} source;

static uint8_t take(source *s)
{
    if (!s->left)
        return 0;
    s->left--;
    return *s->bytes++;
}

/* A right value most of the time. */
static int64_t vary(source *s, int64_t right)
{
    uint8_t how = take(s);
    return how < 0xe0 ? right : how < 0xf8 ? right + (int8_t)take(s) : (int64_t)take(s) * (int8_t)take(s);
}

static int64_t within(int64_t value, int64_t maximum)
{
    return value < 0 ? 0 : value > maximum ? maximum : value;
}

static void put_array(dc_state *state, source *s, const char *name, dc_state_type type, int rank, const int64_t *right)
{
    static uint8_t contents[1 << 16];
    if (take(s) > 0xf0)
        return;
    int64_t dims[DC_STATE_MAX_RANK] = {1, 1, 1, 1}, bytes = 8;
    type = (dc_state_type)within(vary(s, (int64_t)type), DC_STATE_UINT64);
    int right_rank = rank;
    rank = (int)within(vary(s, rank), DC_STATE_MAX_RANK);
    for (int i = 0; i < rank; i++) {
        dims[i] = within(vary(s, i < right_rank ? right[i] : 2), 80);
        bytes *= dims[i];
    }
    if (bytes > (int64_t)sizeof contents)
        return;
    int step = type == DC_STATE_INT32 ? 4 : 1; /* labels and sizes: small numbers */
    for (int i = 0; i < 64; i++)
        contents[i] = i % step ? 0 : (uint8_t)(take(s) % 4);
    if (take(s) < 0xc0) {
        dc_state_reserve(state, name, type, rank, dims);
        dc_state_put_rows(state, name, 0, rank ? dims[0] : 1, contents);
    } else
        dc_state_put(state, name, type, rank, dims, contents);
}

/* Files of three bytes each; an offset is varied now and then. */
static void put_offsets(dc_state *state, source *s, const char *name, int64_t n)
{
    uint64_t offsets[16];
    for (int64_t i = 0; i <= n; i++)
        offsets[i] = (uint64_t)vary(s, 3 * i);
    dc_state_reserve(state, name, DC_STATE_UINT64, 1, (int64_t[]){n + 1});
    dc_state_put_rows(state, name, 0, n + 1, offsets);
}

static void put_split(dc_state *state, source *s, dc_split split, int64_t n, int64_t channels, bool jpeg)
{
    char name[32];
#define NAME(what) (snprintf(name, sizeof name, "%s/" what, dc_split_name(split)), name)
    put_array(state, s, NAME("labels"), DC_STATE_INT32, 1, &n);
    if (!jpeg) {
        put_array(state, s, NAME("images"), DC_STATE_UINT8, 4, (int64_t[]){n, channels, 3, 2});
        return;
    }
    put_offsets(state, s, NAME("offsets"), n);
    put_array(state, s, NAME("sizes"), DC_STATE_INT32, 2, (int64_t[]){n, 2});
    put_array(state, s, NAME("hashes"), DC_STATE_UINT64, 1, &n);
    put_array(state, s, NAME("jpegs"), DC_STATE_UINT8, 1, (int64_t[]){3 * n});
#undef NAME
}

static void write_varied(const char *path, source *s)
{
    dc_state *state;
    if (dc_state_create_large(path, &state) != DC_OK)
        abort();
    int64_t n = 1 + take(s) % 8, channels = 1 + take(s) % 3;
    double statistics[4] = {0.25, take(s) / 200.0, -1.0 / take(s), 0.25}; /* also -inf */
    dc_state_put_text(state, "format", "dcanas data set");
    bool jpeg = take(s) & 1;
    dc_state_put_i64(state, "version", vary(s, jpeg ? 2 : 1));
    dc_state_put_text(state, "storage", take(s) < 0xf0 ? "jpeg" : "pixels");
    dc_state_put_text(state, "name", "a name");
    dc_state_put_u64(state, "hash", take(s));
    dc_state_put_doubles(state, "mean", 1, &channels, statistics + take(s) % 2);
    dc_state_put_doubles(state, "std", 1, &channels, statistics + take(s) % 2);
    put_array(state, s, "classes", DC_STATE_UINT8, 2, (int64_t[]){3, DC_CLASS_NAME_CHARS});
    put_split(state, s, DC_SPLIT_TRAIN, n, channels, jpeg);
    put_split(state, s, DC_SPLIT_TEST, n, channels, jpeg);
    dc_state_commit(state, false);
}

static void open_and_read(const char *path)
{
    dc_dataset *dataset;
    if (dc_dataset_open(path, &dataset) == DC_OK) {
        dc_dataset_verify(dataset);
        dc_dataset_close(dataset);
    } else if (dataset || !dc_status_message()[0] || strchr(dc_status_message(), '\n'))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char path[64];
    if (!path[0])
        snprintf(path, sizeof path, "/dev/shm/dcanas-fuzz-%ld.h5", (long)getpid());
    if (size && data[0] & 1) {
        FILE *file = fopen(path, "wb");
        if (!file || fwrite(data + 1, 1, size - 1, file) != size - 1 || fclose(file) != 0)
            abort();
    } else {
        source s = {data + (size > 0), size - (size > 0)};
        write_varied(path, &s);
    }
    open_and_read(path);
    unlink(path);
    return 0;
}
