//! Every operation: values and gradients of kernels against the plain form, and the plain form against finite differences.
//!
//! A function of `ops` uses the kernel for f32 on the CPU and the plain form for f64, so that one closure tests both.

mod common;

use candle_core::{DType, Device, Result, Tensor, Var};
use common::relative;
use lsregen_tensor::noise::Generator;
use lsregen_tensor::ops::{self, Convolution, Layout, Moments, plain};

/// Largest relative error of a kernel's values, and of its gradients.
const VALUES: f64 = 1e-6;
const GRADIENTS: f64 = 1e-5;

struct Bench {
    noise: Generator,
    checked: usize,
}

impl Bench {
    fn new() -> Self {
        Bench { noise: Generator::new(11), checked: 0 }
    }

    fn normal(&mut self, shape: &[usize]) -> Tensor {
        self.noise.randn(shape, &Device::Cpu).unwrap()
    }

    /// Checks everything that an operation guarantees, for inputs of these shapes.
    fn check(&mut self, what: &str, shapes: &[&[usize]], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
        let inputs: Vec<Tensor> = shapes.iter().map(|s| self.normal(s)).collect();
        let wide: Vec<Tensor> = inputs.iter().map(|t| t.to_dtype(DType::F64).unwrap()).collect();
        let out = f(&inputs).unwrap_or_else(|e| panic!("{what}: {e}"));
        let exact = f(&wide).unwrap();
        assert_close(what, "value", &out, &exact, VALUES);

        // The same inputs as views with gaps between their rows.
        for i in 0..inputs.len() {
            let (last, n) = (inputs[i].rank() - 1, inputs[i].dims()[inputs[i].rank() - 1]);
            let mut views = inputs.clone();
            views[i] = inputs[i].pad_with_zeros(last, 3, 2).unwrap().narrow(last, 3, n).unwrap();
            assert_close(what, &format!("view {i}"), &f(&views).unwrap(), &exact, VALUES);
        }

        let direction = self.normal(out.dims());
        for i in 0..inputs.len() {
            let gradient = gradient(&inputs, i, &direction, &f);
            let exact = gradient_f64(&wide, i, &direction, &f);
            assert_close(what, &format!("gradient {i}"), &gradient, &exact, GRADIENTS);
            self.differences(&format!("{what}, input {i}"), &wide, i, &direction, &exact, &f);
        }
        self.checked += 1;
    }

    /// Compares `exact`, the gradient of Σ f·direction, with a central difference along a random step.
    fn differences(
        &mut self,
        what: &str,
        inputs: &[Tensor],
        i: usize,
        direction: &Tensor,
        exact: &Tensor,
        f: &impl Fn(&[Tensor]) -> Result<Tensor>,
    ) {
        let direction = direction.to_dtype(DType::F64).unwrap();
        let step = self.normal(inputs[i].dims()).to_dtype(DType::F64).unwrap();
        let h = 1e-5;
        let at = |s: f64| {
            let mut moved = inputs.to_vec();
            moved[i] = (&moved[i] + (&step * (s * h)).unwrap()).unwrap();
            sum(&(f(&moved).unwrap() * &direction).unwrap())
        };
        let numeric = (at(1.0) - at(-1.0)) / (2.0 * h);
        let analytic = sum(&(exact * &step).unwrap());
        let scale = sum(&exact.sqr().unwrap()).sqrt();
        assert!((numeric - analytic).abs() <= 1e-6 * scale, "{what}: gradient {analytic}, differences {numeric}");
    }
}

fn sum(t: &Tensor) -> f64 {
    t.sum_all().unwrap().to_dtype(DType::F64).unwrap().to_scalar().unwrap()
}

#[track_caller]
fn assert_close(what: &str, part: &str, a: &Tensor, b: &Tensor, tolerance: f64) {
    assert_eq!(a.dims(), b.dims(), "{what}: shape");
    let error = relative(a, b);
    assert!(error < tolerance, "{what}, {part}: relative error {error:.2e}, at most {tolerance:.0e} allowed");
}

