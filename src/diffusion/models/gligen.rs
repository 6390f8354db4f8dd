//! GLIGEN's grounding: boxes and phrases as tokens, and the gated self-attention through which they enter a U-Net.
//!
//! Li et al., GLIGEN, CVPR 2023; checked against diffusers' `GLIGENTextBoundingboxProjection` and
//! `GatedSelfAttentionDense`.

use candle_core::{D, DType, Device, Tensor};

use crate::models::config::AttentionType;
use crate::models::layers::{Attention, FeedForward, LayerNorm, Linear};
use crate::weights::Weights;
use crate::{Error, Result, ops};

/// Frequencies of a box's Fourier embedding.
const FREQS: usize = 8;

/// The N slots of a layout. A slot with mask 0 is null: it means "no object".
#[derive(Clone, Debug)]
pub struct Grounding {
    /// Boxes x0 y0 x1 y1 in fractions of the image, (B, N, 4), in f32 or f64.
    pub boxes: Tensor,
    /// The unprojected pooled text of each phrase, (B, N, d).
    pub embeddings: Tensor,
    /// 1 for an object, 0 for a null slot, (B, N).
    pub masks: Tensor,
}

/// Fourier embedding of boxes: (B, N, 4) → (B, N, 64), for each frequency four sines, then four cosines. Boxes are in f32 or
/// f64: the highest frequency is 56, at which an edge in bf16 is off by up to 0.2 radians.
pub fn fourier_embedding(boxes: &Tensor) -> Result<Tensor> {
    let mut parts = Vec::with_capacity(2 * FREQS);
    for k in 0..FREQS {
        let scaled = (boxes * 100f64.powf(k as f64 / FREQS as f64))?;
        parts.push(scaled.sin()?);
        parts.push(scaled.cos()?);
    }
    Ok(Tensor::cat(&parts, D::Minus1)?)
}

struct Projector {
    linears: [Linear; 3],
}

impl Projector {
    fn new(width: usize, out: usize, w: &Weights) -> Result<Self> {
        let linears = [
            Linear::new(width + 8 * FREQS, 512, &w.at(0))?,
            Linear::new(512, 512, &w.at(2))?,
            Linear::new(512, out, &w.at(4))?,
        ];
        Ok(Projector { linears })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [a, b, c] = &self.linears;
        c.forward(&ops::silu(&b.forward(&ops::silu(&a.forward(x)?)?)?)?)
    }
}

/// Computes grounding tokens from slots.
pub struct PositionNet {
    text: Projector,
    image: Option<Projector>,
    null_text: Tensor,
    null_image: Option<Tensor>,
    null_position: Tensor,
}

impl PositionNet {
    /// Builds the net. `width` is that of phrase embeddings and tokens.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(kind: AttentionType, width: usize, w: &Weights) -> Result<Self> {
        let null_position = w.get(8 * FREQS, "null_position_feature")?;
        Ok(match kind {
            AttentionType::GatedTextImage => PositionNet {
                text: Projector::new(width, width, &w.at("linears_text"))?,
                image: Some(Projector::new(width, width, &w.at("linears_image"))?),
                null_text: w.get(width, "null_text_feature")?,
                null_image: Some(w.get(width, "null_image_feature")?),
                null_position,
            },
            _ => PositionNet {
                text: Projector::new(width, width, &w.at("linears"))?,
                image: None,
                null_text: w.get(width, "null_positive_feature")?,
                null_image: None,
                null_position,
            },
        })
    }

    /// Computes tokens (B, N, d). A text-and-image model gets null images too, (B, 2N, d), as in its training.
    ///
    /// # Errors
    /// If shapes do not match.
    pub fn forward(&self, g: &Grounding) -> Result<Tensor> {
        let m = g.masks.unsqueeze(D::Minus1)?;
        let null = |n: &Tensor, m: &Tensor| -> Result<Tensor> {
            Ok(m.affine(-1.0, 1.0)?.broadcast_mul(&n.reshape((1, 1, ()))?)?)
        };
        let position = |m: &Tensor| -> Result<Tensor> {
            Ok((fourier_embedding(&g.boxes)?.to_dtype(m.dtype())?.broadcast_mul(m)? + null(&self.null_position, m)?)?)
        };
        let text = (g.embeddings.broadcast_mul(&m)? + null(&self.null_text, &m)?)?;
        let tokens = self.text.forward(&Tensor::cat(&[text, position(&m)?], D::Minus1)?)?;
        let (Some(image), Some(null_image)) = (&self.image, &self.null_image) else { return Ok(tokens) };
        let none = m.zeros_like()?;
        let image = image.forward(&Tensor::cat(&[null(null_image, &none)?, position(&m)?], D::Minus1)?)?;
        Ok(Tensor::cat(&[tokens, image], 1)?)
    }
}

/// Gated self-attention over pixels and grounding tokens, after a block's self-attention.
pub struct Fuser {
    linear: Linear,
    attn: Attention,
    ff: FeedForward,
    norm1: LayerNorm,
    norm2: LayerNorm,
    /// tanh α of the attention and of the feed-forward net.
    gates: [f64; 2],
}

impl Fuser {
    /// Builds the fuser of a block of width `d`, for grounding tokens of width `context`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(d: usize, context: usize, heads: usize, w: &Weights) -> Result<Self> {
        // Numbers, not tensors, for which candle would compute gradients.
        let gate = |name: &str| -> Result<f64> {
            Ok(w.get((), name)?.tanh()?.to_dtype(DType::F64)?.to_device(&Device::Cpu)?.to_scalar()?)
        };
        Ok(Fuser {
            linear: Linear::new(context, d, &w.at("linear"))?,
            attn: Attention::new(d, d, heads, &w.at("attn"))?,
            ff: FeedForward::new(d, &w.at("ff"))?,
            norm1: LayerNorm::new(d, 1e-5, &w.at("norm1"))?,
            norm2: LayerNorm::new(d, 1e-5, &w.at("norm2"))?,
            gates: [gate("alpha_attn")?, gate("alpha_dense")?],
        })
    }

    /// `x` (B, N, d), `objs` (B, M, c) → (B, N, d).
    ///
    /// # Errors
    /// If the batches differ.
    pub fn forward(&self, x: &Tensor, objs: &Tensor) -> Result<Tensor> {
        let n = x.dim(1)?;
        if objs.dim(0)? != x.dim(0)? {
            return Err(Error::input("GLIGEN: grounding and latent have different batch sizes"));
        }
        let o = self.linear.forward(objs)?;
        let h = self.norm1.forward(&Tensor::cat(&[x, &o], 1)?)?;
        // Only the results of pixels are used, so only pixels are queries.
        let h = self.attn.forward(&ops::contiguous(&h.narrow(1, 0, n)?)?, &h)?;
        let x = (x + (h * self.gates[0])?)?;
        let h = self.ff.forward(&self.norm2.forward(&x)?)?;
        Ok((&x + (h * self.gates[1])?)?)
    }

    /// How many numbers autodiff keeps for each sample, for `n` pixels, `m` grounding tokens and width `d`.
    pub(super) fn kept(n: usize, m: usize, d: usize) -> usize {
        // All tokens: joined, normalised, keys, values. Pixels: their part, queries, result, projection, gated, sum; in the
        // feed-forward net: norm, 8 before the gate, 4 after it, result, gated, sum.
        4 * (n + m) * d + (6 + 16) * n * d
    }
}
