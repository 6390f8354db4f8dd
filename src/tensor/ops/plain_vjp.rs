//! The VJPs of the operations in candle's operations, for other devices and dtypes.
//!
//! They follow formulas, not autodiff, so that no other intermediates are kept. Narrower dtypes are computed in f32.

use candle_core::{D, Result, Tensor};

use super::plain::{Activation, SCORES, at_least_f32, hide_later, softmax};

/// dx = dy f′(x).
pub(super) fn activation(kind: Activation, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    (derivative(kind, &at_least_f32(x)?)? * at_least_f32(dy)?)?.to_dtype(x.dtype())
}

/// f′(x).
fn derivative(kind: Activation, x: &Tensor) -> Result<Tensor> {
    // The derivative of x σ(x): σ(x) (1 + x (1 − σ(x))).
    let sigmoid_gate_derivative = |x: &Tensor| {
        let gate = candle_nn::ops::sigmoid(x)?;
        &gate * ((x * (1.0 - &gate)?)? + 1.0)?
    };
    match kind {
        Activation::Silu => sigmoid_gate_derivative(x),
        Activation::QuickGelu => sigmoid_gate_derivative(&(x * 1.702)?),
        Activation::Gelu => {
            let density = ((x.sqr()? * -0.5)?.exp()? * (1.0 / std::f64::consts::TAU.sqrt()))?;
            normal_cdf(x)? + x * density
        }
    }
}

/// Φ(x) = (1 + erf(x / √2)) / 2.
fn normal_cdf(x: &Tensor) -> Result<Tensor> {
    ((x * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1.0)? * 0.5
}

/// The VJP of GEGLU: the gradient of (…, 2d) from that of (…, d).
pub(super) fn geglu(x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (wide, dy) = (at_least_f32(x)?, at_least_f32(dy)?);
    let d = dy.dim(D::Minus1)?;
    let (value, gate) = (wide.narrow(D::Minus1, 0, d)?, wide.narrow(D::Minus1, d, d)?);
    let to_value = (&dy * (&gate * normal_cdf(&gate)?)?)?;
    let to_gate = ((value * dy)? * derivative(Activation::Gelu, &gate)?)?;
    Tensor::cat(&[to_value, to_gate], D::Minus1)?.to_dtype(x.dtype())
}

/// The VJP of upsampling by 2, the sum of every four pixels: (B, C, 2H, 2W) → (B, C, H, W).
pub(super) fn sum_2x2(x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    x.reshape((b, c, h / 2, 2, w / 2, 2))?.sum(5)?.sum(3)
}

/// The parameters of a group norm.
pub(super) struct Group<'a> {
    pub groups: usize,
    pub weight: &'a Tensor,
    pub bias: &'a Tensor,
    pub eps: f64,
    pub activate: bool,
}

impl Group<'_> {
    /// Returns dx, and the gradient (B, groups, 2) of the moments if they are an argument.
    pub fn vjp(&self, x: &Tensor, moments: Option<&Tensor>, dy: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        let (b, c, h, w) = x.dims4()?;
        let (pixels, grouped) = ((b, c, h, w), (b, self.groups, c / self.groups * h * w));
        let normal = at_least_f32(x)?.reshape(grouped)?;
        let dtype = normal.dtype();
        let by_channel = |t: &Tensor| t.to_dtype(dtype)?.reshape((1, c, 1, 1));
        let (mean, variance) = match moments {
            Some(moments) => (moments.narrow(2, 0, 1)?, moments.narrow(2, 1, 1)?),
            None => {
                let mean = normal.mean_keepdim(D::Minus1)?;
                let variance = normal.broadcast_sub(&mean)?.sqr()?.mean_keepdim(D::Minus1)?;
                (mean, variance)
            }
        };
        let scale = (variance + self.eps)?.sqrt()?.recip()?;
        let normal = normal.broadcast_sub(&mean)?.broadcast_mul(&scale)?;
        let mut d = dy.to_dtype(dtype)?;
        let weight = by_channel(self.weight)?;
        if self.activate {
            let y = normal.reshape(pixels)?.broadcast_mul(&weight)?.broadcast_add(&by_channel(self.bias)?)?;
            d = (d * derivative(Activation::Silu, &y)?)?;
        }
        let d = d.broadcast_mul(&weight)?.reshape(grouped)?;
        let (dx, of_moments) = if moments.is_some() {
            let to_mean = (d.sum_keepdim(D::Minus1)?.mul(&scale)? * -1.0)?;
            let to_variance = ((&d * &normal)?.sum_keepdim(D::Minus1)?.mul(&scale.sqr()?)? * -0.5)?;
            (d, Some(Tensor::cat(&[to_mean, to_variance], 2)?))
        } else {
            (centred(&d, &normal)?, None)
        };
        Ok((dx.broadcast_mul(&scale)?.reshape(pixels)?.to_dtype(x.dtype())?, of_moments))
    }
}

