/* Any bytes as a pickle; whatever is taken for one is read completely. */
#include "data/pickle.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_matrix(const dc_pickle_value *value)
{
    int64_t rows, columns;
    const uint8_t *bytes;
    uint64_t sum = 0;
    if (dc_pickle_matrix(value, &rows, &columns, &bytes) != DC_OK)
        return;
    for (int64_t i = 0; i < rows * columns; i++)
        sum += bytes[i];
    if (sum > (uint64_t)(rows * columns) * 255)
        abort();
}

static void read_list(const dc_pickle_value *list)
{
    for (int64_t i = 0; i < dc_pickle_length(list); i++) {
        const dc_pickle_value *item = dc_pickle_item(list, i);
        int64_t number;
        const char *text;
        size_t n;
        dc_pickle_integer(item, &number);
        if (dc_pickle_text(item, &text, &n) == DC_OK && n && memchr(text, 'x', n) == text + n)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dc_pickle *pickle;
    if (dc_pickle_parse(data, size, "fuzz", &pickle) != DC_OK) {
        if (pickle || !dc_status_message()[0] || strchr(dc_status_message(), '\n'))
            abort();
        return 0;
    }
    static const char *const keys[] = {"data", "labels"};
    const dc_pickle_value *root = dc_pickle_root(pickle);
    read_matrix(root);
    read_list(root);
    for (int i = 0; i < 2; i++) {
        const dc_pickle_value *value = dc_pickle_get(root, keys[i]);
        if (value) {
            read_matrix(value);
            read_list(value);
        }
    }
    dc_pickle_destroy(pickle);
    return 0;
}
