/* The emulated device of the tests: what its files share. It stands in for the CUDA runtime, cuDNN, cuBLASLt and NCCL
 * under the same objects that are linked with the real ones.
 *
 * It is as unkind as CUDA permits. What is enqueued runs only when the host waits for something (or asks, a little), on
 * the host thread that waits, in an order drawn from what events and streams allow; device memory is out of the host's
 * reach but while device code runs; fresh memory (device, pinned, shared) is NaN. A mistake that CUDA reports by an
 * error is reported by the same error; one that it does not report, or not at once, ends the program with a line that
 * begins with "emulated device: ", and exit status 99.
 *
 * Environment: EMULATED_DEVICES (1), EMULATED_MEMORY_MIB (4096, of each device), EMULATOR_SEED (1), EMULATOR_ORDER (of
 * a block's threads: ascending, descending, random; without it each launch draws one), EMULATOR_STREAMS (which stream
 * goes on: lazy - only what is waited for, eager - all others before it, random; without it each wait draws one). */
#ifndef EMULATOR_HPP
#define EMULATOR_HPP

#include <cuda_runtime_api.h>

#include <stddef.h>
#include <stdint.h>

#include <functional>
#include <string>

namespace emulator
{

enum { EXIT_STATUS = 99 };

[[noreturn]] void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* 0 ... below - 1. */
unsigned random_number(unsigned below);
/* A choice that the environment may have made: index of its value among names[n], -1: unset. */
int chosen(const char *variable, const char *const names[], int n);

/* To be held by whatever the program calls; ends the program where device work (a host function) calls it. */
class api_call
{
  public:
    explicit api_call(const char *name);
    ~api_call();
    api_call(const api_call &) = delete;
    api_call &operator=(const api_call &) = delete;
};

/* What a call returns; cudaGetLastError knows it then. */
cudaError_t result(cudaError_t error);
int current_device();

/* ---- memory ---- */

/* Whether bytes from p on lie in one live allocation. */
bool is_device_memory(const void *p, size_t bytes);
bool is_pinned_memory(const void *p, size_t bytes);
/* Ends the program, naming call and operand, where it is not. In the work of a stream also opens it: device memory that
 * is touched opens itself, but what is handed to a system call (or to MPI) has to be open before. */
void require_device_memory(const void *p, size_t bytes, const char *call, const char *operand);
/* Whether p points into what only a device can have, live or freed. */
bool is_device_address(const void *p);

void open_memory();  /* device code begins */
void close_memory(); /* host code goes on */
/* Ends the program where something was written beside an allocation that is open; near: only the closest bytes are
 * looked at. */
void check_canaries(const char *what, bool near);

/* ---- streams ---- */

/* Enqueues work that runs when its turn comes, with device memory open; `what` is for messages. ready: asked before,
 * again and again; while it says false other streams go on. Into a graph where the stream is being captured. */
cudaError_t enqueue(cudaStream_t stream, std::string what, std::function<void()> run,
                    std::function<bool()> ready = nullptr);
/* As cudaDeviceSynchronize, for calls that imply it. */
void finish_everything(const char *call);
/* Whether a stream is being captured in a mode in which this thread may not allocate, or copy synchronously. */
bool captures_forbid_unsafe_calls();
/* Of calls that may load code, and so allocate: ends the program where they may not. */
void require_no_capture(const char *call);

/* ---- kernels ---- */

/* For messages of the fault handler: the thread of the kernel that runs, 0 where none does. */
int describe_thread(char *text, size_t bytes);
/* Whether p lies in the guards of shared memory or of a stack: what it is then, or NULL. */
const char *describe_guard(const void *p);

} // namespace emulator

#endif
