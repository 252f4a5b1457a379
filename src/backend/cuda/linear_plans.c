#include "backend/cuda/linear_plans.h"

#include "kernels.h"

#include <cublasLt.h>
#include <stdint.h>
#include <stdlib.h>

enum { ALIGNMENT = 16 };

struct dc_linear_plan {
    const dc_linear_plans *owner;
    dc_linear_shape shape;
    dc_linear_direction direction;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c; /* c: of the result, too */
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace_bytes;
};

struct dc_linear_plans {
    cublasLtHandle_t handle;
    size_t workspace_limit;
    int n, capacity;
    dc_linear_plan **plans;
};

static dc_status failed(const dc_linear_plan *plan, cublasStatus_t status)
{
    static const char *const directions[DC_LINEAR_DIRECTIONS] = {"forward", "data gradient", "added data gradient",
                                                                 "weight gradient"};
    const dc_linear_shape *s = &plan->shape;
    return dc_fail(DC_ERR_DEVICE, "cuBLASLt, %s of a linear layer of %d features to %d for %d images: %s",
                   directions[plan->direction], s->features, s->out, s->blocks * DCK_LANES,
                   cublasLtGetStatusString(status));
}

#define TRY_BLAS(plan, expression)                                                                                     \
    do {                                                                                                               \
        cublasStatus_t try_status_ = (expression);                                                                     \
        if (try_status_ != CUBLAS_STATUS_SUCCESS)                                                                      \
            return failed(plan, try_status_);                                                                          \
    } while (0)

/* A matrix stored by columns without gaps. */
static dc_status describe(const dc_linear_plan *plan, cudaDataType_t type, int rows, int columns, int batch,
                          size_t stride, cublasLtMatrixLayout_t *layout)
{
    const int32_t count = batch;
    const int64_t offset = (int64_t)stride;
    TRY_BLAS(plan, cublasLtMatrixLayoutCreate(layout, type, (uint64_t)rows, (uint64_t)columns, rows));
    TRY_BLAS(plan, cublasLtMatrixLayoutSetAttribute(*layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count));
    TRY_BLAS(plan, cublasLtMatrixLayoutSetAttribute(*layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &offset,
                                                    sizeof offset));
    return DC_OK;
}

static dc_status describe_product(dc_linear_plan *plan)
{
    const dc_linear_shape *s = &plan->shape;
    const cudaDataType_t type = s->precision == DC_PRECISION_BF16 ? CUDA_R_16BF : CUDA_R_32F;
    const cublasComputeType_t compute =
        s->precision == DC_PRECISION_TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    const int f = s->features, out = s->out, n = s->blocks;
    cublasOperation_t of_a = CUBLAS_OP_N, of_b = CUBLAS_OP_N;
    switch (plan->direction) {
    case DC_LINEAR_FORWARD:
        DC_TRY(describe(plan, type, DCK_LANES, f, n, s->x_stride, &plan->a));
        DC_TRY(describe(plan, type, f, out, n, 0, &plan->b));
        DC_TRY(describe(plan, type, DCK_LANES, out, n, s->y_stride, &plan->c));
        break;
    case DC_LINEAR_WEIGHTS:
        of_a = CUBLAS_OP_T;
        DC_TRY(describe(plan, type, DCK_LANES, f, 1, 0, &plan->a));
        DC_TRY(describe(plan, type, DCK_LANES, out, 1, 0, &plan->b));
        DC_TRY(describe(plan, CUDA_R_32F, f, out, 1, 0, &plan->c));
        break;
    default:
        of_b = CUBLAS_OP_T;
        DC_TRY(describe(plan, type, DCK_LANES, out, n, s->y_stride, &plan->a));
        DC_TRY(describe(plan, type, f, out, n, 0, &plan->b));
        DC_TRY(describe(plan, type, DCK_LANES, f, n, s->x_stride, &plan->c));
        break;
    }
    TRY_BLAS(plan, cublasLtMatmulDescCreate(&plan->product, compute, CUDA_R_32F));
    TRY_BLAS(plan, cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSA, &of_a, sizeof of_a));
    TRY_BLAS(plan, cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSB, &of_b, sizeof of_b));
    return DC_OK;
}

static dc_status ask(dc_linear_plan *plan, cublasLtMatmulPreference_t preference)
{
    static const cublasLtMatmulPreferenceAttributes_t alignments[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    const dc_linear_plans *plans = plan->owner;
    const uint64_t limit = plans->workspace_limit;
    const uint32_t alignment = ALIGNMENT;
    TRY_BLAS(plan, cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &limit,
                                                        sizeof limit));
    for (int i = 0; i < 4; i++)
        TRY_BLAS(plan, cublasLtMatmulPreferenceSetAttribute(preference, alignments[i], &alignment, sizeof alignment));
    cublasLtMatmulHeuristicResult_t best;
    int n = 0;
    TRY_BLAS(plan, cublasLtMatmulAlgoGetHeuristic(plans->handle, plan->product, plan->a, plan->b, plan->c, plan->c,
                                                  preference, 1, &best, &n));
    if (n == 0)
        return failed(plan, CUBLAS_STATUS_NOT_SUPPORTED);
    TRY_BLAS(plan, best.state);
    plan->algorithm = best.algo;
    plan->workspace_bytes = best.workspaceSize;
    return DC_OK;
}

