//! How much memory results may take: what the command line says, or half of what is free when the process starts.

use std::sync::Arc;

use bytesize::ByteSize;
use clap::Args;
use lsregen_engine::MemoryStore;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Where the memory that is available falls below this, or a twentieth of all, results are dropped.
const RESERVE: u64 = 512 << 20;

/// The memory for results.
#[derive(Args)]
pub struct Memory {
    /// Memory for results that may be used again, such as 4GiB; by default half of what is available
    #[arg(long, value_name = "SIZE", env = "LSREGEN_MEMORY")]
    memory: Option<ByteSize>,
}

impl Memory {
    /// A store of that size, which gives way where the machine runs short.
    pub fn store(&self) -> MemoryStore {
        let half = || machine().available / 2;
        let limit = self.memory.map_or_else(half, |memory| memory.as_u64());
        MemoryStore::with_pressure(bytes(limit), Arc::new(|| machine().wanted().map(bytes)))
    }
}

/// The memory of the machine, or of the container that this process runs in, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Machine {
    total: u64,
    available: u64,
}

impl Machine {
    /// What should be freed, if it runs short.
    fn wanted(self) -> Option<u64> {
        let reserve = RESERVE.max(self.total / 20);
        // Nothing is known of a machine without memory.
        (self.total > 0 && self.available < reserve).then(|| reserve - self.available)
    }
}

/// Takes some tens of microseconds.
fn machine() -> Machine {
    let memory = MemoryRefreshKind::nothing().with_ram();
    let system = System::new_with_specifics(RefreshKind::nothing().with_memory(memory));
    let machine = Machine { total: system.total_memory(), available: system.available_memory() };
    match system.cgroup_limits() {
        // What the kernel only keeps in case, such as files read, counts as available, as it does for the machine.
        Some(limits) if limits.total_memory > 0 => Machine {
            total: machine.total.min(limits.total_memory),
            available: machine.available.min(limits.total_memory.saturating_sub(limits.rss)),
        },
        _ => machine,
    }
}

fn bytes(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn memory_is_wanted_below_the_reserve() {
        let wanted = |total, available| Machine { total, available }.wanted();
        assert_eq!(wanted(4 * GIB, GIB), None);
        assert_eq!(wanted(4 * GIB, GIB / 4), Some(GIB / 4));
        assert_eq!(wanted(100 * GIB, 5 * GIB), None);
        assert_eq!(wanted(100 * GIB, 4 * GIB), Some(GIB));
        assert_eq!(wanted(0, 0), None);
    }

    #[test]
    fn this_machine_has_memory() {
        let machine = machine();
        assert!(0 < machine.available && machine.available <= machine.total, "{machine:?}");
    }
}
