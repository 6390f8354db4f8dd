//! The number of images of a sampling.

use anyhow::ensure;
use lsregen_engine::{Links, NodeError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::values::{ImageInfo, Latent};

/// How many images a sampling generates.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct BatchParams {
    /// Number of images, generated one after another as one batch: with `seed`, with `seed` + 1, and so on. Each is exactly the
    /// image that its seed gives alone, and memory holds the computation of one at a time. By default 1; with a batch
    /// at an input `latent`, one for each of its images.
    #[serde(default, skip_serializing_if = "is_single")]
    #[schemars(range(min = 1, max = 100), extend("default" = null))]
    pub count: Option<u32>,
}

/// Whether the memo key is that of a node without the parameter: a single image, or as many as the input has.
fn is_single(count: &Option<u32>) -> bool {
    count.is_none_or(|count| count == 1)
}

impl BatchParams {
    /// Returns the number of images, if it is known before the run.
    pub(crate) fn declared(self, links: &Links) -> Option<u32> {
        let by_latent = || if links.has("latent") { ImageInfo::of(links, "latent").count } else { Some(1) };
        self.count.or_else(by_latent)
    }

    /// Reports a number other than that of the input latents.
    pub(crate) fn error(self, links: &Links) -> Option<NodeError> {
        let (count, latents) = (self.count?, ImageInfo::of(links, "latent").count?);
        (latents > 1 && count != latents).then(|| {
            NodeError::new("count", format!("`count` is {count}, but `latent` is a batch of {latents}"))
                .help(format!("leave `count` out, which samples each of the {latents}"))
        })
    }

    /// Returns the number of images.
    ///
    /// # Errors
    /// If it is not that of the input latents.
    pub(crate) fn images(self, latent: Option<&Latent>) -> anyhow::Result<usize> {
        let latents = latent.map_or(1, Latent::count);
        let count = self.count.map_or(latents, |count| count as usize);
        ensure!(
            latents == 1 || count == latents,
            "`count` is {count}, but `latent` is a batch of {latents}: leave `count` out"
        );
        Ok(count)
    }
}
