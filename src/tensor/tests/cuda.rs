//! Every operation that has a form for CUDA, and its VJP, against the plain form in f64 on the CPU. Needs a CUDA device, or
//! the software device: `tools/cuda/check` runs it there.
#![cfg(feature = "cuda")]

use candle_core::{DType, Device, Result, Tensor};
use lsregen_tensor::ops::{self, Convolution, Layout, Mix, Moments};

type Function = dyn Fn(&[Tensor]) -> Result<Tensor>;

/// A function of tensors, which the test makes.
struct Case {
    name: &'static str,
    /// Shapes of the inputs. The first ones have gradients.
    shapes: Vec<Vec<usize>>,
    differentiable: usize,
    f: Box<Function>,
}

fn case(
    name: &'static str,
    shapes: &[&[usize]],
    differentiable: usize,
    f: impl Fn(&[Tensor]) -> Result<Tensor> + 'static,
) -> Case {
    Case { name, shapes: shapes.iter().map(|s| s.to_vec()).collect(), differentiable, f: Box::new(f) }
}

/// Each operation for numbers that fill vectors of 16 bytes, and for others.
fn cases() -> Vec<Case> {
    [of_tokens(), group_norms(), linear_maps(), convolutions()].into_iter().flatten().collect()
}

fn of_tokens() -> Vec<Case> {
    vec![
        case("layer norm, wide", &[&[2, 37, 64], &[64], &[64]], 1, |t| ops::layer_norm(&t[0], &t[1], &t[2], 1e-5)),
        case("layer norm, narrow", &[&[3, 5, 33], &[33], &[33]], 1, |t| ops::layer_norm(&t[0], &t[1], &t[2], 1e-5)),
        case("layer norm of many", &[&[2, 9, 1280], &[1280], &[1280]], 1, |t| {
            ops::layer_norm(&t[0], &t[1], &t[2], 1e-5)
        }),
        case("geglu, wide", &[&[2, 7, 128]], 1, |t| ops::geglu(&t[0])),
        case("geglu, narrow", &[&[2, 7, 30]], 1, |t| ops::geglu(&t[0])),
        case("gelu", &[&[3, 7, 16]], 1, |t| ops::gelu(&t[0])),
        case("quick gelu", &[&[3, 7, 5]], 1, |t| ops::quick_gelu(&t[0])),
        case("silu", &[&[3, 7, 16]], 1, |t| ops::silu(&t[0])),
        case("sum", &[&[2, 4, 9, 7], &[2, 4, 9, 7]], 2, |t| ops::mix(&t[0], &t[1], Mix::Sum(0.7, -1.3))),
        case("guidance", &[&[2, 4, 8, 8], &[2, 4, 8, 8]], 2, |t| ops::mix(&t[0], &t[1], Mix::Between(7.5))),
        case("without noise", &[&[2, 4, 8, 8], &[2, 4, 8, 8]], 2, |t| ops::mix(&t[0], &t[1], Mix::Without(0.6, 0.8))),
        case("doubling", &[&[2, 16, 5, 7]], 1, |t| ops::upsample_nearest_2x(&t[0])),
        case("doubling, narrow", &[&[2, 3, 5, 7]], 1, |t| ops::upsample_nearest_2x(&t[0])),
        case("joined channels", &[&[2, 16, 5, 7], &[2, 8, 5, 7]], 2, |t| ops::join_channels(&[&t[0], &t[1]])),
        case("attention", &[&[2, 64, 50], &[2, 64, 77], &[2, 77, 64]], 3, |t| {
            ops::attention(&t[0], &t[1], &t[2], 4, false)
        }),
        case("attention, one head of odd size", &[&[2, 20, 50], &[2, 20, 50], &[2, 50, 20]], 3, |t| {
            ops::attention(&t[0], &t[1], &t[2], 1, false)
        }),
        case("causal attention", &[&[2, 32, 70], &[2, 32, 70], &[2, 70, 32]], 3, |t| {
            ops::attention(&t[0], &t[1], &t[2], 2, true)
        }),
        case("attention weights", &[&[2, 32, 50], &[2, 32, 77]], 2, |t| ops::attention_weights(&t[0], &t[1], 2)),
    ]
}

