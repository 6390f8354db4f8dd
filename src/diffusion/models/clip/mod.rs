//! CLIP: its text encoder, which Stable Diffusion uses too, its image encoder, and both as a pair.

mod layer;
mod pair;
mod processor;
mod text;
pub mod tokenizer;
mod vision;

pub use pair::{Clip, ClipBlueprint, normalise};
pub use processor::ClipProcessor;
pub use text::{ClipText, ClipTextModel};
pub use tokenizer::ClipTokenizer;
pub use vision::{ClipImage, ClipVisionModel};
