/* What a job takes of the GPU's memory beside arenas and parameters, known before its first step. */
#include "backend/cuda/cuda_internal.h"

/* Tables of segments, scratch of norms, and other small things. */
static const size_t SMALL_BYTES = (size_t)1 << 20;

/* Elements from one block of images to the next; an input of the graph lies by itself. */
static size_t stride_of(const dc_plan *plan, int node, dc_place place)
{
    const dc_shape s = plan->graph->nodes[node].shape;
    const int channels = place.offset_bytes == SIZE_MAX ? s.c : place.storage_channels;
    return (size_t)channels * (size_t)s.h * (size_t)s.w * DCK_LANES;
}

static dc_status conv_bytes(dc_cuda_backend *b, const dc_plan *plan, int id, size_t *bytes)
{
    const dc_plan_node *node = &plan->nodes[id];
    const int x = node->sources[0];
    const dc_cuda_use use = {.x_stride = stride_of(plan, x, plan->nodes[x].value),
                             .y_stride = stride_of(plan, id, node->value),
                             .dx_stride = stride_of(plan, x, plan->nodes[x].grad),
                             .dy_stride = stride_of(plan, id, node->grad),
                             .training = plan->training && node->needs_grad,
                             .wants = plan->training && node->needs_grad && node->wants[0],
                             .adds = plan->training && node->accumulate[0]};
    dc_kernel kernel;
    dc_kernel_describe(plan->graph, id, plan->batch, node->relu_input, &kernel);
    return dc_cuda_conv_workspace(b, &kernel, &use, bytes);
}

dc_status dc_cuda_step_bytes(dc_backend *backend, const dc_plan *plan, size_t *bytes)
{
    dc_cuda_backend *b = cuda_of(backend);
    size_t workspace = 0;
    for (int i = 0; i < plan->graph->n_nodes; i++) {
        const dc_op op = plan->graph->nodes[i].op;
        size_t of_node = op == DC_OP_LINEAR ? DC_CUDA_LINEAR_WORKSPACE : 0;
        if (op == DC_OP_CONV && plan->nodes[i].active)
            DC_TRY(conv_bytes(b, plan, i, &of_node));
        workspace = of_node > workspace ? of_node : workspace;
    }
    const dc_shape image = plan->graph->nodes[plan->graph->input].shape;
    *bytes = workspace + dc_cuda_batch_bytes(&backend->layout, image, plan->batch) + SMALL_BYTES;
    return DC_OK;
}

dc_status dc_cuda_memory(dc_backend *backend, size_t *free_bytes, size_t *total_bytes)
{
    *free_bytes = *total_bytes = cuda_of(backend)->described_bytes;
    if (*total_bytes == 0)
        DC_CUDA_TRY(cudaMemGetInfo(free_bytes, total_bytes));
    return DC_OK;
}
