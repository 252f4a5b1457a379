/* How long an OpenMP thread that has nothing to do holds its core. */
#ifndef DC_BASE_SPIN_H
#define DC_BASE_SPIN_H

/* A thread that waits at the end of a parallel region spins, by the runtime's default for milliseconds, before it
 * sleeps. Where other programs want the same cores, the thread that it waits for then does not get one, and steps take
 * tens of times as long; spinning for some microseconds loses little where the cores are free. The runtime reads its
 * environment before main, so this starts the program anew with GOMP_SPINCOUNT set. It returns at once when that or
 * OMP_WAIT_POLICY is set already; when threads are bound to cores (OMP_PROC_BIND, OMP_PLACES, GOMP_CPU_AFFINITY: the
 * runtime has bound this one by now, and the program started anew would find but its core); and when the program
 * cannot be started anew. First call of main. */
void dc_spin_briefly(char *const *argv);

#endif
