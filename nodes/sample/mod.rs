//! Nodes that sample.

mod gligen_layout;
mod guided_sd_sample;
mod guided_sdxl_sample;
mod multi_diffusion_sample;
mod sampling;
mod sdxl_sample;

pub use gligen_layout::{GligenLayout, GligenLayoutInputs, GligenLayoutOutputs};
pub use guided_sd_sample::{GuidedSdSample, GuidedSdSampleInputs, GuidedSdSampleOutputs};
pub use guided_sdxl_sample::{GuidedSdxlSample, GuidedSdxlSampleInputs, GuidedSdxlSampleOutputs};
pub use multi_diffusion_sample::{MultiDiffusionSample, MultiDiffusionSampleInputs, MultiDiffusionSampleOutputs};
pub use sdxl_sample::{SdxlSample, SdxlSampleInputs, SdxlSampleOutputs};
