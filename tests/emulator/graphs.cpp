/* Stream capture and graphs. A node may run as soon as those that it follows have: whatever else the program has in
 * mind about its order is for its events to say. */
#include "streams.hpp"

#include <thread>

#include <algorithm>

namespace emulator
{

struct capture {
    std::shared_ptr<graph> nodes;
    stream *origin;
    cudaStreamCaptureMode mode;
    std::thread::id thread;
    bool spoilt, ended;
};

namespace
{

std::set<std::shared_ptr<graph> *> graphs;

struct executable {
    std::shared_ptr<const graph> nodes;
    std::shared_ptr<mark> last; /* of its launches, which do not overlap */
};
std::set<executable *> executables;

template <class T, class H> T *handle_of(const std::set<T *> &known, H handle, const char *call)
{
    T *found = (T *)handle;
    if (known.count(found) == 0)
        die("%s: %p is no graph, or not any more", call, (void *)handle);
    return found;
}

std::shared_ptr<graph_run> start_run(const std::shared_ptr<const graph> &nodes)
{
    auto run = std::make_shared<graph_run>(graph_run{nodes, {}, {}, nodes->nodes.size()});
    for (size_t i = 0; i < nodes->nodes.size(); i++) {
        run->waits_for.push_back(nodes->nodes[i].after.size());
        if (run->waits_for[i] == 0)
            run->free.push_back(i);
    }
    return run;
}

std::shared_ptr<graph> with_followers(const graph &captured)
{
    auto whole = std::make_shared<graph>(captured);
    whole->followers.resize(captured.nodes.size());
    for (size_t i = 0; i < captured.nodes.size(); i++) {
        for (size_t before : captured.nodes[i].after)
            whole->followers[before].push_back(i);
    }
    return whole;
}

/* Whether all nodes of `of` are among those of `tail` or come before them. */
bool covers(const graph &g, const std::set<size_t> &tail, const std::set<size_t> &of)
{
    std::vector<bool> before(g.nodes.size());
    for (size_t i = g.nodes.size(); i-- > 0;) {
        before[i] = before[i] || tail.count(i) > 0;
        if (!before[i])
            continue;
        for (size_t a : g.nodes[i].after)
            before[a] = true;
    }
    return std::all_of(of.begin(), of.end(), [&](size_t i) { return before[i]; });
}

} // namespace

bool step_graph(graph_run *run)
{
    const size_t n = run->free.size(), first = random_number((unsigned)n);
    for (size_t k = 0; k < n; k++) {
        const size_t at = (first + k) % n, i = run->free[at];
        const work &task = run->nodes->nodes[i].task;
        if (task.ready && !task.ready())
            continue;
        run_work(task);
        run->free[at] = run->free.back();
        run->free.pop_back();
        for (size_t follower : run->nodes->followers[i]) {
            if (--run->waits_for[follower] == 0)
                run->free.push_back(follower);
        }
        run->left--;
        return true;
    }
    return false;
}

cudaError_t append(stream *s, work task)
{
    if (s->captured->spoilt)
        return cudaErrorStreamCaptureInvalidated;
    auto &nodes = s->captured->nodes->nodes;
    nodes.push_back({std::move(task), s->tail});
    s->tail = {nodes.size() - 1};
    return cudaSuccess;
}

cudaError_t spoil(stream *s, cudaError_t error)
{
    if (s->captured != nullptr)
        s->captured->spoilt = true;
    return error;
}

cudaError_t record_captured(stream *s, event *e)
{
    if (s->captured->spoilt)
        return cudaErrorStreamCaptureInvalidated;
    e->captured = s->captured;
    e->nodes = s->tail;
    return cudaSuccess;
}

cudaError_t wait_captured(stream *s, event *e)
{
    if (e->captured == nullptr) /* would wait for what is outside of the graph */
        return e->recorded == nullptr ? cudaSuccess : spoil(s, cudaErrorStreamCaptureIsolation);
    if (e->captured->ended)
        return spoil(s, cudaErrorCapturedEvent);
    if (e->captured->spoilt)
        return cudaErrorStreamCaptureInvalidated;
    if (s->captured != nullptr && s->captured != e->captured) {
        e->captured->spoilt = true;
        return spoil(s, cudaErrorStreamCaptureMerge);
    }
    if (s == all_streams()[0].get()) {
        e->captured->spoilt = true;
        return cudaErrorStreamCaptureImplicit;
    }
    s->captured = e->captured;
    s->tail.insert(e->nodes.begin(), e->nodes.end());
    return cudaSuccess;
}

bool any_capture()
{
    const auto &streams = all_streams();
    return std::any_of(streams.begin(), streams.end(), [](const auto &s) { return s->captured != nullptr; });
}

bool legacy_is_forbidden()
{
    bool forbidden = false;
    for (const auto &s : all_streams()) {
        if (s->captured != nullptr && s->blocking) {
            s->captured->spoilt = true;
            forbidden = true;
        }
    }
    return forbidden;
}

bool captures_forbid_unsafe_calls()
{
    bool forbidden = false;
    for (const auto &s : all_streams()) {
        const auto &c = s->captured;
        if (c != nullptr && (c->mode == cudaStreamCaptureModeGlobal || (c->mode == cudaStreamCaptureModeThreadLocal &&
                                                                        c->thread == std::this_thread::get_id()))) {
            c->spoilt = true;
            forbidden = true;
        }
    }
    return forbidden;
}

void require_no_capture(const char *call)
{
    if (captures_forbid_unsafe_calls())
        die("%s: a plan is made while a stream is being captured", call);
}

} // namespace emulator

