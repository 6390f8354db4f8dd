//! What nodes use of the host: devices, progress and errors, files and their metadata.

pub mod blueprints;
pub mod bridge;
pub mod device;
pub mod metadata;
pub(crate) mod name;
pub mod numerics;
pub mod preview;
pub mod sheet;
pub mod write;
