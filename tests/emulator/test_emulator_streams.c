/* What the emulator makes of streams, events and copies: an order that nothing ensures is not kept. */
#include "cases.h"
#include "planted.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum { N = 200 };

static float *pinned_floats(float value)
{
    float *p = NULL;
    if (cudaMallocHost((void **)&p, N * sizeof *p) == cudaSuccess)
        for (int i = 0; i < N; i++)
            p[i] = value;
    return p;
}

static float *device_zeros(void)
{
    const float zeros[N] = {0};
    return device_floats(zeros, N);
}

static cudaError_t to_device(float *to, const float *from, cudaStream_t stream)
{
    return cudaMemcpyAsync(to, from, N * sizeof *to, cudaMemcpyHostToDevice, stream);
}

static cudaError_t to_host(float *to, const float *from, cudaStream_t stream)
{
    return cudaMemcpyAsync(to, from, N * sizeof *to, cudaMemcpyDeviceToHost, stream);
}

static cudaEvent_t new_event(void)
{
    cudaEvent_t event = NULL;
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    return event;
}

/* ---- two streams ---- */

/* The second stream adds to what the first has copied. */
static int follow(bool waits)
{
    cudaStream_t first = new_stream(), second = new_stream();
    cudaEvent_t copied = new_event();
    float *x = device_zeros(), *y = device_zeros(), *host = pinned_floats(4);
    REQUIRE(to_device(x, host, first));
    REQUIRE(cudaEventRecord(copied, first));
    if (waits)
        REQUIRE(cudaStreamWaitEvent(second, copied, 0));
    REQUIRE(planted_add(second, x, y, 0, N, 3));
    REQUIRE(cudaStreamSynchronize(second));
    return !device_holds(y, N, 7, 0);
}

static int follow_at_once(void)
{
    return follow(false);
}

static int follow_after_event(void)
{
    return follow(true);
}

/* A buffer is filled anew while a kernel still reads it; two copies, two kernels. */
static int refill(bool waits)
{
    cudaStream_t copies = new_stream(), kernels = new_stream();
    cudaEvent_t copied = new_event(), used = new_event();
    float *x = device_zeros(), *y = device_zeros(), *one = pinned_floats(1), *two = pinned_floats(10);
    for (int i = 0; i < 2; i++) {
        if (waits)
            REQUIRE(cudaStreamWaitEvent(copies, used, 0)); /* not recorded yet: does not wait */
        REQUIRE(to_device(x, i == 0 ? one : two, copies));
        REQUIRE(cudaEventRecord(copied, copies));
        REQUIRE(cudaStreamWaitEvent(kernels, copied, 0));
        REQUIRE(planted_add(kernels, x, y, i * N / 2, i == 0 ? N / 2 : N, 0));
        REQUIRE(cudaEventRecord(used, kernels));
    }
    REQUIRE(cudaDeviceSynchronize());
    return !device_holds(y, N / 2, 1, 0) || !device_holds(y + N / 2, N / 2, 10, 0);
}

static int refill_at_once(void)
{
    return refill(false);
}

static int refill_after_event(void)
{
    return refill(true);
}

/* Work of the legacy stream, then of another. */
static int follow_legacy(cudaStream_t stream)
{
    float *x = device_zeros(), *y = device_zeros();
    REQUIRE(planted_add(NULL, x, x, 0, N, 1));
    REQUIRE(planted_add(stream, x, y, 0, N, 1));
    REQUIRE(planted_add(NULL, y, y, 0, N, 1));
    REQUIRE(cudaStreamSynchronize(NULL));
    REQUIRE(cudaStreamSynchronize(stream));
    return !device_holds(y, N, 3, 0);
}

static int beside_legacy(void)
{
    return follow_legacy(new_stream());
}

static int ordered_with_legacy(void)
{
    cudaStream_t stream;
    REQUIRE(cudaStreamCreate(&stream));
    return follow_legacy(stream);
}

/* An upload by cudaMemcpy from pageable memory may return before it has arrived. */
static int upload(bool waits)
{
    float host[N], *x = device_zeros(), *y = device_zeros();
    for (int i = 0; i < N; i++)
        host[i] = 5;
    REQUIRE(cudaMemcpy(x, host, sizeof host, cudaMemcpyHostToDevice));
    host[0] = 0;
    if (waits)
        REQUIRE(cudaDeviceSynchronize());
    cudaStream_t stream = new_stream();
    REQUIRE(planted_add(stream, x, y, 0, N, 0));
    REQUIRE(cudaStreamSynchronize(stream));
    return !device_holds(y, N, 5, 0);
}

static int upload_at_once(void)
{
    return upload(false);
}

static int upload_and_wait(void)
{
    return upload(true);
}

