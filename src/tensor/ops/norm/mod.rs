//! Group and layer normalisation on the CPU, each in one pass over memory and a second one over the cache.

mod group;
mod group_vjp;
mod layer;
mod moments;
mod vectors;

pub use group::{group_norm, group_norm_by, group_norm_vjp};
pub use layer::{layer_norm, layer_norm_vjp};
pub use moments::Moments;

/// Numbers below which one thread is faster than several.
const WORTH_THREADS: usize = 1 << 15;
