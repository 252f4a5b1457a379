/* What the emulator makes of kernels and of memory: mistakes are seen, and what is right passes, in every order. */
#include "cases.h"
#include "planted.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

enum { N = PLANTED_THREADS, BLOCKS = 3 };

static float *device_count(size_t n)
{
    float *values = malloc(n * sizeof *values);
    for (size_t i = 0; i < n; i++)
        values[i] = (float)i;
    float *p = device_floats(values, n);
    free(values);
    return p;
}

/* ---- barriers ---- */

static int sum(bool planted, cudaError_t (*kernel)(cudaStream_t, const float *, float *, int, bool))
{
    float *x = device_count(BLOCKS * N), *y = device_floats(NULL, BLOCKS);
    REQUIRE(kernel(NULL, x, y, BLOCKS, planted));
    return !device_holds(y, BLOCKS, N * (N - 1) / 2, N * N);
}

static int sum_without_barrier(void)
{
    return sum(true, planted_sum);
}

static int sum_with_barrier(void)
{
    return sum(false, planted_sum);
}

static int warp_sum_without_barrier(void)
{
    return sum(true, planted_warp_sum);
}

static int warp_sum_with_barrier(void)
{
    return sum(false, planted_warp_sum);
}

static int count(enum planted_mistake mistake, int threads)
{
    float *y = device_floats(NULL, (size_t)threads);
    REQUIRE(planted_count(NULL, y, threads, mistake));
    return !device_holds(y, (size_t)threads, 0, 1);
}

static int exited_before_barrier(void)
{
    return count(EXITED_BEFORE_BARRIER, N);
}

static int two_barriers(void)
{
    return count(TWO_BARRIERS, N);
}

static int nothing_planted(void)
{
    return count(PLANTED_NOTHING, N) || count(PLANTED_NOTHING, 1) || count(PLANTED_NOTHING, 77) ||
           count(PLANTED_NOTHING, 1024);
}

static void missing_barriers_are_seen(void **context)
{
    (void)context;
    always_right(sum_with_barrier);
    sometimes_wrong(sum_without_barrier);
    always_right(warp_sum_with_barrier);
    sometimes_wrong(warp_sum_without_barrier);
}

static void divergent_barriers_are_caught(void **context)
{
    (void)context;
    always_right(nothing_planted);
    always_caught(exited_before_barrier, "divergent barrier: 1 of 128 threads of the block have exited");
    always_caught(two_barriers, "divergent barrier: thread (");
}

/* ---- warps ---- */

static int reads_outside_mask(void)
{
    return count(READS_OUTSIDE_MASK, N);
}

static int calls_outside_mask(void)
{
    return count(CALLS_OUTSIDE_MASK, N);
}

static int exited_lane(void)
{
    return count(EXITED_LANE, N);
}

static int no_such_lane(void)
{
    return count(NO_SUCH_LANE, N + 8);
}

static int two_shuffles(void)
{
    return count(TWO_SHUFFLES, N);
}

static int lanes(void)
{
    int *y, host[9 * 32], wrong = 0;
    REQUIRE(cudaMalloc((void **)&y, sizeof host));
    REQUIRE(planted_lanes(NULL, y));
    REQUIRE(cudaMemcpy(host, y, sizeof host, cudaMemcpyDeviceToHost));
    for (int i = 0; i < 32; i++) {
        const int wanted[9] = {5,
                               i / 8 * 8 + 3,
                               i < 2 ? i : i - 2,
                               i < 30 ? i + 2 : i,
                               i % 8 < 5 ? i + 3 : i,
                               i ^ 16,
                               1 << 1 | 1 << 4,
                               1,
                               i < 8    ? 7
                               : i < 16 ? -1
                                        : 31};
        for (int k = 0; k < 9; k++)
            wrong += host[32 * k + i] != wanted[k];
    }
    return wrong > 0;
}

