//! Measures single operations; `tools/speed/ops.py` compares them with the same shapes in PyTorch.
//!
//! The names of benchmarks start with `ops/…` or, for the plain candle form, `plain/…`. Then come the operation and its
//! shape, as that script parses them. `half_…` has its weights in f16, `brain_…` in bf16.

use std::hint::black_box;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Result, Tensor};
use criterion::Criterion;
use lsregen_tensor::ops::{self, Convolution, plain};

fn normal(shape: &[usize]) -> Tensor {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu).expect("noise")
}

/// Measures a function of `ops` and its plain form.
fn bench(
    c: &mut Criterion,
    name: &str,
    fast: impl Fn() -> Result<Tensor> + Send + Sync,
    plain: impl Fn() -> Result<Tensor>,
) {
    // On rayon's pool, where networks run too.
    let repeat = |n| {
        let start = Instant::now();
        (0..n).for_each(|_| drop(black_box(fast().expect("an operation"))));
        start.elapsed()
    };
    c.bench_function(&format!("ops/{name}"), |b| b.iter_custom(|n| ops::on_pool(|| repeat(n))));
    c.bench_function(&format!("plain/{name}"), |b| b.iter(|| black_box(plain().expect("an operation"))));
}

/// The dtypes of weights, and the prefixes of the names of such operations.
const DTYPES: [(DType, &str); 3] = [(DType::F32, ""), (DType::F16, "half_"), (DType::BF16, "brain_")];

fn main() {
    ops::keep_memory();
    let mut c = Criterion::default()
        .configure_from_args()
        .without_plots()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    let c = &mut c;

    for (b, from, to, size, k, stride) in [
        (1, 320, 320, 64, 3, 1),
        (2, 320, 320, 64, 3, 1),
        (1, 320, 320, 128, 3, 1),
        (1, 128, 128, 256, 3, 1),
        (1, 128, 128, 512, 3, 1),
        (1, 1280, 1280, 32, 3, 1),
        (2, 1280, 1280, 16, 3, 1),
        (2, 320, 320, 64, 3, 2),
        (2, 320, 320, 64, 1, 1),
        (2, 32, 32, 32, 3, 1),
        (2, 64, 64, 16, 3, 1),
        (1, 16, 16, 256, 3, 1),
    ] {
        let (x, weight, bias) = (normal(&[b, from, size, size]), normal(&[to, from, k, k]), normal(&[to]));
        let padding = (k / 2, k / 2);
        for (dtype, prefix) in DTYPES {
            let weight = weight.to_dtype(dtype).expect("weights");
            let convolution = Convolution::new(&weight, Some(&bias), stride, padding).expect("a convolution");
            let name = format!("{prefix}conv {b}x{from}>{to} {size} k{k} s{stride}");
            bench(c, &name, || convolution.forward(&x), || plain::conv2d(&x, &weight, Some(&bias), stride, padding));
        }
    }
    for (b, channels, groups, size) in [(2, 320, 32, 64), (1, 128, 32, 256), (2, 32, 8, 32)] {
        let (x, weight, bias) = (normal(&[b, channels, size, size]), normal(&[channels]), normal(&[channels]));
        for (activate, what) in [(false, "group_norm"), (true, "group_norm_silu")] {
            let name = format!("{what} {b}x{channels}/{groups} {size}");
            bench(
                c,
                &name,
                || ops::group_norm(&x, groups, &weight, &bias, 1e-5, activate),
                || plain::group_norm(&x, groups, &weight, &bias, 1e-5, activate),
            );
        }
    }
    for (b, heads, d, n, m) in
        [(1, 8, 40, 4096, 4096), (2, 8, 40, 4096, 77), (2, 2, 32, 256, 256), (1, 1, 64, 1024, 1024)]
    {
        let (q, k, v) = (normal(&[b, heads * d, n]), normal(&[b, heads * d, m]), normal(&[b, m, heads * d]));
        let name = format!("attention {b}x{heads}x{d} {n} {m}");
        bench(c, &name, || ops::attention(&q, &k, &v, heads, false), || plain::attention(&q, &k, &v, heads, false));
    }
    for (n, from, to) in
        [(4096, 320, 320), (2048, 64, 64), (512, 128, 1024), (4096, 1280, 10240), (77, 2048, 1280), (1, 1280, 1280)]
    {
        let (x, weight, bias) = (normal(&[n, from]), normal(&[to, from]), normal(&[to]));
        for (dtype, prefix) in DTYPES {
            let weight = weight.to_dtype(dtype).expect("weights");
            let name = format!("{prefix}linear {n} {from}>{to}");
            bench(c, &name, || ops::linear(&x, &weight, Some(&bias)), || plain::linear(&x, &weight, Some(&bias)));
        }
    }
    for (n, d) in [(4096, 320), (512, 64)] {
        let (x, weight, bias, wide) = (normal(&[n, d]), normal(&[d]), normal(&[d]), normal(&[n, 8 * d]));
        bench(
            c,
            &format!("layer_norm {n}x{d}"),
            || ops::layer_norm(&x, &weight, &bias, 1e-5),
            || plain::layer_norm(&x, &weight, &bias, 1e-5),
        );
        bench(c, &format!("geglu {n}x{d}"), || ops::geglu(&wide), || plain::geglu(&wide));
        bench(c, &format!("silu {n}x{d}"), || ops::silu(&x), || plain::silu(&x));
    }
    c.final_summary();
}
