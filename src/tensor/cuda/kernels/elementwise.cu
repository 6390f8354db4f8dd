// Elementwise kernels, upsampling, and sums of 2×2 pixels. A block has a row, or as many vectors as it has threads.
#include "common.cuh"

// Gated GELU of rows (2d): the first half times the GELU of the second.
template <typename T, int V> __device__ void geglu(const T *x, T *y, int d) {
    x += (size_t)blockIdx.x * 2 * d;
    y += (size_t)blockIdx.x * d;
    for (int i = threadIdx.x * V; i < d; i += blockDim.x * V) {
        Vector<T, V> value = load<T, V>(x + i), gate = load<T, V>(x + d + i);
        for (int j = 0; j < V; j++)
            value.set(j, value[j] * gate[j] * normal_cdf(gate[j]));
        store<T, V>(y + i, value);
    }
}

template <typename T, int V> __device__ void geglu_vjp(const T *x, const T *dy, T *dx, int d) {
    x += (size_t)blockIdx.x * 2 * d;
    dx += (size_t)blockIdx.x * 2 * d;
    dy += (size_t)blockIdx.x * d;
    for (int i = threadIdx.x * V; i < d; i += blockDim.x * V) {
        Vector<T, V> value = load<T, V>(x + i), gate = load<T, V>(x + d + i), g = load<T, V>(dy + i), to_value;
        for (int j = 0; j < V; j++) {
            to_value.set(j, g[j] * gate[j] * normal_cdf(gate[j]));
            gate.set(j, g[j] * value[j] * gelu_derivative(gate[j]));
        }
        store<T, V>(dx + i, to_value);
        store<T, V>(dx + d + i, gate);
    }
}

// Feature maps with channels last (B, pixels, C) plus a number for each channel of each sample (B, C). A block has a pixel.
template <typename T, int V> __device__ void add_channels(const T *x, const T *add, T *y, int pixels, int channels) {
    size_t at = ((size_t)blockIdx.y * pixels + blockIdx.x) * channels;
    add += (size_t)blockIdx.y * channels;
    for (int i = threadIdx.x * V; i < channels; i += blockDim.x * V) {
        Vector<T, V> v = load<T, V>(x + at + i), a = load<T, V>(add + i);
        for (int j = 0; j < V; j++)
            v.set(j, v[j] + a[j]);
        store<T, V>(y + at + i, v);
    }
}

// Nearest-neighbour upsampling by 2 with channels last: (B, H, W, C) → (B, 2H, 2W, C). A block has a pixel of the input.
template <typename T, int V> __device__ void double_pixels(const T *x, T *y, int width, int channels) {
    // The lines of all samples follow each other.
    size_t line = blockIdx.x / width, column = blockIdx.x % width;
    x += (size_t)blockIdx.x * channels;
    y += (4 * line * width + 2 * column) * channels;
    for (int i = threadIdx.x * V; i < channels; i += blockDim.x * V) {
        Vector<T, V> v = load<T, V>(x + i);
        for (int copy = 0; copy < 4; copy++)
            store<T, V>(y + (size_t)((copy / 2) * 2 * width + copy % 2) * channels + i, v);
    }
}

// Its VJP, the sum of every four pixels: (B, 2H, 2W, C) → (B, H, W, C). A block has a pixel of the result.
template <typename T, int V> __device__ void sum_pixels(const T *x, T *y, int width, int channels) {
    size_t line = blockIdx.x / width, column = blockIdx.x % width;
    x += (4 * line * width + 2 * column) * channels;
    y += (size_t)blockIdx.x * channels;
    for (int i = threadIdx.x * V; i < channels; i += blockDim.x * V) {
        float sum[V];
        for (int j = 0; j < V; j++)
            sum[j] = 0.0f;
        Vector<T, V> v;
        for (int copy = 0; copy < 4; copy++) {
            v = load<T, V>(x + (size_t)((copy / 2) * 2 * width + copy % 2) * channels + i);
            for (int j = 0; j < V; j++)
                sum[j] += v[j];
        }
        for (int j = 0; j < V; j++)
            v.set(j, sum[j]);
        store<T, V>(y + i, v);
    }
}

// The derivative of an activation function at x, times dy: 0 GELU, 1 x σ(1.702 x), 2 SiLU.
template <typename T, int V> __device__ void activation_vjp(const T *x, const T *dy, T *dx, int64_t n, int kind) {
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * V;
    if (i >= n)
        return;
    Vector<T, V> v = load<T, V>(x + i), g = load<T, V>(dy + i);
    for (int j = 0; j < V; j++) {
        float derivative = kind == 0 ? gelu_derivative(v[j]) : silu_derivative(kind == 1 ? 1.702f * v[j] : v[j]);
        v.set(j, g[j] * derivative);
    }
    store<T, V>(dx + i, v);
}

// Sums of two tensors: 0 a x + b y, 1 x + a (y − x), 2 (x − a y)/b.
template <typename T, int V> __device__ void mix(const T *x, const T *y, T *out, int64_t n, int kind, float a, float b) {
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * V;
    if (i >= n)
        return;
    Vector<T, V> v = load<T, V>(x + i), w = load<T, V>(y + i);
    for (int j = 0; j < V; j++)
        v.set(j, kind == 0 ? a * v[j] + b * w[j] : kind == 1 ? v[j] + a * (w[j] - v[j]) : (v[j] - a * w[j]) / b);
    store<T, V>(out + i, v);
}

// The numbers of a tensor with any strides, one after another. A block has a row: `rows` along three dimensions, of which
// `d1` and `d2` are the sizes of the second and third, and the steps from number to number along all four.
template <typename T, int V>
__device__ void strided(const T *x, T *y, int length, int d1, int d2, int64_t s0, int64_t s1, int64_t s2, int64_t s3) {
    int row = blockIdx.x;
    x += (int64_t)(row / d2 / d1) * s0 + (int64_t)(row / d2 % d1) * s1 + (int64_t)(row % d2) * s2;
    y += (size_t)row * length;
    for (int i = threadIdx.x; i < length; i += blockDim.x)
        y[i] = x[i * s3];
}

KERNELS(geglu, geglu, (const T *x, T *y, int d), (x, y, d))
KERNELS(geglu_vjp, geglu_vjp, (const T *x, const T *dy, T *dx, int d), (x, dy, dx, d))
KERNELS(add_channels, add_channels, (const T *x, const T *add, T *y, int pixels, int channels),
        (x, add, y, pixels, channels))
KERNELS(double_pixels, double_pixels, (const T *x, T *y, int width, int channels), (x, y, width, channels))
KERNELS(sum_pixels, sum_pixels, (const T *x, T *y, int width, int channels), (x, y, width, channels))
KERNELS(activation_vjp, activation_vjp, (const T *x, const T *dy, T *dx, int64_t n, int kind), (x, dy, dx, n, kind))
KERNELS(mix, mix, (const T *x, const T *y, T *out, int64_t n, int kind, float a, float b), (x, y, out, n, kind, a, b))
KERNELS(strided, strided,
        (const T *x, T *y, int length, int d1, int d2, int64_t s0, int64_t s1, int64_t s2, int64_t s3),
        (x, y, length, d1, d2, s0, s1, s2, s3))
