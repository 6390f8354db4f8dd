// What the lanes of a warp do together. warp.ptx is made from it:
//   nvcc -ptx -O1 -arch=compute_80 warp.cu
#include <cuda_bf16.h>
#include <cuda_fp16.h>

// D = A B with A (16, 16) and B (16, 8) in row-major order, by ldmatrix and mma.
extern "C" __global__ void product(const __half *a, const __half *b, float *d) {
    __shared__ __align__(16) __half held_a[16 * 16], held_b[16 * 8];
    unsigned lane = threadIdx.x;
    for (unsigned i = lane; i < 256; i += 32) held_a[i] = a[i];
    for (unsigned i = lane; i < 128; i += 32) held_b[i] = b[i];
    __syncthreads();
    unsigned ra[4], rb[2];
    unsigned at = __cvta_generic_to_shared(held_a + (lane % 16) * 16 + lane / 16 * 8);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(ra[0]), "=r"(ra[1]), "=r"(ra[2]), "=r"(ra[3]) : "r"(at));
    at = __cvta_generic_to_shared(held_b + (lane % 16) * 8);
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(rb[0]), "=r"(rb[1]) : "r"(at));
    float c[4] = {0, 0, 0, 0};
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(ra[0]), "r"(ra[1]), "r"(ra[2]), "r"(ra[3]), "r"(rb[0]), "r"(rb[1]));
    unsigned row = lane / 4, column = lane % 4 * 2;
    d[row * 8 + column] = c[0];
    d[row * 8 + column + 1] = c[1];
    d[(row + 8) * 8 + column] = c[2];
    d[(row + 8) * 8 + column + 1] = c[3];
}

// Ten words a lane.
extern "C" __global__ void lanes(int *out) {
    int lane = threadIdx.x, *o = out + 10 * lane;
    o[0] = __shfl_up_sync(~0u, lane, 3);
    o[1] = __shfl_down_sync(~0u, lane, 3);
    o[2] = __shfl_sync(~0u, lane, 5);
    o[3] = __shfl_xor_sync(~0u, lane, 1);
    o[4] = __shfl_xor_sync(~0u, lane, 3, 8);
    o[5] = __shfl_sync(~0u, lane, 2, 8);
    o[6] = __ballot_sync(~0u, lane % 3 == 0);
    o[7] = __any_sync(~0u, lane == 31) + 2 * __all_sync(~0u, lane < 31);
    o[8] = __reduce_add_sync(~0u, lane);
    o[9] = __syncthreads_count(lane < 7);
}

// Sums by asynchronous copies, vector loads and bf16 pairs.
extern "C" __global__ void pairs(const uint4 *in, __nv_bfloat162 *out) {
    __shared__ uint4 held[32];
    unsigned to = __cvta_generic_to_shared(held + threadIdx.x);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16;\ncp.async.commit_group;\ncp.async.wait_group 0;"
                 :: "r"(to), "l"(in + threadIdx.x));
    __syncthreads();
    uint4 x = held[31 - threadIdx.x];
    __nv_bfloat162 *p = reinterpret_cast<__nv_bfloat162 *>(&x);
    out[threadIdx.x] = __hadd2(__hadd2(p[0], p[1]), __hadd2(p[2], p[3]));
}
