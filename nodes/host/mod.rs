//! What nodes use of the host: devices, progress and errors, files and their metadata.

pub(crate) mod autoencoder;
pub mod blueprints;
pub mod bridge;
pub mod device;
pub mod metadata;
pub(crate) mod name;
pub(crate) mod numbered;
pub mod numerics;
pub mod preview;
pub mod sheet;
pub mod write;
