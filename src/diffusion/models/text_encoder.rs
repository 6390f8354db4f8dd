//! A text encoder with its tokenizer: from a prompt's text to weighted hidden states.

use std::sync::Arc;

use candle_core::{DType, Tensor};

use crate::models::clip::{ClipTextModel, ClipTokenizer};
use crate::models::prompt::{self, Chunk, Group};
use crate::reduce::all_finite;
use crate::{Error, Result};

pub(super) struct TextEncoder {
    pub tokenizer: Arc<ClipTokenizer>,
    pub model: ClipTextModel,
}

impl TextEncoder {
    /// Splits a prompt's weighted tokens into chunks for the encoder; at least one.
    pub fn chunks(&self, prompt: &str) -> Result<Vec<Chunk>> {
        let groups = prompt::parse(prompt).into_iter().map(|segment| {
            let weight = segment.weight as f32;
            if !weight.is_finite() {
                return Err(Error::input(format!(
                    "prompt: {:?} has a weight that is too large; remove some of the parentheses around it",
                    segment.text
                )));
            }
            Ok(Group { ids: self.tokenizer.tokens(&segment.text)?, weight })
        });
        Ok(prompt::chunks(&groups.collect::<Result<Vec<_>>>()?, self.tokenizer.room()))
    }

    /// A prompt's tokens, each with its index in the context.
    pub fn places(&self, prompt: &str) -> Result<Vec<(u32, usize)>> {
        let length = self.tokenizer.max_length();
        let chunks = self.chunks(prompt)?;
        let placed = |(i, chunk): (usize, &Chunk)| -> Vec<(u32, usize)> {
            chunk.iter().enumerate().map(|(j, (id, _))| (*id, i * length + 1 + j)).collect()
        };
        Ok(chunks.iter().enumerate().flat_map(placed).collect())
    }

    /// Encodes n chunks of L tokens: weighted hidden states (1, n L, d), and the pooled, projected text (1, p) of the first
    /// chunk.
    pub fn encode(&self, chunks: &[Chunk], penultimate: bool, skipped: usize) -> Result<(Tensor, Option<Tensor>)> {
        let weighted = chunks.iter().flatten().any(|(_, weight)| *weight != 1.0);
        let mut ids: Vec<_> = chunks.iter().map(|c| self.tokenizer.frame(c.iter().map(|(id, _)| *id))).collect();
        if weighted {
            ids.push(self.tokenizer.frame([]));
        }
        let text = self.model.forward_without(skipped, &ids)?;
        let states = if penultimate { text.penultimate } else { text.last_hidden_state };
        let n = chunks.len();
        let mut context = states.narrow(0, 0, n)?;
        if weighted {
            context = weigh(&context, &states.narrow(0, n, 1)?, chunks)?;
        }
        let (_, l, d) = context.dims3()?;
        Ok((context.reshape((1, n * l, d))?, text.text_embeds.map(|t| t.narrow(0, 0, 1)).transpose()?))
    }
}

/// Computes z w + z_empty (1 − w) with each token's weight w, exactly z where w = 1, from `states` (n, L, d) of n chunks and
/// `empty` (1, L, d) of the empty text.
fn weigh(states: &Tensor, empty: &Tensor, chunks: &[Chunk]) -> Result<Tensor> {
    let (n, l, _) = states.dims3()?;
    let mut weights = vec![1f32; n * l];
    for (row, chunk) in weights.chunks_exact_mut(l).zip(chunks) {
        // Begin of text comes first. Its weight is 1, like that of end and padding.
        row.iter_mut().skip(1).zip(chunk).for_each(|(weight, token)| *weight = token.1);
    }
    let weights = Tensor::from_vec(weights, (n, l, 1), states.device())?;
    let (z, empty) = (states.to_dtype(DType::F32)?, empty.to_dtype(DType::F32)?);
    let z = (z.broadcast_mul(&weights)? + empty.broadcast_mul(&(1.0 - weights)?)?)?.to_dtype(states.dtype())?;
    if !all_finite(&z)? {
        return Err(Error::input("prompt: its weights are too large; write weights near 1"));
    }
    Ok(z)
}
