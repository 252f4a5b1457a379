/* libFuzzer: no text crashes the genotype reader, and what it accepts survives writing and reading again. */
#include "space/genotype.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (!text)
        abort();
    memcpy(text, data, size);
    text[size] = '\0';
    dc_genotype genotype, again;
    if (dc_genotype_parse(text, &genotype) == DC_OK) {
        char formatted[DC_GENOTYPE_CHARS];
        dc_genotype_format(&genotype, formatted);
        if (dc_genotype_parse(formatted, &again) != DC_OK || !dc_genotype_equal(&genotype, &again) ||
            dc_genotype_hash(&genotype) != dc_genotype_hash(&again))
            abort();
    }
    free(text);
    return 0;
}
