/* What the emulator makes of captured streams: graphs run as their events say, and what CUDA forbids meanwhile fails.
 */
#include "cases.h"
#include "planted.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

enum { N = 200 };

typedef struct rig {
    cudaStream_t main, side;
    cudaEvent_t fork, join;
    float *input, *x, *y, *z; /* input: pinned */
} rig;

static int rig_create(rig *r)
{
    const float zeros[N] = {0};
    *r = (rig){.main = new_stream(),
               .side = new_stream(),
               .x = device_floats(zeros, N),
               .y = device_floats(zeros, N),
               .z = device_floats(zeros, N)};
    REQUIRE(cudaEventCreateWithFlags(&r->fork, cudaEventDisableTiming));
    REQUIRE(cudaEventCreateWithFlags(&r->join, cudaEventDisableTiming));
    REQUIRE(cudaMallocHost((void **)&r->input, N * sizeof *r->input));
    return 0;
}

enum flaw { NO_FLAW, NO_FORK, NO_JOIN, JOIN_TOO_EARLY, JOIN_TOO_LATE };

/* x = input; y = x + 1 on the side stream; z = x + 2, then z = y + 100 for the second half. */
static cudaError_t enqueue_step(rig *r, enum flaw flaw)
{
    cudaMemcpyAsync(r->x, r->input, N * sizeof *r->x, cudaMemcpyHostToDevice, r->main);
    cudaEventRecord(r->fork, r->main);
    if (flaw != NO_FORK)
        cudaStreamWaitEvent(r->side, r->fork, 0);
    if (flaw == JOIN_TOO_EARLY) { /* something of the side stream is waited for, but not its last */
        planted_add(r->side, r->x, r->y, 0, 1, 1);
        cudaEventRecord(r->join, r->side);
    }
    planted_add(r->side, r->x, r->y, 0, N, 1);
    if (flaw != JOIN_TOO_EARLY)
        cudaEventRecord(r->join, r->side);
    planted_add(r->main, r->x, r->z, 0, N, 2);
    if (flaw == JOIN_TOO_LATE)
        planted_add(r->main, r->y, r->z, N / 2, N, 100);
    if (flaw != NO_JOIN)
        cudaStreamWaitEvent(r->main, r->join, 0);
    if (flaw != JOIN_TOO_LATE)
        planted_add(r->main, r->y, r->z, N / 2, N, 100);
    return cudaGetLastError();
}

static bool step_is_right(const rig *r, float input)
{
    return device_holds(r->z, N / 2, input + 2, 0) && device_holds(r->z + N / 2, N / 2, input + 101, 0);
}

static int capture_step(rig *r, enum flaw flaw, cudaGraphExec_t *executable)
{
    cudaGraph_t graph;
    REQUIRE(rig_create(r) ? cudaErrorUnknown : cudaSuccess);
    REQUIRE(cudaStreamBeginCapture(r->main, cudaStreamCaptureModeGlobal));
    REQUIRE(enqueue_step(r, flaw));
    REQUIRE(cudaStreamEndCapture(r->main, &graph));
    REQUIRE(cudaGraphInstantiate(executable, graph, 0));
    REQUIRE(cudaGraphDestroy(graph));
    return 0;
}

static int replay(enum flaw flaw)
{
    rig r;
    cudaGraphExec_t executable;
    const int error = capture_step(&r, flaw, &executable);
    if (error != 0)
        return error;
    for (int step = 0; step < 3; step++) {
        for (int i = 0; i < N; i++)
            r.input[i] = (float)step;
        REQUIRE(cudaGraphLaunch(executable, r.main));
        REQUIRE(cudaStreamSynchronize(r.main));
        if (!step_is_right(&r, (float)step))
            return 1;
    }
    REQUIRE(cudaGraphExecDestroy(executable));
    return 0;
}

static int replayed(void)
{
    return replay(NO_FLAW);
}

/* Launches of one graph follow one another, whatever their streams, and what follows them in their streams waits. */
static int launched_in_two_streams(void)
{
    rig r;
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    REQUIRE(rig_create(&r) ? cudaErrorUnknown : cudaSuccess);
    REQUIRE(cudaStreamBeginCapture(r.main, cudaStreamCaptureModeRelaxed));
    REQUIRE(planted_add(r.main, r.x, r.y, 0, N, 1));
    REQUIRE(planted_add(r.main, r.y, r.x, 0, N, 1));
    REQUIRE(cudaStreamEndCapture(r.main, &graph));
    REQUIRE(cudaGraphInstantiate(&executable, graph, 0));
    for (int i = 0; i < 3; i++) {
        REQUIRE(cudaGraphLaunch(executable, r.side));
        REQUIRE(cudaGraphLaunch(executable, r.main));
    }
    REQUIRE(planted_add(r.main, r.x, r.z, 0, N, 0.5f));
    REQUIRE(cudaGraphExecDestroy(executable));
    REQUIRE(cudaDeviceSynchronize());
    return !device_holds(r.z, N, 12.5f, 0);
}

