//! Nodes that create guidances: one file for each extractor, and [`AsNode`] for what they share.

mod as_node;
mod bounded_attention;
mod box_diff;
mod clip_image;
mod clip_text;
mod colour_layout;
mod edges;
mod invert;
mod layout_guidance;
mod low_pass;
mod onnx_feature;
mod reference_image;
mod segmentation;
mod style;

pub use as_node::{AsNode, GuidanceNode, GuidanceOutputs};
pub use bounded_attention::BoundedAttention;
pub use box_diff::BoxDiff;
pub use clip_image::ClipImage;
pub use clip_text::{ClipText, ClipTextInputs};
pub use colour_layout::{ColourLayout, ColouredBox};
pub use edges::Edges;
pub use invert::{Invert, InvertInputs, InvertOutputs, Mode};
pub use layout_guidance::LayoutGuidance;
pub use low_pass::LowPass;
pub use onnx_feature::OnnxFeature;
pub use reference_image::ReferenceImage;
pub use segmentation::{Segmentation, SegmentationRegion};
pub use style::Style;