fn group_norms() -> Vec<Case> {
    let mut cases = vec![];
    for (name, c, groups, h, w) in [
        ("group norm, wide", 64, 32, 9, 11),
        ("group norm across vectors", 320, 32, 16, 17),
        ("group norm, narrow", 6, 3, 9, 33),
        ("group norm of many pixels", 16, 8, 130, 140),
    ] {
        for silu in [false, true] {
            cases.push(case(name, &[&[2, c, h, w], &[c], &[c]], 1, move |t| {
                ops::group_norm(&t[0], groups, &t[1], &t[2], 1e-5, silu)
            }));
        }
        cases.push(case("group norm by moments", &[&[2, c, h, w], &[c], &[c]], 1, move |t| {
            let half = |first| t[0].narrow(2, first, h / 2)?.contiguous();
            let (top, bottom) = (half(0)?, half(h / 2)?);
            let moments = Moments::of(&top, groups)?.join(&Moments::of(&bottom, groups)?)?;
            ops::group_norm_by(&top, &moments, &t[1], &t[2], 1e-5, true)
        }));
    }
    cases
}

fn linear_maps() -> Vec<Case> {
    let mut cases = vec![];
    for (from, to) in [
        (Layout::Tokens, Layout::Tokens),
        (Layout::Tokens, Layout::Channels),
        (Layout::Channels, Layout::Tokens),
        (Layout::Channels, Layout::Channels),
    ] {
        let x: &[usize] = if from == Layout::Tokens { &[2, 35, 24] } else { &[2, 24, 5, 7] };
        let add: &[usize] = if to == Layout::Tokens { &[2, 35, 40] } else { &[2, 40, 5, 7] };
        cases.push(case("linear and sum", &[x, add, &[40, 24], &[40]], 2, move |t| {
            ops::linear_between(&t[0], &t[2], Some(&t[3]), Some(&t[1]), (from, to))
        }));
        cases.push(case("linear", &[x, &[40, 24], &[40]], 1, move |t| {
            ops::linear_between(&t[0], &t[1], Some(&t[2]), None, (from, to))
        }));
    }
    cases.push(case("linear without bias, odd", &[&[3, 5, 7], &[9, 7]], 1, |t| ops::linear(&t[0], &t[1], None)));
    cases
}

fn convolutions() -> Vec<Case> {
    let mut cases = vec![];
    for (k, stride, padding, c, o) in [
        (3, 1, (1, 1), 16, 24),
        (3, 1, (1, 1), 4, 16),
        (3, 2, (1, 1), 16, 16),
        (3, 2, (0, 1), 8, 16),
        (1, 1, (0, 0), 16, 8),
        (5, 3, (2, 2), 3, 5),
    ] {
        let x: &[usize] = &[2, c, 13, 14];
        let convolution = move |t: &[Tensor]| Convolution::new(&t[0], Some(&t[1]), stride, padding);
        let weights = [vec![o, c, k, k], vec![o]];
        cases.push(case("convolution", &[x, &weights[0], &weights[1]], 1, move |t| {
            convolution(&t[1..])?.forward(&t[0])
        }));
        cases.push(case("convolution and channels", &[x, &[2, o], &weights[0], &weights[1]], 2, move |t| {
            convolution(&t[2..])?.forward_add(&t[0], &t[1])
        }));
        cases.push(case("convolution of the doubled", &[x, &weights[0], &weights[1]], 1, move |t| {
            convolution(&t[1..])?.forward_doubled(&t[0])
        }));
        if stride == 1 {
            cases.push(case("convolution and sum", &[x, &[2, o, 13, 14], &weights[0], &weights[1]], 2, move |t| {
                convolution(&t[2..])?.forward_add(&t[0], &t[1])
            }));
        }
    }
    cases
}

