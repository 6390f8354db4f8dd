//! Whole models: text encoders, U-Net, autoencoder and the settings of the sampler.
//!
//! A [`Blueprint`] holds a model's configurations and the places of its tensors, without loading any. A [`Model`] loads
//! its networks on first use, and turns prompts and layouts into the conditioning of its family.

pub mod bands;
pub mod blueprint;
pub mod clip;
pub mod config;
mod family;
pub mod gligen;
mod info;
pub mod layers;
mod launch;
mod limits;
mod markers;
mod model;
pub mod prompt;
pub mod remat;
pub mod resnet;
mod text_encoder;
pub mod unet;
pub mod vae;

pub use blueprint::survey::Survey;
pub use blueprint::{Blueprint, ModelLocation, ModelSource, Problem, ScheduleOverride};
pub use family::Family;
pub use info::ModelInfo;
pub use limits::ModelLimit;
pub use markers::{EdmLatents, EdmRange, Markers};
pub use model::{AESTHETIC_SCORE, Model, NEGATIVE_AESTHETIC_SCORE, Text};
