/* cuDNN's backend API as far as src/backend/cuda uses it: descriptors of attributes, checked when they are finalized,
 * graphs of one convolution, heuristics that propose engines of several kinds, plans and their execution.
 *
 * As the real one it answers what is wrong with a status and a text, and what it cannot see (a pointer that is not
 * device memory, too small a workspace, a descriptor that is gone) ends the program here. */
#include "convolve.hpp"
#include "emulator.hpp"

#include <cudnn.h>

#include <map>
#include <memory>
#include <set>
#include <stdio.h>
#include <vector>

using namespace emulator;

struct cudnnContext {
    cudaStream_t stream;
};

namespace
{

std::set<cudnnHandle_t> handles;
thread_local std::string last_text;

cudnnStatus_t fail(cudnnStatus_t status, const std::string &text)
{
    last_text = text;
    return status;
}

/* ---- engines ---- */

struct engine {
    int number;
    engine_kind kind;
    std::vector<cudnnBackendNumericalNote_t> notes;
    std::vector<cudnnBackendBehaviorNote_t> habits;
    bool fails;    /* cannot be made a plan of */
    bool fallback; /* proposed by the other mode */
    size_t fixed_bytes, bytes_per_channel;

    size_t workspace(const convolution &c) const
    {
        return fixed_bytes + bytes_per_channel * (size_t)(c.x.size[1] + c.y.size[1]);
    }
};

/* In the order of the heuristics. Whoever takes the first one without a look finds a plan that fails, or sums that
 * differ from run to run, or TF32. */
const std::vector<engine> engines = {
    {7, engine_kind::drifting, {CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC}, {}, false, false, 16, 0},
    {5, engine_kind::exact, {}, {}, true, false, 64, 0},
    {3, engine_kind::tf32, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, {}, false, false, 4096, 256},
    {11, engine_kind::exact, {}, {CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION}, false, false, 0, 0},
    {2, engine_kind::exact, {}, {CUDNN_BEHAVIOR_NOTE_SUPPORTS_CUDA_GRAPH_NATIVE_API}, false, false, 1040, 64},
    {4, engine_kind::tf32, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, {}, false, false, 528, 0},
    {1, engine_kind::exact, {}, {}, false, true, 272, 0},
};

/* ---- descriptors ---- */

struct attribute {
    cudnnBackendAttributeType_t type;
    int64_t count;
    std::vector<char> bytes;
};

struct descriptor {
    cudnnBackendDescriptorType_t type;
    bool finalized = false;
    std::map<int, attribute> attributes;
    /* made when it is finalized, copied from what it was made of */
    std::shared_ptr<const convolution> work;
    cudnnHandle_t handle = nullptr;
    const engine *uses = nullptr;
    int64_t uid[3] = {}; /* of x, w and y; [0] of a tensor's own */
    int64_t alignment[3] = {};
};

std::set<const void *> descriptors;

descriptor *as_descriptor(cudnnBackendDescriptor_t d, const char *call)
{
    if (descriptors.count(d) == 0)
        die("%s: the cuDNN descriptor %p is not there", call, d);
    return static_cast<descriptor *>(d);
}

struct rule {
    int name;
    cudnnBackendAttributeType_t type;
    int64_t least, most; /* elements */
    bool required;
};

#define CONVOLUTION_RULES(OP, X, W, Y)                                                                                 \
    {                                                                                                                  \
        {CUDNN_ATTR_OPERATION_CONVOLUTION_##OP##_##X, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, true},                      \
            {CUDNN_ATTR_OPERATION_CONVOLUTION_##OP##_##W, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, true},                  \
            {CUDNN_ATTR_OPERATION_CONVOLUTION_##OP##_##Y, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, true},                  \
            {CUDNN_ATTR_OPERATION_CONVOLUTION_##OP##_CONV_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, true},            \
            {CUDNN_ATTR_OPERATION_CONVOLUTION_##OP##_ALPHA, CUDNN_TYPE_FLOAT, 1, 1, true},                             \
            {CUDNN_ATTR_OPERATION_CONVOLUTION_##OP##_BETA, CUDNN_TYPE_FLOAT, 1, 1, true},                              \
    }

const std::map<int, std::vector<rule>> rules = {
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR,
     {{CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, true},
      {CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, 5, true},
      {CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, 5, true},
      {CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, 1, true},
      {CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, 1, true}}},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR,
     {{CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, true},
      {CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, 1, true},
      {CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, 1, true},
      {CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, 3, true},
      {CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, 3, true},
      {CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, 3, true},
      {CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, 3, true}}},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CONVOLUTION_RULES(FORWARD, X, W, Y)},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, CONVOLUTION_RULES(BWD_DATA, DX, W, DY)},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, CONVOLUTION_RULES(BWD_FILTER, X, DW, DY)},
    {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR,
     {{CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, 1, true},
      {CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, true}}},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR,
     {{CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, true},
      {CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, 1, true}}},
    {CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, {}},
    {CUDNN_BACKEND_ENGINE_DESCRIPTOR, {}},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR,
     {{CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, true},
      {CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, 1, true}}},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR,
     {{CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 1, 8, true},
      {CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 1, 8, true},
      {CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, 1, false}}},
};

