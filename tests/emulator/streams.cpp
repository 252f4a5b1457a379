/* Streams, events and copies. Each stream is a queue; whoever waits runs operations from the queues, one at a time, in
 * an order that the dependencies of events permit and nothing else restrains. */
#include "streams.hpp"
#include "counts.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <mutex>

namespace emulator
{

namespace
{

enum eagerness { LAZY, EAGER, RANDOM };

std::recursive_mutex lock;
int calls;                                      /* that hold it, one in another */
bool executing;                                 /* work of the device, on this or another thread */
std::vector<std::shared_ptr<stream>> streams;   /* [0]: legacy */
std::vector<std::shared_ptr<stream>> destroyed; /* with work left */
std::set<event *> events;

double seconds()
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

const std::shared_ptr<stream> &legacy()
{
    if (streams.empty())
        streams.push_back(std::make_shared<stream>(stream{0, 0, true, {}, nullptr, nullptr, {}}));
    return streams[0];
}

bool is_done(const std::shared_ptr<mark> &m)
{
    return m == nullptr || m->done;
}

bool is_blocked(const operation &op)
{
    return !std::all_of(op.after.begin(), op.after.end(), is_done);
}

/* Runs one operation, or one node of a graph; false: nothing can be run there now. */
bool step(stream *s)
{
    if (s->queue.empty() || is_blocked(s->queue.front()))
        return false;
    operation &op = s->queue.front();
    if (op.task.ready && !op.task.ready())
        return false;
    if (op.run != nullptr && op.run->left > 0) {
        if (!step_graph(op.run.get()))
            return false;
        if (op.run->left > 0)
            return true;
    }
    run_work(op.task);
    op.end->done = true;
    op.end->seconds = seconds();
    s->queue.pop_front();
    return true;
}

std::vector<std::shared_ptr<stream>> unfinished()
{
    std::vector<std::shared_ptr<stream>> found;
    for (const auto *list : {&streams, &destroyed}) {
        for (const auto &s : *list) {
            if (!s->queue.empty())
                found.push_back(s);
        }
    }
    return found;
}

/* The stream that has to go on for s to. */
stream *needed(stream *s)
{
    for (;;) {
        if (s->queue.empty())
            return s;
        const auto &after = s->queue.front().after;
        auto open = std::find_if_not(after.begin(), after.end(), is_done);
        if (open == after.end())
            return s;
        s = (*open)->running.lock().get();
    }
}

bool step_any(const stream *but)
{
    const auto candidates = unfinished();
    const size_t n = candidates.size(), first = n == 0 ? 0 : random_number((unsigned)n);
    for (size_t i = 0; i < n; i++) {
        stream *s = candidates[(first + i) % n].get();
        if (s != but && step(s))
            return true;
    }
    return false;
}

/* Lets other threads call CUDA, and other ranks get on. */
void pause()
{
    const int held = calls;
    check_canaries("some work of a stream", false);
    close_memory();
    calls = 0;
    for (int i = 0; i < held; i++)
        lock.unlock();
    usleep(20);
    for (int i = 0; i < held; i++)
        lock.lock();
    calls = held;
}

/* Until `finished`, which waits for s (NULL: for all). */
template <class F> void drain(stream *s, const char *what, F finished)
{
    static const char *const names[] = {"lazy", "eager", "random"};
    const int fixed = chosen("EMULATOR_STREAMS", names, 3);
    const eagerness mode = fixed >= 0 ? (eagerness)fixed : (eagerness)random_number(3);
    while (!finished()) {
        const auto left = unfinished();
        stream *target = s != nullptr ? s : left[random_number((unsigned)left.size())].get();
        const bool went_on = mode == LAZY    ? step(needed(target)) || step_any(nullptr)
                             : mode == EAGER ? step_any(target) || step(target)
                                             : step_any(nullptr);
        if (!went_on)
            pause();
    }
    check_canaries(what, false);
    close_memory();
    destroyed.erase(std::remove_if(destroyed.begin(), destroyed.end(), [](const auto &d) { return d->queue.empty(); }),
                    destroyed.end());
}

void finish(const std::shared_ptr<mark> &m, const char *what)
{
    const auto s = m->running.lock();
    s->waits++;
    drain(s.get(), what, [&] { return m->done; });
}

void finish_stream(const std::shared_ptr<stream> &s, const char *what)
{
    if (s->last != nullptr && !s->last->done)
        finish(s->last, what);
}

/* A program that asks rather than waits must get on as well. */
void advance(const char *what)
{
    if (random_number(4) == 0 || !step_any(nullptr))
        return;
    check_canaries(what, false);
    close_memory();
}

cudaError_t enqueue_work(cudaStream_t handle, work task, const char *call)
{
    const auto s = stream_of(handle, call);
    if (s->captured != nullptr)
        return append(s.get(), std::move(task));
    if (s == legacy() && legacy_is_forbidden())
        return cudaErrorStreamCaptureImplicit;
    push(s, {std::move(task), {}, nullptr, nullptr});
    return cudaSuccess;
}

/* ---- copies ---- */

enum side { DEVICE, PINNED, PAGEABLE };

side side_of(const void *p, size_t bytes, const char *call, const char *operand)
{
    if (is_device_address(p)) {
        require_device_memory(p, bytes, call, operand);
        return DEVICE;
    }
    if (is_pinned_memory(p, bytes))
        return PINNED;
    if (is_pinned_memory(p, 0) && bytes > 0)
        die("%s: %s has %zu bytes, which is more than its pinned memory has", call, operand, bytes);
    return PAGEABLE;
}

struct copy {
    void *to;
    const void *from;
    size_t bytes;
    side to_side, from_side;
};

copy checked_copy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, const char *call)
{
    static const char *const names[] = {"host to host", "host to device", "device to host", "device to device"};
    const copy c = {to, from, bytes, side_of(to, bytes, call, "the destination"),
                    side_of(from, bytes, call, "the source")};
    if (kind == cudaMemcpyDefault)
        return c;
    const int is = (c.from_side == DEVICE ? 2 : 0) + (c.to_side == DEVICE ? 1 : 0);
    if (is != (int)kind)
        die("%s: from %s is asked for, the pointers are from %s", call, names[kind & 3], names[is]);
    return c;
}

void check_written(copy c, const char *call)
{
    if (c.to_side == DEVICE)
        require_device_memory(c.to, c.bytes, call, "the destination, when its turn comes,");
    if (c.from_side == DEVICE)
        require_device_memory(c.from, c.bytes, call, "the source, when its turn comes,");
}

/* CUDA reads pageable memory at any time from the call on until the copy's turn. */
std::function<void()> copying(copy c, const char *call, bool now)
{
    if (c.from_side == PAGEABLE && now) {
        auto taken = std::make_shared<std::vector<char>>((const char *)c.from, (const char *)c.from + c.bytes);
        return [=] {
            check_written(c, call);
            memcpy(c.to, taken->data(), c.bytes);
        };
    }
    return [=] {
        check_written(c, call);
        memmove(c.to, c.from, c.bytes);
    };
}

} // namespace

