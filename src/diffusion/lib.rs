//! The diffusion library of lsregen.
