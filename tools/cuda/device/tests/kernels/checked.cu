// Kernels for tests/check.rs, under names of candle's.

extern "C" __global__ void fill_f32(float *buf, float value, const size_t numel) {
    for (size_t i = blockIdx.x * blockDim.x + threadIdx.x; i < numel; i += blockDim.x * gridDim.x) buf[i] = value;
}

// Leaves out the last number, which is wrong.
extern "C" __global__ void fill_u32_but_last(unsigned *buf, unsigned value, const size_t numel) {
    for (size_t i = blockIdx.x * blockDim.x + threadIdx.x; i < numel; i += blockDim.x * gridDim.x)
        buf[i] = i + 1 < numel ? value : value + 1;
}
