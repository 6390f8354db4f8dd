//! The memory for results: a size from the command line, or half of the memory that is available at the start.

use std::sync::Arc;

use bytesize::ByteSize;
use clap::Args;
use lsregen_engine::MemoryStore;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Bytes. Results are dropped while less memory than this, or than a twentieth of the total, is available.
const RESERVE: u64 = 512 << 20;

/// The size limit of results in memory.
#[derive(Args)]
pub struct MemoryArgs {
    /// Memory for results that may be used again, such as 4GiB [default: half of the available memory]
    #[arg(long, value_name = "SIZE", env = "LSREGEN_MEMORY", hide_env_values = true)]
    memory: Option<ByteSize>,
}

impl MemoryArgs {
    /// A store of this size, which drops results earlier when the machine runs short of memory.
    pub fn store(&self) -> MemoryStore {
        let half = || machine().available / 2;
        let limit = self.memory.map_or_else(half, |memory| memory.as_u64());
        MemoryStore::with_pressure(bytes(limit), Arc::new(|| machine().shortage().map(bytes)))
    }
}

/// Memory of the machine, or of the container that this process runs in, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Machine {
    total: u64,
    available: u64,
}

impl Machine {
    /// The bytes that should be freed, if memory is short.
    fn shortage(self) -> Option<u64> {
        let reserve = RESERVE.max(self.total / 20);
        // A total of 0 means that the system did not report its memory.
        (self.total > 0 && self.available < reserve).then(|| reserve - self.available)
    }
}

/// Reads the memory of this machine. Takes tens of microseconds.
fn machine() -> Machine {
    let memory = MemoryRefreshKind::nothing().with_ram();
    let system = System::new_with_specifics(RefreshKind::nothing().with_memory(memory));
    let machine = Machine { total: system.total_memory(), available: system.available_memory() };
    match system.cgroup_limits() {
        // The page cache counts as available, as it does for the machine.
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
    fn memory_is_short_below_the_reserve() {
        let shortage = |total, available| Machine { total, available }.shortage();
        assert_eq!(shortage(4 * GIB, GIB), None);
        assert_eq!(shortage(4 * GIB, GIB / 4), Some(GIB / 4));
        assert_eq!(shortage(100 * GIB, 5 * GIB), None);
        assert_eq!(shortage(100 * GIB, 4 * GIB), Some(GIB));
        assert_eq!(shortage(0, 0), None);
    }

    #[test]
    fn this_machine_has_memory() {
        let machine = machine();
        assert!(0 < machine.available && machine.available <= machine.total, "{machine:?}");
    }
}
