/* Device and pinned memory.
 *
 * A device has a long range of addresses that nobody can touch. Allocations are mapped into it, never twice at the same
 * place, and out of reach as well; where device code runs into one, the fault's handler opens it, until device code has
 * ended. So opening costs by what is used, and only what is open can have been damaged. An allocation ends at a page's
 * end (but for what rounds its size up to 256 bytes); the rest of its first page and that rounding hold canaries. */
#include "emulator.hpp"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <vector>

namespace emulator
{

namespace
{

enum : size_t { HUGE_PAGE = 2 << 20, ALIGNMENT = 256, NEAR = 256, PINNED_GUARD = 256, DEVICES = 16 };
enum : uint16_t { CANARY = 0xffa5 }; /* a signalling NaN, which arithmetic does not pass on as it is */

struct allocation {
    size_t bytes;
    char *pages; /* the first of them */
    size_t page_bytes;
    bool live, open;
};

struct arena {
    char *base;
    size_t size, used, live_bytes;
    std::map<char *, allocation> allocations;
};

struct pinned {
    size_t bytes;
    char *block; /* NULL: registered, the program's own */
};

arena arenas[DEVICES];
std::map<char *, pinned> pinned_blocks;
bool device_code; /* runs now, on that thread */
pthread_t device_thread;
std::vector<std::pair<char *const, allocation> *> open_now;
const size_t page = (size_t)sysconf(_SC_PAGESIZE);

size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

void fill_canary(char *from, char *to)
{
    for (; from < to; from++)
        *from = (char)((uintptr_t)from & 1 ? CANARY >> 8 : CANARY & 0xff);
}

/* The first damaged byte, or NULL. */
const char *damage(const char *from, const char *to)
{
    static const uint64_t whole = 0x0001000100010001u * (uint64_t)CANARY;
    while (from < to) {
        if (((uintptr_t)from & 7) == 0 && to - from >= 8) {
            uint64_t word;
            memcpy(&word, from, 8);
            if (word == whole) {
                from += 8;
                continue;
            }
        }
        if ((unsigned char)*from != ((uintptr_t)from & 1 ? CANARY >> 8 : CANARY & 0xff))
            return from;
        from++;
    }
    return nullptr;
}

arena *arena_of(int device)
{
    arena *a = &arenas[device];
    for (size_t size = (size_t)1 << 42; a->base == nullptr; size /= 2) {
        void *base = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base != MAP_FAILED)
            *a = {(char *)base, size, page, 0, {}};
        else if (size < (size_t)1 << 32)
            die("no room for a device's addresses: %s", strerror(errno));
    }
    return a;
}

size_t device_bytes()
{
    const char *mib = getenv("EMULATED_MEMORY_MIB");
    return (mib == nullptr ? (size_t)4096 : (size_t)strtoul(mib, nullptr, 10)) << 20;
}

/* The allocation that lies around or before p. */
std::pair<char *const, allocation> *nearest(const void *p)
{
    for (arena &a : arenas) {
        if (a.base == nullptr || (const char *)p < a.base || (const char *)p >= a.base + a.size)
            continue;
        auto it = a.allocations.upper_bound((char *)p);
        if (it == a.allocations.begin())
            return it == a.allocations.end() ? nullptr : &*it;
        auto before = std::prev(it);
        const bool beyond = (const char *)p >= before->second.pages + before->second.page_bytes + page;
        return beyond && it != a.allocations.end() ? &*it : &*before;
    }
    return nullptr;
}

void open(std::pair<char *const, allocation> *entry)
{
    allocation *a = &entry->second;
    if (a->open)
        return;
    if (mprotect(a->pages, a->page_bytes, PROT_READ | PROT_WRITE) != 0)
        die("mprotect: %s", strerror(errno));
    a->open = true;
    open_now.push_back(entry);
}

void describe_address(const void *p, char *text, size_t bytes)
{
    const auto *at = nearest(p);
    if (at == nullptr) {
        snprintf(text, bytes, "address %p, which belongs to no device memory", p);
        return;
    }
    const allocation &a = at->second;
    const char *freed = a.live ? "" : " that was freed";
    const long offset = (const char *)p - at->first;
    if (offset < 0)
        snprintf(text, bytes, "the byte %ld before an allocation of %zu bytes%s", -offset, a.bytes, freed);
    else if ((size_t)offset >= a.bytes)
        snprintf(text, bytes, "the byte %zu past the end of an allocation of %zu bytes%s", (size_t)offset - a.bytes,
                 a.bytes, freed);
    else
        snprintf(text, bytes, "byte %ld of an allocation of %zu bytes%s", offset, a.bytes, freed);
}

/* ---- faults ---- */

struct sigaction before;

void fault(int number, siginfo_t *info, void *)
{
    const bool device = device_code && pthread_equal(device_thread, pthread_self());
    auto *at = device ? nearest(info->si_addr) : nullptr;
    if (at != nullptr && at->second.live && !at->second.open && (char *)info->si_addr >= at->second.pages &&
        (char *)info->si_addr < at->second.pages + at->second.page_bytes) {
        open(at);
        return;
    }
    char thread[256], address[256], line[640];
    const char *guard = describe_guard(info->si_addr);
    const bool kernel = device && describe_thread(thread, sizeof thread) > 0;
    if (!kernel && guard == nullptr && !is_device_address(info->si_addr)) { /* not ours: it happens again, unhandled */
        sigaction(number, &before, nullptr);
        return;
    }
    if (guard != nullptr)
        snprintf(address, sizeof address, "%s", guard);
    else
        describe_address(info->si_addr, address, sizeof address);
    const int n = snprintf(line, sizeof line, "emulated device: %s touches %s\n",
                           kernel   ? thread
                           : device ? "device work other than a kernel"
                                    : "the host",
                           address);
    if (write(STDERR_FILENO, line, (size_t)n) < 0)
        abort();
    _exit(EXIT_STATUS);
}

/* Again and again, since test frameworks like to have handlers of their own. */
void catch_faults()
{
    static char stack[64 << 10]; /* fibers that overrun theirs need another */
    struct sigaction now;
    sigaction(SIGSEGV, nullptr, &now);
    if (now.sa_sigaction == fault)
        return;
    const stack_t alternate = {stack, 0, sizeof stack};
    sigaltstack(&alternate, nullptr);
    struct sigaction action = {};
    action.sa_sigaction = fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &before);
}

