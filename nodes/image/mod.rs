//! Nodes of images.

mod attention_map;
mod image_grid;
mod load_image;
mod save_image;
mod upsample;

pub use attention_map::AttentionMap;
pub use image_grid::{ImageGrid, ImageGridInputs, ImageGridOutputs};
pub use load_image::{LoadImage, LoadImageOutputs};
pub use save_image::{SaveImage, SaveImageInputs, SaveImageOutputs};
pub use upsample::{Upsample, UpsampleInputs, UpsampleOutputs};
