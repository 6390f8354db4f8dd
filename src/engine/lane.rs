//! Where a node's work belongs.

/// The resource that a node's work keeps busy. Nodes of one lane queue for it; today all lanes share one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Threads of the processor.
    Cpu,
    /// The accelerator, where there is one.
    Device,
    /// Disk or network.
    Io,
}