/* Nothing runs while it is captured. */
static int captured_only(void)
{
    rig r;
    cudaGraphExec_t executable;
    const int error = capture_step(&r, NO_FLAW, &executable);
    if (error != 0)
        return error;
    REQUIRE(cudaDeviceSynchronize());
    return !device_holds(r.z, N, 0, 0);
}

static int read_before_join(void)
{
    return replay(JOIN_TOO_LATE);
}

static void graphs_run_as_their_events_say(void **context)
{
    (void)context;
    always_right(replayed);
    sometimes_wrong(read_before_join);
    always_right(launched_in_two_streams);
    always_right(captured_only);
}

/* ---- what fails ---- */

/* Captures a step with the flaw: 0 where the end of it gives that error and no graph. */
static int end_gives(enum flaw flaw, cudaError_t wanted)
{
    rig r;
    cudaGraph_t graph = (cudaGraph_t)&r;
    REQUIRE(rig_create(&r) ? cudaErrorUnknown : cudaSuccess);
    REQUIRE(cudaStreamBeginCapture(r.main, cudaStreamCaptureModeGlobal));
    enqueue_step(&r, flaw);
    return cudaStreamEndCapture(r.main, &graph) != wanted || graph != NULL;
}

static int no_join(void)
{
    return end_gives(NO_JOIN, cudaErrorStreamCaptureUnjoined);
}

static int join_too_early(void)
{
    return end_gives(JOIN_TOO_EARLY, cudaErrorStreamCaptureUnjoined);
}

/* The side stream is not part of it, and an event of its own would have to be waited for. */
static int no_fork(void)
{
    return end_gives(NO_FORK, cudaErrorStreamCaptureInvalidated);
}

typedef cudaError_t forbidden(rig *r);

/* 0 where the call fails so during a capture, and the capture with it. */
static int fails(forbidden *call, cudaError_t wanted)
{
    rig r;
    cudaGraph_t graph;
    REQUIRE(rig_create(&r) ? cudaErrorUnknown : cudaSuccess);
    REQUIRE(cudaStreamBeginCapture(r.main, cudaStreamCaptureModeGlobal));
    REQUIRE(planted_add(r.main, r.x, r.y, 0, N, 1));
    if (call(&r) != wanted || cudaGetLastError() != wanted)
        return 1;
    if (cudaStreamEndCapture(r.main, &graph) != cudaErrorStreamCaptureInvalidated)
        return 1;
    cudaGetLastError();
    REQUIRE(planted_add(r.main, r.x, r.y, 0, N, 1)); /* the stream is as it was */
    REQUIRE(cudaStreamSynchronize(r.main));
    return !device_holds(r.y, N, 1, 0);
}

static cudaError_t stream_synchronize(rig *r)
{
    return cudaStreamSynchronize(r->main);
}

static cudaError_t stream_query(rig *r)
{
    return cudaStreamQuery(r->main);
}

static cudaError_t device_synchronize(rig *r)
{
    (void)r;
    return cudaDeviceSynchronize();
}

static cudaError_t allocate(rig *r)
{
    return cudaMalloc((void **)&r->x, 4);
}

static cudaError_t release(rig *r)
{
    return cudaFree(r->x);
}

static cudaError_t copy_pageable(rig *r)
{
    float host[N] = {0};
    return cudaMemcpyAsync(r->x, host, sizeof host, cudaMemcpyHostToDevice, r->main);
}

static cudaError_t copy_at_once(rig *r)
{
    float host[N] = {0};
    return cudaMemcpy(r->x, host, sizeof host, cudaMemcpyHostToDevice);
}

static cudaError_t wait_for_outside(rig *r)
{
    cudaEventRecord(r->fork, r->side);
    return cudaStreamWaitEvent(r->main, r->fork, 0);
}

static int synchronized_stream(void)
{
    return fails(stream_synchronize, cudaErrorStreamCaptureUnsupported);
}

static int queried_stream(void)
{
    return fails(stream_query, cudaErrorStreamCaptureUnsupported);
}

static int synchronized_device(void)
{
    return fails(device_synchronize, cudaErrorStreamCaptureUnsupported);
}

static int allocated(void)
{
    return fails(allocate, cudaErrorStreamCaptureUnsupported);
}

static int released(void)
{
    return fails(release, cudaErrorStreamCaptureUnsupported);
}

static int copied_pageable(void)
{
    return fails(copy_pageable, cudaErrorStreamCaptureUnsupported);
}