/// The gradient of Σ f·direction with respect to input `i`, all others untracked.
fn gradient(inputs: &[Tensor], i: usize, direction: &Tensor, f: &impl Fn(&[Tensor]) -> Result<Tensor>) -> Tensor {
    let var = Var::from_tensor(&inputs[i]).unwrap();
    let mut tracked = inputs.to_vec();
    tracked[i] = var.as_tensor().clone();
    let out = (f(&tracked).unwrap() * direction).unwrap().sum_all().unwrap();
    out.backward().unwrap().get(&var).expect("a gradient").clone()
}

fn gradient_f64(inputs: &[Tensor], i: usize, direction: &Tensor, f: &impl Fn(&[Tensor]) -> Result<Tensor>) -> Tensor {
    gradient(inputs, i, &direction.to_dtype(DType::F64).unwrap(), f)
}

#[test]
fn convolutions() {
    let mut bench = Bench::new();
    // Batch, channels in and out, height and width; sizes next to those of tiles, strips and vectors, and single pixels.
    for (b, c, o, h, w) in [
        (1, 1, 1, 1, 1),
        (2, 3, 5, 1, 4),
        (2, 4, 8, 7, 1),
        (1, 5, 9, 6, 5),
        (2, 8, 16, 16, 16),
        (1, 3, 17, 13, 47),
        (2, 2, 3, 9, 100),
        (1, 33, 20, 12, 12),
    ] {
        for (k, stride, padding) in [
            (3, 1, (1, 1)),
            (3, 2, (1, 1)),
            (3, 2, (0, 1)),
            (1, 1, (0, 0)),
            (1, 2, (0, 0)),
            (2, 1, (0, 1)),
            (5, 3, (2, 3)),
        ] {
            if h + padding.0 + padding.1 < k || w + padding.0 + padding.1 < k {
                let x = bench.normal(&[b, c, h, w]);
                let weight = bench.normal(&[o, c, k, k]);
                let error = ops::conv2d(&x, &weight, None, stride, padding).unwrap_err().to_string();
                assert!(error.contains("smaller than its"), "{error}");
                continue;
            }
            let what = format!("{b}×{c}→{o} {h}×{w}, window {k}, stride {stride}, padding {padding:?}");
            bench.check(&what, &[&[b, c, h, w], &[o, c, k, k], &[o]], |t| {
                ops::conv2d(&t[0], &t[1], Some(&t[2]), stride, padding)
            });
            let convolution = |t: &[Tensor]| Convolution::new(&t[1], Some(&t[2]), stride, padding);
            bench.check(&format!("{what}, doubled"), &[&[b, c, h, w], &[o, c, k, k], &[o]], |t| {
                convolution(t)?.forward_doubled(&t[0])
            });
            bench.check(&format!("{what}, by channel"), &[&[b, c, h, w], &[o, c, k, k], &[o], &[b, o]], |t| {
                convolution(t)?.forward_add(&t[0], &t[3])
            });
            let out = |n: usize| (n + padding.0 + padding.1 - k) / stride + 1;
            let picture = [b, o, out(h), out(w)];
            bench.check(&format!("{what}, by pixel"), &[&[b, c, h, w], &[o, c, k, k], &[o], &picture], |t| {
                convolution(t)?.forward_add(&t[0], &t[3])
            });
        }
    }
    // Large enough for several threads.
    bench.check("shared", &[&[2, 16, 40, 40], &[24, 16, 3, 3]], |t| ops::conv2d(&t[0], &t[1], None, 1, (1, 1)));
    assert!(bench.checked > 150);
}

