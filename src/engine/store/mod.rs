//! Where results are kept for the next run.

mod memory;

use std::sync::Arc;

pub use memory::MemoryStore;

use crate::key::{Key, Material};
use crate::socket::SocketSpec;
use crate::value::Value;

/// The outputs of nodes by memo key.
pub struct Store {
    memory: MemoryStore,
}

impl Store {
    /// Results that live as long as the process: at most `limit` bytes of them.
    pub fn in_memory(limit: usize) -> Store {
        Store { memory: MemoryStore::new(limit) }
    }

    /// What is kept in memory.
    pub fn memory(&self) -> &MemoryStore {
        &self.memory
    }

    /// The outputs of the node of that key, in the order of its output sockets. Counts as a use.
    pub fn get(&self, key: &Key, _sockets: &[SocketSpec]) -> Option<Arc<[Value]>> {
        self.memory.get(key)
    }

    /// Keeps a result. `material` is what the key was made of; `sockets` are the node type's outputs.
    pub fn put(&self, key: Key, _material: &Material, _sockets: &[SocketSpec], outputs: &Arc<[Value]>) {
        self.memory.put(key, outputs.clone());
    }
}