/// The value, and the gradients of a sum of the value's elements with weights.
fn run(case: &Case, inputs: &[Tensor], device: &Device, dtype: DType) -> Result<Vec<Tensor>> {
    let mut there = Vec::new();
    for input in inputs {
        there.push(input.to_device(device)?.to_dtype(dtype)?);
    }
    let vars: Vec<_> =
        there.iter().take(case.differentiable).map(candle_core::Var::from_tensor).collect::<Result<_>>()?;
    let plain = (case.f)(&there)?;
    for (input, var) in there.iter_mut().zip(&vars) {
        *input = var.as_tensor().clone();
    }
    let y = (case.f)(&there)?;
    let weights: Vec<f64> = (0..y.elem_count()).map(|i| ((i * 7919) % 13) as f64 / 13.0 - 0.4).collect();
    let weights = Tensor::from_vec(weights, y.shape(), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?;
    let gradients =
        (&y * weights)?.to_dtype(if dtype == DType::F64 { dtype } else { DType::F32 })?.sum_all()?.backward()?;
    let mut results = vec![plain, y.detach()];
    for (i, var) in vars.iter().enumerate() {
        results.push(gradients.get(var).unwrap_or_else(|| panic!("{}: no gradient of input {i}", case.name)).clone());
    }
    results.iter().map(|t| t.to_device(&Device::Cpu)?.to_dtype(DType::F64)).collect()
}

fn norm(t: &Tensor) -> Result<f64> {
    t.sqr()?.sum_all()?.sqrt()?.to_scalar()
}

#[test]
fn operations_equal_their_definitions() {
    lsregen_tensor::cuda::devices()
        .expect("this test needs a CUDA device, or the software device: see tools/cuda/check");
    let device = Device::new_cuda_with_stream(0).unwrap();
    let mut faults = Vec::new();
    let mut worst = [(0.0, ""); 3];
    for case in cases() {
        let inputs: Vec<_> =
            case.shapes.iter().map(|s| Tensor::randn(0.3, 1.0, s.as_slice(), &Device::Cpu).unwrap()).collect();
        for (i, (dtype, bound)) in [(DType::F32, 2e-6), (DType::F16, 4e-3), (DType::BF16, 3e-2)].into_iter().enumerate()
        {
            // The same rounded inputs, so that only the computation differs.
            let rounded: Vec<_> =
                inputs.iter().map(|t| t.to_dtype(dtype).unwrap().to_dtype(DType::F64).unwrap()).collect();
            let exact = run(&case, &rounded, &Device::Cpu, DType::F64).unwrap();
            let found = match run(&case, &rounded, &device, dtype) {
                Ok(found) => found,
                Err(error) => {
                    faults.push(format!("{} in {dtype:?}: {error}", case.name));
                    continue;
                }
            };
            for (n, (exact, found)) in exact.iter().zip(&found).enumerate() {
                let error = norm(&(exact - found).unwrap()).unwrap() / norm(exact).unwrap().max(1e-30);
                // Not a number is a fault too.
                if error.is_nan() || error >= bound {
                    faults.push(format!("{} in {dtype:?}, result {n}: relative error {error:.1e}", case.name));
                } else if error > worst[i].0 {
                    worst[i] = (error, case.name);
                }
            }
        }
    }
    println!("largest relative errors in f32, f16, bf16: {worst:?}");
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Our own attention, which `ops::attention` uses where cuDNN does not apply, for every size that it exists for.
#[test]
fn operations_attention_by_our_own_kernel() {
    use lsregen_tensor::cuda::flash;
    lsregen_tensor::cuda::devices()
        .expect("this test needs a CUDA device, or the software device: see tools/cuda/check");
    let device = Device::new_cuda_with_stream(0).unwrap();
    let normal = |shape: (usize, usize, usize)| Tensor::randn(0f64, 1.0, shape, &Device::Cpu).unwrap();
    let mut faults = Vec::new();
    for (heads, d, n, m, causal) in [
        (2, 8, 5, 3, false),
        (1, 32, 64, 64, true),
        (3, 40, 70, 77, false),
        (2, 64, 130, 129, false),
        (2, 64, 100, 100, true),
        (2, 80, 65, 20, false),
        (1, 128, 64, 200, false),
        (2, 160, 33, 70, false),
    ] {
        let c = heads * d;
        for (dtype, bound) in [(DType::F16, 2e-3), (DType::BF16, 1.5e-2)] {
            let [q, k, v] = [normal((2, n, c)), normal((2, m, c)), normal((2, m, c))]
                .map(|t| t.to_dtype(dtype).unwrap().to_dtype(DType::F64).unwrap());
            let (qt, kt) = (q.transpose(1, 2).unwrap(), k.transpose(1, 2).unwrap());
            let exact = ops::attention(&qt, &kt, &v, heads, causal).unwrap().transpose(1, 2).unwrap();
            let there = [&q, &k, &v].map(|t| t.to_device(&device).unwrap().to_dtype(dtype).unwrap());
            // The queries as a view of wider rows.
            let wide = Tensor::cat(&[&there[0], &there[0]], 2).unwrap().narrow(2, c, c).unwrap();
            let found = flash::attention([&wide, &there[1], &there[2]], heads, causal).unwrap().expect("it applies");
            let found = found.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
            let error = norm(&(found - &exact).unwrap()).unwrap() / norm(&exact).unwrap();
            if error.is_nan() || error >= bound {
                faults.push(format!("{heads} heads of {d}, {n}×{m}, causal {causal}, {dtype:?}: {error:.1e}"));
            }
        }
    }
    let f32s = Tensor::zeros((1, 4, 64), DType::F32, &device).unwrap();
    assert!(flash::attention([&f32s, &f32s, &f32s], 1, false).unwrap().is_none());
    let odd = Tensor::zeros((1, 4, 20), DType::F16, &device).unwrap();
    assert!(flash::attention([&odd, &odd, &odd], 1, false).unwrap().is_none());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A computation that failed is not hidden by its limits.
#[test]
fn operations_keep_nan_within_limits() {
    lsregen_tensor::cuda::devices()
        .expect("this test needs a CUDA device, or the software device: see tools/cuda/check");
    let device = lsregen_tensor::cuda::open(0).unwrap();
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let x = Tensor::new(&[f32::NAN, 3.0, -2.0, 0.5], &device).unwrap().to_dtype(dtype).unwrap();
        let y = ops::clamp(&x, -1.0, 1.0).unwrap().to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
        assert!(y[0].is_nan() && y[1..] == [1.0, -1.0, 0.5], "{dtype:?}: {y:?}");
    }
}

/// A tensor from a file is copied while the device still computes, and what then uses it waits for it.
#[test]
fn operations_go_on_during_an_upload() {
    use lsregen_tensor::Error;
    use lsregen_tensor::cuda::{devices, open, upload::upload};
    devices().expect("this test needs a CUDA device, or the software device: see tools/cuda/check");
    let device = open(0).unwrap();
    let byte = |place: usize| (place % 251) as u8;
    // Finite numbers in f16, several parts of the pinned memory and a bit.
    let count = (25 << 20) + 3;
    let fill = |start: usize, to: &mut [u8]| {
        for (i, to) in to.iter_mut().enumerate() {
            let place = start + i;
            *to = if place.is_multiple_of(2) { byte(place) } else { byte(place) & 0x3f };
        }
        Ok(())
    };
    let x = Tensor::ones((64, 64), DType::F32, &device).unwrap();
    let y = ops::silu(&x).unwrap();
    let stream = device.as_cuda_device().unwrap().cuda_stream();
    let computed = stream.record_event(None).unwrap();
    let failed = upload(&device, DType::F16, &[count], |start, to| match start {
        0 => fill(start, to),
        _ => Err(Error::input("no more")),
    });
    assert!(failed.is_err_and(|error| error.to_string().contains("no more")));
    let there = upload(&device, DType::F16, &[count], fill).unwrap();
    // The software device computes only what the host waits for.
    if std::env::var_os("CUDA_DEVICE_CACHE").is_some() {
        assert!(!computed.is_complete(), "the copies waited for what was computed before");
    }
    let sum = (there.narrow(0, count - 2, 2).unwrap().to_dtype(DType::F32).unwrap().sum_all().unwrap()
        + y.sum_all().unwrap())
    .unwrap()
    .to_scalar::<f32>()
    .unwrap();
    let mut last = [0; 4];
    fill(2 * count - 4, &mut last).unwrap();
    let numbers = [[last[0], last[1]], [last[2], last[3]]].map(|n| half::f16::from_le_bytes(n).to_f32());
    let silu = 1.0 / (1.0 + (-1f32).exp());
    let exact = numbers[0] + numbers[1] + 4096.0 * silu;
    assert!((sum - exact).abs() < 1e-3 * exact.abs(), "{sum} instead of {exact}");
}

/// What another thread submits while a graph is recorded is no part of the graph, and does not end the recording.
#[test]
fn operations_of_other_threads_wait_for_a_recording() {
    use lsregen_tensor::cuda::{devices, open, replay::Replay, upload::upload};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    devices().expect("this test needs a CUDA device, or the software device: see tools/cuda/check");
    let device = open(0).unwrap();
    let (calls, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let f = |inputs: &[Tensor]| {
        calls.fetch_add(1, Ordering::SeqCst);
        let mut y = inputs[0].clone();
        for _ in 0..40 {
            y = ops::silu(&(y + 0.5)?)?;
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        Ok(y)
    };
    let number = |t: &Tensor| t.to_dtype(DType::F32).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
    std::thread::scope(|threads| {
        let others = threads.spawn(|| {
            let mut rounds = 0;
            while !ended.load(Ordering::SeqCst) {
                let ones = Tensor::ones(64, DType::F32, &device).unwrap();
                let there = upload(&device, DType::F32, &[2], |_, to| {
                    to.copy_from_slice(&[1f32.to_le_bytes(), 2f32.to_le_bytes()].concat());
                    Ok(())
                })
                .unwrap();
                assert_eq!(number(&(ones * 2.0).unwrap()) + number(&there), 131.0);
                rounds += 1;
            }
            rounds
        });
        let replay = Replay::default();
        for round in 0..4 {
            let x = Tensor::new(&[0.1f32 * round as f32, -0.3], &device).unwrap();
            let (found, exact) = (replay.run(&[&x], f).unwrap(), f(std::slice::from_ref(&x)).unwrap());
            assert_eq!(found.to_vec1::<f32>().unwrap(), exact.to_vec1::<f32>().unwrap(), "round {round}");
        }
        ended.store(true, Ordering::SeqCst);
        assert!(others.join().unwrap() > 3);
    });
    // Without recordings: 4 rounds of 2. The first and the second compute directly, and the second records.
    assert_eq!(calls.load(Ordering::SeqCst), 4 + 3, "nothing was recorded");
}
