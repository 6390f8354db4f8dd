// Kernels with planted bugs, and some without. planted.ptx is made from it:
//   nvcc -ptx -O1 -arch=compute_80 planted.cu
#include <cassert>

extern "C" __global__ void copy(int n, const float *in, float *out) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = in[i];
}

extern "C" __global__ void copy4(const float4 *in, float4 *out) {
    out[threadIdx.x] = in[threadIdx.x];
}

// Turns a block around by shared memory.
extern "C" __global__ void reverse(float *x) {
    __shared__ float held[256];
    held[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = held[blockDim.x - 1 - threadIdx.x];
}

extern "C" __global__ void reverse_without_barrier(float *x) {
    __shared__ float held[256];
    held[threadIdx.x] = x[threadIdx.x];
    x[threadIdx.x] = held[blockDim.x - 1 - threadIdx.x];
}

// The barrier before the next write is missing.
extern "C" __global__ void rotate_without_second_barrier(float *x, int times) {
    __shared__ float held[256];
    float value = x[threadIdx.x];
    for (int i = 0; i < times; i++) {
        held[threadIdx.x] = value;
        __syncthreads();
        value = held[(threadIdx.x + 1) % blockDim.x];
    }
    x[threadIdx.x] = value;
}

// Within a warp, __syncwarp is enough.
extern "C" __global__ void reverse_warp(float *x) {
    __shared__ float held[256];
    unsigned first = threadIdx.x & ~31u, lane = threadIdx.x & 31u;
    held[threadIdx.x] = x[threadIdx.x];
    __syncwarp();
    x[threadIdx.x] = held[first + 31 - lane];
}

extern "C" __global__ void divergent(float *x) {
    if (threadIdx.x >= 16) return;
    __syncthreads();
    x[threadIdx.x] = 1;
}

extern "C" __global__ void absent_lane(float *x) {
    if (threadIdx.x >= 16) return;
    x[threadIdx.x] = __shfl_xor_sync(0xffffffff, x[threadIdx.x], 16);
}

extern "C" __global__ void warp_sum(float *x) {
    float sum = x[threadIdx.x];
    for (int by = 16; by > 0; by /= 2) sum += __shfl_xor_sync(0xffffffff, sum, by);
    x[threadIdx.x] = sum;
}

extern "C" __global__ void asserts(int n) { assert(n < 3); }

extern "C" __global__ void dynamic(float *x) {
    extern __shared__ float more[];
    more[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = more[blockDim.x - 1 - threadIdx.x];
}

extern "C" __global__ void histogram(const int *in, unsigned *bins) {
    __shared__ unsigned held[16];
    if (threadIdx.x < 16) held[threadIdx.x] = 0;
    __syncthreads();
    atomicAdd(&held[in[blockIdx.x * blockDim.x + threadIdx.x] & 15], 1u);
    __syncthreads();
    if (threadIdx.x < 16) atomicAdd(&bins[threadIdx.x], held[threadIdx.x]);
}

__device__ void copy_async(float *to, const float *from) {
    unsigned at = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(at), "l"(from) : "memory");
}
__device__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int BUT> __device__ void wait_for_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(BUT) : "memory"); }

// Turns two stages of 64 numbers by one place. The first stage is read while the second one may still be copied.
template <int BUT, bool ALL> __device__ void stages(const float *x, float *y) {
    __shared__ float held[2][64];
    int i = threadIdx.x, next = (i + 1) % 64;
    for (int stage = 0; stage < 2; stage++) {
        copy_async(&held[stage][i], x + 64 * stage + i);
        commit_copies();
    }
    wait_for_copies<BUT>();
    __syncthreads();
    y[i] = held[0][next];
    if (ALL) asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();
    y[64 + i] = held[1][next];
}
extern "C" __global__ void stages_waited(const float *x, float *y) { stages<1, true>(x, y); }
extern "C" __global__ void first_stage_not_waited(const float *x, float *y) { stages<2, true>(x, y); }
extern "C" __global__ void last_stage_not_waited(const float *x, float *y) { stages<1, false>(x, y); }

// The barrier comes before the wait, so that a thread sees its own number only. The first thread reads no other.
extern "C" __global__ void waited_after_barrier(const float *x, float *y) {
    __shared__ float held[64];
    copy_async(&held[threadIdx.x], x + threadIdx.x);
    commit_copies();
    __syncthreads();
    wait_for_copies<0>();
    y[threadIdx.x] = held[threadIdx.x ? threadIdx.x - 1 : 0];
}

// Writes over what it still copies.
extern "C" __global__ void written_over_copy(const float *x, float *y) {
    __shared__ float held[64];
    copy_async(&held[threadIdx.x], x + threadIdx.x);
    held[threadIdx.x] = 1;
    asm volatile("cp.async.wait_all;" ::: "memory");
    y[threadIdx.x] = held[threadIdx.x];
}

// Stores of 16 bytes to shared memory, and reads of each number. A single number asks for 4 bytes of alignment only.
__device__ void through_shared(float *held, const float4 *in, float *out) {
    reinterpret_cast<float4 *>(held)[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    for (int i = 0; i < 4; i++) out[threadIdx.x * 4 + i] = held[threadIdx.x * 4 + i];
}
extern "C" __global__ void vectors_in_numbers(const float4 *in, float *out) {
    __shared__ float held[128];
    through_shared(held, in, out);
}
extern "C" __global__ void vectors_in_vectors(const float4 *in, float *out) {
    __shared__ alignas(16) float held[128];
    through_shared(held, in, out);
}
extern "C" __global__ void vectors_in_dynamic(const float4 *in, float *out) {
    extern __shared__ float more[];
    through_shared(more, in, out);
}

// Has all 48 KiB that CUDA gives without asking.
extern "C" __global__ void all_shared(const float4 *in, float *out) {
    __shared__ char ones[32];
    __shared__ alignas(16) float held[12 * 1024 - 8];
    ones[threadIdx.x] = 1;
    through_shared(held, in, out);
    out[threadIdx.x * 4] += ones[31 - threadIdx.x];
}
