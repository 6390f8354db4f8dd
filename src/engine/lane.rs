//! Where a node's work belongs, and how much of it may go on at a time.

use std::thread::available_parallelism;

use serde::Serialize;

/// The resource that a node's work keeps busy. Nodes of one lane queue for it; lanes go on side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Threads of the processor.
    Cpu,
    /// The accelerator; the processor's tensor kernels, where there is none.
    Device,
    /// Disk or network.
    Io,
}

impl Lane {
    pub(crate) const ALL: [Lane; 3] = [Lane::Cpu, Lane::Device, Lane::Io];
}

/// How many nodes of each lane may be at work at a time; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lanes {
    pub cpu: usize,
    pub device: usize,
    pub io: usize,
}

impl Lanes {
    /// One node a lane.
    pub const NARROW: Lanes = Lanes { cpu: 1, device: 1, io: 1 };

    /// A node a processor, one on the one device, and four that wait for disks.
    pub fn of_this_machine() -> Lanes {
        Lanes { cpu: available_parallelism().map_or(1, usize::from), device: 1, io: 4 }
    }

    pub(crate) fn width(&self, lane: Lane) -> usize {
        let width = match lane {
            Lane::Cpu => self.cpu,
            Lane::Device => self.device,
            Lane::Io => self.io,
        };
        width.max(1)
    }
}
