//! Lanes: the resource that a node uses, and how many nodes may use it at a time.

use std::thread::available_parallelism;

use serde::Serialize;

/// The resource that a node keeps busy. Nodes of one lane queue for it; nodes of different lanes run side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// The CPU.
    Cpu,
    /// The accelerator, or the CPU's tensor kernels if there is none.
    Device,
    /// Disk or network.
    Io,
}

impl Lane {
    pub(crate) const ALL: [Lane; 3] = [Lane::Cpu, Lane::Device, Lane::Io];
}

/// How many nodes of each lane may run at a time. 0 counts as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lanes {
    /// Nodes of [`Lane::Cpu`].
    pub cpu: usize,
    /// Nodes of [`Lane::Device`].
    pub device: usize,
    /// Nodes of [`Lane::Io`].
    pub io: usize,
}

impl Lanes {
    /// One node for each lane.
    pub const NARROW: Lanes = Lanes { cpu: 1, device: 1, io: 1 };

    /// One node for each processor, one for the device, and four that read and write.
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
