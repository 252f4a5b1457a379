/* Streams, and the graphs that are captured from them: what streams.cpp and graphs.cpp share. */
#ifndef EMULATOR_STREAMS_HPP
#define EMULATOR_STREAMS_HPP

#include "emulator.hpp"

#include <deque>
#include <memory>
#include <set>
#include <vector>

namespace emulator
{

struct stream;
struct capture;

/* An operation's end. */
struct mark {
    bool done;
    double seconds;                /* when */
    std::weak_ptr<stream> running; /* in which it is enqueued */
};

struct work {
    std::string what;
    std::function<void()> run; /* none: nothing but its place in the order */
    std::function<bool()> ready;
    bool host; /* a host function: device memory is closed */
};

struct node {
    work task;
    std::set<size_t> after; /* nodes of the same graph */
};

struct graph {
    std::vector<node> nodes;
    std::vector<std::vector<size_t>> followers; /* of each node, once the graph is whole */
};

/* A graph under way. */
struct graph_run {
    std::shared_ptr<const graph> nodes;
    std::vector<size_t> waits_for; /* nodes that are still to come before each */
    std::vector<size_t> free;      /* those that can run */
    size_t left;
};

struct operation {
    work task;
    std::vector<std::shared_ptr<mark>> after;
    std::shared_ptr<mark> end;
    std::shared_ptr<graph_run> run;
};

struct stream {
    int device, priority;
    bool blocking; /* ordered with the legacy stream */
    std::deque<operation> queue;
    std::shared_ptr<mark> last; /* of what was enqueued so far; NULL: nothing was */
    std::shared_ptr<capture> captured;
    std::set<size_t> tail;      /* nodes of the capture that the next one follows */
    unsigned long waits = 0;    /* of the host for work of this stream that was not done */
    unsigned long enqueued = 0; /* pieces of work */
};

struct event {
    std::shared_ptr<mark> recorded; /* NULL: never */
    bool timing;
    std::shared_ptr<capture> captured;
    std::set<size_t> nodes;
};

/* The stream of a handle; ends the program where there is none. */
std::shared_ptr<stream> stream_of(cudaStream_t handle, const char *call);
event *event_of(cudaEvent_t handle, const char *call);
const std::vector<std::shared_ptr<stream>> &all_streams();

/* Enqueues outside of any capture. */
void push(const std::shared_ptr<stream> &s, operation op);

/* Where s is being captured: appends a node instead. */
cudaError_t append(stream *s, work task);
/* What a call that is not for captured streams returns: cudaSuccess, or the error, with the capture spoilt. */
cudaError_t spoil(stream *s, cudaError_t error);
cudaError_t record_captured(stream *s, event *e);
cudaError_t wait_captured(stream *s, event *e);
/* The legacy stream would wait for a stream that is being captured. */
bool legacy_is_forbidden();
bool any_capture();

/* One step of the graph at the head of a queue; false: none of its nodes can go on. */
bool step_graph(graph_run *run);
void run_work(const work &task);

} // namespace emulator

#endif