static void streams_run_in_no_order_but_that_of_events(void **context)
{
    (void)context;
    always_right(follow_after_event);
    sometimes_wrong(follow_at_once);
    always_right(refill_after_event);
    sometimes_wrong(refill_at_once);
    always_right(ordered_with_legacy);
    sometimes_wrong(beside_legacy);
    always_right(upload_and_wait);
    sometimes_wrong(upload_at_once);
}

/* ---- copies ---- */

static int download(bool waits, float wanted)
{
    cudaStream_t stream = new_stream();
    float *x = device_zeros(), *host = pinned_floats(-1);
    REQUIRE(to_host(host, x, stream));
    if (waits)
        REQUIRE(cudaStreamSynchronize(stream));
    return host[0] != wanted || host[N - 1] != wanted;
}

static int read_before_the_end(void)
{
    return download(false, -1);
}

static int read_after_the_end(void)
{
    return download(true, 0);
}

static int change_source(float *host)
{
    cudaStream_t stream = new_stream();
    float *x = device_zeros();
    for (int i = 0; i < N; i++)
        host[i] = 1;
    REQUIRE(to_device(x, host, stream));
    host[7] = 2;
    REQUIRE(cudaStreamSynchronize(stream));
    return !device_holds(x, N, 1, 0);
}

static int change_pinned_source(void)
{
    return change_source(pinned_floats(0));
}

static int change_pageable_source(void)
{
    float host[N];
    return change_source(host);
}

static int pageable_source_is_taken_late(void)
{
    return !change_pageable_source();
}

static int registered_memory(void)
{
    float *host = malloc(N * sizeof *host);
    REQUIRE(cudaHostRegister(host, N * sizeof *host, cudaHostRegisterDefault));
    const int changed = change_source(host);
    REQUIRE(cudaHostUnregister(host));
    free(host);
    return changed;
}

static int wrong_direction(void)
{
    float *x = device_zeros(), *host = pinned_floats(0);
    REQUIRE(cudaMemcpyAsync(x, host, 4, cudaMemcpyDeviceToHost, NULL));
    return 0;
}

static int wrong_direction_at_once(void)
{
    float *x = device_zeros(), host[N];
    REQUIRE(cudaMemcpy(host, x, sizeof host, cudaMemcpyHostToDevice));
    return 0;
}

static int by_pointers(void)
{
    float *x = device_zeros(), *y = device_zeros(), host[N] = {1}, back[N];
    REQUIRE(cudaMemcpy(x, host, sizeof host, cudaMemcpyDefault));
    REQUIRE(cudaMemcpy(y, x, sizeof host, cudaMemcpyDeviceToDevice));
    REQUIRE(cudaMemcpy(back, y, sizeof host, cudaMemcpyDefault));
    return back[0] != 1 || back[1] != 0;
}

static int copy_too_long(void)
{
    float *x = device_zeros(), host[N + 1] = {0};
    REQUIRE(cudaMemcpy(x, host, sizeof host, cudaMemcpyHostToDevice));
    return 0;
}

static int pinned_too_short(void)
{
    float *x = device_floats(NULL, N + 1), *host = pinned_floats(0);
    REQUIRE(cudaMemcpyAsync(x, host, (N + 1) * sizeof *x, cudaMemcpyHostToDevice, NULL));
    return 0;
}

static int set_too_long(void)
{
    REQUIRE(cudaMemsetAsync(device_zeros(), 0, N * sizeof(float) + 1, NULL));
    return 0;
}

static void copies_take_place_when_waited_for(void **context)
{
    (void)context;
    always_right(read_before_the_end);
    always_right(read_after_the_end);
    always_wrong(change_pinned_source);
    always_wrong(registered_memory);
    sometimes_wrong(change_pageable_source);
    sometimes_wrong(pageable_source_is_taken_late);
}

static void copies_are_checked(void **context)
{
    (void)context;
    always_right(by_pointers);
    always_caught(wrong_direction, "from device to host is asked for, the pointers are from host to device");
    always_caught(wrong_direction_at_once, "from host to device is asked for, the pointers are from device to host");
    always_caught(copy_too_long, "the destination is not 804 bytes of device memory");
    always_caught(pinned_too_short, "more than its pinned memory has");
    always_caught(set_too_long, "the destination is not 801 bytes of device memory");
}

/* ---- host functions, queries, handles ---- */

static void count_one(void *data)
{
    ++*(int *)data;
}

static int host_functions(void)
{
    cudaStream_t stream = new_stream();
    int n = 0;
    REQUIRE(cudaLaunchHostFunc(stream, count_one, &n));
    REQUIRE(cudaLaunchHostFunc(stream, count_one, &n));
    if (n != 0)
        return 1;
    REQUIRE(cudaStreamSynchronize(stream));
    return n != 2;
}

static void call_cuda(void *data)
{
    cudaDeviceSynchronize();
    (void)data;
}

