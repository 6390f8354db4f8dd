// Attention without the N×M scores in memory, by tensor cores, where there is no cuDNN or where cuDNN refuses:
// softmax(q kᵀ / √d) v for f16 and bf16 (Dao, "FlashAttention-2", algorithm 1).
//
// A block has 64 queries of one head, 16 for each of its 4 warps, and takes 64 keys at a time. The scores of these stay in
// registers, where the results of one product are the factors of the next: see the fragments of mma.m16n8k16 in NVIDIA's PTX
// ISA. In a fragment, lane l has the rows l/4 and l/4 + 8, and the columns 2(l%4) and 2(l%4) + 1 of every 8.
#include "common.cuh"

constexpr int QUERIES = 64, KEYS = 64, THREADS = 128;
// Numbers after each row in shared memory, so that the rows of a fragment lie in different banks.
constexpr int GAP = 8;

template <typename T> __device__ __forceinline__ uint32_t pack(float low, float high);
template <> __device__ __forceinline__ uint32_t pack<f16>(float low, float high) {
    __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&pair);
}
template <> __device__ __forceinline__ uint32_t pack<bf16>(float low, float high) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&pair);
}

// c += a b, with a (16, 16) in rows and b (16, 8) in columns.
template <typename T> __device__ __forceinline__ void multiply(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1);
template <> __device__ __forceinline__ void multiply<f16>(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <> __device__ __forceinline__ void multiply<bf16>(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two numbers that lie beside each other.
template <typename T> __device__ __forceinline__ uint32_t pair(const T *p) { return *reinterpret_cast<const uint32_t *>(p); }

// Strides of q, k, v in numbers: of a sample, of a head, of a token. Features lie beside each other, and every row starts at
// a multiple of 16 bytes.
struct Strides {
    int64_t sample, head, token;
};

// The largest and the sum over the 4 lanes that share a row.
__device__ __forceinline__ float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}
__device__ __forceinline__ float row_sum(float x) {
    x += __shfl_xor_sync(0xffffffff, x, 1);
    return x + __shfl_xor_sync(0xffffffff, x, 2);
}

// `D` is the first of `SIZES` in flash.rs that is at least d; the features from d on are zeros. The result o is
// (B, N, heads, d).
template <typename T, int D>
__device__ void attention(const T *q, const T *k, const T *v, T *o, Strides of_q, Strides of_k, Strides of_v, int n, int m,
                          int heads, int d, float scale, int causal) {
    // Aligned for the stores of vectors: T alone asks for 2 bytes.
    __shared__ alignas(16) T keys[KEYS][D + GAP];
    __shared__ alignas(16) T values[D][KEYS + GAP];
    int head = blockIdx.y % heads, sample = blockIdx.y / heads, first = blockIdx.x * QUERIES;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = lane / 4, column = lane % 4 * 2;
    q += sample * of_q.sample + head * of_q.head;
    k += sample * of_k.sample + head * of_k.head;
    v += sample * of_v.sample + head * of_v.head;
    const T zero = T(0.0f);

    // The queries of this warp as factors. They pass through shared memory, where keys come later.
    for (int i = threadIdx.x; i < QUERIES * (D / 8); i += THREADS) {
        int token = i / (D / 8), feature = i % (D / 8) * 8;
        Vector<T, 8> numbers;
        for (int j = 0; j < 8; j++)
            numbers.numbers[j] = zero;
        if (first + token < n && feature < d)
            numbers = load<T, 8>(q + (first + token) * of_q.token + feature);
        store<T, 8>(&keys[token][feature], numbers);
    }
    __syncthreads();
    uint32_t factors[D / 16][4];
    for (int i = 0; i < D / 16; i++) {
        const T *at = &keys[warp * 16 + row][i * 16 + column];
        factors[i][0] = pair(at);
        factors[i][1] = pair(at + 8 * (D + GAP));
        factors[i][2] = pair(at + 8);
        factors[i][3] = pair(at + 8 * (D + GAP) + 8);
    }

    float result[D / 8][4] = {}, largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
    int last = causal ? min(m, first + QUERIES) : m;
    for (int start = 0; start < last; start += KEYS) {
        __syncthreads();
        for (int i = threadIdx.x; i < KEYS * (D / 8); i += THREADS) {
            int token = i / (D / 8), feature = i % (D / 8) * 8;
            Vector<T, 8> key, value;
            for (int j = 0; j < 8; j++)
                key.numbers[j] = value.numbers[j] = zero;
            if (start + token < m && feature < d) {
                key = load<T, 8>(k + (start + token) * of_k.token + feature);
                value = load<T, 8>(v + (start + token) * of_v.token + feature);
            }
            store<T, 8>(&keys[token][feature], key);
            for (int j = 0; j < 8; j++)
                values[feature + j][token] = value.numbers[j];
        }
        __syncthreads();

        // Scores, in units in which 2 is the base of the softmax.
        float scores[KEYS / 8][4] = {};
        for (int j = 0; j < KEYS / 8; j++)
            for (int i = 0; i < D / 16; i++) {
                const T *at = &keys[j * 8 + row][i * 16 + column];
                multiply<T>(scores[j], factors[i], pair(at), pair(at + 8));
            }
        float now[2] = {largest[0], largest[1]};
        for (int j = 0; j < KEYS / 8; j++)
            for (int e = 0; e < 4; e++) {
                int key = start + j * 8 + column + e % 2, query = first + warp * 16 + row + e / 2 * 8;
                bool hidden = key >= m || (causal && key > query);
                scores[j][e] = hidden ? -INFINITY : scores[j][e] * scale;
                now[e / 2] = fmaxf(now[e / 2], scores[j][e]);
            }
        for (int r = 0; r < 2; r++) {
            now[r] = row_max(now[r]);
            // A row that has seen no key yet.
            float shrink = now[r] == -INFINITY ? 1.0f : exp2f(largest[r] - now[r]);
            largest[r] = now[r];
            sum[r] *= shrink;
            for (int i = 0; i < D / 8; i++) {
                result[i][2 * r] *= shrink;
                result[i][2 * r + 1] *= shrink;
            }
        }
        for (int j = 0; j < KEYS / 8; j++)
            for (int e = 0; e < 4; e++) {
                scores[j][e] = scores[j][e] == -INFINITY ? 0.0f : exp2f(scores[j][e] - largest[e / 2]);
                sum[e / 2] += scores[j][e];
            }
        for (int j = 0; j < KEYS / 16; j++) {
            uint32_t weights[4] = {pack<T>(scores[2 * j][0], scores[2 * j][1]), pack<T>(scores[2 * j][2], scores[2 * j][3]),
                                   pack<T>(scores[2 * j + 1][0], scores[2 * j + 1][1]),
                                   pack<T>(scores[2 * j + 1][2], scores[2 * j + 1][3])};
            for (int i = 0; i < D / 8; i++) {
                const T *at = &values[i * 8 + row][j * 16 + column];
                multiply<T>(result[i], weights, pair(at), pair(at + 8));
            }
        }
    }
    for (int r = 0; r < 2; r++) {
        float total = row_sum(sum[r]);
        int query = first + warp * 16 + row + r * 8;
        if (query >= n)
            continue;
        T *to = o + (((int64_t)sample * n + query) * heads + head) * d;
        for (int i = 0; i < D / 8; i++)
            if (i * 8 + column < d) {
                from_f32(result[i][2 * r] / total, &to[i * 8 + column]);
                from_f32(result[i][2 * r + 1] / total, &to[i * 8 + column + 1]);
            }
    }
}

#define ATTENTION(DTYPE, D)                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_##DTYPE##_##D(                                      \
        const DTYPE *q, const DTYPE *k, const DTYPE *v, DTYPE *o, int64_t q_sample, int64_t q_head, int64_t q_token,     \
        int64_t k_sample, int64_t k_head, int64_t k_token, int64_t v_sample, int64_t v_head, int64_t v_token, int n,     \
        int m, int heads, int d, float scale, int causal) {                                                             \
        attention<DTYPE, D>(q, k, v, o, {q_sample, q_head, q_token}, {k_sample, k_head, k_token},                        \
                            {v_sample, v_head, v_token}, n, m, heads, d, scale, causal);                                 \
    }
#define ATTENTIONS(DTYPE)                                                                                               \
    ATTENTION(DTYPE, 32) ATTENTION(DTYPE, 48) ATTENTION(DTYPE, 64) ATTENTION(DTYPE, 80) ATTENTION(DTYPE, 128)            \
    ATTENTION(DTYPE, 160)
ATTENTIONS(f16)
ATTENTIONS(bf16)
