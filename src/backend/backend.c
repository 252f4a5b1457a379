#include "backend/backend.h"

#include "backend/cpu/cpu_backend.h"
#ifdef DC_CUDA
#include "backend/cuda/cuda_backend.h"
#endif

#include <stdio.h>
#include <string.h>

static dc_status create_cpu(int threads, int local_rank, dc_backend **backend)
{
    (void)local_rank;
    return dc_cpu_backend_create(threads, backend);
}

#ifdef DC_CUDA
static dc_status create_cuda(int threads, int local_rank, dc_backend **backend)
{
    (void)threads;
    return dc_cuda_backend_create(local_rank, backend);
}

static int gpus(char *why, size_t size)
{
    return dc_cuda_devices(why, size);
}

int dc_backend_gpus(char *text, size_t size)
{
    char built[96], why[96] = "";
    dc_cuda_versions(built, sizeof built);
    const int n = dc_cuda_devices(why, sizeof why);
    if (n > 0)
        snprintf(text, size, "%s; %d GPU%s", built, n, n == 1 ? "" : "s");
    else
        snprintf(text, size, "%s; no GPU: %s", built, why);
    return n;
}
#else
#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)

/* What the Makefile did not find, with _ for blanks. */
static int gpus(char *why, size_t size)
{
    snprintf(why, size, "this program was built without CUDA: %s", TEXT(DC_CUDA_LACKS));
    for (char *c = why; *c; c++)
        *c = *c == '_' ? ' ' : *c;
    return 0;
}

int dc_backend_gpus(char *text, size_t size)
{
    return gpus(text, size);
}

static dc_status create_cuda(int threads, int local_rank, dc_backend **backend)
{
    (void)threads, (void)local_rank, (void)backend;
    char why[128];
    gpus(why, sizeof why);
    return dc_fail(DC_ERR_INPUT, "device 'cuda': %s", why);
}
#endif

static dc_status create_auto(int threads, int local_rank, dc_backend **backend)
{
    char why[96];
    if (gpus(why, sizeof why) > 0)
        return create_cuda(threads, local_rank, backend);
    DC_TRY(create_cpu(threads, local_rank, backend));
    size_t used = strlen((*backend)->description);
    snprintf((*backend)->description + used, sizeof(*backend)->description - used, " (no GPU: %s)", why);
    return DC_OK;
}

/* Every device by name. */
static const struct {
    const char *name;
    dc_status (*create)(int threads, int local_rank, dc_backend **backend);
} registry[] = {{"auto", create_auto}, {"cpu", create_cpu}, {"cuda", create_cuda}};

enum { N_BACKENDS = sizeof registry / sizeof *registry };

dc_status dc_backend_create(const char *name, int threads, int local_rank, dc_backend **backend)
{
    char known[128] = "";
    for (int i = 0; i < N_BACKENDS; i++) {
        if (!strcmp(name, registry[i].name))
            return registry[i].create(threads, local_rank, backend);
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", registry[i].name);
    }
    return dc_fail(DC_ERR_INPUT, "device '%s' is not known to this program; it has: %s", name, known);
}

void dc_backend_destroy(dc_backend *backend)
{
    if (backend)
        backend->call->destroy(backend);
}

const char *dc_backend_description(const dc_backend *backend)
{
    return backend->description;
}

dc_status dc_backend_diverged(double learning_rate)
{
    return dc_fail(DC_ERR_INPUT, "training diverged: the gradient is not finite; lower learning_rate (now %g)",
                   learning_rate);
}