void check_allocation(const char *what, char *memory, const allocation &a, bool near)
{
    char *from = near ? std::max(a.pages, memory - NEAR) : a.pages, *to = a.pages + a.page_bytes;
    const char *bad = damage(from, memory);
    bad = bad != nullptr ? bad : damage(memory + a.bytes, to);
    if (bad == nullptr)
        return;
    char address[256];
    describe_address(bad, address, sizeof address);
    die("%s has written %s", what, address);
}

} // namespace

bool is_device_address(const void *p)
{
    for (const arena &a : arenas) {
        if (a.base != nullptr && (const char *)p >= a.base && (const char *)p < a.base + a.size)
            return true;
    }
    return false;
}

bool is_device_memory(const void *p, size_t bytes)
{
    const auto *at = nearest(p);
    return at != nullptr && at->second.live && (const char *)p >= at->first &&
           (size_t)((const char *)p - at->first) <= at->second.bytes &&
           bytes <= at->second.bytes - (size_t)((const char *)p - at->first);
}

bool is_pinned_memory(const void *p, size_t bytes)
{
    auto it = pinned_blocks.upper_bound((char *)p);
    if (it == pinned_blocks.begin())
        return false;
    --it;
    const size_t offset = (size_t)((const char *)p - it->first);
    return offset <= it->second.bytes && bytes <= it->second.bytes - offset;
}

void require_device_memory(const void *p, size_t bytes, const char *call, const char *operand)
{
    if (is_device_memory(p, bytes)) {
        if (device_code) /* what follows may be a system call, which would fail and not fault */
            open(nearest(p));
        return;
    }
    char address[256];
    describe_address(p, address, sizeof address);
    die("%s: %s is not %zu bytes of device memory: it is %s", call, operand, bytes, address);
}

void open_memory()
{
    if (!device_code)
        catch_faults();
    device_code = true;
    device_thread = pthread_self();
}

void close_memory()
{
    for (auto *entry : open_now) {
        entry->second.open = false;
        if (mprotect(entry->second.pages, entry->second.page_bytes, PROT_NONE) != 0)
            die("mprotect: %s", strerror(errno));
    }
    open_now.clear();
    device_code = false;
}

void check_canaries(const char *what, bool near)
{
    for (auto *entry : open_now)
        check_allocation(what, entry->first, entry->second, near);
    if (near)
        return;
    for (auto &[memory, block] : pinned_blocks) {
        if (block.block != nullptr && (damage(memory - PINNED_GUARD, memory) != nullptr ||
                                       damage(memory + block.bytes, memory + block.bytes + PINNED_GUARD) != nullptr))
            die("%s: something has written beside pinned memory of %zu bytes", what, block.bytes);
    }
}

} // namespace emulator

using namespace emulator;