/* ---- what others use ---- */

api_call::api_call(const char *name)
{
    lock.lock();
    calls++;
    if (executing)
        die("%s is called by a host function or by the work of a stream", name);
}

api_call::~api_call()
{
    calls--;
    lock.unlock();
}

std::shared_ptr<stream> stream_of(cudaStream_t handle, const char *call)
{
    if (handle == nullptr || handle == cudaStreamLegacy)
        return legacy();
    for (const auto &s : streams) {
        if (s.get() == (stream *)handle && s != legacy())
            return s;
    }
    die("%s: %p is no stream, or not any more", call, (void *)handle);
}

event *event_of(cudaEvent_t handle, const char *call)
{
    event *e = (event *)handle;
    if (events.count(e) == 0)
        die("%s: %p is no event, or not any more", call, (void *)handle);
    return e;
}

const std::vector<std::shared_ptr<stream>> &all_streams()
{
    return streams;
}

void run_work(const work &task)
{
    if (!task.run)
        return;
    executing = true;
    if (task.host) {
        check_canaries(task.what.c_str(), false);
        close_memory();
    } else {
        open_memory();
    }
    task.run();
    if (!task.host)
        check_canaries(task.what.c_str(), true);
    executing = false;
}

void push(const std::shared_ptr<stream> &s, operation op)
{
    if (s == legacy()) {
        for (const auto *list : {&streams, &destroyed}) {
            for (const auto &other : *list) {
                if (other->blocking && other != s && !is_done(other->last))
                    op.after.push_back(other->last);
            }
        }
    } else if (s->blocking && !is_done(legacy()->last)) {
        op.after.push_back(legacy()->last);
    }
    op.end = std::make_shared<mark>(mark{false, 0, s});
    s->last = op.end;
    s->enqueued += op.task.run || op.run != nullptr;
    s->queue.push_back(std::move(op));
}

cudaError_t enqueue(cudaStream_t handle, std::string what, std::function<void()> run, std::function<bool()> ready)
{
    api_call call(what.c_str());
    return result(enqueue_work(handle, {what, std::move(run), std::move(ready), false}, what.c_str()));
}

