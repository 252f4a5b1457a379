/* cuBLASLt as far as src/backend/cuda uses it: batched products of matrices stored by columns.
 *
 * An algorithm is good for the product that it was proposed for, and no other. What the real one cannot see (a pointer
 * that is not device memory, a descriptor that is gone) ends the program here. */
#include "emulator.hpp"
#include "numbers.hpp"

#include <cublasLt.h>

#include <set>
#include <vector>

using namespace emulator;

struct cublasLtContext {
};

namespace
{

struct matrix {
    number type;
    uint64_t rows, columns;
    int64_t ld;
    int32_t batch = 1;
    int64_t stride = 0;

    size_t bytes() const /* from the first to the last */
    {
        return ((size_t)(batch - 1) * (size_t)stride + (size_t)(columns - 1) * (size_t)ld + rows) * bytes_of(type);
    }
    bool operator==(const matrix &o) const
    {
        return type == o.type && rows == o.rows && columns == o.columns && ld == o.ld && batch == o.batch &&
               stride == o.stride;
    }
};

struct product {
    bool tf32;
    cublasOperation_t of_a = CUBLAS_OP_N, of_b = CUBLAS_OP_N;
};

struct preference {
    uint64_t workspace = 0;
    uint32_t alignment[4] = {256, 256, 256, 256}; /* as the real one assumes when nothing is said */
};

/* What an algorithm holds. */
struct algorithm {
    uint64_t of;        /* fingerprint of the product */
    uint64_t workspace; /* bytes */
    uint64_t alignment; /* of all operands */
};
static_assert(sizeof(algorithm) <= sizeof(cublasLtMatmulAlgo_t), "it has to fit");

std::set<const void *> live; /* handles and descriptors */

template <class T> T *there(const void *p, const char *call)
{
    if (live.count(p) == 0)
        die("%s: the handle or descriptor %p is not there", call, p);
    return static_cast<T *>(const_cast<void *>(p));
}

template <class T> T *made(T *p)
{
    live.insert(p);
    return p;
}

template <class T> cublasStatus_t gone(const void *p, const char *call)
{
    delete there<T>(p, call);
    live.erase(p);
    return CUBLAS_STATUS_SUCCESS;
}

template <class T> cublasStatus_t set(T *to, const void *from, size_t bytes)
{
    if (bytes != sizeof *to)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, from, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

/* Rows and columns of an operand as it is multiplied. */
uint64_t rows_of(const matrix &m, cublasOperation_t of)
{
    return of == CUBLAS_OP_N ? m.rows : m.columns;
}

uint64_t columns_of(const matrix &m, cublasOperation_t of)
{
    return of == CUBLAS_OP_N ? m.columns : m.rows;
}

bool fits(const product &p, const matrix &a, const matrix &b, const matrix &c)
{
    for (const matrix *m : {&a, &b, &c}) {
        if (m->ld < (int64_t)m->rows || m->batch != c.batch || m->stride < 0)
            return false;
    }
    return a.type == b.type && (c.type == a.type || c.type == number::f32) && rows_of(a, p.of_a) == c.rows &&
           columns_of(b, p.of_b) == c.columns && columns_of(a, p.of_a) == rows_of(b, p.of_b);
}

uint64_t fingerprint(const product &p, const matrix &a, const matrix &b, const matrix &c)
{
    uint64_t h = (uint64_t)p.tf32 + 2 * (uint64_t)p.of_a + 8 * (uint64_t)p.of_b;
    for (const matrix *m : {&a, &b, &c}) {
        for (uint64_t x :
             {(uint64_t)m->type, m->rows, m->columns, (uint64_t)m->ld, (uint64_t)m->batch, (uint64_t)m->stride})
            h = (h ^ x) * 0x9e3779b97f4a7c15u;
    }
    return h;
}

void multiply(const product &p, const matrix &a, const matrix &b, const matrix &c, float alpha, const void *pa,
              const void *pb, float beta, void *pc)
{
    const auto element = [&](const matrix &m, cublasOperation_t of, const void *data, size_t batch, size_t i,
                             size_t j) {
        const size_t at = of == CUBLAS_OP_N ? i + j * (size_t)m.ld : j + i * (size_t)m.ld;
        const float x = load(data, m.type, batch * (size_t)m.stride + at);
        return (double)(p.tf32 ? to_tf32(x) : x);
    };
    const size_t depth = (size_t)columns_of(a, p.of_a);
    for (size_t n = 0; n < (size_t)c.batch; n++) {
        for (size_t j = 0; j < c.columns; j++) {
            for (size_t i = 0; i < c.rows; i++) {
                double sum = 0;
                for (size_t k = 0; k < depth; k++)
                    sum += element(a, p.of_a, pa, n, i, k) * element(b, p.of_b, pb, n, k, j);
                const size_t at = n * (size_t)c.stride + i + j * (size_t)c.ld;
                const double was = beta == 0 ? 0 : (double)beta * load(pc, c.type, at);
                store(pc, c.type, at, (float)(alpha * sum + was));
            }
        }
    }
}

} // namespace

extern "C" {
size_t cublasLtGetVersion(void)
{
    return CUBLAS_VERSION;
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "success";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "an unsupported value or parameter was passed to the function";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "the functionality requested is not supported";
    default:
        return "an error of the emulated cuBLASLt";
    }
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    const api_call call("cublasLtCreate");
    *handle = made(new cublasLtContext);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    const api_call call("cublasLtDestroy");
    return gone<cublasLtContext>(handle, "cublasLtDestroy");
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t ld)
{
    const api_call call("cublasLtMatrixLayoutCreate");
    if ((type != CUDA_R_32F && type != CUDA_R_16BF) || rows == 0 || columns == 0)
        return CUBLAS_STATUS_INVALID_VALUE;
    auto *m = made(new matrix{type == CUDA_R_32F ? number::f32 : number::bf16, rows, columns, ld});
    *layout = reinterpret_cast<cublasLtMatrixLayout_t>(m);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    const api_call call("cublasLtMatrixLayoutDestroy");
    return gone<matrix>(layout, "cublasLtMatrixLayoutDestroy");
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t name,
                                                const void *value, size_t bytes)
{
    const api_call call("cublasLtMatrixLayoutSetAttribute");
    auto *m = there<matrix>(layout, "cublasLtMatrixLayoutSetAttribute");
    switch (name) {
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        return set(&m->batch, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
        return set(&m->stride, value, bytes);
    default:
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *description, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    const api_call call("cublasLtMatmulDescCreate");
    if ((compute != CUBLAS_COMPUTE_32F && compute != CUBLAS_COMPUTE_32F_FAST_TF32) || scale != CUDA_R_32F)
        return CUBLAS_STATUS_INVALID_VALUE;
    auto *p = made(new product{compute == CUBLAS_COMPUTE_32F_FAST_TF32});
    *description = reinterpret_cast<cublasLtMatmulDesc_t>(p);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description)
{
    const api_call call("cublasLtMatmulDescDestroy");
    return gone<product>(description, "cublasLtMatmulDescDestroy");
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description, cublasLtMatmulDescAttributes_t name,
                                              const void *value, size_t bytes)
{
    const api_call call("cublasLtMatmulDescSetAttribute");
    auto *p = there<product>(description, "cublasLtMatmulDescSetAttribute");
    switch (name) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return set(&p->of_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return set(&p->of_b, value, bytes);
    default:
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out)
{
    const api_call call("cublasLtMatmulPreferenceCreate");
    *out = reinterpret_cast<cublasLtMatmulPreference_t>(made(new preference));
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
    const api_call call("cublasLtMatmulPreferenceDestroy");
    return gone<preference>(p, "cublasLtMatmulPreferenceDestroy");
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t to,
                                                    cublasLtMatmulPreferenceAttributes_t name, const void *value,
                                                    size_t bytes)
{
    const api_call call("cublasLtMatmulPreferenceSetAttribute");
    auto *p = there<preference>(to, "cublasLtMatmulPreferenceSetAttribute");
    switch (name) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return set(&p->workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
        return set(&p->alignment[0], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
        return set(&p->alignment[1], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
        return set(&p->alignment[2], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return set(&p->alignment[3], value, bytes);
    default:
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

/* One algorithm for each size of workspace that is allowed, the hungriest first. */
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t description,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t wanted, int limit,
                                              cublasLtMatmulHeuristicResult_t results[], int *count)
{
    static const char name[] = "cublasLtMatmulAlgoGetHeuristic";
    const api_call call(name);
    require_no_capture(name);
    there<cublasLtContext>(handle, name);
    const auto &p = *there<product>(description, name);
    const auto &ma = *there<matrix>(a, name), &mb = *there<matrix>(b, name), &mc = *there<matrix>(c, name);
    const auto &preferred = *there<preference>(wanted, name);
    *count = 0;
    if (!(mc == *there<matrix>(d, name)) || !fits(p, ma, mb, mc))
        return CUBLAS_STATUS_INVALID_VALUE;
    uint32_t alignment = 256;
    for (uint32_t one : preferred.alignment)
        alignment = one < alignment ? one : alignment;
    for (uint64_t workspace : {(uint64_t)4 * 1024 * 1024, (uint64_t)2064, (uint64_t)0}) {
        if (workspace > preferred.workspace || *count == limit)
            continue;
        const algorithm chosen = {fingerprint(p, ma, mb, mc), workspace, alignment};
        cublasLtMatmulHeuristicResult_t *r = &results[(*count)++];
        *r = {};
        memcpy(&r->algo, &chosen, sizeof chosen);
        r->workspaceSize = (size_t)workspace;
        r->state = CUBLAS_STATUS_SUCCESS;
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t description, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t la, const void *b, cublasLtMatrixLayout_t lb,
                              const void *beta, const void *c, cublasLtMatrixLayout_t lc, void *d,
                              cublasLtMatrixLayout_t ld, const cublasLtMatmulAlgo_t *algo, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream)
{
    static const char name[] = "cublasLtMatmul";
    const api_call call(name);
    there<cublasLtContext>(handle, name);
    const product p = *there<product>(description, name);
    const matrix ma = *there<matrix>(la, name), mb = *there<matrix>(lb, name), mc = *there<matrix>(lc, name);
    if (!(mc == *there<matrix>(ld, name)) || c != d || !fits(p, ma, mb, mc) || algo == nullptr)
        return CUBLAS_STATUS_INVALID_VALUE;
    algorithm chosen;
    memcpy(&chosen, algo, sizeof chosen);
    if (chosen.of != fingerprint(p, ma, mb, mc) || workspace_bytes < chosen.workspace)
        return CUBLAS_STATUS_INVALID_VALUE;
    const struct {
        const void *data;
        size_t bytes;
        const char *name;
    } operands[] = {{a, ma.bytes(), "A"}, {b, mb.bytes(), "B"}, {d, mc.bytes(), "C"}};
    for (const auto &o : operands) {
        require_device_memory(o.data, o.bytes, name, o.name);
        if ((uintptr_t)o.data % chosen.alignment != 0)
            die("%s: %s is not aligned as was said when the algorithm was asked for", name, o.name);
    }
    if (chosen.workspace > 0)
        require_device_memory(workspace, chosen.workspace, name, "workspace");
    const float by = *static_cast<const float *>(alpha), add = *static_cast<const float *>(beta);
    const auto run = [=] {
        spoil(workspace, chosen.workspace);
        multiply(p, ma, mb, mc, by, a, b, add, d);
        spoil(workspace, chosen.workspace);
    };
    return enqueue(stream, name, run) == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
}
