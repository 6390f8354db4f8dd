// Group norm of feature maps with channels last, (B, pixels, C), and its VJP. G groups have C/G channels each.
//
// Three kernels: sums over some pixels (one block of `chunk` pixels each), moments from all sums, and the result. A thread
// has V channels that lie beside each other; the threads of a block form `rows` rows, and each row has a pixel at a time.
#include "common.cuh"

// The sums of two numbers for each group over the pixels of a block. `shared` has 2·rows·C numbers, and each thread gives
// its V pairs.
template <int V>
__device__ void sum_groups(const float *first, const float *second, float *sums, int channels, int groups) {
    extern __shared__ float shared[];
    int vectors = channels / V, vector = threadIdx.x % vectors, row = threadIdx.x / vectors, rows = blockDim.x / vectors;
    float *firsts = shared, *seconds = shared + rows * channels;
    for (int j = 0; j < V; j++) {
        firsts[row * channels + vector * V + j] = first[j];
        seconds[row * channels + vector * V + j] = second[j];
    }
    __syncthreads();
    int size = channels / groups;
    for (int group = threadIdx.x; group < groups; group += blockDim.x) {
        float a = 0.0f, b = 0.0f;
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < size; i++) {
                a += firsts[r * channels + group * size + i];
                b += seconds[r * channels + group * size + i];
            }
        // (B, chunks, G, 2)
        float *to = sums + (((size_t)blockIdx.y * gridDim.x + blockIdx.x) * groups + group) * 2;
        to[0] = a;
        to[1] = b;
    }
}

// Σ (x − s) and Σ (x − s)², where the shift s is the first number of the group in its sample: so the difference of the two
// in `moments` keeps its digits.
template <typename T, int V>
__device__ void sums(const T *x, float *sums, int pixels, int channels, int groups, int chunk) {
    int vectors = channels / V, vector = threadIdx.x % vectors, row = threadIdx.x / vectors, rows = blockDim.x / vectors;
    x += (size_t)blockIdx.y * pixels * channels;
    float shift[V], sum[V], squares[V];
    for (int j = 0; j < V; j++) {
        int channel = vector * V + j;
        shift[j] = to_f32(x[channel - channel % (channels / groups)]);
        sum[j] = squares[j] = 0.0f;
    }
    int end = min(pixels, (int)(blockIdx.x + 1) * chunk);
    for (int p = blockIdx.x * chunk + row; p < end; p += rows) {
        Vector<T, V> v = load<T, V>(x + (size_t)p * channels + vector * V);
        for (int j = 0; j < V; j++) {
            float off = v[j] - shift[j];
            sum[j] += off;
            squares[j] += off * off;
        }
    }
    sum_groups<V>(sum, squares, sums, channels, groups);
}

// (B, chunks, G, 2) → mean and variance (B, G, 2). A warp has a group of a sample.
template <typename T, int>
__device__ void moments(const T *x, const float *sums, float *moments, int pixels, int channels, int groups, int chunks) {
    int group = blockIdx.x, sample = blockIdx.y, size = channels / groups;
    float sum = 0.0f, squares = 0.0f;
    for (int i = threadIdx.x; i < chunks; i += 32) {
        const float *from = sums + (((size_t)sample * chunks + i) * groups + group) * 2;
        sum += from[0];
        squares += from[1];
    }
    float n = (float)pixels * size;
    sum = warp_sum(sum) / n;
    squares = warp_sum(squares) / n;
    if (threadIdx.x == 0) {
        float shift = to_f32(x[(size_t)sample * pixels * channels + group * size]);
        float *to = moments + ((size_t)sample * groups + group) * 2;
        to[0] = shift + sum;
        to[1] = fmaxf(squares - sum * sum, 0.0f);
    }
}

// y = (x − mean) · weight / √(variance + ε) + bias, then SiLU if `activate`.
template <typename T, int V>
__device__ void group_norm(const T *x, const float *moments, const T *weight, const T *bias, T *y, int pixels, int channels,
                           int groups, int chunk, float eps, int activate) {
    int vectors = channels / V, vector = threadIdx.x % vectors, row = threadIdx.x / vectors, rows = blockDim.x / vectors;
    size_t sample = (size_t)blockIdx.y * pixels * channels;
    float mean[V], scale[V], shift[V];
    for (int j = 0; j < V; j++) {
        int channel = vector * V + j, group = channel / (channels / groups);
        const float *m = moments + ((size_t)blockIdx.y * groups + group) * 2;
        mean[j] = m[0];
        scale[j] = to_f32(weight[channel]) * rsqrtf(m[1] + eps);
        shift[j] = to_f32(bias[channel]);
    }
    int end = min(pixels, (int)(blockIdx.x + 1) * chunk);
    for (int p = blockIdx.x * chunk + row; p < end; p += rows) {
        size_t at = sample + (size_t)p * channels + vector * V;
        Vector<T, V> v = load<T, V>(x + at);
        for (int j = 0; j < V; j++) {
            float normal = (v[j] - mean[j]) * scale[j] + shift[j];
            v.set(j, activate ? silu(normal) : normal);
        }
        store<T, V>(y + at, v);
    }
}