size_t size_of(cudnnBackendAttributeType_t type)
{
    switch (type) {
    case CUDNN_TYPE_DATA_TYPE:
    case CUDNN_TYPE_CONVOLUTION_MODE:
    case CUDNN_TYPE_HEUR_MODE:
    case CUDNN_TYPE_FLOAT:
        return 4;
    default:
        return 8;
    }
}

template <class T> T get(const descriptor &d, int name, int64_t i = 0)
{
    const attribute &a = d.attributes.at(name);
    T value;
    memcpy(&value, a.bytes.data() + (size_t)i * sizeof value, sizeof value);
    return value;
}

/* The descriptor that is an attribute of another; it must be of the type, and finalized. */
const descriptor *child(const descriptor &d, int name, int type)
{
    const auto *c = as_descriptor(get<cudnnBackendDescriptor_t>(d, name), "cudnnBackendFinalize");
    return c->finalized && (int)c->type == type ? c : nullptr;
}

/* ---- what is finalized ---- */

cudnnStatus_t finalize_tensor(descriptor &d)
{
    const cudnnDataType_t type = get<cudnnDataType_t>(d, CUDNN_ATTR_TENSOR_DATA_TYPE);
    if (type != CUDNN_DATA_FLOAT && type != CUDNN_DATA_BFLOAT16)
        return fail(CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE, "only float and bfloat16 are emulated");
    const attribute &sizes = d.attributes.at(CUDNN_ATTR_TENSOR_DIMENSIONS);
    if (sizes.count != d.attributes.at(CUDNN_ATTR_TENSOR_STRIDES).count)
        return fail(CUDNN_STATUS_BAD_PARAM, "as many strides as dimensions are wanted");
    for (int64_t i = 0; i < sizes.count; i++) {
        if (get<int64_t>(d, CUDNN_ATTR_TENSOR_DIMENSIONS, i) < 1)
            return fail(CUDNN_STATUS_BAD_PARAM, "a dimension is not positive");
    }
    d.uid[0] = get<int64_t>(d, CUDNN_ATTR_TENSOR_UNIQUE_ID);
    d.alignment[0] = get<int64_t>(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT);
    return CUDNN_STATUS_SUCCESS;
}

