/* Published architectures by name, and what a user may give in the place of a name. */
#include "space/genotype.h"

#include "base/files.h"
#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct builtin {
    const char *name, *text;
} builtin;

static const builtin builtins[] = {
    /* Liu, Simonyan, Yang: DARTS (arXiv 1806.09055), first and second order */
    {"DARTS_V1", "Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), ('sep_conv_3x3', 1),"
                 " ('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)],"
                 " normal_concat=[2, 3, 4, 5],"
                 " reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0),"
                 " ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)],"
                 " reduce_concat=[2, 3, 4, 5])"},
    {"DARTS_V2", "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1),"
                 " ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)],"
                 " normal_concat=[2, 3, 4, 5],"
                 " reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1),"
                 " ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)],"
                 " reduce_concat=[2, 3, 4, 5])"},
    /* Xu et al.: PC-DARTS (arXiv 1907.05737), searched on CIFAR-10 and on ImageNet */
    {"PC_DARTS_cifar",
     "Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 0), ('dil_conv_3x3', 1),"
     " ('sep_conv_5x5', 0), ('sep_conv_3x3', 1), ('avg_pool_3x3', 0), ('dil_conv_3x3', 1)],"
     " normal_concat=range(2, 6),"
     " reduce=[('sep_conv_5x5', 1), ('max_pool_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_5x5', 2),"
     " ('sep_conv_3x3', 0), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('sep_conv_3x3', 2)],"
     " reduce_concat=range(2, 6))"},
    {"PC_DARTS_image",
     "Genotype(normal=[('skip_connect', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 0), ('skip_connect', 1),"
     " ('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('dil_conv_5x5', 4)],"
     " normal_concat=range(2, 6),"
     " reduce=[('sep_conv_3x3', 0), ('skip_connect', 1), ('dil_conv_5x5', 2), ('max_pool_3x3', 1),"
     " ('sep_conv_3x3', 2), ('sep_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 3)],"
     " reduce_concat=range(2, 6))"},
    /* Chen et al.: P-DARTS (arXiv 1904.12760), searched on CIFAR-10 */
    {"PDARTS", "Genotype(normal=[('skip_connect', 0), ('dil_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 1),"
               " ('sep_conv_3x3', 1), ('sep_conv_3x3', 3), ('sep_conv_3x3', 0), ('dil_conv_5x5', 4)],"
               " normal_concat=range(2, 6),"
               " reduce=[('avg_pool_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_3x3', 0), ('dil_conv_5x5', 2),"
               " ('max_pool_3x3', 0), ('dil_conv_3x3', 1), ('dil_conv_3x3', 1), ('dil_conv_5x5', 3)],"
               " reduce_concat=range(2, 6))"},
    /* Xie et al.: SNAS (arXiv 1812.09926), the mild constraint */
    {"SNAS", "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('skip_connect', 0), ('dil_conv_3x3', 1),"
             " ('skip_connect', 0), ('skip_connect', 1), ('skip_connect', 0), ('sep_conv_3x3', 1)],"
             " normal_concat=range(2, 6),"
             " reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('max_pool_3x3', 1), ('skip_connect', 2),"
             " ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0), ('dil_conv_5x5', 2)],"
             " reduce_concat=range(2, 6))"},
};

enum { N_BUILTINS = sizeof builtins / sizeof builtins[0] };

const char *dc_genotype_builtin_name(int i)
{
    return i >= 0 && i < N_BUILTINS ? builtins[i].name : NULL;
}

static dc_status read_file(const char *path, dc_genotype *genotype)
{
    char *text;
    DC_TRY(dc_file_read(path, &text, NULL));
    dc_status status = dc_genotype_parse(text, genotype);
    free(text);
    return status == DC_OK ? DC_OK : dc_fail_within(status, "%s", path);
}

static dc_status unknown(const char *name)
{
    char names[256];
    size_t n = 0;
    const char *nearest = NULL;
    for (int i = 0; i < N_BUILTINS; i++) {
        n += (size_t)snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "", builtins[i].name);
        dc_text_nearest(name, builtins[i].name, &nearest);
    }
    return dc_fail(DC_ERR_INPUT,
                   "genotype '%.100s': neither a file nor one of the built-in %s%s%s%s; or give Genotype(normal=...) "
                   "itself",
                   name, names, nearest ? " (did you mean " : "", nearest ? nearest : "", nearest ? "?)" : "");
}

dc_status dc_genotype_lookup(const char *text_or_name, dc_genotype *genotype)
{
    for (int i = 0; i < N_BUILTINS; i++)
        if (strcmp(builtins[i].name, text_or_name) == 0)
            return dc_genotype_parse(builtins[i].text, genotype);
    if (dc_file_exists(text_or_name))
        return read_file(text_or_name, genotype);
    if (strchr(text_or_name, '('))
        return dc_genotype_parse(text_or_name, genotype);
    return unknown(text_or_name);
}