#[test]
fn affine_maps() {
    let mut bench = Bench::new();
    for (b, n, c, o) in [(1, 1, 1, 1), (2, 5, 3, 7), (1, 17, 33, 9), (2, 256, 64, 96)] {
        for bias in [false, true] {
            let what = format!("{b}×{n}, {c}→{o}, bias {bias}");
            let weights: &[&[usize]] = &[&[o, c], &[o]];
            let map = |t: &[Tensor], add: Option<&Tensor>, layouts| {
                ops::linear_between(&t[2], &t[0], bias.then_some(&t[1]), add, layouts)
            };
            let (tokens, channels) = (Layout::Tokens, Layout::Channels);
            let mut check = |what: &str, x: &[usize], add: Option<&[usize]>, layouts| {
                let shapes = [if bias { weights } else { &weights[..1] }, &[x], add.as_slice()].concat();
                bench.check(what, &shapes, |t| {
                    let mut t = t.to_vec();
                    if !bias {
                        t.insert(1, t[0].clone());
                    }
                    map(&t, t.get(3), layouts)
                });
            };
            check(&what, &[b, n, c], None, (tokens, tokens));
            check(&format!("{what}, rank 2"), &[n, c], None, (tokens, tokens));
            check(&format!("{what}, rank 4"), &[b, n, 1, c], Some(&[b, n, 1, o]), (tokens, tokens));
            check(&format!("{what}, sum"), &[b, n, c], Some(&[b, n, o]), (tokens, tokens));
            check(&format!("{what}, to channels"), &[b, n, c], None, (tokens, channels));
            check(&format!("{what}, to pixels"), &[b, n, c], Some(&[b, o, n, 1]), (tokens, channels));
            check(&format!("{what}, from pixels"), &[b, c, n, 1], None, (channels, tokens));
            check(&format!("{what}, from pixels, sum"), &[b, c, 1, n], Some(&[b, n, o]), (channels, tokens));
            check(&format!("{what}, pixels"), &[b, c, n, 1], None, (channels, channels));
            check(&format!("{what}, channels to pixels"), &[b, c, n], Some(&[b, o, n, 1]), (channels, channels));
        }
    }
}

/// Checks that `f` with a weight in half precision and inputs in f32 has the values and gradients of the widened weight.
fn check_half(
    bench: &mut Bench,
    what: &str,
    weight: &[usize],
    shapes: &[&[usize]],
    f: impl Fn(&Tensor, &[Tensor]) -> Result<Tensor>,
) {
    let inputs: Vec<Tensor> = shapes.iter().map(|s| bench.normal(s)).collect();
    let wide: Vec<Tensor> = inputs.iter().map(|t| t.to_dtype(DType::F64).unwrap()).collect();
    for dtype in [DType::F16, DType::BF16] {
        let what = format!("{what}, weight in {dtype:?}");
        let weight = bench.normal(weight).to_dtype(dtype).unwrap();
        let wide_weight = weight.to_dtype(DType::F64).unwrap();
        let out = f(&weight, &inputs).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(out.dtype(), DType::F32, "{what}");
        let exact = f(&wide_weight, &wide).unwrap();
        assert_close(&what, "value", &out, &exact, VALUES);
        let widened = f(&weight.to_dtype(DType::F32).unwrap(), &inputs).unwrap();
        assert_close(&what, "beside the kernel for f32", &out, &widened, VALUES);
        // The plain form, because of the dtype of the inputs, and because the weight is not contiguous.
        assert_close(&what, "inputs in f64", &f(&weight, &wide).unwrap(), &exact, 1e-12);
        let n = weight.dim(0).unwrap();
        let view = weight.pad_with_zeros(1, 1, 2).unwrap().narrow(1, 1, weight.dim(1).unwrap()).unwrap();
        assert!(n == 1 || !view.is_contiguous());
        assert_close(&what, "a view as weight", &f(&view, &inputs).unwrap(), &exact, VALUES);
        let direction = bench.normal(out.dims());
        for i in 0..inputs.len() {
            let gradient = gradient(&inputs, i, &direction, &|t: &[Tensor]| f(&weight, t));
            let exact = gradient_f64(&wide, i, &direction, &|t: &[Tensor]| f(&wide_weight, t));
            assert_close(&what, &format!("gradient {i}"), &gradient, &exact, GRADIENTS);
        }
    }
    bench.checked += 1;
}

