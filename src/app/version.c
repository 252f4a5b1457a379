#include "app/result.h"
#include "kernels.h"

#include <cjson/cJSON.h>
#include <hdf5.h>
#include <mpi.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

const char *dc_version(void)
{
    return "0.1.0";
}

void dc_version_print(FILE *out)
{
    char mpi[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    unsigned major = 0, minor = 0, release = 0;
    MPI_Get_library_version(mpi, &length);
    mpi[strcspn(mpi, ",\n")] = 0;
    H5get_libversion(&major, &minor, &release);
    fprintf(out, "dcanas %s\n", dc_version());
    fprintf(out, "  compute  cpu, instruction set %s\n", dck_kernels_for(NULL)->isa);
    fprintf(out, "  MPI      %s\n", mpi);
    fprintf(out, "  HDF5     %u.%u.%u\n", major, minor, release);
    fprintf(out, "  cJSON    %s\n", cJSON_Version());
    fprintf(out, "  xxHash   %u\n", XXH_versionNumber());
}
