//! Time of single operations; `tests/speed/ops.py` runs these beside the same shapes in PyTorch.
//!
//! The name of each benchmark is the operation and its shape, as that script spells them.

use std::hint::black_box;
use std::time::Duration;

use candle_core::{Device, Result, Tensor};
use criterion::Criterion;
use lsregen_diffusion::ops::{self, Convolution, plain};

fn normal(shape: &[usize]) -> Tensor {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu).expect("noise")
}

fn bench(c: &mut Criterion, name: &str, mut f: impl FnMut() -> Result<Tensor> + Send) {
    // On rayon's pool, as the networks run.
    ops::on_pool(|| c.bench_function(name, |b| b.iter(|| black_box(f().expect("an operation")))));
}

fn main() {
    let mut c = Criterion::default()
        .configure_from_args()
        .without_plots()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    let c = &mut c;

    for (b, from, to, size, k, stride) in [
        (1, 320, 320, 64, 3, 1),
        (2, 320, 320, 64, 3, 1),
        (1, 320, 320, 128, 3, 1),
        (1, 128, 128, 256, 3, 1),
        (2, 1280, 1280, 16, 3, 1),
        (2, 320, 320, 64, 3, 2),
        (2, 320, 320, 64, 1, 1),
        (2, 32, 32, 32, 3, 1),
        (2, 64, 64, 16, 3, 1),
        (1, 16, 16, 256, 3, 1),
    ] {
        let (x, weight, bias) = (normal(&[b, from, size, size]), normal(&[to, from, k, k]), normal(&[to]));
        let padding = (k / 2, k / 2);
        let convolution = Convolution::new(&weight, Some(&bias), stride, padding).expect("a convolution");
        let name = format!("conv {b}x{from}>{to} {size} k{k} s{stride}");
        bench(c, &name, || convolution.forward(&x));
        bench(c, &format!("{name} plain"), || plain::conv2d(&x, &weight, Some(&bias), stride, padding));
    }
    for (b, channels, groups, size) in [(2, 320, 32, 64), (1, 128, 32, 256), (2, 32, 8, 32)] {
        let (x, weight, bias) = (normal(&[b, channels, size, size]), normal(&[channels]), normal(&[channels]));
        for (activate, what) in [(false, "group_norm"), (true, "group_norm_silu")] {
            let name = format!("{what} {b}x{channels} {size}");
            bench(c, &name, || ops::group_norm(&x, groups, &weight, &bias, 1e-5, activate));
            bench(c, &format!("{name} plain"), || plain::group_norm(&x, groups, &weight, &bias, 1e-5, activate));
        }
    }
    for (b, heads, d, n, m) in [(1, 8, 40, 4096, 4096), (2, 8, 40, 4096, 77), (2, 2, 32, 256, 256), (1, 1, 64, 1024, 1024)] {
        let (q, k, v) = (normal(&[b, heads * d, n]), normal(&[b, heads * d, m]), normal(&[b, m, heads * d]));
        let name = format!("attention {b}x{heads}x{d} {n} {m}");
        bench(c, &name, || ops::attention(&q, &k, &v, heads, false));
        bench(c, &format!("{name} plain"), || plain::attention(&q, &k, &v, heads, false));
    }
    for (n, from, to) in [(4096, 320, 320), (2048, 64, 64), (512, 128, 1024)] {
        let (x, weight, bias) = (normal(&[n, from]), normal(&[to, from]), normal(&[to]));
        let name = format!("linear {n} {from}>{to}");
        bench(c, &name, || ops::linear(&x, &weight, Some(&bias)));
        bench(c, &format!("{name} plain"), || plain::linear(&x, &weight, Some(&bias)));
    }
    for (n, d) in [(4096, 320), (512, 64)] {
        let (x, weight, bias, wide) = (normal(&[n, d]), normal(&[d]), normal(&[d]), normal(&[n, 8 * d]));
        bench(c, &format!("layer_norm {n}x{d}"), || ops::layer_norm(&x, &weight, &bias, 1e-5));
        bench(c, &format!("layer_norm {n}x{d} plain"), || plain::layer_norm(&x, &weight, &bias, 1e-5));
        bench(c, &format!("geglu {n}x{d}"), || ops::geglu(&wide));
        bench(c, &format!("geglu {n}x{d} plain"), || plain::geglu(&wide));
        bench(c, &format!("silu {n}x{d}"), || ops::silu(&x));
        bench(c, &format!("silu {n}x{d} plain"), || plain::silu(&x));
    }
    c.final_summary();
}
