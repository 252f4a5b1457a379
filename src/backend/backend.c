#include "backend/backend.h"

#include "backend/cpu/cpu_backend.h"
#include "base/units.h"
#ifdef DC_CUDA
#include "backend/cuda/cuda_backend.h"
#endif

#include <stdio.h>
#include <string.h>

const char *const dc_precision_names[DC_PRECISIONS] = {"float", "tf32", "bf16"};

dc_status dc_precision_parse(const char *name, dc_precision *precision)
{
    for (int i = 0; i < DC_PRECISIONS; i++)
        if (!strcmp(name, dc_precision_names[i])) {
            *precision = (dc_precision)i;
            return DC_OK;
        }
    return dc_fail(DC_ERR_INPUT, "precision '%s' is not known: float, tf32 or bf16", name);
}

/* why: there is no GPU; NULL: none was asked for. */
static dc_status create_cpu_for(const dc_backend_options *options, const char *why, dc_backend **backend)
{
    if (options->precision == DC_PRECISION_TF32)
        return dc_fail(DC_ERR_INPUT, "precision = tf32 needs a GPU, the CPU computes in float or bf16%s%s%s",
                       why ? " (no GPU: " : "", why ? why : "", why ? ")" : "");
    return dc_cpu_backend_create(options->threads, options->precision, backend);
}

static dc_status create_cpu(const dc_backend_options *options, dc_backend **backend)
{
    return create_cpu_for(options, NULL, backend);
}

#ifdef DC_CUDA
static dc_status create_cuda(const dc_backend_options *options, dc_backend **backend)
{
    return dc_cuda_backend_create(options, backend);
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

static dc_status create_cuda(const dc_backend_options *options, dc_backend **backend)
{
    (void)options, (void)backend;
    char why[128];
    gpus(why, sizeof why);
    return dc_fail(DC_ERR_INPUT, "device 'cuda': %s", why);
}
#endif

static dc_status create_auto(const dc_backend_options *options, dc_backend **backend)
{
    char why[96];
    if (gpus(why, sizeof why) > 0)
        return create_cuda(options, backend);
    DC_TRY(create_cpu_for(options, why, backend));
    size_t used = strlen((*backend)->description);
    snprintf((*backend)->description + used, sizeof(*backend)->description - used, " (no GPU: %s)", why);
    return DC_OK;
}

/* Every device by name. */
static const struct {
    const char *name;
    dc_status (*create)(const dc_backend_options *options, dc_backend **backend);
} registry[] = {{"auto", create_auto}, {"cpu", create_cpu}, {"cuda", create_cuda}};

enum { N_BACKENDS = sizeof registry / sizeof *registry };

dc_status dc_backend_create(const char *name, const dc_backend_options *options, dc_backend **backend)
{
    char known[128] = "";
    for (int i = 0; i < N_BACKENDS; i++) {
        if (!strcmp(name, registry[i].name))
            return registry[i].create(options, backend);
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

dc_status dc_backend_step_bytes(dc_backend *backend, const dc_plan *plan, size_t *bytes)
{
    *bytes = 0;
    return backend->call->step_bytes ? backend->call->step_bytes(backend, plan, bytes) : DC_OK;
}

dc_status dc_backend_check_memory(dc_backend *backend, size_t bytes, const char *what, const char *where)
{
    size_t free_bytes, total;
    if (!backend->call->memory)
        return DC_OK;
    DC_TRY(backend->call->memory(backend, &free_bytes, &total));
    if (bytes <= free_bytes)
        return DC_OK;
    return dc_fail(DC_ERR_MEMORY,
                   "%s needs %zu bytes (%s) of the GPU's memory, %zu (%s) of its %s are free: lower %s batch, channels "
                   "or cells, set %s micro_batch, or take more GPUs (dcanas plan tells what a job needs)",
                   what, bytes, dc_format_bytes((double)bytes).s, free_bytes, dc_format_bytes((double)free_bytes).s,
                   dc_format_bytes((double)total).s, where, where);
}

dc_status dc_backend_copy_out_later(dc_backend *backend, const float *device, size_t count, dc_take take, void *context)
{
    const dc_backend_interface *call = backend->call;
    float values[DC_LATER_FLOATS];
    if (call->copy_out_later)
        return call->copy_out_later(backend, device, count, take, context);
    DC_TRY(call->copy_out(backend, values, device, count * sizeof *values));
    take(context, values);
    return DC_OK;
}

dc_status dc_backend_await(dc_backend *backend, const void *context)
{
    return backend->call->await ? backend->call->await(backend, context) : DC_OK;
}

dc_status dc_backend_diverged(double learning_rate)
{
    return dc_fail(DC_ERR_INPUT, "training diverged: the gradient is not finite; lower learning_rate (now %g)",
                   learning_rate);
}
