/* Changing stacks without the system calls of swapcontext. */
#ifndef EMULATOR_FIBERS_HPP
#define EMULATOR_FIBERS_HPP

#if defined(__x86_64__) || defined(__aarch64__)

namespace emulator::fiber
{

using place = void *; /* the stack pointer below the saved registers */

extern "C" void emulator_fiber_change(place *from, place to);

/* Goes on at `to`; returns when somebody changes to `from`. */
static inline void change(place *from, place *to)
{
    emulator_fiber_change(from, *to);
}

/* The same for a fiber that does not come back. */
[[noreturn]] static inline void leave(place *to)
{
    place nowhere;
    emulator_fiber_change(&nowhere, *to);
    __builtin_unreachable();
}

/* Runs body, which never returns, on the stack that ends at `top`. */
static inline void start(place *from, char *top, void (*body)())
{
    void **sp = (void **)top;
#ifdef __x86_64__
    *--sp = nullptr; /* body finds the stack as if it had been called */
    *--sp = (void *)body;
    for (int i = 0; i < 6; i++)
        *--sp = nullptr;
#else
    sp -= 20;
    for (int i = 0; i < 20; i++)
        sp[i] = nullptr;
    sp[11] = (void *)body; /* x30 */
#endif
    emulator_fiber_change(from, sp);
}

} // namespace emulator::fiber

#else
#include <ucontext.h>

namespace emulator::fiber
{

struct place {
    ucontext_t context;
};

static inline void change(place *from, place *to)
{
    swapcontext(&from->context, &to->context);
}

[[noreturn]] static inline void leave(place *to)
{
    setcontext(&to->context);
    __builtin_unreachable();
}

static inline void start(place *from, char *top, void (*body)())
{
    const size_t bytes = 128 << 10; /* the upper half of the stack */
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = top - bytes;
    context.uc_stack.ss_size = bytes;
    context.uc_link = nullptr;
    makecontext(&context, body, 0);
    swapcontext(&from->context, &context);
}

} // namespace emulator::fiber
#endif

#endif
