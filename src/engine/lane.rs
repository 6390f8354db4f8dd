//! Where a node's work belongs.

use serde::Serialize;

/// The resource that a node's work keeps busy. Nodes of one lane queue for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Threads of the processor.
    Cpu,
    /// The accelerator, where there is one.
    Device,
    /// Disk or network.
    Io,
}