/* Two spatial dimensions are three, of which the first is 1. */
extent extent_of(const descriptor &tensor)
{
    extent e = {};
    const int64_t rank = tensor.attributes.at(CUDNN_ATTR_TENSOR_DIMENSIONS).count;
    e.type = get<cudnnDataType_t>(tensor, CUDNN_ATTR_TENSOR_DATA_TYPE) == CUDNN_DATA_FLOAT ? number::f32 : number::bf16;
    e.size[2] = e.stride[2] = 1;
    for (int64_t i = 0; i < rank; i++) {
        const int64_t to = i < 2 ? i : i + 5 - rank;
        e.size[to] = get<int64_t>(tensor, CUDNN_ATTR_TENSOR_DIMENSIONS, i);
        e.stride[to] = get<int64_t>(tensor, CUDNN_ATTR_TENSOR_STRIDES, i);
    }
    return e;
}

cudnnStatus_t finalize_convolution(descriptor &d)
{
    const int64_t rank = get<int64_t>(d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS);
    for (int name : {CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS,
                     CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_ATTR_CONVOLUTION_DILATIONS}) {
        if (d.attributes.at(name).count != rank)
            return fail(CUDNN_STATUS_BAD_PARAM, "an attribute has not as many elements as there are dimensions");
    }
    if (get<cudnnDataType_t>(d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE) != CUDNN_DATA_FLOAT ||
        get<cudnnConvolutionMode_t>(d, CUDNN_ATTR_CONVOLUTION_CONV_MODE) != CUDNN_CROSS_CORRELATION)
        return fail(CUDNN_STATUS_NOT_SUPPORTED, "only float cross-correlations are emulated");
    return CUDNN_STATUS_SUCCESS;
}

void read_convolution(const descriptor &d, convolution &c)
{
    const int64_t rank = get<int64_t>(d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS);
    for (int64_t i = 0; i < 3; i++) {
        const int64_t from = i - (3 - rank);
        c.before[i] = from < 0 ? 0 : get<int64_t>(d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, from);
        c.after[i] = from < 0 ? 0 : get<int64_t>(d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, from);
        c.stride[i] = from < 0 ? 1 : get<int64_t>(d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, from);
        c.dilation[i] = from < 0 ? 1 : get<int64_t>(d, CUDNN_ATTR_CONVOLUTION_DILATIONS, from);
    }
}

struct operation_names {
    direction to;
    int x, w, y, how, alpha, beta;
};

