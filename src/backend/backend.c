#include "backend/backend.h"

#include "backend/cpu/cpu_backend.h"

#include <stdio.h>
#include <string.h>

/* Every device that is compiled in. */
static const struct {
    const char *name;
    dc_status (*create)(int threads, dc_backend **backend);
} registry[] = {
    {"cpu", dc_cpu_backend_create},
};

enum { N_BACKENDS = sizeof registry / sizeof *registry };

dc_status dc_backend_create(const char *name, int threads, dc_backend **backend)
{
    char known[128] = "";
    for (int i = 0; i < N_BACKENDS; i++) {
        if (!strcmp(name, registry[i].name))
            return registry[i].create(threads, backend);
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
