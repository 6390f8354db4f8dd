// Layer norm over rows of d numbers, and its VJP. A warp has a row; blocks have 4 warps. A row is read several times; later
// reads should hit the cache.
#include "common.cuh"

struct Moments {
    float mean, scale;
};

// The mean of a row, and 1 / √(variance + ε).
template <typename T, int V> __device__ Moments moments(const T *x, int d, float eps, int lane) {
    float sum = 0.0f, squares = 0.0f;
    for (int i = lane * V; i < d; i += 32 * V) {
        Vector<T, V> v = load<T, V>(x + i);
        for (int j = 0; j < V; j++)
            sum += v[j];
    }
    float mean = warp_sum(sum) / d;
    for (int i = lane * V; i < d; i += 32 * V) {
        Vector<T, V> v = load<T, V>(x + i);
        for (int j = 0; j < V; j++)
            squares += (v[j] - mean) * (v[j] - mean);
    }
    return {mean, rsqrtf(warp_sum(squares) / d + eps)};
}

template <typename T, int V>
__device__ void layer_norm(const T *x, const T *weight, const T *bias, T *y, int rows, int d, float eps) {
    int row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows)
        return;
    x += (size_t)row * d;
    y += (size_t)row * d;
    Moments m = moments<T, V>(x, d, eps, lane);
    for (int i = lane * V; i < d; i += 32 * V) {
        Vector<T, V> v = load<T, V>(x + i), w = load<T, V>(weight + i), b = load<T, V>(bias + i);
        for (int j = 0; j < V; j++)
            v.set(j, (v[j] - m.mean) * m.scale * w[j] + b[j]);
        store<T, V>(y + i, v);
    }
}

// dx = (d − mean(d) − x̂ mean(d x̂)) · scale, with d = dy · weight and the normalised x̂.
template <typename T, int V>
__device__ void layer_norm_vjp(const T *x, const T *weight, const T *dy, T *dx, int rows, int d, float eps) {
    int row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows)
        return;
    x += (size_t)row * d;
    dy += (size_t)row * d;
    dx += (size_t)row * d;
    Moments m = moments<T, V>(x, d, eps, lane);
    float sum = 0.0f, along = 0.0f;
    for (int i = lane * V; i < d; i += 32 * V) {
        Vector<T, V> v = load<T, V>(x + i), w = load<T, V>(weight + i), g = load<T, V>(dy + i);
        for (int j = 0; j < V; j++) {
            sum += g[j] * w[j];
            along += g[j] * w[j] * (v[j] - m.mean) * m.scale;
        }
    }
    sum = warp_sum(sum) / d;
    along = warp_sum(along) / d;
    for (int i = lane * V; i < d; i += 32 * V) {
        Vector<T, V> v = load<T, V>(x + i), w = load<T, V>(weight + i), g = load<T, V>(dy + i);
        for (int j = 0; j < V; j++)
            v.set(j, (g[j] * w[j] - sum - (v[j] - m.mean) * m.scale * along) * m.scale);
        store<T, V>(dx + i, v);
    }
}

KERNELS(layer_norm, layer_norm,
        (const T *x, const T *weight, const T *bias, T *y, int rows, int d, float eps),
        (x, weight, bias, y, rows, d, eps))
KERNELS(layer_norm_vjp, layer_norm_vjp,
        (const T *x, const T *weight, const T *dy, T *dx, int rows, int d, float eps),
        (x, weight, dy, dx, rows, d, eps))