void finish_everything(const char *what)
{
    for (const auto &s : unfinished())
        s->waits++;
    if (!unfinished().empty())
        drain(nullptr, what, [] { return unfinished().empty(); });
    else
        check_canaries(what, false);
}

} // namespace emulator

using namespace emulator;

extern "C" {

/* ---- streams ---- */

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *handle, unsigned flags, int priority)
{
    api_call call("cudaStreamCreate");
    legacy();
    streams.push_back(std::make_shared<stream>(
        stream{current_device(), priority, (flags & cudaStreamNonBlocking) == 0, {}, nullptr, nullptr, {}}));
    *handle = (cudaStream_t)streams.back().get();
    return result(cudaSuccess);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *handle, unsigned flags)
{
    return cudaStreamCreateWithPriority(handle, flags, 0);
}

cudaError_t cudaStreamCreate(cudaStream_t *handle)
{
    return cudaStreamCreateWithPriority(handle, cudaStreamDefault, 0);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = 0;
    *greatest = -5;
    return result(cudaSuccess);
}

cudaError_t cudaStreamDestroy(cudaStream_t handle)
{
    api_call call("cudaStreamDestroy");
    const auto s = stream_of(handle, "cudaStreamDestroy");
    if (s == legacy())
        return result(cudaErrorInvalidResourceHandle);
    if (s->captured != nullptr)
        spoil(s.get(), cudaErrorStreamCaptureUnsupported);
    streams.erase(std::find(streams.begin(), streams.end(), s));
    if (!s->queue.empty())
        destroyed.push_back(s);
    return result(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle)
{
    api_call call("cudaStreamSynchronize");
    const auto s = stream_of(handle, "cudaStreamSynchronize");
    if (s->captured != nullptr)
        return result(spoil(s.get(), cudaErrorStreamCaptureUnsupported));
    if (s == legacy() && legacy_is_forbidden())
        return result(cudaErrorStreamCaptureImplicit);
    finish_stream(s, "cudaStreamSynchronize");
    return result(cudaSuccess);
}

unsigned long emulator_waits(cudaStream_t handle)
{
    api_call call("emulator_waits");
    return stream_of(handle, "emulator_waits")->waits;
}

unsigned long emulator_enqueued(cudaStream_t handle)
{
    api_call call("emulator_enqueued");
    return stream_of(handle, "emulator_enqueued")->enqueued;
}

cudaError_t cudaStreamQuery(cudaStream_t handle)
{
    api_call call("cudaStreamQuery");
    const auto s = stream_of(handle, "cudaStreamQuery");
    if (s->captured != nullptr)
        return result(spoil(s.get(), cudaErrorStreamCaptureUnsupported));
    advance("cudaStreamQuery");
    return is_done(s->last) ? result(cudaSuccess) : cudaErrorNotReady;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event_handle, unsigned)
{
    api_call call("cudaStreamWaitEvent");
    const auto s = stream_of(handle, "cudaStreamWaitEvent");
    event *e = event_of(event_handle, "cudaStreamWaitEvent");
    if (s->captured != nullptr || e->captured != nullptr)
        return result(wait_captured(s.get(), e));
    if (!is_done(e->recorded))
        push(s, {{"cudaStreamWaitEvent", nullptr, nullptr, false}, {e->recorded}, nullptr, nullptr});
    return result(cudaSuccess);
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void *data)
{
    api_call call("cudaLaunchHostFunc");
    return result(
        enqueue_work(handle, {"a host function", [=] { function(data); }, nullptr, true}, "cudaLaunchHostFunc"));
}

cudaError_t cudaDeviceSynchronize(void)
{
    api_call call("cudaDeviceSynchronize");
    if (any_capture()) {
        for (const auto &s : streams)
            spoil(s.get(), cudaErrorStreamCaptureUnsupported);
        return result(cudaErrorStreamCaptureUnsupported);
    }
    finish_everything("cudaDeviceSynchronize");
    return result(cudaSuccess);
}

/* ---- events ---- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *handle, unsigned flags)
{
    api_call call("cudaEventCreate");
    event *e = new event{nullptr, (flags & cudaEventDisableTiming) == 0, nullptr, {}};
    events.insert(e);
    *handle = (cudaEvent_t)e;
    return result(cudaSuccess);
}

cudaError_t cudaEventCreate(cudaEvent_t *handle)
{
    return cudaEventCreateWithFlags(handle, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t handle)
{
    api_call call("cudaEventDestroy");
    event *e = event_of(handle, "cudaEventDestroy");
    events.erase(e);
    delete e;
    return result(cudaSuccess);
}

cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream_handle)
{
    api_call call("cudaEventRecord");
    const auto s = stream_of(stream_handle, "cudaEventRecord");
    event *e = event_of(handle, "cudaEventRecord");
    if (s->captured != nullptr)
        return result(record_captured(s.get(), e));
    if (s == legacy() && legacy_is_forbidden())
        return result(cudaErrorStreamCaptureImplicit);
    push(s, {{"cudaEventRecord", nullptr, nullptr, false}, {}, nullptr, nullptr});
    e->recorded = s->last;
    e->captured = nullptr;
    return result(cudaSuccess);
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle)
{
    api_call call("cudaEventSynchronize");
    event *e = event_of(handle, "cudaEventSynchronize");
    if (e->captured != nullptr)
        return result(cudaErrorCapturedEvent);
    if (!is_done(e->recorded))
        finish(e->recorded, "cudaEventSynchronize");
    return result(cudaSuccess);
}

cudaError_t cudaEventQuery(cudaEvent_t handle)
{
    api_call call("cudaEventQuery");
    event *e = event_of(handle, "cudaEventQuery");
    if (e->captured != nullptr)
        return result(cudaErrorCapturedEvent);
    advance("cudaEventQuery");
    return is_done(e->recorded) ? result(cudaSuccess) : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from_handle, cudaEvent_t to_handle)
{
    api_call call("cudaEventElapsedTime");
    event *from = event_of(from_handle, "cudaEventElapsedTime"), *to = event_of(to_handle, "cudaEventElapsedTime");
    if (from->captured != nullptr || to->captured != nullptr)
        return result(cudaErrorCapturedEvent);
    if (!from->timing || !to->timing || from->recorded == nullptr || to->recorded == nullptr)
        return result(cudaErrorInvalidResourceHandle);
    if (!from->recorded->done || !to->recorded->done)
        return cudaErrorNotReady;
    *milliseconds = (float)(1e3 * (to->recorded->seconds - from->recorded->seconds));
    return result(cudaSuccess);
}

/* ---- copies ---- */

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t handle)
{
    api_call call("cudaMemcpyAsync");
    const auto s = stream_of(handle, "cudaMemcpyAsync");
    if (bytes == 0)
        return result(cudaSuccess);
    const copy c = checked_copy(to, from, bytes, kind, "cudaMemcpyAsync");
    const bool pageable = c.to_side == PAGEABLE || c.from_side == PAGEABLE;
    if (pageable && s->captured != nullptr)
        return result(spoil(s.get(), cudaErrorStreamCaptureUnsupported));
    cudaError_t error =
        enqueue_work(handle, {"cudaMemcpyAsync", copying(c, "cudaMemcpyAsync", random_number(2) == 0), nullptr, false},
                     "cudaMemcpyAsync");
    /* May wait, or not. */
    if (error == cudaSuccess && pageable && random_number(2) == 0)
        finish_stream(s, "cudaMemcpyAsync");
    return result(error);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t handle)
{
    api_call call("cudaMemsetAsync");
    if (bytes == 0)
        return result(cudaSuccess);
    require_device_memory(to, bytes, "cudaMemsetAsync", "the destination");
    return result(enqueue_work(handle,
                               {"cudaMemsetAsync",
                                [=] {
                                    require_device_memory(to, bytes, "cudaMemsetAsync",
                                                          "the destination, when its turn comes,");
                                    memset(to, value, bytes);
                                },
                                nullptr, false},
                               "cudaMemsetAsync"));
}

/* In the legacy stream, which other streams may not be ordered with. The host is not kept where no host memory is
 * concerned, nor, once it has been read, for pageable memory's way to the device. */
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    api_call call("cudaMemcpy");
    if (captures_forbid_unsafe_calls() || legacy_is_forbidden())
        return result(cudaErrorStreamCaptureImplicit);
    if (bytes == 0)
        return result(cudaSuccess);
    const copy c = checked_copy(to, from, bytes, kind, "cudaMemcpy");
    push(legacy(), {{"cudaMemcpy", copying(c, "cudaMemcpy", true), nullptr, false}, {}, nullptr, nullptr});
    const bool may_return = c.to_side == DEVICE && c.from_side != PINNED;
    if (!may_return || random_number(2) == 0)
        finish_stream(legacy(), "cudaMemcpy");
    return result(cudaSuccess);
}

cudaError_t cudaMemset(void *to, int value, size_t bytes)
{
    api_call call("cudaMemset");
    if (captures_forbid_unsafe_calls() || legacy_is_forbidden())
        return result(cudaErrorStreamCaptureImplicit);
    return cudaMemsetAsync(to, value, bytes, nullptr);
}

} // extern "C"