// What the VJP needs of V channels: the normalised x̂, and d, the gradient of x̂.
template <typename T, int V> struct Gradient {
    float mean[V], scale[V], weight[V], bias[V];

    __device__ Gradient(const float *moments, const T *w, const T *b, int first, int channels, int groups, float eps) {
        for (int j = 0; j < V; j++) {
            int channel = first + j, group = channel / (channels / groups);
            const float *m = moments + ((size_t)blockIdx.y * groups + group) * 2;
            mean[j] = m[0];
            scale[j] = rsqrtf(m[1] + eps);
            weight[j] = to_f32(w[channel]);
            bias[j] = to_f32(b[channel]);
        }
    }

    __device__ float normal(int j, float x) const { return (x - mean[j]) * scale[j]; }

    __device__ float d(int j, float normal, float dy, int activate) const {
        return dy * weight[j] * (activate ? silu_derivative(normal * weight[j] + bias[j]) : 1.0f);
    }
};

// Σ d and Σ d x̂ for each group.
template <typename T, int V>
__device__ void vjp_sums(const T *x, const float *moments, const T *weight, const T *bias, const T *dy, float *sums,
                         int pixels, int channels, int groups, int chunk, float eps, int activate) {
    int vectors = channels / V, vector = threadIdx.x % vectors, row = threadIdx.x / vectors, rows = blockDim.x / vectors;
    size_t sample = (size_t)blockIdx.y * pixels * channels;
    Gradient<T, V> gradient(moments, weight, bias, vector * V, channels, groups, eps);
    float sum[V], along[V];
    for (int j = 0; j < V; j++)
        sum[j] = along[j] = 0.0f;
    int end = min(pixels, (int)(blockIdx.x + 1) * chunk);
    for (int p = blockIdx.x * chunk + row; p < end; p += rows) {
        size_t at = sample + (size_t)p * channels + vector * V;
        Vector<T, V> v = load<T, V>(x + at), g = load<T, V>(dy + at);
        for (int j = 0; j < V; j++) {
            float normal = gradient.normal(j, v[j]), d = gradient.d(j, normal, g[j], activate);
            sum[j] += d;
            along[j] += d * normal;
        }
    }
    sum_groups<V>(sum, along, sums, channels, groups);
}

// Sums (B, chunks, G, 2) of all chunks: (B, G, 2).
extern "C" __global__ void group_norm_vjp_total(const float *sums, float *total, int groups, int chunks) {
    int group = blockIdx.x, sample = blockIdx.y;
    float a = 0.0f, b = 0.0f;
    for (int i = threadIdx.x; i < chunks; i += 32) {
        const float *from = sums + (((size_t)sample * chunks + i) * groups + group) * 2;
        a += from[0];
        b += from[1];
    }
    a = warp_sum(a);
    b = warp_sum(b);
    if (threadIdx.x == 0) {
        float *to = total + ((size_t)sample * groups + group) * 2;
        to[0] = a;
        to[1] = b;
    }
}

// dx = (d − mean(d) − x̂ mean(d x̂)) / √(variance + ε); without `total`, where the moments are given, d / √(variance + ε).
template <typename T, int V>
__device__ void vjp(const T *x, const float *moments, const T *weight, const T *bias, const T *dy, const float *total,
                    T *dx, int pixels, int channels, int groups, int chunk, float eps, int activate) {
    int vectors = channels / V, vector = threadIdx.x % vectors, row = threadIdx.x / vectors, rows = blockDim.x / vectors;
    size_t sample = (size_t)blockIdx.y * pixels * channels;
    Gradient<T, V> gradient(moments, weight, bias, vector * V, channels, groups, eps);
    float mean[V], along[V], n = (float)pixels * (channels / groups);
    for (int j = 0; j < V; j++) {
        int group = (vector * V + j) / (channels / groups);
        const float *t = total + ((size_t)blockIdx.y * groups + group) * 2;
        mean[j] = total ? t[0] / n : 0.0f;
        along[j] = total ? t[1] / n : 0.0f;
    }
    int end = min(pixels, (int)(blockIdx.x + 1) * chunk);
    for (int p = blockIdx.x * chunk + row; p < end; p += rows) {
        size_t at = sample + (size_t)p * channels + vector * V;
        Vector<T, V> v = load<T, V>(x + at), g = load<T, V>(dy + at);
        for (int j = 0; j < V; j++) {
            float normal = gradient.normal(j, v[j]), d = gradient.d(j, normal, g[j], activate);
            v.set(j, (d - mean[j] - normal * along[j]) * gradient.scale[j]);
        }
        store<T, V>(dx + at, v);
    }
}

KERNELS(group_sums, sums, (const T *x, float *y, int pixels, int channels, int groups, int chunk),
        (x, y, pixels, channels, groups, chunk))
KERNELS(group_moments, moments,
        (const T *x, const float *sums, float *y, int pixels, int channels, int groups, int chunks),
        (x, sums, y, pixels, channels, groups, chunks))
KERNELS(group_norm, group_norm,
        (const T *x, const float *moments, const T *weight, const T *bias, T *y, int pixels, int channels, int groups,
         int chunk, float eps, int activate),
        (x, moments, weight, bias, y, pixels, channels, groups, chunk, eps, activate))
KERNELS(group_norm_vjp_sums, vjp_sums,
        (const T *x, const float *moments, const T *weight, const T *bias, const T *dy, float *y, int pixels,
         int channels, int groups, int chunk, float eps, int activate),
        (x, moments, weight, bias, dy, y, pixels, channels, groups, chunk, eps, activate))
KERNELS(group_norm_vjp, vjp,
        (const T *x, const float *moments, const T *weight, const T *bias, const T *dy, const float *total, T *dx,
         int pixels, int channels, int groups, int chunk, float eps, int activate),
        (x, moments, weight, bias, dy, total, dx, pixels, channels, groups, chunk, eps, activate))
