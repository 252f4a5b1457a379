/* What is neither memory nor streams nor kernels: devices, errors, and how the emulator itself speaks. */
#include "emulator.hpp"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

namespace emulator
{

namespace
{

thread_local cudaError_t last_error;
thread_local int device;

int variable(const char *name, int otherwise)
{
    const char *value = getenv(name);
    return value == nullptr ? otherwise : atoi(value);
}

} // namespace

void die(const char *format, ...)
{
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    fflush(stdout);
    fprintf(stderr, "emulated device: %s\n", line);
    _exit(EXIT_STATUS);
}

/* Each rank draws another order. */
unsigned random_number(unsigned below)
{
    static uint64_t state = 0x9e3779b97f4a7c15u * (uint64_t)(1 + variable("EMULATOR_SEED", 1)) +
                            (uint64_t)variable("OMPI_COMM_WORLD_RANK", variable("PMI_RANK", 0));
    state = state * 6364136223846793005u + 1442695040888963407u;
    const uint64_t mixed = (state ^ state >> 31) * 0x9e3779b97f4a7c15u;
    return (unsigned)((mixed >> 32) * below >> 32);
}

int chosen(const char *name, const char *const names[], int n)
{
    const char *value = getenv(name);
    if (value == nullptr || *value == '\0')
        return -1;
    for (int i = 0; i < n; i++) {
        if (strcmp(value, names[i]) == 0)
            return i;
    }
    die("%s may not be %s", name, value);
}

cudaError_t result(cudaError_t error)
{
    if (error != cudaSuccess)
        last_error = error;
    return error;
}

int current_device()
{
    return device;
}

static int devices()
{
    return variable("EMULATED_DEVICES", 1);
}

} // namespace emulator

using namespace emulator;

extern "C" {

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = devices();
    return result(*count > 0 ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaGetDevice(int *number)
{
    *number = device;
    return result(devices() > 0 ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int number)
{
    if (number < 0 || number >= devices())
        return result(devices() > 0 ? cudaErrorInvalidDevice : cudaErrorNoDevice);
    device = number;
    return result(cudaSuccess);
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return result(cudaSuccess);
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return result(cudaSuccess);
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int number)
{
    if (number < 0 || number >= devices())
        return result(cudaErrorInvalidDevice);
    static const struct {
        cudaDeviceAttr attribute;
        int value;
    } known[] = {
        {cudaDevAttrMultiProcessorCount, 4},
        {cudaDevAttrComputeCapabilityMajor, 9},
        {cudaDevAttrComputeCapabilityMinor, 0},
        {cudaDevAttrMaxThreadsPerBlock, 1024},
        {cudaDevAttrWarpSize, 32},
        {cudaDevAttrMaxSharedMemoryPerBlock, 48 << 10},
        {cudaDevAttrMaxSharedMemoryPerBlockOptin, 48 << 10},
        {cudaDevAttrMaxThreadsPerMultiProcessor, 2048},
        {cudaDevAttrL2CacheSize, 4 << 20},
        {cudaDevAttrPciBusId, 1},
        {cudaDevAttrPciDomainId, 0},
        {cudaDevAttrUnifiedAddressing, 1},
    };
    for (const auto &k : known) {
        if (k.attribute == attribute) {
            *value = k.value + (attribute == cudaDevAttrPciBusId ? number : 0);
            return result(cudaSuccess);
        }
    }
    if (attribute != cudaDevAttrPciDeviceId)
        die("cudaDeviceGetAttribute: attribute %d is not emulated", (int)attribute);
    *value = 0;
    return result(cudaSuccess);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int number)
{
    if (number < 0 || number >= devices())
        return result(cudaErrorInvalidDevice);
    const int before = device;
    size_t free_bytes;
    memset(properties, 0, sizeof *properties);
    snprintf(properties->name, sizeof properties->name, "emulated device %d", number);
    memset(&properties->uuid, 'e', sizeof properties->uuid);
    properties->uuid.bytes[0] = (char)number;
    device = number;
    cudaMemGetInfo(&free_bytes, &properties->totalGlobalMem);
    device = before;
    properties->major = 9;
    properties->multiProcessorCount = 4;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->maxThreadsPerMultiProcessor = 2048;
    properties->sharedMemPerBlock = 48 << 10;
    properties->sharedMemPerBlockOptin = 48 << 10;
    properties->l2CacheSize = 4 << 20;
    properties->pciBusID = 1 + number;
    properties->unifiedAddressing = 1;
    return result(cudaSuccess);
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int bytes, int number)
{
    if (number < 0 || number >= devices())
        return result(cudaErrorInvalidDevice);
    snprintf(text, (size_t)bytes, "0000:%02x:00.0", 1 + number);
    return result(cudaSuccess);
}

cudaError_t cudaGetLastError(void)
{
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}
} // extern "C"

static const struct {
    cudaError_t error;
    const char *name, *text;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorIllegalState, "cudaErrorIllegalState", "the operation cannot be performed in the present state"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorHostMemoryAlreadyRegistered, "cudaErrorHostMemoryAlreadyRegistered",
     "part or all of the requested memory range is already mapped"},
    {cudaErrorHostMemoryNotRegistered, "cudaErrorHostMemoryNotRegistered",
     "pointer does not correspond to a registered memory region"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureMerge, "cudaErrorStreamCaptureMerge",
     "operation would result in a merge of separate capture sequences"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched",
     "capture was not ended in the same stream as it began"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"},
    {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation",
     "dependency created on uncaptured work in another stream"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent",
     "operation not permitted on an event last recorded in a capturing stream"},
    {cudaErrorStreamCaptureWrongThread, "cudaErrorStreamCaptureWrongThread",
     "attempt to terminate a thread-local capture sequence from another thread"},
};

extern "C" {

const char *cudaGetErrorName(cudaError_t error)
{
    for (const auto &e : errors) {
        if (e.error == error)
            return e.name;
    }
    return "an error that is not emulated";
}

const char *cudaGetErrorString(cudaError_t error)
{
    for (const auto &e : errors) {
        if (e.error == error)
            return e.text;
    }
    return "an error that is not emulated";
}

} // extern "C"
