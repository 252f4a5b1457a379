#include "backend/cuda/described.h"

#include <stdio.h>
#include <string.h>

const dc_described_gpu dc_described_gpus[DC_DESCRIBED_GPUS] = {
    {"a100", 800, 108, 166912, 84974108672, 41943040},
    {"h100", 900, 132, 232448, 84929347584, 52428800},
    {"b200", 1000, 148, 232448, 191521095680, 132644864},
};

dc_status dc_described_gpu_find(const char *name, const dc_described_gpu **gpu)
{
    char known[64] = "";
    for (int i = 0; i < DC_DESCRIBED_GPUS; i++) {
        *gpu = &dc_described_gpus[i];
        if (!strcmp((*gpu)->name, name))
            return DC_OK;
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", (*gpu)->name);
    }
    return dc_fail(DC_ERR_INPUT, "GPU '%s' is not described; described are: %s", name, known);
}

void dc_described_gpu_json(const dc_described_gpu *gpu, char json[DC_DESCRIPTION_CHARS])
{
    snprintf(json, DC_DESCRIPTION_CHARS,
             "{\"deviceVer\":%d,\"multiProcessorCount\":%d,\"warpSize\":32,\"maxSharedMemoryPerBlock\":49152,"
             "\"maxSharedMemoryPerBlockOptin\":%d,\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,"
             "\"maxCtasPerSM\":32,\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,\"regsPerBlock\":65536,"
             "\"totalGlobalMem\":%lld,\"smClockRateKHz\":1410000,\"l2CacheSize\":%lld,\"maxBlockSize\":[1024,1024,64],"
             "\"memClockRateKHz\":1215000,\"maxGridSize\":[2147483647,65535,65535],\"supportCoopLaunch\":1,"
             "\"pciDeviceId\":0,\"isTccDriver\":0,\"cudaDeviceId\":0,\"driverVer\":13000,\"deviceName\":\"%s\"}",
             gpu->version, gpu->multiprocessors, gpu->shared_memory, gpu->memory_bytes, gpu->cache_bytes, gpu->name);
}
