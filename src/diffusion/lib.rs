//! The diffusion library of lsregen: models, samplers, inversion and the backward guidance framework.
//!
//! It depends on tensors, images and checkpoints, and not on graphs, YAML or the engine.
//!
//! [`schedule`], [`sampler`], [`inversion`] and [`guidance`] are the paper's mathematics; [`models`] are the networks
//! over [`lsregen_weights`], made of [`lsregen_tensor::ops`]; [`pipeline`] puts them together.
//!
//! Load a model, sample with it, and guide the sampling towards a red box:
//!
//! ```
//! use std::sync::Arc;
//!
//! use lsregen_diffusion::guidance::{ColourLayoutGuidance, GuidanceSettings, GuidanceSpec, Metric, Normalise};
//! use lsregen_diffusion::models::{Blueprint, Model};
//! use lsregen_diffusion::models::prompt::Sizes;
//! use lsregen_diffusion::pipeline::{SamplingSettings, sample};
//! use lsregen_diffusion::sampler::{SamplerKind, SamplerSettings};
//! use lsregen_diffusion::source::SourceImage;
//! use lsregen_tensor::candle_core::{DType, Device};
//! use lsregen_weights::{BUILTIN, Precision};
//!
//! # fn main() -> lsregen_diffusion::Result<()> {
//! // The built-in `shapes/xl`; `ModelFiles::Folder(path)` is a model on disk in diffusers' layout.
//! let blueprint = Blueprint::open(&BUILTIN[1].clone().into()).map_err(|problems| problems.into_iter().next().unwrap().error)?;
//! let model = Model::new(blueprint, Precision::new(DType::F32, &Device::Cpu), false);
//! let settings = SamplingSettings {
//!     prompt: "a red circle on sand".into(),
//!     negative: None,
//!     width: 64,
//!     height: 64,
//!     seed: 1,
//!     cfg: 2.0,
//!     sampler: SamplerSettings::new(SamplerKind::Ddim, 2),
//!     sizes: Sizes::default(),
//!     from: None,
//!     options: Default::default(),
//!     source: SourceImage::default(),
//! };
//! let plain = sample(&model, &settings, &[], &|_| Ok(()))?;
//! assert_eq!(plain.dims(), [1, 4, 8, 8]);
//!
//! let red_box: Arc<dyn GuidanceSpec> = Arc::new(ColourLayoutGuidance {
//!     colours: vec![([0.1, 0.1, 0.5, 0.5], [1.0, 0.0, 0.0])],
//!     metric: Metric::L2,
//!     settings: GuidanceSettings { normalise: Normalise::Freedom, ..GuidanceSettings::default() },
//! });
//! let guided = sample(&model, &settings, &[red_box], &|_| Ok(()))?;
//! let difference = (guided - plain)?.abs()?.max_all()?.to_scalar::<f32>()?;
//! assert!(difference > 0.0);
//! # Ok(())
//! # }
//! ```

#![warn(missing_docs)]

pub mod denoiser;
pub mod draw;
pub mod guidance;
pub mod inversion;
pub mod latent;
pub mod layout;
pub mod layout_file;
pub mod models;
mod order;
pub mod perturbed_attention;
pub mod pipeline;
pub mod reduce;
pub mod regions;
pub mod sampler;
mod sampling;
pub mod schedule;
pub mod source;

pub use lsregen_tensor::{Error, Result};
// The crates that this crate builds on, by their names without the prefix.
use lsregen_tensor::{image, noise, ops};
use {lsregen_onnx as onnx, lsregen_weights as weights};
