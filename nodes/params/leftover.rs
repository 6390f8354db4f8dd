//! The noise that one sampling leaves for another: whether the second one continues where the first one ended.

use lsregen_engine::{Links, NodeError};

use super::sampling::Sampling;
use crate::values::{ImageInfo, LatentNoise, LeftNoise};

impl Sampling {
    /// Returns the noise of the latent that this sampling generates.
    pub(crate) fn left_noise(&self) -> LatentNoise {
        match self.range.end_step.filter(|end| self.leftover_noise && *end < self.steps.steps) {
            Some(end) => LatentNoise::Left(LeftNoise { steps: self.steps.clone(), denoise: self.range.denoise, end }),
            None => LatentNoise::None,
        }
    }

    /// Warns of an input latent whose noise is not that of the first step.
    pub(crate) fn leftover_warnings(&self, links: &Links) -> Vec<NodeError> {
        let note = |param: &'static str, message: String, help: String| {
            NodeError::new(param, message).help(help).as_warning("leftover-noise")
        };
        let left = match (ImageInfo::of(links, "latent").noise, self.add_noise) {
            (LatentNoise::Left(left), true) => {
                let message = format!("the input `latent` still has the noise of step {}, and more is added", left.end);
                return vec![note("latent", message, "write `add_noise: false`".into())];
            }
            (LatentNoise::None, false) => {
                let message = "the input `latent` has no noise, and `add_noise: false` adds none".into();
                let help =
                    "write `leftover_noise: true` and an `end_step` in the sampling before, or leave `add_noise` out";
                return vec![note("add_noise", message, help.into())];
            }
            (LatentNoise::Left(left), false) => left,
            _ => return vec![],
        };
        let own = (&self.steps.scheduler, self.steps.steps, self.steps.conventions, self.range.denoise);
        let of_left = (&left.steps.scheduler, left.steps.steps, left.steps.conventions, left.denoise);
        let levels = (own != of_left).then(|| {
            let message = format!(
                "the input `latent` has the noise of a step of {}, but this sampling has {}",
                left.steps.text(),
                self.steps.text()
            );
            let help = "give both samplings the same `steps`, `scheduler`, `conventions` and `denoise`";
            note("latent", message, help.into())
        });
        let place = (self.range.start_step != left.end).then(|| {
            let (start, end) = (self.range.start_step, left.end);
            let message =
                format!("the input `latent` has the noise of step {end}, but this sampling starts at step {start}");
            note("latent", message, format!("write `start_step: {end}`"))
        });
        levels.into_iter().chain(place).collect()
    }
}

/// Warns of a latent at `socket` that still has noise, for a node that takes an image.
pub(crate) fn noisy_warning(links: &Links, socket: &str) -> Option<NodeError> {
    let LatentNoise::Left(left) = ImageInfo::of(links, socket).noise else { return None };
    let message = format!("`{socket}` still has the noise of step {}", left.end);
    Some(
        NodeError::new(socket, message)
            .help("link a sampling that goes on from it, or leave `leftover_noise` out there")
            .as_warning("leftover-noise"),
    )
}