static int host_function_calls_cuda(void)
{
    REQUIRE(cudaLaunchHostFunc(NULL, call_cuda, NULL));
    REQUIRE(cudaDeviceSynchronize());
    return 0;
}

static int host_function_touches_device(void)
{
    float *x = device_zeros();
    REQUIRE(planted_add(NULL, x, x, 0, N, 1));
    REQUIRE(cudaLaunchHostFunc(NULL, count_one, x));
    REQUIRE(cudaDeviceSynchronize());
    return 0;
}

static int touched_after_use(void)
{
    float *x = device_zeros();
    REQUIRE(planted_add(NULL, x, x, 0, N, 1));
    REQUIRE(cudaDeviceSynchronize());
    return *(volatile float *)x != 1;
}

/* Whoever asks again and again gets an end of it. */
static int queries(void)
{
    cudaStream_t stream = new_stream();
    cudaEvent_t never = new_event(), event;
    REQUIRE(cudaEventCreate(&event));
    REQUIRE(cudaEventQuery(never));
    REQUIRE(cudaEventRecord(event, stream));
    float *x = device_zeros();
    for (int i = 0; i < 5; i++)
        REQUIRE(planted_add(stream, x, x, 0, N, 1));
    cudaEvent_t later;
    REQUIRE(cudaEventCreate(&later));
    REQUIRE(cudaEventRecord(later, stream));
    REQUIRE(cudaStreamSynchronize(NULL));
    cudaError_t error;
    while ((error = cudaEventQuery(later)) == cudaErrorNotReady)
        ;
    float milliseconds = -1;
    if (error != cudaSuccess || cudaStreamQuery(stream) != cudaSuccess)
        return 1;
    REQUIRE(cudaEventElapsedTime(&milliseconds, event, later));
    REQUIRE(cudaEventSynchronize(later));
    REQUIRE(cudaEventDestroy(later));
    return milliseconds < 0 || !device_holds(x, N, 5, 0);
}

/* What was enqueued is still done. */
static int destroyed_with_work(void)
{
    cudaStream_t stream = new_stream();
    cudaEvent_t event = new_event();
    float *x = device_zeros();
    REQUIRE(planted_add(stream, x, x, 0, N, 1));
    REQUIRE(cudaEventRecord(event, stream));
    REQUIRE(cudaStreamDestroy(stream));
    REQUIRE(cudaEventSynchronize(event));
    REQUIRE(cudaEventDestroy(event));
    return !device_holds(x, N, 1, 0);
}

static int stream_after_its_end(void)
{
    cudaStream_t stream = new_stream();
    REQUIRE(cudaStreamDestroy(stream));
    REQUIRE(cudaMemsetAsync(device_zeros(), 0, 4, stream));
    return 0;
}

static int event_after_its_end(void)
{
    cudaEvent_t event = new_event();
    REQUIRE(cudaEventDestroy(event));
    REQUIRE(cudaEventRecord(event, NULL));
    return 0;
}

static void *open_gate(void *data)
{
    usleep(2000);
    planted_open_gate();
    return data;
}

/* Who waits for work that waits itself keeps neither other streams nor other threads from what they do. */
static int gate(void)
{
    cudaStream_t stream = new_stream(), other = new_stream();
    float *x = device_zeros(), *y = device_zeros();
    pthread_t thread;
    REQUIRE(planted_gate(stream));
    REQUIRE(planted_add(stream, x, x, 0, N, 1));
    REQUIRE(planted_add(other, y, y, 0, N, 1));
    REQUIRE(cudaStreamSynchronize(other));
    if (cudaStreamQuery(stream) != cudaErrorNotReady || pthread_create(&thread, NULL, open_gate, NULL) != 0)
        return 1;
    REQUIRE(cudaStreamSynchronize(stream));
    pthread_join(thread, NULL);
    return !device_holds(x, N, 1, 0) || !device_holds(y, N, 1, 0);
}

static void host_functions_are_the_hosts(void **context)
{
    (void)context;
    always_right(host_functions);
    always_caught(host_function_calls_cuda, "cudaDeviceSynchronize is called by a host function");
    always_caught(host_function_touches_device, "the host touches byte 0 of");
    always_caught(touched_after_use, "the host touches byte 0 of");
}

static void handles_live_as_long_as_they_should(void **context)
{
    (void)context;
    always_right(queries);
    always_right(destroyed_with_work);
    always_right(gate);
    always_caught(stream_after_its_end, "is no stream, or not any more");
    always_caught(event_after_its_end, "is no event, or not any more");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_run_in_no_order_but_that_of_events),
        cmocka_unit_test(copies_take_place_when_waited_for),
        cmocka_unit_test(copies_are_checked),
        cmocka_unit_test(host_functions_are_the_hosts),
        cmocka_unit_test(handles_live_as_long_as_they_should),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
