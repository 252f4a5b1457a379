#include "emulator.hpp"
#include "launch.cuh"
#include "planted.h"

enum { N = PLANTED_THREADS };

__global__ void __launch_bounds__(N) sum_kernel(const float *x, float *y, bool planted)
{
    SHARED_ARRAY(float, part, N);
    const int i = threadIdx.x;
    part[i] = x[blockIdx.x * N + i];
    for (int half = N / 2; half > 0; half /= 2) {
        if (!planted)
            __syncthreads();
        if (i < half)
            part[i] += part[i + half];
    }
    if (i == 0)
        y[blockIdx.x] = part[0];
}

__global__ void __launch_bounds__(N) warp_sum_kernel(const float *x, float *y, bool planted)
{
    SHARED_ARRAY(float, part, N);
    SHARED_ARRAY(float, of_warp, N / 32);
    const int i = threadIdx.x, lane = i % 32;
    part[i - lane + (lane + 1) % 32] = x[blockIdx.x * N + i];
    if (!planted)
        __syncwarp();
    float sum = part[i];
    for (int delta = 16; delta > 0; delta /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, delta);
    if (lane == 0)
        of_warp[i / 32] = sum;
    __syncthreads();
    if (i == 0)
        y[blockIdx.x] = of_warp[0] + of_warp[1] + of_warp[2] + of_warp[3];
}

__global__ void __launch_bounds__(N) add_kernel(const float *x, float *y, int first, int n, float add)
{
    const int i = first + (int)(blockIdx.x * N + threadIdx.x);
    if (i < n)
        y[i] = x[i] + add;
}

__global__ void __launch_bounds__(N) reverse_kernel(const float *x, float *y, int beyond)
{
    SHARED_ARRAY(float, all, N);
    all[(int)threadIdx.x + beyond] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = all[N - 1 - threadIdx.x];
}

__global__ void __launch_bounds__(N) dynamic_reverse_kernel(const float *x, float *y)
{
    DYN_SHARED(float, all);
    all[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = all[N - 1 - threadIdx.x];
}

static __device__ float depth(volatile float *y, int n)
{
    volatile float local[256];
    local[n % 256] = y[0];
    return n == 0 ? 0 : 1 + depth(y, n - 1) + 0 * local[n % 256];
}

/* What is wrong with shuffles and votes. */
static __device__ int misused_lanes(int i, planted_mistake mistake)
{
    const int lane = i % 32;
    if (mistake == READS_OUTSIDE_MASK && lane < 16)
        return i + 0 * __shfl_sync(0x0000ffffu, i, 16);
    if (mistake == CALLS_OUTSIDE_MASK)
        return i + 0 * __shfl_sync(0x0000ffffu, i, 0);
    if (mistake == EXITED_LANE || mistake == NO_SUCH_LANE)
        return i + 0 * __shfl_sync(0xffffffffu, i, 0);
    if (mistake == TWO_SHUFFLES) {
        if (lane < 16)
            i += 0 * __shfl_sync(0xffffffffu, i, 0);
        else
            i += 0 * __shfl_sync(0xffffffffu, i, 0);
    }
    return i;
}

__global__ void count_kernel(float *y, planted_mistake mistake)
{
    const int i = threadIdx.x;
    SHARED_ARRAY(float, some, 32);
    if (mistake == TOO_MUCH_SHARED) {
        SHARED_ARRAY(float, more, 12 * 1024 - 31);
        more[i] = 0;
    }
    if (i == 0 && mistake != UNSET_SHARED)
        some[0] = 0;
    if (mistake == EXITED_BEFORE_BARRIER && i == 7)
        return;
    if (mistake == TWO_BARRIERS && i % 2 == 0)
        __syncthreads();
    else
        __syncthreads();
    if (mistake == EXITED_LANE && i == 7)
        return;
    y[i] = (float)misused_lanes(i, mistake) + some[0];
    if (mistake == DEEP_STACK)
        y[i] += 0 * depth(y, 1000);
}

__global__ void launch_kernel(float *y)
{
    y[blockIdx.y * blockDim.x + threadIdx.x] = 1;
}

__global__ void lanes_kernel(int *y)
{
    const unsigned all = 0xffffffffu;
    const int lane = threadIdx.x;
    y[lane] = __shfl_sync(all, lane, 5);
    y[32 + lane] = __shfl_sync(all, lane, 3, 8);
    y[64 + lane] = __shfl_up_sync(all, lane, 2);
    y[96 + lane] = __shfl_down_sync(all, lane, 2);
    y[128 + lane] = __shfl_down_sync(all, lane, 3, 8);
    y[160 + lane] = __shfl_xor_sync(all, lane, 16);
    y[192 + lane] = (int)__ballot_sync(all, lane == 1 || lane == 4);
    y[224 + lane] = __any_sync(all, lane == 9) + 2 * __all_sync(all, lane < 31);
    if (lane < 8)
        y[256 + lane] = __shfl_sync(0xffu, lane, 7);
    else if (lane >= 16)
        y[256 + lane] = __shfl_sync(0xffff0000u, lane, 31);
    else
        y[256 + lane] = -1;
}

cudaError_t planted_sum(cudaStream_t stream, const float *x, float *y, int blocks, bool planted)
{
    return launch(sum_kernel, dim3(blocks), dim3(N), 0, stream, x, y, planted);
}

cudaError_t planted_warp_sum(cudaStream_t stream, const float *x, float *y, int blocks, bool planted)
{
    return launch(warp_sum_kernel, dim3(blocks), dim3(N), 0, stream, x, y, planted);
}

cudaError_t planted_add(cudaStream_t stream, const float *x, float *y, int first, int n, float add)
{
    return launch(add_kernel, dim3((n - first + N - 1) / N), dim3(N), 0, stream, x, y, first, n, add);
}

cudaError_t planted_reverse(cudaStream_t stream, const float *x, float *y, int beyond)
{
    return launch(reverse_kernel, dim3(1), dim3(N), 0, stream, x, y, beyond);
}

cudaError_t planted_dynamic_reverse(cudaStream_t stream, const float *x, float *y, int shared_floats)
{
    return launch(dynamic_reverse_kernel, dim3(1), dim3(N), shared_floats * sizeof(float), stream, x, y);
}

cudaError_t planted_count(cudaStream_t stream, float *y, int threads, planted_mistake mistake)
{
    return launch(count_kernel, dim3(1), dim3(threads), 0, stream, y, mistake);
}

cudaError_t planted_launch(cudaStream_t stream, float *y, unsigned grid_y, unsigned block, size_t shared_bytes)
{
    return launch(launch_kernel, dim3(1, grid_y), dim3(block), shared_bytes, stream, y);
}

cudaError_t planted_lanes(cudaStream_t stream, int *y)
{
    return launch(lanes_kernel, dim3(1), dim3(32), 0, stream, y);
}

static volatile bool gate_is_open;

cudaError_t planted_gate(cudaStream_t stream)
{
    return emulator::enqueue(
        stream, "a gate", [] {}, [] { return gate_is_open; });
}

void planted_open_gate(void)
{
    emulator::api_call call("planted_open_gate");
    gate_is_open = true;
}