#[test]
fn affine_maps_with_weights_in_half_precision() {
    let mut bench = Bench::new();
    let (tokens, channels) = (Layout::Tokens, Layout::Channels);
    // In one block and in several; on one thread, on a thread for each block, and shared by all threads.
    for (b, n, c, o) in [
        (1, 1, 1, 1),
        (2, 5, 3, 7),
        (1, 17, 33, 9),
        (1, 1, 600, 501),
        (1, 1, 1500, 1499),
        (2, 9, 300, 1000),
        (1, 300, 40, 70),
        (2, 131, 1030, 1101),
    ] {
        let mut check = |what: &str, x: &[usize], add: Option<&[usize]>, layouts| {
            let what = format!("{b}×{n}, {c}→{o}, {what}");
            let bias = [o];
            let shapes = [&[x, &bias[..]], add.as_slice()].concat();
            check_half(&mut bench, &what, &[o, c], &shapes, |w, t| {
                // The bias is a constant, for which kernels have no gradient.
                ops::linear_between(&t[0], w, Some(&t[1]), t.get(2), layouts)
            });
        };
        check("tokens", &[b, n, c], None, (tokens, tokens));
        check("tokens, sum", &[b, n, c], Some(&[b, n, o]), (tokens, tokens));
        check("to channels", &[b, n, c], None, (tokens, channels));
        check("from pixels, sum", &[b, c, 1, n], Some(&[b, n, o]), (channels, tokens));
        check("pixels, sum", &[b, c, n, 1], Some(&[b, o, n, 1]), (channels, channels));
    }
    // A bias in half precision, and none.
    let x = bench.normal(&[3, 20]);
    let (weight, bias) = (bench.normal(&[9, 20]).to_dtype(DType::F16), bench.normal(&[9]).to_dtype(DType::F16));
    let (weight, bias) = (weight.unwrap(), bias.unwrap());
    let wide = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
    for bias in [None, Some(&bias)] {
        let exact = ops::plain::linear(&x, &wide(&weight), bias.map(wide).as_ref()).unwrap();
        assert_close("bias", "value", &ops::linear(&x, &weight, bias).unwrap(), &exact, VALUES);
        assert_close("bias", "plain", &ops::plain::linear(&x, &weight, bias).unwrap(), &exact, VALUES);
    }
}

#[test]
fn convolutions_with_weights_in_half_precision() {
    let mut bench = Bench::new();
    for (b, c, o, h, w) in [(1, 1, 1, 3, 3), (2, 3, 5, 3, 4), (1, 5, 9, 6, 5), (1, 3, 17, 13, 47), (2, 33, 20, 24, 23)]
    {
        for (k, stride, padding) in [(3, 1, (1, 1)), (3, 2, (1, 1)), (3, 2, (0, 1)), (1, 1, (0, 0)), (1, 2, (0, 0))] {
            let what = format!("{b}×{c}→{o} {h}×{w}, window {k}, stride {stride}, padding {padding:?}");
            let out = |n: usize| (n + padding.0 + padding.1 - k) / stride + 1;
            let convolution = |w: &Tensor, t: &[Tensor]| Convolution::new(w, Some(&t[1]), stride, padding);
            let (weight, shapes) = ([o, c, k, k], [&[b, c, h, w][..], &[o]]);
            check_half(&mut bench, &what, &weight, &shapes, |w, t| convolution(w, t)?.forward(&t[0]));
            let doubled = format!("{what}, doubled");
            check_half(&mut bench, &doubled, &weight, &shapes, |w, t| convolution(w, t)?.forward_doubled(&t[0]));
            for add in [&[b, o][..], &[b, o, out(h), out(w)]] {
                let (what, shapes) = (format!("{what} and {add:?}"), [shapes[0], shapes[1], add]);
                check_half(&mut bench, &what, &weight, &shapes, |w, t| convolution(w, t)?.forward_add(&t[0], &t[2]));
            }
        }
    }
    // Equal bits, because a widened panel has the same numbers.
    let (x, weight) = (bench.normal(&[1, 30, 20, 21]), bench.normal(&[19, 30, 3, 3]).to_dtype(DType::BF16).unwrap());
    let narrow = ops::conv2d(&x, &weight, None, 1, (1, 1)).unwrap();
    let wide = ops::conv2d(&x, &weight.to_dtype(DType::F32).unwrap(), None, 1, (1, 1)).unwrap();
    let bits = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(bits(narrow), bits(wide));
    assert!(bench.checked == 100);
}