static void shuffles_outside_their_mask_are_caught(void **context)
{
    (void)context;
    always_right(lanes);
    always_caught(reads_outside_mask, "reads lane 16, which is outside of mask 0000ffff");
    always_caught(calls_outside_mask, "is not in the mask 0000ffff that it gives");
    always_caught(exited_lane, "mask ffffffff has lane 7, which has exited");
    always_caught(no_such_lane, "which does not exist");
    always_caught(two_shuffles, "which waits at ");
}

/* ---- shared memory, stacks ---- */

static int shared_overrun(void)
{
    float *x = device_count(N), *y = device_floats(NULL, N);
    REQUIRE(planted_reverse(NULL, x, y, 1));
    return !device_holds(y, N, N - 1, -1);
}

static int shared_underrun(void)
{
    float *x = device_count(N), *y = device_floats(NULL, N);
    REQUIRE(planted_reverse(NULL, x, y, -1));
    return !device_holds(y, N, N - 1, -1);
}

static int no_overrun(void)
{
    float *x = device_count(N), *y = device_floats(NULL, N), *z = device_floats(NULL, N);
    REQUIRE(planted_reverse(NULL, x, y, 0));
    REQUIRE(planted_dynamic_reverse(NULL, x, z, N));
    return !device_holds(y, N, N - 1, -1) || !device_holds(z, N, N - 1, -1);
}

static int dynamic(int floats)
{
    float *x = device_count(N), *y = device_floats(NULL, N);
    REQUIRE(planted_dynamic_reverse(NULL, x, y, floats));
    return !device_holds(y, N, N - 1, -1);
}

static int dynamic_overrun(void)
{
    return dynamic(N - 1);
}

static int dynamic_overrun_by_a_line(void)
{
    return dynamic(N - 4);
}

static int no_dynamic_memory(void)
{
    return dynamic(0);
}

static int unset_shared(void)
{
    return count(UNSET_SHARED, N);
}

static int too_much_shared(void)
{
    return count(TOO_MUCH_SHARED, N);
}

static int deep_stack(void)
{
    return count(DEEP_STACK, N);
}

static void shared_memory_has_bounds(void **context)
{
    (void)context;
    always_right(no_overrun);
    always_caught(shared_overrun, "reverse_kernel: something has written beside the shared array");
    always_caught(shared_underrun, "reverse_kernel: something has written beside the shared array");
    always_caught(dynamic_overrun, "has written past the dynamic shared memory");
    always_caught(dynamic_overrun_by_a_line, "touches what lies past its shared memory");
    always_caught(no_dynamic_memory, "gives none");
    always_caught(too_much_shared, "more than 48 KiB");
    always_wrong(unset_shared);
    always_caught(deep_stack, "touches what lies past its stack");
}

/* ---- launches ---- */

static int launched(unsigned grid_y, unsigned block, size_t shared_bytes)
{
    float *y = device_floats(NULL, (size_t)1024 * 4);
    REQUIRE(planted_launch(NULL, y, grid_y, block, shared_bytes));
    return !device_holds(y, (size_t)grid_y * block, 1, 0);
}

static int right_launches(void)
{
    return launched(2, 1024, 0) || launched(4, 1, 48 << 10);
}

static int empty_grid(void)
{
    return launched(0, 128, 0);
}

static int high_grid(void)
{
    return launched(65536, 128, 0);
}

static int large_block(void)
{
    return launched(1, 1025, 0);
}

static int much_shared_memory(void)
{
    return launched(1, 128, (48 << 10) + 1);
}

static int host_pointer(void)
{
    float host[4];
    REQUIRE(planted_launch(NULL, host, 1, 4, 0));
    return 0;
}

static int pinned_pointer(void)
{
    float *pinned;
    REQUIRE(cudaMallocHost((void **)&pinned, 4 * sizeof *pinned));
    REQUIRE(planted_launch(NULL, pinned, 1, 4, 0));
    REQUIRE(cudaDeviceSynchronize());
    return pinned[0] != 1 || pinned[3] != 1;
}

