//! Caches: results in memory and on disk, and the digests of files.

mod disk;
mod files;
mod findings;
mod memory;

use std::sync::Arc;

pub use self::disk::{
    Blob, CacheFolder, CacheStatus, Damaged, DiskStore, Manifest, SweepReport, TypeUsage, Verified, Warn,
};
pub use self::files::{FileDigests, FileError, FileState};
pub(crate) use self::files::{SETTLED, Stamp};
pub use self::memory::{MemoryStore, Pressure};

use crate::key::{Key, Material};
use crate::node::{EdgeValue, SocketSpec};

/// The outputs of nodes, by memo key.
pub struct Store {
    memory: MemoryStore,
    disk: Option<DiskStore>,
}

impl Store {
    /// A store in memory, and on disk if results are to outlive the process.
    pub fn new(memory: MemoryStore, disk: Option<DiskStore>) -> Store {
        Store { memory, disk }
    }

    /// A store in memory only, of at most `limit` bytes.
    pub fn in_memory(limit: usize) -> Store {
        Store::new(MemoryStore::new(limit), None)
    }

    /// The part in memory.
    pub fn memory(&self) -> &MemoryStore {
        &self.memory
    }

    /// The part on disk.
    pub fn disk(&self) -> Option<&DiskStore> {
        self.disk.as_ref()
    }

    /// Returns the outputs with this key, in the order of the output sockets. Counts as a use.
    pub fn get(&self, key: &Key, sockets: &[SocketSpec]) -> Option<Arc<[EdgeValue]>> {
        self.memory.get(key).or_else(|| {
            let outputs = self.disk.as_ref()?.get(key, sockets)?;
            self.memory.put(*key, outputs.clone());
            Some(outputs)
        })
    }

    /// Stores a result. `material` is the material of the key; `sockets` are the outputs of the node type.
    pub fn put(&self, key: Key, material: &Material, sockets: &[SocketSpec], outputs: &Arc<[EdgeValue]>) {
        self.memory.put(key, outputs.clone());
        if let Some(disk) = &self.disk {
            disk.put(key, material, sockets, outputs);
        }
    }

    /// Removes results until the disk is within its limit. Dropping the store does the same.
    pub fn close(&self) {
        if let Some(disk) = &self.disk {
            disk.close();
        }
    }
}
