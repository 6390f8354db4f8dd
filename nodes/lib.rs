//! The nodes of lsregen: thin adapters of the diffusion library for the engine, one file a node.
//!
//! A node's struct is its parameters, and their doc comments are the reference that users read. What travels between
//! nodes is in [`values`]; what a host must offer them is [`Numerics`]. The mathematics is all in `lsregen-diffusion`.

mod guidance_params;
mod boxes;
mod bridge;
mod codecs;
mod defaults;
mod find_model;
pub mod device;
pub mod metadata;
mod named_clip;
mod numerics;
mod options;
mod preview;
mod sampling;
pub mod sheet;
pub mod values;
mod write;

mod attention_map;
mod bounded_attention;
mod box_diff;
mod clip_image;
mod clip_text;
mod colour_layout;
mod decode;
mod draw_layout;
mod edges;
mod gligen_layout;
mod guided_sd_sample;
mod guided_sdxl_sample;
mod image_grid;
mod invert;
mod layout;
mod layout_guidance;
mod load_image;
mod load_latent;
mod load_model;
mod low_pass;
mod multi_diffusion_sample;
mod onnx_feature;
mod reference_image;
mod save_image;
mod save_latent;
mod sdxl_sample;
mod segmentation;
mod style;
mod upsample;
mod vae_encode;

use lsregen_engine::{NodeType, Registry};

pub use attention_map::AttentionMap;
pub use bounded_attention::BoundedAttention;
pub use box_diff::BoxDiff;
pub use boxes::PhraseBox;
pub use clip_image::ClipImage;
pub use clip_text::{ClipText, ClipTextInputs};
pub use colour_layout::{ColourLayout, ColouredBox};
pub use decode::*;
pub use draw_layout::*;
pub use edges::Edges;
pub use find_model::{bring, fetch_model};
pub use gligen_layout::*;
pub use guidance_params::{AutoStrength, GuidanceOutputs, GuidanceParams, Strength};
pub use guided_sd_sample::*;
pub use guided_sdxl_sample::*;
pub use image_grid::*;
pub use invert::*;
pub use layout::Layout;
pub use layout_guidance::LayoutGuidance;
pub use load_image::*;
pub use load_latent::*;
pub use load_model::*;
pub use low_pass::LowPass;
pub use lsregen_diffusion::models::Survey;
pub use lsregen_diffusion::ops::keep_memory;
pub use lsregen_diffusion::weights::{hub, search};
pub use metadata::Metadata;
pub use multi_diffusion_sample::MultiDiffusionSample;
pub use numerics::{DtypeOption, Numerics};
pub use onnx_feature::OnnxFeature;
pub use reference_image::ReferenceImage;
pub use sampling::{Sampling, SdxlSampling};
pub use save_image::*;
pub use save_latent::*;
pub use sdxl_sample::*;
pub use segmentation::{Region, Segmentation};
pub use style::Style;
pub use upsample::*;
pub use vae_encode::*;

/// Every node type, in the order in which the reference lists them.
pub const ALL: &[NodeType] = &[
    NodeType::of::<LoadModel>(),
    NodeType::of::<GligenLayout>(),
    NodeType::of::<Layout>(),
    NodeType::of::<Upsample>(),
    NodeType::of::<VaeEncode>(),
    NodeType::of::<Invert>(),
    NodeType::of::<ReferenceImage>(),
    NodeType::of::<LowPass>(),
    NodeType::of::<Edges>(),
    NodeType::of::<ColourLayout>(),
    NodeType::of::<ClipText>(),
    NodeType::of::<ClipImage>(),
    NodeType::of::<Style>(),
    NodeType::of::<OnnxFeature>(),
    NodeType::of::<BoxDiff>(),
    NodeType::of::<LayoutGuidance>(),
    NodeType::of::<BoundedAttention>(),
    NodeType::of::<Segmentation>(),
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
    Registry::new(ALL)
}

/// The guide to guidance, whose example is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../docs/guidance.md")]
struct GuidanceGuide;

/// The guide for contributors, whose example is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../CONTRIBUTING.md")]
struct ContributorsGuide;
