/* Kernels: the threads of a block are fibers of the host thread that runs the block.
 *
 * Threads are begun one after another on one stack for as long as they run to their ends, so that a kernel without
 * barriers costs a call for each. A thread that waits keeps the stack it is on, and those after it begin on another. */
#include "device.h"
#include "emulator.hpp"
#include "fibers.hpp"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim

namespace emulator
{

coordinates current;
uint64_t block_serial;

namespace
{

enum { MAX_THREADS = 1024, WARP = 32 };
enum : size_t { STACK_BYTES = 256 << 10, GUARD_BYTES = 64 << 10, MAX_SHARED = 48 << 10, SHARED_GAP = 64 };
enum : size_t { SHARED_REGION = 4 * MAX_SHARED };
enum thread_state : unsigned char { NEW, READY, AT_BARRIER, IN_WARP, DONE };
enum order_kind { ASCENDING, DESCENDING, RANDOM };

struct kernel {
    std::string name;
    site at;
    std::function<void()> thread;
    dim3 grid, block;
    size_t shared_bytes;
};

struct waiting { /* what a thread that is not done or new waits at */
    fiber::place place;
    site at;
    unsigned mask;
    uint64_t value;
    int source; /* -1: a ballot */
    int stack;
};

const kernel *running;
int threads;
uint3 position[MAX_THREADS]; /* of each thread in the block */
int order[MAX_THREADS];
thread_state state[MAX_THREADS];
waiting at[MAX_THREADS];
unsigned arrived[MAX_THREADS / WARP]; /* lanes that are IN_WARP */
int next_thread, last_thread, self;   /* begun next, of those that may begin by now; the current one */

fiber::place scheduler;
std::vector<char *> stacks;
std::vector<int> free_stacks;
int stack_in_use;

char *shared_memory; /* static: SHARED_GAP, array, SHARED_GAP, array, ...; dynamic: up to the guard at the end */
size_t shared_used, shared_counted;
std::vector<std::pair<char *, site>> gaps;

void become(int i)
{
    self = i;
    current.thread = position[i];
    current.lane = i % WARP;
}

std::string thread_name(int i)
{
    char text[64];
    snprintf(text, sizeof text, "thread (%u, %u, %u)", position[i].x, position[i].y, position[i].z);
    return text;
}

/* ---- stacks ---- */

char *map_with_guards(size_t bytes)
{
    char *p =
        (char *)mmap(nullptr, bytes + 2 * GUARD_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED || mprotect(p + GUARD_BYTES, bytes, PROT_READ | PROT_WRITE) != 0)
        die("no memory for stacks or shared memory");
    return p + GUARD_BYTES;
}

int take_stack()
{
    if (free_stacks.empty()) {
        stacks.push_back(map_with_guards(STACK_BYTES));
        return (int)stacks.size() - 1;
    }
    const int stack = free_stacks.back();
    free_stacks.pop_back();
    return stack;
}

/* Runs on a fiber's stack: threads that have not begun, until one waits; that one's end comes back here too. */
void worker()
{
    while (next_thread < last_thread) {
        become(order[next_thread++]);
        running->thread();
        state[self] = DONE;
    }
    free_stacks.push_back(stack_in_use);
    fiber::place nowhere;
    fiber::change(&nowhere, &scheduler);
    __builtin_unreachable();
}

void wait_as(thread_state why, site where)
{
    const int i = self;
    at[i].at = where;
    at[i].stack = stack_in_use;
    state[i] = why;
    fiber::change(&at[i].place, &scheduler);
    become(i);
}

/* ---- blocks ---- */

[[noreturn]] void die_in_warp(int i)
{
    const int first = i / WARP * WARP;
    for (int lane = 0; lane < WARP; lane++) {
        const int other = first + lane;
        if ((at[i].mask >> lane & 1) == 0 || other == i)
            continue;
        if (other >= threads || state[other] == DONE)
            die("%s:%d: mask %08x has lane %d, which %s", at[i].at.file, at[i].at.line, at[i].mask, lane,
                other >= threads ? "does not exist" : "has exited");
        if (state[other] != IN_WARP || at[other].mask != at[i].mask || at[other].at.line != at[i].at.line)
            die("%s:%d: mask %08x has lane %d, which waits at %s:%d%s", at[i].at.file, at[i].at.line, at[i].mask, lane,
                at[other].at.file, at[other].at.line, state[other] == IN_WARP ? "" : " (__syncthreads)");
    }
    die("%s:%d: a warp primitive does not end", at[i].at.file, at[i].at.line);
}

/* All lanes of the mask have come: each gets its value. */
void finish_warp(int i)
{
    const int first = i / WARP * WARP;
    const unsigned mask = at[i].mask;
    unsigned votes = 0;
    uint64_t values[WARP] = {0};
    for (int lane = 0; lane < WARP; lane++) {
        const waiting *w = &at[first + lane];
        if ((mask >> lane & 1) == 0)
            continue;
        if (w->mask != mask || w->at.line != at[i].at.line)
            die_in_warp(i);
        values[lane] = w->value;
        votes |= w->value != 0 ? 1u << lane : 0;
    }
    for (int lane = 0; lane < WARP; lane++) {
        waiting *w = &at[first + lane];
        if ((mask >> lane & 1) == 0)
            continue;
        if (w->source >= 0 && (mask >> w->source & 1) == 0)
            die("%s:%d: lane %d reads lane %d, which is outside of mask %08x", w->at.file, w->at.line, lane, w->source,
                mask);
        w->value = w->source < 0 ? votes : values[w->source];
        state[first + lane] = READY;
    }
    arrived[i / WARP] &= ~mask;
}

/* Nobody can go on: all have reached the same barrier, which is open then, or never will. */
void open_barrier()
{
    int done = 0, waiter = -1;
    for (int i = 0; i < threads; i++) {
        if (state[i] == IN_WARP)
            die_in_warp(i);
        if (state[i] == DONE)
            done++;
        else if (waiter < 0)
            waiter = i;
        else if (at[i].at.line != at[waiter].at.line || at[i].at.file != at[waiter].at.file)
            die("%s:%d: divergent barrier: %s waits there, %s at line %d", at[waiter].at.file, at[waiter].at.line,
                thread_name(waiter).c_str(), thread_name(i).c_str(), at[i].at.line);
    }
    if (done > 0)
        die("%s:%d: divergent barrier: %d of %d threads of the block have exited", at[waiter].at.file,
            at[waiter].at.line, done, threads);
    std::fill_n(state, threads, READY);
}

/* Tops of stacks that are a power of two apart would share few lines of the caches. */
void start_thread()
{
    stack_in_use = take_stack();
    const size_t stack = (size_t)stack_in_use, shift = stack * 7 % 64 * 64 + stack / 64 % 8 * 4096;
    fiber::start(&scheduler, stacks[stack] + STACK_BYTES - shift, worker);
}

bool is_unset(const char *from, const char *to)
{
    return std::all_of(from, to, [](char c) { return (unsigned char)c == 0xff; });
}

void check_shared()
{
    for (auto &[gap, where] : gaps) {
        if (!is_unset(gap, gap + SHARED_GAP))
            die("%s: something has written beside the shared array of %s:%d", running->name.c_str(), where.file,
                where.line);
    }
    const char *end = shared_memory + SHARED_REGION; /* of dynamic shared memory and what rounds it up to 16 bytes */
    if (!is_unset(end - (16 - running->shared_bytes % 16) % 16, end))
        die("%s: something has written past the dynamic shared memory", running->name.c_str());
}

/* Lets those of order[first ... end - 1] go on until none of them can; false: none could. One warp after another,
 * rather than all threads in turn, is kinder to caches, and as good an order as any. */
bool run_group(int first, int end)
{
    bool any = false, again;
    for (last_thread = end; next_thread < end; any = true)
        start_thread();
    do {
        again = false;
        for (int k = first; k < end; k++) {
            const int i = order[k];
            if (state[i] != READY)
                continue;
            again = true;
            stack_in_use = at[i].stack;
            fiber::change(&scheduler, &at[i].place);
        }
        any = any || again;
    } while (again);
    return any;
}

void run_block(uint3 block, order_kind kind)
{
    current.block = block;
    block_serial++;
    shared_used = 0;
    shared_counted = running->shared_bytes;
    gaps.clear();
    if (running->shared_bytes > 0)
        memset(shared_memory + SHARED_REGION - MAX_SHARED, 0xff, MAX_SHARED);
    if (kind == RANDOM) {
        for (int i = threads - 1; i > 0; i--)
            std::swap(order[i], order[random_number((unsigned)i + 1)]);
    }
    memset(state, NEW, (size_t)threads);
    const int group = kind == RANDOM ? threads : WARP;
    bool waits;
    next_thread = 0;
    do {
        bool any = false;
        for (int first = 0; first < threads; first += group)
            any = run_group(first, std::min(first + group, threads)) || any;
        waits = std::any_of(state, state + threads, [](thread_state s) { return s != DONE; });
        if (!any && waits)
            open_barrier();
    } while (waits);
    check_shared();
}

void run_kernel(const kernel *k)
{
    static const char *const names[] = {"ascending", "descending", "random"};
    const int fixed = chosen("EMULATOR_ORDER", names, 3);
    const order_kind kind = fixed >= 0 ? (order_kind)fixed : (order_kind)random_number(3);
    if (shared_memory == nullptr)
        shared_memory = map_with_guards(SHARED_REGION);
    running = k;
    threads = (int)(k->block.x * k->block.y * k->block.z);
    current.block_size = k->block;
    current.grid_size = k->grid;
    for (int i = 0; i < threads; i++) {
        const unsigned u = (unsigned)i, row = u / k->block.x;
        position[i] = {u % k->block.x, row % k->block.y, row / k->block.y};
        order[i] = kind == DESCENDING ? threads - 1 - i : i;
    }
    const uint64_t blocks = (uint64_t)k->grid.x * k->grid.y * k->grid.z;
    for (uint64_t b = 0; b < blocks; b++) {
        const uint64_t i = kind == DESCENDING ? blocks - 1 - b : b, row = i / k->grid.x;
        run_block({(unsigned)(i % k->grid.x), (unsigned)(row % k->grid.y), (unsigned)(row / k->grid.y)}, kind);
    }
    running = nullptr;
}

/* `kernel<T, 3>` of the text `kernel<T, 3>, dim3(...), ...`. */
std::string kernel_name(const char *text)
{
    int depth = 0;
    size_t n = 0;
    for (; text[n] != '\0' && (text[n] != ',' || depth > 0); n++)
        depth += (text[n] == '<' || text[n] == '(') - (text[n] == '>' || text[n] == ')');
    return std::string(text, n);
}

} // namespace

int describe_thread(char *text, size_t bytes)
{
    if (running == nullptr)
        return 0;
    return snprintf(text, bytes, "%s (%s:%d), block (%u, %u, %u), thread (%u, %u, %u),", running->name.c_str(),
                    running->at.file, running->at.line, current.block.x, current.block.y, current.block.z,
                    current.thread.x, current.thread.y, current.thread.z);
}

const char *describe_guard(const void *address)
{
    const char *p = (const char *)address;
    for (const char *stack : stacks) {
        if (p >= stack - GUARD_BYTES && p < stack)
            return "what lies past its stack";
    }
    if (shared_memory != nullptr && p >= shared_memory - GUARD_BYTES && p < shared_memory + SHARED_REGION + GUARD_BYTES)
        return "what lies past its shared memory";
    return nullptr;
}

void barrier(site where)
{
    wait_as(AT_BARRIER, where);
}

uint64_t exchange(unsigned mask, uint64_t value, int source, site where)
{
    const int i = self, lane = i % WARP, warp = i / WARP;
    if ((mask >> lane & 1) == 0)
        die("%s:%d: lane %d is not in the mask %08x that it gives", where.file, where.line, lane, mask);
    at[i].mask = mask;
    at[i].value = value;
    at[i].source = source;
    arrived[warp] |= 1u << lane;
    state[i] = IN_WARP;
    at[i].at = where;
    if ((arrived[warp] & mask) == mask)
        finish_warp(i);
    wait_as(state[i], where);
    return at[i].value;
}

unsigned ballot(unsigned mask, bool value, site where)
{
    return (unsigned)exchange(mask, value, -1, where);
}

void *new_shared(shared_slot *slot, size_t bytes, size_t alignment, site where)
{
    shared_counted = (shared_counted + alignment - 1) / alignment * alignment + bytes;
    if (shared_counted > MAX_SHARED)
        die("%s:%d: %zu bytes of shared memory, more than 48 KiB", where.file, where.line, shared_counted);
    const size_t to = 16;
    char *memory = shared_memory + shared_used + SHARED_GAP;
    shared_used += SHARED_GAP + (bytes + to - 1) / to * to;
    memset(memory - SHARED_GAP, 0xff, bytes + 2 * SHARED_GAP);
    gaps.push_back({memory - SHARED_GAP, where});
    gaps.push_back({memory + bytes, where});
    *slot = {block_serial, memory};
    return memory;
}

void *dynamic_shared(site where)
{
    if (running->shared_bytes == 0)
        die("%s:%d: dynamic shared memory, but the launch at %s:%d gives none", where.file, where.line,
            running->at.file, running->at.line);
    return shared_memory + SHARED_REGION - (running->shared_bytes + 15) / 16 * 16;
}

void check_argument(call where, const void *pointer)
{
    if (pointer != nullptr && !is_device_address(pointer) && !is_pinned_memory(pointer, 0))
        die("%s:%d: %s is given %p, which is no device memory", where.at.file, where.at.line,
            kernel_name(where.text).c_str(), pointer);
}

cudaError_t enqueue_kernel(call where, std::function<void()> thread, dim3 grid, dim3 block, size_t shared_bytes,
                           cudaStream_t stream)
{
    api_call call("launch");
    const std::string name = kernel_name(where.text);
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
        die("%s:%d: %s: no grid can be (%u, %u, %u)", where.at.file, where.at.line, name.c_str(), grid.x, grid.y,
            grid.z);
    if (block.x == 0 || block.y == 0 || block.z == 0 || block.x > MAX_THREADS || block.y > MAX_THREADS ||
        block.z > 64 || (uint64_t)block.x * block.y * block.z > MAX_THREADS)
        die("%s:%d: %s: no block can be (%u, %u, %u)", where.at.file, where.at.line, name.c_str(), block.x, block.y,
            block.z);
    if (shared_bytes > MAX_SHARED)
        die("%s:%d: %s: %zu bytes of shared memory, more than 48 KiB", where.at.file, where.at.line, name.c_str(),
            shared_bytes);
    const kernel k = {name, where.at, std::move(thread), grid, block, shared_bytes};
    return enqueue(stream, name, [k] { run_kernel(&k); });
}

} // namespace emulator
