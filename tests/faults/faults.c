/* A library that makes calls of the program fail: loaded before all others (LD_PRELOAD), it stands in front of the
 * system calls, allocations and MPI calls that can fail. Only calls that dcanas itself makes are counted, by call site:
 * the innermost functions of the program on the stack. What the call would have done is not done.
 *
 *   FAULTS_LIST=FILE      appends "FUNCTION SITE" for each call site when it is reached first
 *   FAULTS_CALL=FUNCTION  the calls of this function ...
 *   FAULTS_SITE=SITE      ... from this site (any other site otherwise) ...
 *   FAULTS_RANK=R         ... on this rank (0 without a launcher) ...
 *   FAULTS_NTH=N          ... fail from the Nth on (1: the first) ...
 *   FAULTS_TIMES=K        ... K times (1; 0: for ever). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <mpi.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DEPTH = 12, KEPT = 3, SITES = 4096, SITE_CHARS = 80 };

static uintptr_t base, start, end; /* of the program's code */
static const char *listing, *wanted_call, *wanted_site;
static long nth = 1, times = 1;
static bool active;
static atomic_long calls;
static atomic_ullong seen[SITES];
static _Thread_local bool inside;

static int find_program(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size, (void)context;
    base = info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD && info->dlpi_phdr[i].p_flags & PF_X) {
            start = base + info->dlpi_phdr[i].p_vaddr;
            end = start + info->dlpi_phdr[i].p_memsz;
        }
    return 1; /* the program is the first */
}

__attribute__((constructor)) static void prepare(void)
{
    void *frames[2];
    inside = true;
    dl_iterate_phdr(find_program, NULL);
    backtrace(frames, 2); /* loads what it needs */
    const char *rank = getenv("OMPI_COMM_WORLD_RANK"), *wanted_rank = getenv("FAULTS_RANK");
    listing = getenv("FAULTS_LIST");
    wanted_call = getenv("FAULTS_CALL");
    wanted_site = getenv("FAULTS_SITE");
    nth = getenv("FAULTS_NTH") ? atol(getenv("FAULTS_NTH")) : 1;
    times = getenv("FAULTS_TIMES") ? atol(getenv("FAULTS_TIMES")) : 1;
    bool mine = !wanted_rank || strcmp(wanted_rank, rank ? rank : "0") == 0;
    char name[256] = "";
    ssize_t length = readlink("/proc/self/exe", name, sizeof name - 1);
    const char *program = length > 0 ? strrchr(name, '/') : NULL;
    active = program && strcmp(program, "/dcanas") == 0 && mine && (listing || wanted_call);
    inside = false;
}

static bool in_program(const void *address)
{
    return (uintptr_t)address >= start && (uintptr_t)address < end;
}

/* "a:b:c": offsets in the program of the innermost calls of its own. False when another library calls. */
static bool site_of(const void *caller, char site[SITE_CHARS])
{
    void *frames[DEPTH];
    if (!in_program(caller))
        return false;
    int n = backtrace(frames, DEPTH), kept = 0;
    *site = 0;
    for (int i = 0; i < n && kept < KEPT; i++)
        if (in_program(frames[i])) {
            size_t used = strlen(site);
            snprintf(site + used, SITE_CHARS - used, "%s%lx", kept ? ":" : "",
                     (unsigned long)((uintptr_t)frames[i] - base));
            kept++;
        }
    return kept > 0;
}

static bool is_new(const char *call, const char *site)
{
    unsigned long long hash = 1469598103934665603ULL;
    for (const char *s = call; *s; s++)
        hash = (hash ^ (unsigned char)*s) * 1099511628211ULL;
    for (const char *s = site; *s; s++)
        hash = (hash ^ (unsigned char)*s) * 1099511628211ULL;
    hash |= 1;
    for (size_t i = hash % SITES, tries = 0; tries < SITES; i = (i + 1) % SITES, tries++) {
        unsigned long long expected = 0;
        if (atomic_compare_exchange_strong(&seen[i], &expected, hash))
            return true;
        if (expected == hash)
            return false;
    }
    return false;
}

static void list(const char *call, const char *site)
{
    char line[SITE_CHARS + 64];
    int length = snprintf(line, sizeof line, "%s %s\n", call, site);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, listing, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (fd >= 0) {
        (void)!syscall(SYS_write, fd, line, length);
        syscall(SYS_close, fd);
    }
}

/* Whether this call is to fail. */
static bool fails(const char *call, const void *caller)
{
    char site[SITE_CHARS];
    if (!active || inside || (!listing && strcmp(call, wanted_call) != 0))
        return false;
    inside = true;
    bool counted = site_of(caller, site), failing = false;
    if (counted && listing && is_new(call, site))
        list(call, site);
    if (counted && wanted_call && strcmp(call, wanted_call) == 0 && (!wanted_site || strcmp(site, wanted_site) == 0)) {
        long k = atomic_fetch_add(&calls, 1) + 1;
        failing = k >= nth && (times == 0 || k < nth + times);
    }
    inside = false;
    return failing;
}