static void wrong_launches_are_caught(void **context)
{
    (void)context;
    always_right(right_launches);
    always_right(pinned_pointer);
    always_caught(empty_grid, "planted.cu:");
    always_caught(empty_grid, "launch_kernel: no grid can be (1, 0, 1)");
    always_caught(high_grid, "no grid can be (1, 65536, 1)");
    always_caught(large_block, "no block can be (1025, 1, 1)");
    always_caught(much_shared_memory, "more than 48 KiB");
    always_caught(host_pointer, "which is no device memory");
}

/* ---- memory ---- */

/* n floats of y and of x, of which a kernel takes first ... end - 1. */
static int add(size_t n, int first, int end)
{
    float *x = device_count(n + 64), *y = device_floats(NULL, n), *between = device_floats(NULL, 3);
    REQUIRE(planted_add(NULL, x + 32, y, first, end, 1));
    return !device_holds(y, n, 33, 1) || device_holds(between, 1, 0, 0);
}

static int whole_ranges(void)
{
    return add(64, 0, 64) || add(65, 0, 65) || add(1, 0, 1) || add(3000, 0, 3000);
}

static int write_past_a_full_page(void)
{
    return add(64, 0, 65);
}

static int write_past_the_end(void)
{
    return add(65, 0, 66);
}

static int write_before_the_beginning(void)
{
    return add(64, -1, 64);
}

static int partial_write(void)
{
    return add(65, 1, 65);
}

static int read_past_the_end(void)
{
    float *x = device_count(65), *y = device_floats(NULL, 66);
    REQUIRE(planted_add(NULL, x, y, 0, 66, 0));
    return !device_holds(y, 66, 0, 1);
}

static int read_past_a_full_page(void)
{
    float *x = device_count(64), *y = device_floats(NULL, 66);
    REQUIRE(planted_add(NULL, x, y, 0, 66, 0));
    return !device_holds(y, 66, 0, 1);
}

static int freed_in_a_kernel(void)
{
    float *x = device_count(N), *y = device_floats(NULL, N);
    REQUIRE(cudaFree(x));
    REQUIRE(planted_add(NULL, x, y, 0, N, 0));
    return !device_holds(y, N, 0, 1);
}

static int freed_in_a_copy(void)
{
    float *x = device_count(N);
    REQUIRE(cudaFree(x));
    REQUIRE(cudaMemset(x, 0, 4));
    return 0;
}

static int freed_twice(void)
{
    float *x = device_count(N);
    REQUIRE(cudaFree(x));
    REQUIRE(cudaFree(x));
    return 0;
}

static int freed_inside(void)
{
    float *x = device_count(N);
    REQUIRE(cudaFree(x + 1));
    return 0;
}

static int host_reads_device(void)
{
    volatile float *x = device_count(N);
    return x[3] != 3;
}

static int host_writes_device(void)
{
    volatile float *x = device_count(N);
    x[0] = 0;
    return 0;
}

/* As cmocka does from test to test. */
static int after_another_handler(void)
{
    float *x = device_count(N), *y = device_floats(NULL, N);
    signal(SIGSEGV, SIG_DFL);
    REQUIRE(planted_add(NULL, x, y, 0, N, 0));
    return !device_holds(y, N, 0, 1) || *(volatile float *)y != 0;
}

static int alignment(void)
{
    for (size_t bytes = 1; bytes < 5000; bytes += 333) {
        char *p;
        REQUIRE(cudaMalloc((void **)&p, bytes));
        if ((uintptr_t)p % 256 != 0)
            return 1;
    }
    return 0;
}

static int beside_pinned(void)
{
    char *p;
    REQUIRE(cudaMallocHost((void **)&p, 100));
    p[100] = 1;
    float *y = device_floats(NULL, 1);
    REQUIRE(cudaMemset(y, 0, 4));
    REQUIRE(cudaDeviceSynchronize());
    return 0;
}

