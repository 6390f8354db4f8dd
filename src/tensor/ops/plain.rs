//! The plain candle form of every operation: slow, simple, and correct in value and gradient.

use candle_core::{D, DType, Result, Tensor};

/// `x Wᵀ + b` in `x`'s dtype. `x` (…, in), `weight` (out, in), `bias` (out).
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = x.broadcast_matmul(&weight.to_dtype(x.dtype())?.t()?)?;
    match bias {
        Some(b) => y.broadcast_add(&b.to_dtype(x.dtype())?),
        None => Ok(y),
    }
}

/// Cross-correlation in `x`'s dtype. `x` (B, C, H, W), `weight` (O, C, k, k), `bias` (O); `padding` is the
/// number of zeros (above and left, below and right).
pub fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    (before, after): (usize, usize),
) -> Result<Tensor> {
    let weight = weight.to_dtype(x.dtype())?;
    let y = if stride == 1 && before == after {
        x.conv2d(&weight, before, 1, 1, 1)?
    } else {
        // candle's gradient of a strided convolution requires that windows cover every row and column: pad here, and drop
        // the others.
        let (_, _, h, w) = x.dims4()?;
        let k = weight.dim(2)?;
        if h + before + after < k || w + before + after < k {
            candle_core::bail!("convolution: {w}×{h} is smaller than its {k}×{k} window");
        }
        let reached = |n: usize| (n + before + after - k) / stride * stride + k;
        let x = x.pad_with_zeros(2, before, after)?.pad_with_zeros(3, before, after)?;
        x.narrow(2, 0, reached(h))?.narrow(3, 0, reached(w))?.contiguous()?.conv2d(&weight, 0, stride, 1, 1)?
    };
    match bias {
        Some(b) => y.broadcast_add(&b.to_dtype(x.dtype())?.reshape((1, b.elem_count(), 1, 1))?),
        None => Ok(y),
    }
}

/// Group normalisation of (B, C, H, W), followed by SiLU if `activate`.
pub fn group_norm(
    x: &Tensor,
    groups: usize,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    activate: bool,
) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let g = at_least_f32(x)?.reshape((b, groups, c / groups * h * w))?;
    let g = g.broadcast_sub(&g.mean_keepdim(D::Minus1)?)?;
    let variance = g.sqr()?.mean_keepdim(D::Minus1)?;
    let g = g.broadcast_div(&(variance + eps)?.sqrt()?)?.reshape((b, c, h, w))?.to_dtype(x.dtype())?;
    let y = g.broadcast_mul(&weight.reshape((1, c, 1, 1))?)?.broadcast_add(&bias.reshape((1, c, 1, 1))?)?;
    if activate { silu(&y) } else { Ok(y) }
}

/// Mean and (biased) variance of each group of (B, C, H, W): (B, groups, 2), in f32 or f64.
pub fn group_moments(x: &Tensor, groups: usize) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let g = at_least_f32(x)?.reshape((b, groups, c / groups * h * w))?;
    let mean = g.mean_keepdim(D::Minus1)?;
    let variance = g.broadcast_sub(&mean)?.sqr()?.mean_keepdim(D::Minus1)?;
    Tensor::cat(&[mean, variance], 2)
}

/// [`group_norm`] by these `moments` (B, groups, 2) in place of x's own.
pub fn group_norm_by(
    x: &Tensor,
    moments: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    activate: bool,
) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let groups = moments.dim(1)?;
    let g = at_least_f32(x)?.reshape((b, groups, c / groups * h * w))?;
    let (mean, variance) = (moments.narrow(2, 0, 1)?, moments.narrow(2, 1, 1)?);
    let g = g.broadcast_sub(&mean)?.broadcast_div(&(variance + eps)?.sqrt()?)?;
    let g = g.reshape((b, c, h, w))?.to_dtype(x.dtype())?;
    let y = g.broadcast_mul(&weight.reshape((1, c, 1, 1))?)?.broadcast_add(&bias.reshape((1, c, 1, 1))?)?;
    if activate { silu(&y) } else { Ok(y) }
}

/// Widens half precision, which is too coarse for sums, to f32.
pub(super) fn at_least_f32(x: &Tensor) -> Result<Tensor> {
    if matches!(x.dtype(), DType::F16 | DType::BF16) { x.to_dtype(DType::F32) } else { Ok(x.clone()) }
}

/// Layer normalisation over the last dimension.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(variance + eps)?.sqrt()?)?.broadcast_mul(weight)?.broadcast_add(bias)
}

/// Attention scores that exist at once if none are kept for a backward pass: 256 MiB in f32.
pub(super) const SCORES: usize = 1 << 26;

