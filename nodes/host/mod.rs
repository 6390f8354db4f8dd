//! The side of nodes that faces the host: devices, progress and errors, files and what they carry.

pub mod blueprints;
pub mod bridge;
pub mod device;
pub mod metadata;
pub mod numerics;
pub mod preview;
pub mod sheet;
pub mod write;
