//! Where results are kept for the next run.

mod memory;

pub use memory::MemoryStore;
