//! Where results are kept for the next run.

mod disk;
mod memory;

use std::sync::Arc;

pub(crate) use disk::sealed;
pub use disk::{Blob, CacheFolder, CacheStatus, Damaged, DiskStore, Manifest, SweepReport, TypeUsage, Warn};
pub use memory::{MemoryStore, Pressure};

use crate::key::{Key, Material};
use crate::socket::SocketSpec;
use crate::value::EdgeValue;

/// The outputs of nodes by memo key.
pub struct Store {
    memory: MemoryStore,
    disk: Option<DiskStore>,
}

impl Store {
    /// Results in memory, and on disk where they are to outlive the process.
    pub fn new(memory: MemoryStore, disk: Option<DiskStore>) -> Store {
        Store { memory, disk }
    }

    /// Results that live as long as the process: at most `limit` bytes of them.
    pub fn in_memory(limit: usize) -> Store {
        Store::new(MemoryStore::new(limit), None)
    }

    /// What is kept in memory.
    pub fn memory(&self) -> &MemoryStore {
        &self.memory
    }

    /// What is kept on disk.
    pub fn disk(&self) -> Option<&DiskStore> {
        self.disk.as_ref()
    }

    /// The outputs of the node of that key, in the order of its output sockets. Counts as a use.
    pub fn get(&self, key: &Key, sockets: &[SocketSpec]) -> Option<Arc<[EdgeValue]>> {
        self.memory.get(key).or_else(|| {
            let outputs = self.disk.as_ref()?.get(key, sockets)?;
            self.memory.put(*key, outputs.clone());
            Some(outputs)
        })
    }

    /// Keeps a result. `material` is what the key was made of; `sockets` are the node type's outputs.
    pub fn put(&self, key: Key, material: &Material, sockets: &[SocketSpec], outputs: &Arc<[EdgeValue]>) {
        self.memory.put(key, outputs.clone());
        if let Some(disk) = &self.disk {
            disk.put(key, material, sockets, outputs);
        }
    }

    /// Removes what is over the disk's limit. Done too when the store is dropped.
    pub fn close(&self) {
        if let Some(disk) = &self.disk {
            disk.close();
        }
    }
}
