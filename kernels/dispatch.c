/* Chooses the table that this machine runs best. Compiled once, for the plain architecture. */
#include "kernels.h"

#include <string.h>

extern const dck_kernels dck_table_portable;

#ifdef __x86_64__
extern const dck_kernels dck_table_avx512_bf16, dck_table_avx512, dck_table_avx2;

/* The features that -march=x86-64-v3 and -v4 may use. */
static bool runs_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
}

static bool runs_avx512(void)
{
    return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}

static bool runs_avx512_bf16(void)
{
    return runs_avx512() && __builtin_cpu_supports("avx512bf16");
}
#endif

static bool runs_anywhere(void)
{
    return true;
}

static const struct {
    const dck_kernels *table;
    bool (*runs)(void);
} choices[] = {
#ifdef __x86_64__
    {&dck_table_avx512_bf16, runs_avx512_bf16},
    {&dck_table_avx512, runs_avx512},
    {&dck_table_avx2, runs_avx2},
#endif
    {&dck_table_portable, runs_anywhere},
};

const dck_kernels *dck_kernels_for(const char *isa)
{
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++)
        if ((!isa || !strcmp(isa, choices[i].table->isa)) && choices[i].runs())
            return choices[i].table;
    return NULL;
}
