#include "base/version.h"
#include "app/result.h"
#include "backend/backend.h"
#include "kernels.h"

#include <cjson/cJSON.h>
#include <hdf5.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { VERSION_CHARS = 128, LIBRARIES = 4 };

typedef struct library {
    const char *name;
    char version[VERSION_CHARS];
} library;

static void list_libraries(library all[LIBRARIES])
{
    char mpi[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    unsigned major = 0, minor = 0, release = 0;
    MPI_Get_library_version(mpi, &length);
    mpi[strcspn(mpi, ",\n")] = 0;
    H5get_libversion(&major, &minor, &release);
    all[0].name = "MPI";
    snprintf(all[0].version, VERSION_CHARS, "%.*s", VERSION_CHARS - 1, mpi);
    all[1].name = "HDF5";
    snprintf(all[1].version, VERSION_CHARS, "%u.%u.%u", major, minor, release);
    all[2].name = "cJSON";
    snprintf(all[2].version, VERSION_CHARS, "%s", cJSON_Version());
    all[3].name = "xxHash";
    unsigned xxhash = XXH_versionNumber();
    snprintf(all[3].version, VERSION_CHARS, "%u.%u.%u", xxhash / 10000, xxhash / 100 % 100, xxhash % 100);
}

void dc_version_print(FILE *out)
{
    library all[LIBRARIES];
    list_libraries(all);
    fprintf(out, "dcanas %s\n", DC_VERSION);
    const char *isa = getenv("DCANAS_ISA");
    const dck_kernels *kernels = dck_kernels_for(isa && *isa ? isa : NULL);
    fprintf(out, "  compute  cpu, instruction set %s\n",
            kernels ? kernels->isa : "none: DCANAS_ISA is not one of this machine's");
    char gpus[192];
    dc_backend_gpus(gpus, sizeof gpus);
    fprintf(out, "           cuda: %s\n", gpus);
    for (int i = 0; i < LIBRARIES; i++)
        fprintf(out, "  %-8s %s\n", all[i].name, all[i].version);
}

void dc_version_add(cJSON *object)
{
    library all[LIBRARIES];
    list_libraries(all);
    cJSON *versions = cJSON_AddObjectToObject(object, "versions");
    cJSON_AddStringToObject(versions, "dcanas", DC_VERSION);
    for (int i = 0; i < LIBRARIES; i++)
        cJSON_AddStringToObject(versions, all[i].name, all[i].version);
}