#[test]
fn normalisations() {
    let mut bench = Bench::new();
    for (b, c, groups, h, w) in
        [(1, 6, 2, 1, 1), (2, 6, 3, 5, 3), (1, 8, 8, 4, 4), (2, 32, 8, 33, 35), (1, 4, 2, 1, 19)]
    {
        for activate in [false, true] {
            let what = format!("group norm {b}×{c}/{groups} {h}×{w}, activation {activate}");
            bench.check(&what, &[&[b, c, h, w], &[c], &[c]], |t| {
                ops::group_norm(&t[0], groups, &t[1], &t[2], 1e-5, activate)
            });
        }
    }
    for shape in [&[1, 3][..], &[2, 3, 5], &[2, 7, 64], &[3, 1000, 33]] {
        let d = *shape.last().unwrap();
        bench.check(&format!("layer norm {shape:?}"), &[shape, &[d], &[d]], |t| {
            ops::layer_norm(&t[0], &t[1], &t[2], 1e-5)
        });
    }
    for (c, groups, h, w) in [(4, 2, 5, 7), (6, 3, 70, 41), (8, 8, 3, 3)] {
        // A feature map in two parts is normalised like the whole.
        bench.check(&format!("group norm of {c}×{h}×{w} in parts"), &[&[2, c, h, w], &[c], &[c]], |t| {
            let parts = [t[0].narrow(2, 0, 2)?, t[0].narrow(2, 2, h - 2)?];
            let moments = Moments::of(&parts[0], groups)?.join(&Moments::of(&parts[1], groups)?)?;
            let normal = |x| ops::group_norm_by(x, &moments, &t[1], &t[2], 1e-5, true);
            let y = Tensor::cat(&[normal(&parts[0])?, normal(&parts[1])?], 2)?;
            let whole = ops::group_norm(&t[0], groups, &t[1], &t[2], 1e-5, true)?;
            assert_close("in parts", "value", &y, &whole, VALUES);
            Ok(y)
        });
    }
    // Far from zero, where cancellation would lose the variance.
    bench.check("group norm far from zero", &[&[1, 4, 70, 70], &[4], &[4]], |t| {
        ops::group_norm(&(&t[0] + 8.0)?, 2, &t[1], &t[2], 1e-5, true)
    });
}

#[test]
fn attentions() {
    let mut bench = Bench::new();
    for (b, heads, d, n, m) in [
        (1, 1, 1, 1, 2),
        (2, 2, 3, 5, 7),
        (1, 3, 8, 17, 33),
        (2, 1, 20, 49, 127),
        (1, 2, 16, 100, 129),
        (1, 1, 40, 200, 300),
    ] {
        let c = heads * d;
        let what = format!("attention {b}×{heads}×{d}, {n} queries, {m} keys");
        bench
            .check(&what, &[&[b, c, n], &[b, c, m], &[b, m, c]], |t| ops::attention(&t[0], &t[1], &t[2], heads, false));
        bench.check(&format!("{what}, weights"), &[&[b, c, n], &[b, c, m]], |t| {
            ops::attention_weights(&t[0], &t[1], heads)
        });
        bench.check(&format!("{what}, causal"), &[&[b, c, m], &[b, c, m], &[b, m, c]], |t| {
            ops::attention(&t[0], &t[1], &t[2], heads, true)
        });
    }
    // Scores that differ much, with the greatest in the last chunk of keys.
    bench.check("attention of large scores", &[&[1, 16, 20], &[1, 16, 300], &[1, 300, 16]], |t| {
        let ramp = Tensor::arange(0u32, 300, &Device::Cpu)?.to_dtype(t[1].dtype())?.affine(0.05, 0.0)?;
        ops::attention(&t[0], &t[1].broadcast_mul(&ramp)?, &t[2], 2, false)
    });
}

