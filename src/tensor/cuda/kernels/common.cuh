// What the kernels share: numbers of three dtypes, vectors of them, sums over a block.
//
// Every kernel computes in f32, whatever the dtype of its arguments. It exists for each dtype in two forms: `wide` reads
// vectors of 16 bytes, for rows whose address and length allow it, and `narrow` reads one number at a time.
//
// The host's i64 is int64_t: `long` has 32 bits on Windows.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

typedef __nv_bfloat16 bf16;
typedef __half f16;

__device__ __forceinline__ float to_f32(float x) { return x; }
__device__ __forceinline__ float to_f32(f16 x) { return __half2float(x); }
__device__ __forceinline__ float to_f32(bf16 x) { return __bfloat162float(x); }

__device__ __forceinline__ void from_f32(float x, float *y) { *y = x; }
__device__ __forceinline__ void from_f32(float x, f16 *y) { *y = __float2half_rn(x); }
__device__ __forceinline__ void from_f32(float x, bf16 *y) { *y = __float2bfloat16_rn(x); }

// V numbers that lie beside each other, read and written at once.
template <typename T, int V> struct alignas(sizeof(T) * V) Vector {
    T numbers[V];

    __device__ __forceinline__ float operator[](int i) const { return to_f32(numbers[i]); }
    __device__ __forceinline__ void set(int i, float x) { from_f32(x, &numbers[i]); }
};

template <typename T, int V> __device__ __forceinline__ Vector<T, V> load(const T *p) {
    return *reinterpret_cast<const Vector<T, V> *>(p);
}

template <typename T, int V> __device__ __forceinline__ void store(T *p, Vector<T, V> v) {
    *reinterpret_cast<Vector<T, V> *>(p) = v;
}

// The sum over the lanes of a warp, for each lane.
__device__ __forceinline__ float warp_sum(float x) {
    for (int apart = 16; apart > 0; apart /= 2)
        x += __shfl_xor_sync(0xffffffff, x, apart);
    return x;
}

// σ(x), x σ(x) and its derivative.
__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ float silu(float x) { return x * sigmoid(x); }
__device__ __forceinline__ float silu_derivative(float x) {
    float gate = sigmoid(x);
    return gate * (1.0f + x * (1.0f - gate));
}

// Φ(x), and the derivative of x Φ(x).
__device__ __forceinline__ float normal_cdf(float x) { return 0.5f * (1.0f + erff(x * 0.70710678f)); }
__device__ __forceinline__ float gelu_derivative(float x) {
    return normal_cdf(x) + x * expf(-0.5f * x * x) * 0.39894228f;
}

// Defines `NAME_DTYPE` and `NAME_DTYPE_wide`: KERNEL<type, numbers of a vector>(arguments). The parameters may name the
// type of numbers `T`.
#define KERNEL_OF(NAME, KERNEL, TYPE, DTYPE, PARAMETERS, ARGUMENTS)                                                     \
    namespace of_##DTYPE {                                                                                              \
    typedef TYPE T;                                                                                                     \
    extern "C" __global__ void NAME##_##DTYPE PARAMETERS { KERNEL<T, 1> ARGUMENTS; }                                    \
    extern "C" __global__ void NAME##_##DTYPE##_wide PARAMETERS { KERNEL<T, 16 / sizeof(T)> ARGUMENTS; }                \
    }
#define KERNELS(NAME, KERNEL, PARAMETERS, ARGUMENTS)                                                                    \
    KERNEL_OF(NAME, KERNEL, float, f32, PARAMETERS, ARGUMENTS)                                                          \
    KERNEL_OF(NAME, KERNEL, f16, f16, PARAMETERS, ARGUMENTS)                                                            \
    KERNEL_OF(NAME, KERNEL, bf16, bf16, PARAMETERS, ARGUMENTS)