static int fresh_pinned(void)
{
    float *p;
    REQUIRE(cudaMallocHost((void **)&p, 100));
    return p[0] == p[0] || p[24] == p[24];
}

static void memory_has_bounds(void **context)
{
    (void)context;
    always_right(whole_ranges);
    always_right(alignment);
    always_caught(write_past_a_full_page, "touches the byte 0 past the end of an allocation of 256 bytes");
    always_caught(write_past_the_end, "add_kernel has written the byte ");
    always_caught(write_before_the_beginning, "before an allocation of 256 bytes");
    always_caught(read_past_a_full_page, "past the end of an allocation of 256 bytes");
    always_caught(beside_pinned, "beside pinned memory of 100 bytes");
}

static void unset_memory_shows(void **context)
{
    (void)context;
    always_wrong(read_past_the_end);
    always_wrong(partial_write);
    always_right(fresh_pinned);
}

static void freed_memory_is_not_used(void **context)
{
    (void)context;
    always_caught(freed_in_a_kernel, "of an allocation of 512 bytes that was freed");
    always_caught(freed_in_a_copy, "of an allocation of 512 bytes that was freed");
    always_caught(freed_twice, "cudaFree of");
    always_caught(freed_inside, "cudaFree of");
}

static void the_host_has_no_device_memory(void **context)
{
    (void)context;
    always_caught(host_reads_device, "the host touches byte 12 of an allocation of 512 bytes");
    always_caught(after_another_handler, "the host touches byte 0 of an allocation of 512 bytes");
    always_caught(host_writes_device, "the host touches byte 0 of an allocation of 512 bytes");
}

static int small_device(void)
{
    setenv("EMULATED_MEMORY_MIB", "3", 1);
    size_t free_bytes, total;
    void *p, *q;
    REQUIRE(cudaMalloc(&p, 1 << 20));
    REQUIRE(cudaMemGetInfo(&free_bytes, &total));
    if (total != 3 << 20 || free_bytes != 2 << 20 || cudaMalloc(&q, (2 << 20) + 1) != cudaErrorMemoryAllocation ||
        q != NULL || cudaGetLastError() != cudaErrorMemoryAllocation || cudaGetLastError() != cudaSuccess)
        return 1;
    REQUIRE(cudaMalloc(&q, 2 << 20));
    REQUIRE(cudaFree(p));
    return cudaMalloc(&q, 1 << 20) != cudaSuccess;
}

static int several_devices(void)
{
    setenv("EMULATED_DEVICES", "2", 1);
    int n, device, value;
    struct cudaDeviceProp one, other;
    REQUIRE(cudaGetDeviceCount(&n));
    REQUIRE(cudaSetDevice(1));
    REQUIRE(cudaGetDevice(&device));
    REQUIRE(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, 1));
    REQUIRE(cudaGetDeviceProperties(&one, 0));
    REQUIRE(cudaGetDeviceProperties(&other, 1));
    return n != 2 || device != 1 || value != 4 || one.pciBusID == other.pciBusID || one.major != 9 ||
           cudaSetDevice(2) != cudaErrorInvalidDevice;
}

static int no_device(void)
{
    setenv("EMULATED_DEVICES", "0", 1);
    int n;
    return cudaGetDeviceCount(&n) != cudaErrorNoDevice || n != 0;
}

static void devices_are_what_the_environment_says(void **context)
{
    (void)context;
    always_right(small_device);
    always_right(several_devices);
    always_right(no_device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_barriers_are_seen),
        cmocka_unit_test(divergent_barriers_are_caught),
        cmocka_unit_test(shuffles_outside_their_mask_are_caught),
        cmocka_unit_test(shared_memory_has_bounds),
        cmocka_unit_test(wrong_launches_are_caught),
        cmocka_unit_test(memory_has_bounds),
        cmocka_unit_test(unset_memory_shows),
        cmocka_unit_test(freed_memory_is_not_used),
        cmocka_unit_test(the_host_has_no_device_memory),
        cmocka_unit_test(devices_are_what_the_environment_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