using namespace emulator;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode)
{
    api_call call("cudaStreamBeginCapture");
    const auto s = stream_of(handle, "cudaStreamBeginCapture");
    if (s == all_streams()[0])
        return result(cudaErrorStreamCaptureUnsupported);
    if (s->captured != nullptr)
        return result(cudaErrorIllegalState);
    s->captured = std::make_shared<capture>(
        capture{std::make_shared<graph>(), s.get(), mode, std::this_thread::get_id(), false, false});
    s->tail.clear();
    return result(cudaSuccess);
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *captured)
{
    api_call call("cudaStreamEndCapture");
    const auto s = stream_of(handle, "cudaStreamEndCapture");
    const auto c = s->captured;
    *captured = nullptr;
    if (c == nullptr)
        return result(cudaErrorIllegalState);
    if (c->origin != s.get())
        return result(spoil(s.get(), cudaErrorStreamCaptureUnmatched));
    if (c->mode != cudaStreamCaptureModeRelaxed && c->thread != std::this_thread::get_id())
        return result(spoil(s.get(), cudaErrorStreamCaptureWrongThread));
    bool joined = true;
    for (const auto &other : all_streams()) {
        if (other->captured != c)
            continue;
        joined = joined && covers(*c->nodes, s->tail, other->tail);
        other->captured = nullptr;
        if (other != s)
            other->tail.clear();
    }
    c->ended = true;
    if (c->spoilt)
        return result(cudaErrorStreamCaptureInvalidated);
    if (!joined)
        return result(cudaErrorStreamCaptureUnjoined);
    auto *g = new std::shared_ptr<graph>(c->nodes);
    graphs.insert(g);
    *captured = (cudaGraph_t)g;
    return result(cudaSuccess);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus *status)
{
    api_call call("cudaStreamIsCapturing");
    const auto c = stream_of(handle, "cudaStreamIsCapturing")->captured;
    *status = c == nullptr ? cudaStreamCaptureStatusNone
              : c->spoilt  ? cudaStreamCaptureStatusInvalidated
                           : cudaStreamCaptureStatusActive;
    return result(cudaSuccess);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *handle, cudaGraph_t of, unsigned long long)
{
    api_call call("cudaGraphInstantiate");
    auto *g = handle_of(graphs, of, "cudaGraphInstantiate");
    executable *e = new executable{with_followers(**g), nullptr};
    executables.insert(e);
    *handle = (cudaGraphExec_t)e;
    return result(cudaSuccess);
}

cudaError_t cudaGraphUpload(cudaGraphExec_t handle, cudaStream_t)
{
    api_call call("cudaGraphUpload");
    handle_of(executables, handle, "cudaGraphUpload");
    return result(cudaSuccess);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t handle, cudaStream_t stream_handle)
{
    api_call call("cudaGraphLaunch");
    executable *e = handle_of(executables, handle, "cudaGraphLaunch");
    const auto s = stream_of(stream_handle, "cudaGraphLaunch");
    if (s->captured != nullptr)
        die("cudaGraphLaunch: graphs in graphs are not emulated");
    if (s == all_streams()[0] && legacy_is_forbidden())
        return result(cudaErrorStreamCaptureImplicit);
    operation op = {{"cudaGraphLaunch", nullptr, nullptr, false}, {}, nullptr, start_run(e->nodes)};
    if (e->last != nullptr && !e->last->done)
        op.after.push_back(e->last);
    push(s, std::move(op));
    e->last = s->last;
    return result(cudaSuccess);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t handle)
{
    api_call call("cudaGraphExecDestroy");
    executable *e = handle_of(executables, handle, "cudaGraphExecDestroy");
    executables.erase(e);
    delete e;
    return result(cudaSuccess);
}

cudaError_t cudaGraphDestroy(cudaGraph_t handle)
{
    api_call call("cudaGraphDestroy");
    auto *g = handle_of(graphs, handle, "cudaGraphDestroy");
    graphs.erase(g);
    delete g;
    return result(cudaSuccess);
}

} // extern "C"
