/* The processor's own limit, for benchmarks to compare with: multiply-adds whose operands are all in registers. */
#include "internal.h"

enum { CHAINS = 12, ROUNDS = 64 };

double DCK(ceiling)(long repeats, int threads)
{
    float seen = 0;
#pragma omp parallel num_threads(threads) reduction(+ : seen)
    {
        dck_vec sum[CHAINS], factor = dck_set(0.999f), term = dck_set(0.001f);
        for (int i = 0; i < CHAINS; i++)
            sum[i] = dck_set((float)i);
        for (long r = 0; r < repeats * ROUNDS; r++)
            for (int i = 0; i < CHAINS; i++)
                sum[i] = sum[i] * factor + term;
        for (int i = 0; i < CHAINS; i++)
            seen += dck_sum_lanes(sum[i]);
    }
    /* always so; the sums must not be optimized away */
    return seen > 0 ? 2.0 * CHAINS * DCK_VECTOR * ROUNDS * (double)repeats * threads : 0;
}