extern "C" {

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    api_call call("cudaMalloc");
    catch_faults();
    if (captures_forbid_unsafe_calls())
        return result(cudaErrorStreamCaptureUnsupported);
    *memory = nullptr;
    if (bytes == 0)
        return result(cudaSuccess);
    arena *a = arena_of(current_device());
    const size_t rounded = round_up(bytes, ALIGNMENT), page_bytes = round_up(rounded, page);
    if (bytes > device_bytes() || a->live_bytes + rounded > device_bytes())
        return result(cudaErrorMemoryAllocation);
    if (page_bytes >= HUGE_PAGE) /* few huge pages are opened and closed faster than many small ones */
        a->used += HUGE_PAGE - ((uintptr_t)a->base + a->used) % HUGE_PAGE;
    char *pages = a->base + a->used, *p = pages + page_bytes - rounded;
    if (a->used + page_bytes + page > a->size)
        die("all addresses of the device are used up");
    if (mmap(pages, page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
             0) == MAP_FAILED)
        die("mmap of %zu bytes: %s", page_bytes, strerror(errno));
    madvise(pages, page_bytes, MADV_HUGEPAGE);
    fill_canary(pages, p);
    memset(p, 0xff, bytes);
    fill_canary(p + bytes, pages + page_bytes);
    a->used += page_bytes + page; /* a page that nobody has after each */
    a->live_bytes += rounded;
    a->allocations[p] = {bytes, pages, page_bytes, true, false};
    mprotect(pages, page_bytes, PROT_NONE);
    *memory = p;
    return result(cudaSuccess);
}

cudaError_t cudaFree(void *memory)
{
    api_call call("cudaFree");
    if (captures_forbid_unsafe_calls())
        return result(cudaErrorStreamCaptureUnsupported);
    if (memory == nullptr)
        return result(cudaSuccess);
    finish_everything("cudaFree");
    for (arena &a : arenas) {
        auto it = a.allocations.find((char *)memory);
        if (it == a.allocations.end() || !it->second.live)
            continue;
        it->second.live = false;
        a.live_bytes -= round_up(it->second.bytes, ALIGNMENT);
        if (mmap(it->second.pages, it->second.page_bytes, PROT_NONE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED)
            die("mmap: %s", strerror(errno));
        return result(cudaSuccess);
    }
    die("cudaFree of %p, which is no device memory, or not any more", memory);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    api_call call("cudaMemGetInfo");
    *total = device_bytes();
    *free_bytes = *total - arena_of(current_device())->live_bytes;
    return result(cudaSuccess);
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned)
{
    api_call call("cudaHostAlloc");
    if (captures_forbid_unsafe_calls())
        return result(cudaErrorStreamCaptureUnsupported);
    *memory = nullptr;
    if (bytes == 0)
        return result(cudaSuccess);
    char *block = (char *)aligned_alloc(PINNED_GUARD, round_up(bytes, PINNED_GUARD) + 2 * PINNED_GUARD);
    if (block == nullptr)
        return result(cudaErrorMemoryAllocation);
    char *p = block + PINNED_GUARD;
    fill_canary(block, p);
    memset(p, 0xff, bytes);
    fill_canary(p + bytes, p + bytes + PINNED_GUARD);
    pinned_blocks[p] = {bytes, block};
    *memory = p;
    return result(cudaSuccess);
}

cudaError_t cudaMallocHost(void **memory, size_t bytes)
{
    return cudaHostAlloc(memory, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void *memory)
{
    api_call call("cudaFreeHost");
    if (captures_forbid_unsafe_calls())
        return result(cudaErrorStreamCaptureUnsupported);
    if (memory == nullptr)
        return result(cudaSuccess);
    auto it = pinned_blocks.find((char *)memory);
    if (it == pinned_blocks.end() || it->second.block == nullptr)
        die("cudaFreeHost of %p, which is no memory of cudaMallocHost, or not any more", memory);
    finish_everything("cudaFreeHost");
    free(it->second.block);
    pinned_blocks.erase(it);
    return result(cudaSuccess);
}

cudaError_t cudaHostRegister(void *memory, size_t bytes, unsigned)
{
    api_call call("cudaHostRegister");
    if (memory == nullptr || bytes == 0)
        return result(cudaErrorInvalidValue);
    if (is_pinned_memory(memory, 1))
        return result(cudaErrorHostMemoryAlreadyRegistered);
    pinned_blocks[(char *)memory] = {bytes, nullptr};
    return result(cudaSuccess);
}

cudaError_t cudaHostUnregister(void *memory)
{
    api_call call("cudaHostUnregister");
    auto it = pinned_blocks.find((char *)memory);
    if (it == pinned_blocks.end() || it->second.block != nullptr)
        return result(cudaErrorHostMemoryNotRegistered);
    finish_everything("cudaHostUnregister");
    pinned_blocks.erase(it);
    return result(cudaSuccess);
}

} // extern "C"
