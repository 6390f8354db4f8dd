//! The nodes of lsregen: adapters of the diffusion library for the engine, one file for each node, in modules by topic.
//!
//! A node's struct is its parameters, and their doc comments are the reference for users. [`values`] are what nodes exchange;
//! [`ComputeOptions`] is the service that a host must offer them. The mathematics is all in `lsregen-diffusion`.

mod foreign;
mod guidance;
mod host;
mod image;
mod latent;
mod layout;
mod model;
mod params;
mod sample;
pub mod values;

use lsregen_engine::{NodeType, Registry};

pub use foreign::FOREIGN_NAMES;
pub use guidance::*;
pub use host::blueprints::Blueprints;
pub use host::metadata::Metadata;
pub use host::numerics::{ComputeOptions, DtypeOption};
pub use host::write::WrittenBefore;
pub use host::{device, metadata, sheet};
pub use image::*;
pub use latent::*;
pub use layout::*;
pub use lsregen_diffusion::models::{ModelLocation, Survey};
pub use lsregen_onnx::{OnnxInfo, OnnxNetwork};
pub use lsregen_tensor::ops::{keep_memory, start_threads};
pub use lsregen_tensor::profile as device_profile;
pub use lsregen_weights::{builtin_models, hub, search};
pub use model::*;
pub use params::boxes::{LayoutFiles, PhraseBox};
pub use params::clip::ClipPath;
pub use params::guidance::{AutoStrength, GuidanceParams, Strength};
pub use params::model_path::{FetchMode, bring};
pub use params::sampling::{Sampling, SdxlSampling};
pub use params::steps::{Fresh, StepRange, Steps};
pub use sample::*;

/// Every node type, in the order in which the reference lists them.
pub const ALL: &[NodeType] = &[
    NodeType::of::<LoadModel>(),
    NodeType::of::<GligenLayout>(),
    NodeType::of::<Layout>(),
    NodeType::of::<Upsample>(),
    NodeType::of::<VaeEncode>(),
    NodeType::of::<Invert>(),
    NodeType::of::<AsNode<ReferenceImage>>(),
    NodeType::of::<AsNode<LowPass>>(),
    NodeType::of::<AsNode<Edges>>(),
    NodeType::of::<AsNode<ColourLayout>>(),
    NodeType::of::<AsNode<ClipText>>(),
    NodeType::of::<AsNode<ClipImage>>(),
    NodeType::of::<AsNode<Style>>(),
    NodeType::of::<AsNode<OnnxFeature>>(),
    NodeType::of::<AsNode<BoxDiff>>(),
    NodeType::of::<AsNode<LayoutGuidance>>(),
    NodeType::of::<AsNode<BoundedAttention>>(),
    NodeType::of::<AsNode<Segmentation>>(),
    NodeType::of::<GuidedSdxlSample>(),
    NodeType::of::<SdxlSample>(),
    NodeType::of::<GuidedSdSample>(),
    NodeType::of::<MultiDiffusionSample>(),
    NodeType::of::<Decode>(),
    NodeType::of::<LoadImage>(),
    NodeType::of::<SaveImage>(),
    NodeType::of::<LoadLatent>(),
    NodeType::of::<SaveLatent>(),
    NodeType::of::<DrawLayout>(),
    NodeType::of::<AttentionMap>(),
    NodeType::of::<ImageGrid>(),
];

/// The registry of [`ALL`] node types.
pub fn registry() -> Registry {
    Registry::new(ALL).with_foreign_names(FOREIGN_NAMES)
}

/// The guide to guidance, whose example is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../docs/guidance.md")]
struct GuidanceGuide;

/// The guide for contributors, whose example is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../CONTRIBUTING.md")]
struct ContributorsGuide;