/// Compares attention in chunks of queries with attention of all queries at once, in the plain form, which other
/// devices use.
#[test]
fn attention_in_chunks() {
    let device = &Device::Cpu;
    let (b, heads, d, m) = (2, 2, 8, 37);
    let c = heads * d;
    for (dtype, bound) in [(DType::F64, 1e-14), (DType::F32, 1e-6), (DType::BF16, 1e-2), (DType::F16, 2e-3)] {
        for (n, causal) in [(37, false), (37, true), (5, false)] {
            let normal = |shape: &[usize]| Tensor::randn(0f64, 2.0, shape, device).unwrap().to_dtype(dtype).unwrap();
            let (q, k, v) = (normal(&[b, c, n]), normal(&[b, c, m]), normal(&[b, m, c]));
            let wide = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
            let exact = Var::from_tensor(&wide(&q)).unwrap();
            let exact = plain::attention(exact.as_tensor(), &wide(&k), &wide(&v), heads, causal).unwrap().detach();
            let check = |y: Tensor, what: &str| {
                assert_eq!(y.dtype(), dtype, "{what}");
                let error = relative(&wide(&y), &exact);
                assert!(error < bound, "{what}, {dtype:?}, {n} queries, causal {causal}: {error:.1e}");
            };
            for queries in [0, 1, 3, 36, 37, 100] {
                let y = plain::attention_by(&q, &k, &v, heads, causal, queries).unwrap();
                check(y, &format!("{queries} at a time"));
            }
            check(ops::attention(&q, &k, &v, heads, causal).unwrap(), "the operation");
        }
    }
}

#[test]
fn activations() {
    let mut bench = Bench::new();
    for shape in [&[1][..], &[3, 5], &[2, 3, 7, 9], &[5, 4001]] {
        bench.check("silu", &[shape], |t| ops::silu(&t[0]));
        bench.check("gelu", &[shape], |t| ops::gelu(&t[0]));
        bench.check("quick gelu", &[shape], |t| ops::quick_gelu(&t[0]));
    }
    for shape in [&[2][..], &[3, 10], &[2, 5, 64], &[700, 66]] {
        bench.check("geglu", &[shape], |t| ops::geglu(&t[0]));
    }
    for shape in [[1, 1, 1, 1], [2, 3, 5, 7], [1, 9, 4, 1]] {
        bench.check("nearest doubling", &[&shape], |t| ops::upsample_nearest_2x(&t[0]));
    }
}

/// Activation functions over their whole range, with infinity and NaN.
#[test]
fn activations_far_from_zero() {
    let x: Vec<f32> = (-20_000..=20_000).map(|i| i as f32 * 0.01).collect();
    let narrow = Tensor::new(x.as_slice(), &Device::Cpu).unwrap();
    let wide = narrow.to_dtype(DType::F64).unwrap();
    type Activation = fn(&Tensor) -> Result<Tensor>;
    let activations: [(&str, Activation); 3] =
        [("silu", ops::silu), ("gelu", ops::gelu), ("quick gelu", ops::quick_gelu)];
    for (name, f) in activations {
        let (y, exact) = (f(&narrow).unwrap().to_vec1::<f32>().unwrap(), f(&wide).unwrap().to_vec1::<f64>().unwrap());
        for ((x, y), exact) in x.iter().zip(y).zip(exact) {
            let error = (y as f64 - exact).abs();
            assert!(error <= 4e-6 * exact.abs() + 1e-14, "{name}({x}) = {y}, not {exact}");
        }
        let special = Tensor::new(&[f32::NAN, f32::INFINITY, 1e30, -1e30], &Device::Cpu).unwrap();
        let y = f(&special).unwrap().to_vec1::<f32>().unwrap();
        assert!(y[0].is_nan() && y[1] == f32::INFINITY && y[2] == 1e30 && y[3].abs() < 1e-6, "{name}: {y:?}");
    }
}