/// Projects d orthogonally to the constant and to the normalised x: the VJP of normalisation, except for its scale.
fn centred(d: &Tensor, x: &Tensor) -> Result<Tensor> {
    let along = (d * x)?.mean_keepdim(D::Minus1)?;
    d.broadcast_sub(&d.mean_keepdim(D::Minus1)?)? - x.broadcast_mul(&along)?
}

/// The VJP of mean and variance (B, groups, 2).
pub(super) fn group_moments(x: &Tensor, groups: usize, dy: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let n = c / groups * h * w;
    let wide = at_least_f32(x)?.reshape((b, groups, n))?;
    let (to_mean, to_variance) = ((dy.narrow(2, 0, 1)? / n as f64)?, (dy.narrow(2, 1, 1)? * (2.0 / n as f64))?);
    let off = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
    off.broadcast_mul(&to_variance)?.broadcast_add(&to_mean)?.reshape((b, c, h, w))?.to_dtype(x.dtype())
}

/// The VJP of a layer norm over the last dimension.
pub(super) fn layer_norm(x: &Tensor, weight: &Tensor, eps: f64, dy: &Tensor) -> Result<Tensor> {
    let wide = at_least_f32(x)?;
    let off = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
    let scale = (off.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?.recip()?;
    let normal = off.broadcast_mul(&scale)?;
    let d = dy.to_dtype(wide.dtype())?.broadcast_mul(&weight.to_dtype(wide.dtype())?)?;
    centred(&d, &normal)?.broadcast_mul(&scale)?.to_dtype(x.dtype())
}

/// The VJP of attention: the gradients of q (B, heads·d, N), k (B, heads·d, M) and v (B, M, heads·d) from that of the
/// result, (B, heads·d, N).
///
/// Recomputes the weights of some queries at a time, so that N×M numbers never exist at once.
pub(super) fn attention(
    [q, k, v]: [&Tensor; 3],
    heads: usize,
    causal: bool,
    wanted: [bool; 3],
    dy: &Tensor,
) -> Result<[Option<Tensor>; 3]> {
    // A few tensors of the size of the scores exist at once.
    let queries = SCORES / 4 / (q.dim(0)? * heads * k.dim(2)?).max(1);
    attention_by([q, k, v], heads, causal, wanted, dy, queries)
}

/// [`attention`], `queries` at a time (at least one).
pub(super) fn attention_by(
    [q, k, v]: [&Tensor; 3],
    heads: usize,
    causal: bool,
    [_, of_keys, of_values]: [bool; 3],
    dy: &Tensor,
    queries: usize,
) -> Result<[Option<Tensor>; 3]> {
    let ((b, c, n), m) = (q.dims3()?, k.dim(2)?);
    let (d, dtype) = (c / heads, q.dtype());
    let scale = 1.0 / (d as f64).sqrt();
    let split = |t: &Tensor, len: usize| t.reshape((b, heads, d, len))?.transpose(2, 3)?.contiguous();
    let (q, k, dy) = ((split(q, n)? * scale)?, split(k, m)?, split(dy, n)?);
    let v = v.reshape((b, m, heads, d))?.transpose(1, 2)?.contiguous()?;
    let (keys, values) = (k.t()?.contiguous()?, v.t()?.contiguous()?);
    let queries = queries.clamp(1, n.max(1));
    let (mut dq, mut dk, mut dv) = (Vec::new(), k.zeros_like()?, v.zeros_like()?);
    for first in (0..n).step_by(queries) {
        let rows = queries.min(n - first);
        let (q, dy) = (q.narrow(2, first, rows)?.contiguous()?, dy.narrow(2, first, rows)?.contiguous()?);
        let mut scores = q.matmul(&keys)?;
        if causal {
            scores = hide_later(&scores, first)?;
        }
        let weights = at_least_f32(&softmax(&scores)?)?;
        drop(scores);
        let of_scores = of_scores(&weights, &at_least_f32(&dy.matmul(&values)?)?)?.to_dtype(dtype)?;
        if of_values {
            dv = (dv + weights.to_dtype(dtype)?.t()?.contiguous()?.matmul(&dy)?)?;
        }
        if of_keys {
            dk = (dk + of_scores.t()?.contiguous()?.matmul(&q)?)?;
        }
        dq.push((of_scores.matmul(&k)? * scale)?);
    }
    let dq = Tensor::cat(&dq, 2)?.transpose(2, 3)?.reshape((b, c, n))?;
    let dk = dk.transpose(2, 3)?.reshape((b, c, m))?;
    Ok([Some(dq), Some(dk), Some(dv.transpose(1, 2)?.reshape((b, m, c))?)])
}

/// The VJP of softmax, from its result y and dy.
fn of_scores(weights: &Tensor, d: &Tensor) -> Result<Tensor> {
    let mean = (weights * d)?.sum_keepdim(D::Minus1)?;
    weights * d.broadcast_sub(&mean)?
}

/// The VJP of attention weights: the gradients of q (B, heads·d, N) and k (B, heads·d, M) from that of the weights,
/// (B, heads, N, M).
pub(super) fn attention_weights([q, k]: [&Tensor; 2], heads: usize, dy: &Tensor) -> Result<[Option<Tensor>; 2]> {
    let ((b, c, n), m) = (q.dims3()?, k.dim(2)?);
    let (d, dtype) = (c / heads, q.dtype());
    let scale = 1.0 / (d as f64).sqrt();
    let q = (q.reshape((b, heads, d, n))?.contiguous()? * scale)?;
    let k = k.reshape((b, heads, d, m))?.contiguous()?;
    let weights = at_least_f32(&softmax(&q.t()?.contiguous()?.matmul(&k)?)?)?;
    let of_scores = of_scores(&weights, &at_least_f32(dy)?)?.to_dtype(dtype)?;
    let dq = (k.matmul(&of_scores.t()?.contiguous()?)? * scale)?.reshape((b, c, n))?;
    let dk = q.matmul(&of_scores.contiguous()?)?.reshape((b, c, m))?;
    Ok([Some(dq), Some(dk)])
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::super::{Layout, Moments, attention, attention_weights, conv2d, geglu, gelu, group_norm, group_norm_by};
    use super::super::{layer_norm, linear_between, quick_gelu, select_pixels, silu, upsample_nearest_2x, vjp};
    use super::*;

    fn normal(shape: &[usize]) -> Tensor {
        Tensor::randn(0f64, 1.0, shape, &Device::Cpu).unwrap()
    }

    fn relative(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.dims(), b.dims());
        let norm = |t: Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
        let (a, b) = (a.to_dtype(DType::F64).unwrap(), b.to_dtype(DType::F64).unwrap());
        norm((a - &b).unwrap()) / norm(b)
    }

    /// The result does not depend on the number of queries at a time.
    #[test]
    fn attention_in_chunks() {
        let (b, heads, d, n, m) = (2, 3, 5, 11, 11);
        let c = heads * d;
        let (q, k, v, dy) = (normal(&[b, c, n]), normal(&[b, c, m]), normal(&[b, m, c]), normal(&[b, c, n]));
        for causal in [false, true] {
            let by = |queries| attention_by([&q, &k, &v], heads, causal, [true; 3], &dy, queries).unwrap();
            let whole = by(n);
            for queries in [0, 1, 4, 10, 100] {
                for (part, whole) in by(queries).iter().zip(&whole) {
                    let error = relative(part.as_ref().unwrap(), whole.as_ref().unwrap());
                    assert!(error < 1e-14, "{queries} at a time: {error:.1e}");
                }
            }
        }
    }

    /// Every operation in half precision, within its rounding.
    #[test]
    fn half_precision() {
        type Case<'a> = (&'a str, Vec<Tensor>, Box<dyn Fn(&[Tensor]) -> Result<Tensor> + 'a>);
        let (scale, row) = (normal(&[6]), normal(&[12]));
        let like = |t: &Tensor, x: &Tensor| t.to_dtype(x.dtype());
        let (window, matrix) = (normal(&[4, 6, 3, 3]), normal(&[5, 12]));
        let picture = || vec![normal(&[2, 6, 7, 5])];
        let (rows, columns) =
            (Tensor::new(&[6u32, 0, 3, 3], &Device::Cpu).unwrap(), Tensor::new(&[4u32, 1], &Device::Cpu).unwrap());
        let cases: Vec<Case> = vec![
            ("silu", picture(), Box::new(|x| silu(&x[0]))),
            ("gelu", picture(), Box::new(|x| gelu(&x[0]))),
            ("quick gelu", picture(), Box::new(|x| quick_gelu(&x[0]))),
            ("geglu", vec![normal(&[3, 12])], Box::new(|x| geglu(&x[0]))),
            ("doubling", picture(), Box::new(|x| upsample_nearest_2x(&x[0]))),
            ("pixels", picture(), Box::new(|x| select_pixels(&x[0], &rows, &columns))),
            (
                "group norm",
                picture(),
                Box::new(|x| group_norm(&x[0], 3, &like(&scale, &x[0])?, &like(&scale, &x[0])?, 1e-5, true)),
            ),
            (
                "group norm by moments",
                picture(),
                Box::new(|x| {
                    let moments = Moments::of(&x[0], 3)?;
                    group_norm_by(&x[0], &moments, &like(&scale, &x[0])?, &like(&scale, &x[0])?, 1e-5, false)
                }),
            ),
            (
                "layer norm",
                vec![normal(&[3, 12])],
                Box::new(|x| layer_norm(&x[0], &like(&row, &x[0])?, &like(&row, &x[0])?, 1e-5)),
            ),
            (
                "linear",
                vec![normal(&[1, 7, 12])],
                Box::new(|x| {
                    linear_between(&x[0], &like(&matrix, &x[0])?, None, None, (Layout::Tokens, Layout::Channels))
                }),
            ),
            ("convolution", picture(), Box::new(|x| conv2d(&x[0], &like(&window, &x[0])?, None, 1, (1, 1)))),
            ("convolution by 2", picture(), Box::new(|x| conv2d(&x[0], &like(&window, &x[0])?, None, 2, (0, 1)))),
            (
                "attention",
                vec![normal(&[1, 8, 9]), normal(&[1, 8, 7]), normal(&[1, 7, 8])],
                Box::new(|x| attention(&x[0], &x[1], &x[2], 2, false)),
            ),
            (
                "attention weights",
                vec![normal(&[1, 8, 9]), normal(&[1, 8, 7])],
                Box::new(|x| attention_weights(&x[0], &x[1], 2)),
            ),
        ];
        for (name, inputs, f) in &cases {
            let wanted = vec![true; inputs.len()];
            let of = |dtype| {
                let inputs: Vec<_> =
                    inputs.iter().map(|x| x.to_dtype(DType::BF16)?.to_dtype(dtype)).collect::<Result<_>>()?;
                let y = f(&inputs)?;
                let wave: Vec<f64> = (0..y.elem_count()).map(|i| (i as f64 * 1.7).cos()).collect();
                let dy = Tensor::from_vec(wave, y.shape(), &Device::Cpu)?.to_dtype(dtype)?;
                vjp(f, &inputs, &wanted, |_| Ok(dy))
            };
            let exact = of(DType::F64).unwrap();
            // candle does not support matrix products of bf16 on the CPU.
            for (dtype, bound) in [(DType::F32, 1e-6), (DType::F16, 5e-3)] {
                for (i, (x, exact)) in of(dtype).unwrap().iter().zip(&exact).enumerate() {
                    let (x, exact) = (x.as_ref().unwrap(), exact.as_ref().unwrap());
                    assert_eq!(x.dtype(), dtype, "{name}, input {i}");
                    let error = relative(x, exact);
                    assert!(error < bound, "{name}, input {i} in {dtype:?}: relative error {error:.1e}");
                }
            }
        }
    }
}
