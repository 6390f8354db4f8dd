//! Attention by our own kernel, in half precision and forwards only: for builds without cuDNN, and what cuDNN refuses.

use candle_core::{DType, Result, Tensor};

use super::launch::{Arg, Module, Size, address, int, launch, new_tensor};

/// Queries of a block: `QUERIES` of the kernel.
const QUERIES: usize = 64;

/// Threads of a block: `THREADS` of the kernel.
const THREADS: usize = 128;

/// The head sizes that the kernel exists for; others are filled up with zeros.
const SIZES: [usize; 6] = [32, 48, 64, 80, 128, 160];

/// softmax(q kᵀ / √d) v, with tokens first: `q` (B, N, heads·d), `k` and `v` (B, M, heads·d) → (B, N, heads·d). `None` if the
/// kernel does not apply: it needs f16 or bf16 and a head size that is a multiple of 8, up to 160.
///
/// # Errors
/// If shapes do not match.
pub fn attention([q, k, v]: [&Tensor; 3], heads: usize, causal: bool) -> Result<Option<Tensor>> {
    let ((b, n, c), (kb, m, kc)) = (q.dims3()?, k.dims3()?);
    if (kb, kc) != (b, c) || v.dims() != k.dims() || heads == 0 || !c.is_multiple_of(heads) {
        candle_core::bail!("attention: {heads} heads, q {:?}, k {:?}, v {:?}", q.shape(), k.shape(), v.shape());
    }
    let d = c / heads;
    let half = matches!(q.dtype(), DType::F16 | DType::BF16) && k.dtype() == q.dtype() && v.dtype() == q.dtype();
    let Some(size) = SIZES.into_iter().find(|size| d <= *size).filter(|_| half && d.is_multiple_of(8)) else {
        return Ok(None);
    };
    if b * heads > 65535 {
        return Ok(None);
    }
    let name = format!("attention_{}_{size}", q.dtype().as_str());
    let (q, k, v) = (rows(q)?, rows(k)?, rows(v)?);
    let addresses = [address(&q)?, address(&k)?, address(&v)?];
    let strides = |t: &Tensor| [t.stride()[0], d, t.stride()[1]].map(|stride| Arg::Long(stride as i64));
    let strides = [strides(&q), strides(&k), strides(&v)].concat();
    // The kernel's exponentials are powers of 2.
    let scale = std::f64::consts::LOG2_E / (d as f64).sqrt();
    let o = new_tensor(&q, (b, n, c), q.dtype(), |device, o| {
        let size = Size { blocks: (n.div_ceil(QUERIES), b * heads), threads: THREADS, shared: 0 };
        let pointers = [addresses[0], addresses[1], addresses[2], o].map(Arg::Address);
        let last = [int(n)?, int(m)?, int(heads)?, int(d)?, Arg::Float(scale as f32), Arg::Int(causal.into())];
        launch(device, Module::Attention, &name, size, &[&pointers[..], &strides, &last].concat())
    })?;
    Ok(Some(o))
}

/// The tensor, or a copy of it, so that the kernel reads 16 bytes at a time: features beside each other, and rows at multiples
/// of 16 bytes.
fn rows(t: &Tensor) -> Result<Tensor> {
    let stride = t.stride();
    let fits =
        stride[2] == 1 && stride[0].is_multiple_of(8) && stride[1].is_multiple_of(8) && address(t)?.is_multiple_of(16);
    if fits { Ok(t.clone()) } else { t.force_contiguous() }
}