#[test]
fn bad_shapes_are_errors() {
    let zeros = |s: &[usize]| Tensor::zeros(s, DType::F32, &Device::Cpu).unwrap();
    let x = zeros(&[1, 4, 5, 5]);
    let errors = [
        ops::conv2d(&x, &zeros(&[2, 3, 3, 3]), None, 1, (1, 1)),
        ops::conv2d(&x, &zeros(&[2, 4, 3, 1]), None, 1, (1, 1)),
        ops::conv2d(&x, &zeros(&[2, 4, 3, 3]), None, 0, (1, 1)),
        ops::conv2d(&zeros(&[4, 5, 5]), &zeros(&[2, 4, 3, 3]), None, 1, (1, 1)),
        Convolution::new(&zeros(&[2, 4, 3, 3]), None, 1, (1, 1)).and_then(|c| c.forward_add(&x, &zeros(&[1, 3]))),
        ops::conv2d(&x, &zeros(&[2, 4, 3, 3]), Some(&zeros(&[3])), 1, (1, 1)),
        ops::linear(&x, &zeros(&[2, 4]), None),
        ops::linear(&x, &zeros(&[2, 5]), Some(&zeros(&[3]))),
        ops::linear_between(&x, &zeros(&[2, 4]), None, Some(&zeros(&[1, 24, 2])), (Layout::Channels, Layout::Tokens)),
        ops::group_norm(&x, 3, &zeros(&[4]), &zeros(&[4]), 1e-5, false),
        ops::group_norm(&x, 2, &zeros(&[3]), &zeros(&[4]), 1e-5, false),
        ops::layer_norm(&x, &zeros(&[4]), &zeros(&[4]), 1e-5),
        ops::attention(&zeros(&[1, 6, 5]), &zeros(&[1, 6, 5]), &zeros(&[1, 5, 6]), 4, false),
        ops::attention(&zeros(&[1, 6, 5]), &zeros(&[1, 6, 4]), &zeros(&[1, 5, 6]), 2, false),
        ops::attention_weights(&zeros(&[1, 6, 5]), &zeros(&[1, 4, 5]), 2),
        ops::attention_weights(&zeros(&[1, 6, 5]), &zeros(&[1, 6, 0]), 2),
        ops::geglu(&zeros(&[3, 5])),
    ];
    for (i, e) in errors.iter().enumerate() {
        assert!(e.is_err(), "case {i}");
    }
    // Empty tensors are valid, and so are their gradients.
    let q = Var::zeros((1, 6, 0), DType::F32, &Device::Cpu).unwrap();
    let nothing = ops::attention(&q, &zeros(&[1, 6, 4]), &zeros(&[1, 4, 6]), 2, false).unwrap();
    assert_eq!(nothing.sum_all().unwrap().backward().unwrap().get(&q).unwrap().dims(), [1, 6, 0]);
    assert_eq!(ops::silu(&zeros(&[0, 3])).unwrap().dims(), [0, 3]);
    assert_eq!(
        ops::conv2d(&zeros(&[0, 4, 5, 5]), &zeros(&[2, 4, 3, 3]), None, 1, (1, 1)).unwrap().dims(),
        [0, 2, 5, 5]
    );
}
