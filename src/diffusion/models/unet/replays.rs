//! Calls of a U-Net that are recorded on a CUDA device, and replayed at each step.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Shape, Tensor, TensorId};
use lsregen_tensor::cuda::replay::Replay;

use super::conditioning::Conditioning;
use super::options::PassOptions;
use crate::Result;

/// Recordings that exist at once: the unguided and the guided steps of a run, with and without a layout.
const MOST: usize = 4;

/// The recorded calls, the one that was used last at the end.
#[derive(Default)]
pub(super) struct Replays(Mutex<Vec<Recorded>>);

struct Recorded {
    key: Key,
    /// A recording reads the conditioning at its address.
    _conditioning: Conditioning,
    replay: Arc<Replay>,
}

#[derive(PartialEq)]
struct Key {
    conditioning: Vec<TensorId>,
    shape: Shape,
    options: PassOptions,
}

impl Replays {
    /// Computes `predict(z, t)` for this conditioning; `None` where autodiff tracks an input, or the latent is not on a
    /// CUDA device.
    pub fn run(
        &self,
        [z, t]: [&Tensor; 2],
        conditioning: &Conditioning,
        options: &PassOptions,
        predict: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Option<Tensor>> {
        let tensors = conditioning.tensors();
        if !z.device().is_cuda() || z.track_op() || tensors.iter().any(|t| t.track_op()) {
            return Ok(None);
        }
        let ids = tensors.iter().map(|t| t.id()).collect();
        let key = Key { conditioning: ids, shape: z.shape().clone(), options: options.clone() };
        let replay = self.replay(key, conditioning);
        let predict = |inputs: &[Tensor]| predict(&inputs[0], &inputs[1]).map_err(Into::into);
        Ok(Some(replay.run(&[z, t], predict)?))
    }

    fn replay(&self, key: Key, conditioning: &Conditioning) -> Arc<Replay> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recorded = match all.iter().position(|recorded| recorded.key == key) {
            Some(i) => all.remove(i),
            None => Recorded { key, _conditioning: conditioning.clone(), replay: Arc::default() },
        };
        let replay = recorded.replay.clone();
        all.push(recorded);
        let former = all.len().saturating_sub(MOST);
        all.drain(..former);
        replay
    }
}
