//! Parameters that several nodes share, and their checks.

pub mod batch;
pub mod boxes;
pub mod cfg;
pub mod clip;
pub mod colour;
pub mod defaults;
pub mod guidance;
pub(crate) mod leftover;
pub mod model_path;
pub mod needs;
pub mod prompt_syntax;
pub mod sampling;
pub mod source;
pub mod steps;
pub mod unet;
