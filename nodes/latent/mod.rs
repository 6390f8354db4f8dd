//! Nodes of latents.

mod decode;
mod load_latent;
mod save_latent;
mod vae_encode;

pub use decode::{Decode, DecodeInputs, DecodeOutputs};
pub use load_latent::{LoadLatent, LoadLatentOutputs};
pub use save_latent::{SaveLatent, SaveLatentInputs, SaveLatentOutputs};
pub use vae_encode::{VaeEncode, VaeEncodeInputs, VaeEncodeOutputs};