#define CALLER         __builtin_return_address(0)
#define NEXT(function) ((__typeof__(&function))dlsym(RTLD_NEXT, #function))
/* One call that is passed on or fails with this result and errno. */
#define STAND_IN(type, function, parameters, arguments, error, result)                                                 \
    type function parameters                                                                                           \
    {                                                                                                                  \
        if (fails(#function, CALLER)) {                                                                                \
            errno = error;                                                                                             \
            return result;                                                                                             \
        }                                                                                                              \
        return NEXT(function) arguments;                                                                               \
    }

STAND_IN(ssize_t, write, (int fd, const void *data, size_t n), (fd, data, n), ENOSPC, -1)
STAND_IN(ssize_t, read, (int fd, void *data, size_t n), (fd, data, n), EIO, -1)
STAND_IN(ssize_t, pread, (int fd, void *data, size_t n, off_t at), (fd, data, n, at), EIO, -1)
STAND_IN(int, fsync, (int fd), (fd), EIO, -1)
STAND_IN(int, ftruncate, (int fd, off_t n), (fd, n), EIO, -1)
STAND_IN(int, rename, (const char *from, const char *to), (from, to), EIO, -1)
STAND_IN(int, mkdir, (const char *path, mode_t mode), (path, mode), EROFS, -1)
STAND_IN(void *, mmap, (void *at, size_t n, int prot, int flags, int fd, off_t from), (at, n, prot, flags, fd, from),
         ENOMEM, MAP_FAILED)
STAND_IN(int, pthread_create,
         (pthread_t * thread, const pthread_attr_t *attributes, void *(*run)(void *), void *context),
         (thread, attributes, run, context), EAGAIN, EAGAIN)

int open(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    if (fails("open", CALLER)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

/* glibc's own names: dlsym itself allocates. */
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

static void *none(void)
{
    errno = ENOMEM;
    return NULL;
}

void *malloc(size_t n)
{
    return fails("malloc", CALLER) ? none() : __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    return fails("calloc", CALLER) ? none() : __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    return fails("realloc", CALLER) ? none() : __libc_realloc(p, n);
}

void *aligned_alloc(size_t alignment, size_t n)
{
    return fails("aligned_alloc", CALLER) ? none() : __libc_memalign(alignment, n);
}

#define STAND_IN_MPI(function, parameters, arguments)                                                                  \
    int function parameters                                                                                            \
    {                                                                                                                  \
        return fails(#function, CALLER) ? MPI_ERR_OTHER : P##function arguments;                                       \
    }

STAND_IN_MPI(MPI_Init_thread, (int *argc, char ***argv, int required, int *provided), (argc, argv, required, provided))
STAND_IN_MPI(MPI_Comm_set_errhandler, (MPI_Comm comm, MPI_Errhandler handler), (comm, handler))
STAND_IN_MPI(MPI_Comm_rank, (MPI_Comm comm, int *rank), (comm, rank))
STAND_IN_MPI(MPI_Comm_size, (MPI_Comm comm, int *size), (comm, size))
STAND_IN_MPI(MPI_Comm_dup, (MPI_Comm comm, MPI_Comm *copy), (comm, copy))
STAND_IN_MPI(MPI_Comm_split, (MPI_Comm comm, int color, int key, MPI_Comm *group), (comm, color, key, group))
STAND_IN_MPI(MPI_Comm_split_type, (MPI_Comm comm, int type, int key, MPI_Info info, MPI_Comm *group),
             (comm, type, key, info, group))
STAND_IN_MPI(MPI_Comm_free, (MPI_Comm * comm), (comm))
STAND_IN_MPI(MPI_Allgather, (const void *from, int n, MPI_Datatype a, void *to, int m, MPI_Datatype b, MPI_Comm comm),
             (from, n, a, to, m, b, comm))
STAND_IN_MPI(MPI_Allgatherv,
             (const void *from, int n, MPI_Datatype a, void *to, const int counts[], const int at[], MPI_Datatype b,
              MPI_Comm comm),
             (from, n, a, to, counts, at, b, comm))
STAND_IN_MPI(MPI_Gatherv,
             (const void *from, int n, MPI_Datatype a, void *to, const int counts[], const int at[], MPI_Datatype b,
              int root, MPI_Comm comm),
             (from, n, a, to, counts, at, b, root, comm))
STAND_IN_MPI(MPI_Allreduce, (const void *from, void *to, int n, MPI_Datatype type, MPI_Op op, MPI_Comm comm),
             (from, to, n, type, op, comm))
STAND_IN_MPI(MPI_Iallreduce,
             (const void *from, void *to, int n, MPI_Datatype type, MPI_Op op, MPI_Comm comm, MPI_Request *request),
             (from, to, n, type, op, comm, request))
STAND_IN_MPI(MPI_Bcast, (void *data, int n, MPI_Datatype type, int root, MPI_Comm comm), (data, n, type, root, comm))
STAND_IN_MPI(MPI_Ibarrier, (MPI_Comm comm, MPI_Request *request), (comm, request))
STAND_IN_MPI(MPI_Send, (const void *data, int n, MPI_Datatype type, int to, int tag, MPI_Comm comm),
             (data, n, type, to, tag, comm))
STAND_IN_MPI(MPI_Isend,
             (const void *data, int n, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request *request),
             (data, n, type, to, tag, comm, request))
STAND_IN_MPI(MPI_Recv, (void *data, int n, MPI_Datatype type, int from, int tag, MPI_Comm comm, MPI_Status *status),
             (data, n, type, from, tag, comm, status))
STAND_IN_MPI(MPI_Irecv, (void *data, int n, MPI_Datatype type, int from, int tag, MPI_Comm comm, MPI_Request *request),
             (data, n, type, from, tag, comm, request))
STAND_IN_MPI(MPI_Iprobe, (int from, int tag, MPI_Comm comm, int *there, MPI_Status *status),
             (from, tag, comm, there, status))
STAND_IN_MPI(MPI_Test, (MPI_Request * request, int *done, MPI_Status *status), (request, done, status))
STAND_IN_MPI(MPI_Testall, (int n, MPI_Request requests[], int *done, MPI_Status statuses[]),
             (n, requests, done, statuses))
STAND_IN_MPI(MPI_Waitall, (int n, MPI_Request requests[], MPI_Status statuses[]), (n, requests, statuses))
