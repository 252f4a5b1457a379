/* Changing stacks without the system calls of swapcontext, and in the caller itself: the call and the return of a
 * function that does it are never predicted. */
#ifndef EMULATOR_FIBERS_HPP
#define EMULATOR_FIBERS_HPP

#if (defined(__x86_64__) || defined(__aarch64__)) && !defined(EMULATOR_UCONTEXT)

namespace emulator::fiber
{

using place = void **; /* where two words lie on a stack: the frame pointer and where to go on */

/* Goes on at `to`; returns when somebody changes to what is written to *from. What the compiler needs it keeps on its
 * own stack, all registers being said to change. */
__attribute__((always_inline)) static inline void change(place *from, const place *to)
{
#ifdef __x86_64__
    place target = *to;
    __asm__ volatile("leaq -128(%%rsp), %%rsp\n" /* what a function may use below its stack */
                     "leaq 1f(%%rip), %%rcx\n"
                     "pushq %%rcx\n"
                     "pushq %%rbp\n"
                     "movq %%rsp, (%0)\n"
                     "movq %1, %%rsp\n"
                     "popq %%rbp\n"
                     "popq %%rcx\n"
                     "jmp *%%rcx\n"
                     "1:\n"
                     "leaq 128(%%rsp), %%rsp\n"
                     : "+D"(from), "+S"(target)
                     :
                     : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm1",
                       "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
                       "xmm13", "xmm14", "xmm15", "cc", "memory");
#else
    register place *save __asm__("x0") = from;
    register place target __asm__("x1") = *to;
    __asm__ volatile("adr x9, 1f\n"
                     "stp x29, x9, [sp, #-16]!\n"
                     "mov x9, sp\n"
                     "str x9, [%0]\n"
                     "mov sp, %1\n"
                     "ldp x29, x9, [sp], #16\n"
                     "br x9\n"
                     "1:\n"
                     : "+r"(save), "+r"(target)
                     :
                     : "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16",
                       "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x30", "v0",
                       "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15",
                       "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29",
                       "v30", "v31", "cc", "memory");
#endif
}

/* Runs body, which never returns, on the stack that ends at `top`. */
static inline void start(place *from, char *top, void (*body)())
{
    place to = (place)top - 4;
#ifdef __x86_64__
    to++; /* body finds the stack as if it had been called */
#endif
    to[0] = nullptr;
    to[1] = (void *)body;
    to[2] = nullptr;
    change(from, &to);
}

} // namespace emulator::fiber

#else
#include <stddef.h>
#include <ucontext.h>

namespace emulator::fiber
{

using place = ucontext_t;

static inline void change(place *from, const place *to)
{
    swapcontext(from, to);
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
    swapcontext(from, &context);
}

} // namespace emulator::fiber
#endif

#endif