cudnnStatus_t finalize_operation(descriptor &d, const operation_names &names)
{
    const int tensor = CUDNN_BACKEND_TENSOR_DESCRIPTOR;
    const descriptor *operands[3] = {child(d, names.x, tensor), child(d, names.w, tensor), child(d, names.y, tensor)};
    const descriptor *how = child(d, names.how, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    if (operands[0] == nullptr || operands[1] == nullptr || operands[2] == nullptr || how == nullptr)
        return fail(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "an operand is not finalized, or is something else");
    auto c = std::make_shared<convolution>();
    c->to = names.to;
    c->x = extent_of(*operands[0]);
    c->w = extent_of(*operands[1]);
    c->y = extent_of(*operands[2]);
    const int64_t rank = get<int64_t>(*how, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS);
    for (int i = 0; i < 3; i++) {
        if (operands[i]->attributes.at(CUDNN_ATTR_TENSOR_DIMENSIONS).count != rank + 2)
            return fail(CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH, "an operand has another rank");
        d.uid[i] = operands[i]->uid[0];
        d.alignment[i] = operands[i]->alignment[0];
    }
    if (d.uid[0] == d.uid[1] || d.uid[1] == d.uid[2] || d.uid[0] == d.uid[2])
        return fail(CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES, "two operands have the same unique id");
    read_convolution(*how, *c);
    c->alpha = get<float>(d, names.alpha);
    c->beta = get<float>(d, names.beta);
    if (const char *wrong = mismatch(*c))
        return fail(CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH, wrong);
    d.work = c;
    return CUDNN_STATUS_SUCCESS;
}

void inherit(descriptor &d, const descriptor &from)
{
    d.work = from.work;
    d.handle = from.handle;
    d.uses = from.uses;
    memcpy(d.uid, from.uid, sizeof d.uid);
    memcpy(d.alignment, from.alignment, sizeof d.alignment);
}

cudnnStatus_t finalize_graph(descriptor &d)
{
    const auto *operation = as_descriptor(get<cudnnBackendDescriptor_t>(d, CUDNN_ATTR_OPERATIONGRAPH_OPS), "graph");
    if (!operation->finalized || operation->work == nullptr)
        return fail(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "the operation is not finalized");
    inherit(d, *operation);
    d.handle = get<cudnnHandle_t>(d, CUDNN_ATTR_OPERATIONGRAPH_HANDLE);
    return handles.count(d.handle) ? CUDNN_STATUS_SUCCESS : fail(CUDNN_STATUS_BAD_PARAM, "the handle is not there");
}

cudnnStatus_t finalize_heuristics(descriptor &d)
{
    const descriptor *graph = child(d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    if (graph == nullptr)
        return fail(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "the graph is not finalized");
    inherit(d, *graph);
    return CUDNN_STATUS_SUCCESS;
}

/* As the real one: no weight gradient in float of operands in bfloat16. */
bool supported(const convolution &c)
{
    return c.x.type == c.w.type && c.w.type == c.y.type;
}

cudnnStatus_t finalize_plan(descriptor &d)
{
    const descriptor *config = child(d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (config == nullptr)
        return fail(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "the configuration is not finalized");
    inherit(d, *config);
    if (d.handle != get<cudnnHandle_t>(d, CUDNN_ATTR_EXECUTION_PLAN_HANDLE))
        return fail(CUDNN_STATUS_BAD_PARAM, "the graph has another handle");
    return d.uses->fails ? fail(CUDNN_STATUS_NOT_SUPPORTED_ARCH_MISMATCH, "this engine never fits")
                         : CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t finalize(descriptor &d)
{
    static const operation_names forward = {direction::forward,
                                            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                                            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                                            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                                            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                                            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                                            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
    static const operation_names data = {direction::data,
                                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
    static const operation_names weights = {direction::weights,
                                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
    for (const rule &r : rules.at(d.type)) {
        if (r.required && d.attributes.count(r.name) == 0)
            return fail(CUDNN_STATUS_BAD_PARAM, "attribute " + std::to_string(r.name) + " is not set");
    }
    switch (d.type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR:
        return finalize_tensor(d);
    case CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR:
        return finalize_convolution(d);
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
        return finalize_operation(d, forward);
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
        return finalize_operation(d, data);
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
        return finalize_operation(d, weights);
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
        return finalize_graph(d);
    case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR:
        return finalize_heuristics(d);
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
        return finalize_plan(d);
    case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR:
        if (d.attributes.at(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS).count !=
            d.attributes.at(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS).count)
            return fail(CUDNN_STATUS_BAD_PARAM, "as many pointers as unique ids are wanted");
        return CUDNN_STATUS_SUCCESS;
    default:
        return fail(CUDNN_STATUS_NOT_SUPPORTED, "this one is finalized by who makes it");
    }
}

/* ---- what is asked ---- */

/* Fills a descriptor that the caller has created for it. */
cudnnStatus_t answer(cudnnBackendDescriptor_t to, cudnnBackendDescriptorType_t type, const descriptor &from,
                     const engine *uses)
{
    descriptor *d = as_descriptor(to, "cudnnBackendGetAttribute");
    if (d->type != type)
        return fail(CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE, "the array holds descriptors of another type");
    inherit(*d, from);
    d->uses = uses;
    d->finalized = true;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t propose(const descriptor &d, int64_t limit, int64_t *count, void *array)
{
    const bool fallback = get<cudnnBackendHeurMode_t>(d, CUDNN_ATTR_ENGINEHEUR_MODE) == CUDNN_HEUR_MODE_FALLBACK;
    *count = 0;
    if (!supported(*d.work))
        return CUDNN_STATUS_SUCCESS;
    for (const engine &e : engines) {
        if (e.fallback != fallback || *count == limit)
            continue;
        const cudnnStatus_t status =
            answer(static_cast<cudnnBackendDescriptor_t *>(array)[*count], CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, d, &e);
        if (status != CUDNN_STATUS_SUCCESS)
            return status;
        ++*count;
    }
    return CUDNN_STATUS_SUCCESS;
}

template <class T> cudnnStatus_t copy_out(const std::vector<T> &values, int64_t limit, int64_t *count, void *array)
{
    *count = (int64_t)values.size();
    for (int64_t i = 0; i < *count && i < limit; i++)
        static_cast<T *>(array)[i] = values[(size_t)i];
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t answer_attribute(const descriptor &d, int name, cudnnBackendAttributeType_t type, int64_t limit,
                               int64_t *count, void *array)
{
    const auto is = [&](cudnnBackendDescriptorType_t of, int asked, cudnnBackendAttributeType_t with) {
        return d.type == of && name == asked && type == with;
    };
    if (is(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR))
        return propose(d, limit, count, array);
    if (is(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR)) {
        *count = 1;
        return answer(*static_cast<cudnnBackendDescriptor_t *>(array), CUDNN_BACKEND_ENGINE_DESCRIPTOR, d, d.uses);
    }
    if (is(CUDNN_BACKEND_ENGINE_DESCRIPTOR, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64))
        return copy_out(std::vector<int64_t>{d.uses->number}, limit, count, array);
    if (is(CUDNN_BACKEND_ENGINE_DESCRIPTOR, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE))
        return copy_out(d.uses->notes, limit, count, array);
    if (is(CUDNN_BACKEND_ENGINE_DESCRIPTOR, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE))
        return copy_out(d.uses->habits, limit, count, array);
    if (is(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64))
        return copy_out(std::vector<int64_t>{(int64_t)d.uses->workspace(*d.work)}, limit, count, array);
    return fail(CUDNN_STATUS_NOT_SUPPORTED, "this attribute is not emulated");
}

} // namespace

/* ---- the calls ---- */

extern "C" {

size_t cudnnGetVersion(void)
{
    return CUDNN_VERSION;
}

const char *cudnnGetErrorString(cudnnStatus_t status)
{
    static thread_local char text[48];
    if (status == CUDNN_STATUS_SUCCESS)
        return "CUDNN_STATUS_SUCCESS";
    snprintf(text, sizeof text, "CUDNN_STATUS_%d", (int)status);
    return text;
}

void cudnnGetLastErrorString(char *message, size_t max_size)
{
    snprintf(message, max_size, "%s", last_text.c_str());
    last_text.clear();
}

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle)
{
    const api_call call("cudnnCreate");
    *handle = new cudnnContext{nullptr};
    handles.insert(*handle);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle)
{
    const api_call call("cudnnDestroy");
    if (handles.erase(handle) == 0)
        die("cudnnDestroy: the handle %p is not there", (void *)handle);
    delete handle;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream)
{
    const api_call call("cudnnSetStream");
    if (handles.count(handle) == 0)
        die("cudnnSetStream: the handle %p is not there", (void *)handle);
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *out)
{
    const api_call call("cudnnBackendCreateDescriptor");
    if (rules.count(type) == 0)
        return fail(CUDNN_STATUS_NOT_SUPPORTED, "this type of descriptor is not emulated");
    auto *d = new descriptor;
    d->type = type;
    descriptors.insert(d);
    *out = d;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor)
{
    const api_call call("cudnnBackendDestroyDescriptor");
    auto *d = as_descriptor(descriptor, "cudnnBackendDestroyDescriptor");
    descriptors.erase(d);
    delete d;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count, const void *elements)
{
    const api_call call("cudnnBackendSetAttribute");
    auto *d = as_descriptor(descriptor, "cudnnBackendSetAttribute");
    if (d->finalized)
        return fail(CUDNN_STATUS_NOT_INITIALIZED, "the descriptor is finalized");
    for (const rule &r : rules.at(d->type)) {
        if (r.name != (int)name)
            continue;
        if (r.type != type)
            return fail(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "the attribute has another type");
        if (count < r.least || count > r.most || elements == nullptr)
            return fail(CUDNN_STATUS_BAD_PARAM_OUT_OF_BOUND, "the attribute has another number of elements");
        const char *bytes = static_cast<const char *>(elements);
        d->attributes[name] = {type, count, {bytes, bytes + (size_t)count * size_of(type)}};
        return CUDNN_STATUS_SUCCESS;
    }
    return fail(CUDNN_STATUS_BAD_PARAM, "the descriptor has no attribute " + std::to_string((int)name));
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t requested, int64_t *count,
                                       void *elements)
{
    const api_call call("cudnnBackendGetAttribute");
    const auto *d = as_descriptor(descriptor, "cudnnBackendGetAttribute");
    if (!d->finalized)
        return fail(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "the descriptor is not finalized");
    return answer_attribute(*d, name, type, requested, count, elements);
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor)
{
    const api_call call("cudnnBackendFinalize");
    auto *d = as_descriptor(descriptor, "cudnnBackendFinalize");
    if (d->finalized)
        return fail(CUDNN_STATUS_BAD_PARAM, "the descriptor is finalized");
    if (d->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)
        require_no_capture("cudnnBackendFinalize");
    const cudnnStatus_t status = finalize(*d);
    d->finalized = status == CUDNN_STATUS_SUCCESS;
    return status;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan_descriptor,
                                  cudnnBackendDescriptor_t pack_descriptor)
{
    const api_call call("cudnnBackendExecute");
    const auto *plan = as_descriptor(plan_descriptor, "cudnnBackendExecute");
    const auto *pack = as_descriptor(pack_descriptor, "cudnnBackendExecute");
    if (!plan->finalized || plan->type != CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR || !pack->finalized ||
        pack->type != CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)
        return fail(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "a plan and a variant pack are wanted");
    if (handle != plan->handle)
        return fail(CUDNN_STATUS_BAD_PARAM, "the plan has another handle");
    static const char *const names[] = {"x", "w", "y"};
    const convolution &c = *plan->work;
    const extent *extents[] = {&c.x, &c.w, &c.y};
    void *pointers[3] = {};
    for (int i = 0; i < 3; i++) {
        const int64_t n = pack->attributes.at(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS).count;
        for (int64_t k = 0; k < n; k++) {
            if (get<int64_t>(*pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, k) == plan->uid[i])
                pointers[i] = get<void *>(*pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, k);
        }
        if (pointers[i] == nullptr)
            return fail(CUDNN_STATUS_BAD_PARAM, std::string("there is no pointer for ") + names[i]);
        require_device_memory(pointers[i], (size_t)extents[i]->span() * bytes_of(extents[i]->type),
                              "cudnnBackendExecute", names[i]);
        if ((uintptr_t)pointers[i] % (uintptr_t)plan->alignment[i] != 0)
            die("cudnnBackendExecute: %s is not aligned as its descriptor says", names[i]);
    }
    const size_t bytes = plan->uses->workspace(c);
    void *workspace = pack->attributes.count(CUDNN_ATTR_VARIANT_PACK_WORKSPACE)
                          ? get<void *>(*pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE)
                          : nullptr;
    if (bytes > 0)
        require_device_memory(workspace, bytes, "cudnnBackendExecute", "workspace");
    const auto run = [work = plan->work, kind = plan->uses->kind, x = pointers[0], w = pointers[1], y = pointers[2],
                      workspace, bytes] {
        spoil(workspace, bytes);
        convolve(*work, kind, x, w, y);
        spoil(workspace, bytes);
    };
    return enqueue(handle->stream, "cudnnBackendExecute", run) == cudaSuccess
               ? CUDNN_STATUS_SUCCESS
               : fail(CUDNN_STATUS_EXECUTION_FAILED, "the stream takes no work");
}
}