static int copied_at_once(void)
{
    return fails(copy_at_once, cudaErrorStreamCaptureImplicit);
}

static int waited_for_outside(void)
{
    return fails(wait_for_outside, cudaErrorStreamCaptureIsolation);
}

static int captured_event(void)
{
    rig r;
    cudaGraph_t graph;
    REQUIRE(rig_create(&r) ? cudaErrorUnknown : cudaSuccess);
    REQUIRE(cudaStreamBeginCapture(r.main, cudaStreamCaptureModeGlobal));
    REQUIRE(cudaEventRecord(r.fork, r.main));
    REQUIRE(cudaStreamEndCapture(r.main, &graph));
    return cudaEventSynchronize(r.fork) != cudaErrorCapturedEvent || cudaEventQuery(r.fork) != cudaErrorCapturedEvent ||
           cudaStreamWaitEvent(r.side, r.fork, 0) != cudaErrorCapturedEvent;
}

/* The legacy stream waits for streams that block; those that do not are none of its business. */
static int legacy_beside_capture(void)
{
    rig r;
    cudaGraph_t graph;
    cudaStream_t blocking;
    REQUIRE(rig_create(&r) ? cudaErrorUnknown : cudaSuccess);
    REQUIRE(cudaStreamCreate(&blocking));
    REQUIRE(cudaStreamBeginCapture(blocking, cudaStreamCaptureModeRelaxed));
    if (planted_add(NULL, r.x, r.y, 0, N, 1) != cudaErrorStreamCaptureImplicit ||
        cudaStreamEndCapture(blocking, &graph) != cudaErrorStreamCaptureInvalidated)
        return 1;
    REQUIRE(cudaStreamBeginCapture(r.main, cudaStreamCaptureModeRelaxed));
    REQUIRE(planted_add(NULL, r.x, r.y, 0, N, 1));
    REQUIRE(cudaStreamEndCapture(r.main, &graph));
    return 0;
}

/* Two captures may not become one, and only the stream that began one ends it. */
static int merged(void)
{
    rig r;
    cudaGraph_t graph;
    REQUIRE(rig_create(&r) ? cudaErrorUnknown : cudaSuccess);
    REQUIRE(cudaStreamBeginCapture(r.main, cudaStreamCaptureModeGlobal));
    REQUIRE(cudaStreamBeginCapture(r.side, cudaStreamCaptureModeGlobal));
    REQUIRE(cudaEventRecord(r.fork, r.main));
    return cudaStreamWaitEvent(r.side, r.fork, 0) != cudaErrorStreamCaptureMerge ||
           cudaStreamEndCapture(r.main, &graph) != cudaErrorStreamCaptureInvalidated ||
           cudaStreamEndCapture(r.side, &graph) != cudaErrorStreamCaptureInvalidated ||
           cudaStreamEndCapture(r.side, &graph) != cudaErrorIllegalState;
}

static int ended_elsewhere(void)
{
    rig r;
    cudaGraph_t graph;
    REQUIRE(rig_create(&r) ? cudaErrorUnknown : cudaSuccess);
    REQUIRE(cudaStreamBeginCapture(r.main, cudaStreamCaptureModeGlobal));
    REQUIRE(cudaEventRecord(r.fork, r.main));
    REQUIRE(cudaStreamWaitEvent(r.side, r.fork, 0));
    enum cudaStreamCaptureStatus status;
    REQUIRE(cudaStreamIsCapturing(r.side, &status));
    return status != cudaStreamCaptureStatusActive ||
           cudaStreamEndCapture(r.side, &graph) != cudaErrorStreamCaptureUnmatched;
}

static int graph_after_its_end(void)
{
    rig r;
    cudaGraphExec_t executable;
    const int error = capture_step(&r, NO_FLAW, &executable);
    if (error != 0)
        return error;
    REQUIRE(cudaGraphExecDestroy(executable));
    REQUIRE(cudaGraphLaunch(executable, r.main));
    return 0;
}

static void streams_join_before_the_end(void **context)
{
    (void)context;
    always_right(no_join);
    always_right(join_too_early);
    always_right(no_fork);
    always_right(merged);
    always_right(ended_elsewhere);
}

static void captures_forbid_what_cuda_forbids(void **context)
{
    (void)context;
    always_right(synchronized_stream);
    always_right(queried_stream);
    always_right(synchronized_device);
    always_right(allocated);
    always_right(released);
    always_right(copied_pageable);
    always_right(copied_at_once);
    always_right(waited_for_outside);
    always_right(captured_event);
    always_right(legacy_beside_capture);
    always_caught(graph_after_its_end, "is no graph, or not any more");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(graphs_run_as_their_events_say),
        cmocka_unit_test(streams_join_before_the_end),
        cmocka_unit_test(captures_forbid_what_cuda_forbids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