/// Multi-head attention `softmax(q kᵀ / √d) v`, features first except for the values: `q` (B, heads·d, N),
/// `k` (B, heads·d, M), `v` (B, M, heads·d) → (B, heads·d, N). With `causal`, position i attends to positions 0..=i.
///
/// If autodiff tracks no argument, queries are processed in chunks, so that memory does not grow with N·M.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Result<Tensor> {
    let (b, _, n) = q.dims3()?;
    let scores_of_a_query = (b * heads * k.dim(2)?).max(1);
    let tracked = [q, k, v].iter().any(|t| t.track_op());
    attention_by(q, k, v, heads, causal, if tracked { n } else { SCORES / scores_of_a_query })
}

/// [`attention`], `queries` at a time (at least one). For f16 and bf16 the softmax is computed in f32.
pub fn attention_by(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool, queries: usize) -> Result<Tensor> {
    let (b, c, n) = q.dims3()?;
    let m = k.dim(2)?;
    let d = c / heads;
    let split = |t: &Tensor, len: usize| t.reshape((b, heads, d, len))?.transpose(2, 3)?.contiguous();
    // Scale the queries, not the scores: fewer numbers, and f16 does not overflow.
    let (q, k) = ((split(q, n)? * (1.0 / (d as f64).sqrt()))?, split(k, m)?.t()?);
    let v = v.reshape((b, m, heads, d))?.transpose(1, 2)?.contiguous()?;
    let chunk = |first: usize, rows: usize| -> Result<Tensor> {
        let mut scores = q.narrow(2, first, rows)?.contiguous()?.matmul(&k)?;
        if causal {
            scores = hide_later(&scores, first)?;
        }
        softmax(&scores)?.matmul(&v)
    };
    let queries = queries.clamp(1, n.max(1));
    let y = if queries >= n {
        chunk(0, n)?
    } else {
        let chunks = (0..n).step_by(queries).map(|first| chunk(first, queries.min(n - first)));
        Tensor::cat(&chunks.collect::<Result<Vec<_>>>()?, 2)?
    };
    y.transpose(2, 3)?.reshape((b, c, n))
}

/// Masks the scores (B, heads, rows, M) of the queries from `first` on for keys that come after them.
pub(super) fn hide_later(scores: &Tensor, first: usize) -> Result<Tensor> {
    let (_, _, rows, m) = scores.dims4()?;
    let hidden = |i: usize, j: usize| if j > first + i { f32::NEG_INFINITY } else { 0.0 };
    let mask: Vec<f32> = (0..rows).flat_map(|i| (0..m).map(move |j| hidden(i, j))).collect();
    let mask = Tensor::from_vec(mask, (1, 1, rows, m), scores.device())?.to_dtype(scores.dtype())?;
    scores.broadcast_add(&mask)
}

/// The weights `softmax(qᵀ k / √d)` of [`attention`]: (B, heads, N, M).
pub fn attention_weights(q: &Tensor, k: &Tensor, heads: usize) -> Result<Tensor> {
    let ((b, c, n), m) = (q.dims3()?, k.dim(2)?);
    let d = c / heads;
    let q = (q.reshape((b, heads, d, n))?.transpose(2, 3)?.contiguous()? * (1.0 / (d as f64).sqrt()))?;
    softmax(&q.matmul(&k.reshape((b, heads, d, m))?.contiguous()?)?)
}

/// Softmax over the last dimension, in f32 if the dtype is narrower, as in PyTorch's attention.
pub(super) fn softmax(scores: &Tensor) -> Result<Tensor> {
    let dtype = scores.dtype();
    let scores = match dtype {
        DType::F16 | DType::BF16 => &scores.to_dtype(DType::F32)?,
        _ => scores,
    };
    // The fused form has no gradient; the other one is a composition.
    let weights = match scores.track_op() {
        true => candle_nn::ops::softmax(scores, D::Minus1)?,
        false => candle_nn::ops::softmax_last_dim(&scores.contiguous()?)?,
    };
    weights.to_dtype(dtype)
}

/// Gated GELU: (…, 2d) → (…, d), first half times the exact GELU of the second.
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    let halves = x.chunk(2, D::Minus1)?;
    &halves[0] * gelu(&halves[1])?
}

/// An elementwise function. The numbers are those of the CUDA kernel `activation_vjp`.
#[derive(Clone, Copy)]
pub(super) enum Activation {
    Gelu = 0,
    QuickGelu = 1,
    Silu = 2,
}

/// GELU, the exact (erf) form.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    x.gelu_erf()
}

/// `x σ(1.702 x)`, the GELU of OpenAI's CLIP.
pub fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    x * candle_nn::ops::sigmoid(&(x * 1.702)?)?
}

/// `x σ(x)`.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    x.silu()
}

/// Nearest-neighbour upsampling by 2: (B, C, H, W) → (B, C, 2H, 2W). Uses broadcasting, because the gradient of
/// candle's `upsample_nearest2d` is wrong if its input is used twice.
pub fn upsample_nearest_2x(x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    x.reshape((b, c, h, 1, w, 1))?.broadcast_as((b, c, h, 2, w, 2))?.reshape((b, c, 2 * h, 2 * w))
}
