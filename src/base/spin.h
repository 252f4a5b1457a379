/* How long an OpenMP thread that has nothing to do holds its core. */
#ifndef DC_BASE_SPIN_H
#define DC_BASE_SPIN_H

/* A thread that waits at the end of a parallel region spins, by the runtime's default for milliseconds, before it
 * sleeps. Where other programs want the same cores, the thread that it waits for then does not get one, and steps take
 * tens of times as long; spinning for some microseconds loses nothing where the cores are free. The runtime reads its
 * environment before main, so this starts the program anew with GOMP_SPINCOUNT set; it returns at once when that or
 * OMP_WAIT_POLICY is set already, or when the program cannot be started anew. First call of main. */
void dc_spin_briefly(char *const *argv);

#endif