static dc_status choose(dc_linear_plan *plan)
{
    DC_TRY(describe_product(plan));
    cublasLtMatmulPreference_t preference;
    TRY_BLAS(plan, cublasLtMatmulPreferenceCreate(&preference));
    dc_status status = ask(plan, preference);
    cublasLtMatmulPreferenceDestroy(preference);
    return status;
}

static void plan_destroy(dc_linear_plan *plan)
{
    const cublasLtMatrixLayout_t layouts[] = {plan->a, plan->b, plan->c};
    for (int i = 0; i < 3; i++)
        if (layouts[i])
            cublasLtMatrixLayoutDestroy(layouts[i]);
    if (plan->product)
        cublasLtMatmulDescDestroy(plan->product);
    free(plan);
}

dc_status dc_linear_plan_execute(const dc_linear_plan *plan, cudaStream_t stream, void *x, void *w, void *y,
                                 void *workspace, size_t workspace_bytes)
{
    if (workspace_bytes < plan->workspace_bytes)
        return dc_fail(DC_ERR_INTERNAL, "a linear layer has %zu bytes of workspace, its plan asks for %zu",
                       workspace_bytes, plan->workspace_bytes);
    const dc_linear_shape *s = &plan->shape;
    const size_t element = s->precision == DC_PRECISION_BF16 ? 2 : 4;
    const bool weights = plan->direction == DC_LINEAR_WEIGHTS, forward = plan->direction == DC_LINEAR_FORWARD;
    const char *a = forward || weights ? x : y, *b = weights ? y : w;
    char *c = forward ? y : weights ? w : x;
    const float alpha = 1;
    for (int i = 0; i < (weights ? s->blocks : 1); i++) {
        const float beta = plan->direction == DC_LINEAR_DATA_ADD || i > 0;
        TRY_BLAS(plan, cublasLtMatmul(plan->owner->handle, plan->product, &alpha, a + (size_t)i * s->x_stride * element,
                                      plan->a, b + (size_t)i * s->y_stride * element, plan->b, &beta, c, plan->c, c,
                                      plan->c, &plan->algorithm, workspace, plan->workspace_bytes, stream));
    }
    return DC_OK;
}

/* ---- the cache ---- */

static bool same_shape(const dc_linear_shape *a, const dc_linear_shape *b)
{
    return a->features == b->features && a->out == b->out && a->blocks == b->blocks && a->x_stride == b->x_stride &&
           a->y_stride == b->y_stride && a->precision == b->precision;
}

dc_status dc_linear_plans_get(dc_linear_plans *plans, const dc_linear_shape *shape, dc_linear_direction direction,
                              const dc_linear_plan **plan)
{
    for (int i = 0; i < plans->n; i++) {
        *plan = plans->plans[i];
        if ((*plan)->direction == direction && same_shape(&(*plan)->shape, shape))
            return DC_OK;
    }
    *plan = NULL;
    if (plans->n == plans->capacity) {
        const int capacity = plans->capacity ? 2 * plans->capacity : 8;
        dc_linear_plan **grown = dc_realloc(plans->plans, (size_t)capacity * sizeof(dc_linear_plan *));
        if (!grown)
            return DC_ERR_MEMORY;
        plans->plans = grown;
        plans->capacity = capacity;
    }
    dc_linear_plan *made = dc_alloc_zeroed(sizeof *made);
    if (!made)
        return DC_ERR_MEMORY;
    made->owner = plans;
    made->shape = *shape;
    made->direction = direction;
    dc_status status = choose(made);
    if (status != DC_OK) {
        plan_destroy(made);
        return status;
    }
    plans->plans[plans->n++] = made;
    *plan = made;
    return DC_OK;
}

dc_status dc_linear_plans_create(size_t workspace_limit, dc_linear_plans **plans)
{
    *plans = NULL;
    dc_linear_plans *made = dc_alloc_zeroed(sizeof *made);
    if (!made)
        return DC_ERR_MEMORY;
    made->workspace_limit = workspace_limit;
    cublasStatus_t status = cublasLtCreate(&made->handle);
    if (status != CUBLAS_STATUS_SUCCESS) {
        free(made);
        return dc_fail(DC_ERR_DEVICE, "cuBLASLt cannot be used: %s", cublasLtGetStatusString(status));
    }
    *plans = made;
    return DC_OK;
}

void dc_linear_plans_destroy(dc_linear_plans *plans)
{
    if (!plans)
        return;
    for (int i = 0; i < plans->n; i++)
        plan_destroy(plans->plans[i]);
    free(plans->plans);
    cublasLtDestroy(plans->handle);
    free(plans);
}

size_t dc_linear_plan_workspace_bytes(const dc_linear_plan *plan)
{
    return plan->workspace_bytes;
}
