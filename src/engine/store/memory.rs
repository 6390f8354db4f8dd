//! Results in memory, with a limit in bytes. The least recently used result is dropped first.
//!
//! Deals with keys and sizes, not with graphs. Stores only results, never errors.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use crate::key::Key;
use crate::node::EdgeValue;

/// How many bytes a result counts in addition to its values, so that results without values are limited too.
const RESULT_BYTES: usize = 256;

/// Returns how many bytes should be freed, if the machine runs out of memory.
pub type Pressure = Arc<dyn Fn() -> Option<usize> + Send + Sync>;

/// Memory pressure is checked only when a result of at least this size is stored.
const LARGE_BYTES: usize = 1 << 20;

/// The outputs of nodes in memory, by memo key, with a limit in bytes.
pub struct MemoryStore {
    limit: usize,
    pressure: Option<Pressure>,
    results: Mutex<CachedResults>,
}

#[derive(Default)]
struct CachedResults {
    by_key: HashMap<Key, CachedResult>,
    /// The key of each result by its last use. The first one is dropped first.
    by_use: BTreeMap<u64, Key>,
    /// Counts uses.
    now: u64,
    bytes: usize,
}

struct CachedResult {
    outputs: Arc<[EdgeValue]>,
    bytes: usize,
    used: u64,
}

impl MemoryStore {
    /// A store of at most `limit` bytes, as [`Payload::bytes`](crate::Payload::bytes) counts them.
    pub fn new(limit: usize) -> MemoryStore {
        MemoryStore { limit, pressure: None, results: Mutex::default() }
    }

    /// A store of at most `limit` bytes. Whenever a large result is stored, `pressure` is asked how many bytes to free.
    pub fn with_pressure(limit: usize, pressure: Pressure) -> MemoryStore {
        MemoryStore { pressure: Some(pressure), ..MemoryStore::new(limit) }
    }

    /// Returns the outputs with this key, in the order of the output sockets. Counts as a use.
    pub fn get(&self, key: &Key) -> Option<Arc<[EdgeValue]>> {
        self.with(|results| results.touch(key))
    }

    /// Stores a result, unless it is larger than the whole store, and drops others to make room.
    pub fn put(&self, key: Key, outputs: Arc<[EdgeValue]>) {
        let bytes = outputs.iter().fold(RESULT_BYTES, |sum, value| sum.saturating_add(value.bytes()));
        if bytes > self.limit {
            return;
        }
        let pressure = self.pressure.as_ref().filter(|_| bytes >= LARGE_BYTES);
        let to_free = pressure.and_then(|pressure| pressure()).unwrap_or(0);
        // Dropped outside the lock: freeing a model takes time.
        let dropped = self.with(|results| {
            let mut dropped = Vec::from_iter(results.remove(&key));
            let room = (self.limit - bytes).min(results.bytes.saturating_sub(to_free));
            while results.bytes > room {
                let Some((_, oldest)) = results.by_use.first_key_value() else { break };
                let oldest = *oldest;
                dropped.extend(results.remove(&oldest));
            }
            results.insert(key, outputs, bytes);
            dropped
        });
        drop(dropped);
    }

    /// Drops a result.
    pub fn remove(&self, key: &Key) {
        // Dropped outside the lock: freeing a model takes time.
        drop(self.with(|results| results.remove(key)));
    }

    /// The size of all results, in bytes.
    pub fn bytes(&self) -> usize {
        self.with(|results| results.bytes)
    }

    fn with<T>(&self, work: impl FnOnce(&mut CachedResults) -> T) -> T {
        work(&mut self.results.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl CachedResults {
    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn touch(&mut self, key: &Key) -> Option<Arc<[EdgeValue]>> {
        let now = self.tick();
        let result = self.by_key.get_mut(key)?;
        self.by_use.remove(&mem::replace(&mut result.used, now));
        self.by_use.insert(now, *key);
        Some(result.outputs.clone())
    }

    fn insert(&mut self, key: Key, outputs: Arc<[EdgeValue]>, bytes: usize) {
        let used = self.tick();
        self.by_use.insert(used, key);
        self.by_key.insert(key, CachedResult { outputs, bytes, used });
        self.bytes += bytes;
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<[EdgeValue]>> {
        let result = self.by_key.remove(key)?;
        self.by_use.remove(&result.used);
        self.bytes -= result.bytes;
        Some(result.outputs)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::key::Material;
    use crate::node::Payload;

    struct Block(usize);

    impl Payload for Block {
        const TYPE: &'static str = "Block";

        fn bytes(&self) -> usize {
            self.0
        }
    }

    fn key(name: &str) -> Key {
        let material = Material {
            node_type: name.to_string().into(),
            version: 1,
            params: String::new(),
            inputs: vec![],
            files: vec![],
            node_fingerprint: None,
            host_fingerprint: "".into(),
        };
        material.key()
    }

    fn block(bytes: usize) -> Arc<[EdgeValue]> {
        [EdgeValue::new(Arc::new(Block(bytes)))].into()
    }

    #[test]
    fn the_least_recently_used_is_dropped_first() {
        let store = MemoryStore::new(3 * (1000 + RESULT_BYTES));
        for name in ["a", "b", "c"] {
            store.put(key(name), block(1000));
        }
        assert!(store.get(&key("a")).is_some());
        store.put(key("d"), block(1000));
        let kept = ["a", "b", "c", "d"].map(|name| store.get(&key(name)).is_some());
        assert_eq!(kept, [true, false, true, true]);
    }

    #[test]
    fn the_limit_counts_bytes() {
        let limit = 10_000;
        let store = MemoryStore::new(limit);
        for i in 0..200 {
            store.put(key(&i.to_string()), block(i * 37 % 4000));
            assert!(store.bytes() <= limit, "{} bytes", store.bytes());
        }
        // A result that takes the room of two: only these two are dropped.
        let store = MemoryStore::new(limit);
        for name in ["a", "b", "c", "d"] {
            store.put(key(name), block(2000));
        }
        store.put(key("e"), block(4000));
        let kept = ["a", "b", "c", "d", "e"].map(|name| store.get(&key(name)).is_some());
        assert_eq!(kept, [false, false, true, true, true]);
        assert_eq!(store.bytes(), 2 * 2000 + 4000 + 3 * RESULT_BYTES);
    }

    #[test]
    fn a_result_that_is_too_large_is_not_stored_and_displaces_nothing() {
        let store = MemoryStore::new(1000);
        store.put(key("small"), block(10));
        store.put(key("large"), block(1000));
        store.put(key("huge"), block(usize::MAX));
        assert!(store.get(&key("small")).is_some());
        assert!(store.get(&key("large")).is_none());
        assert!(store.get(&key("huge")).is_none());
    }

    #[test]
    fn removing_makes_room() {
        let store = MemoryStore::new(10_000);
        store.put(key("a"), block(100));
        store.put(key("b"), block(200));
        store.remove(&key("a"));
        store.remove(&key("never put"));
        assert!(store.get(&key("a")).is_none() && store.get(&key("b")).is_some());
        assert_eq!(store.bytes(), 200 + RESULT_BYTES);
    }

    #[test]
    fn putting_again_replaces() {
        let store = MemoryStore::new(10_000);
        store.put(key("a"), block(100));
        store.put(key("a"), block(200));
        assert_eq!(store.bytes(), 200 + RESULT_BYTES);
        assert_eq!(store.get(&key("a")).unwrap()[0].bytes(), 200);
    }

    #[test]
    fn under_pressure_the_least_recently_used_are_dropped_until_enough_is_free() {
        let (asked, wanted) = (Arc::new(AtomicUsize::new(0)), 1_500_000);
        let pressure = {
            let asked = asked.clone();
            move || (asked.fetch_add(1, Ordering::Relaxed) == 3).then_some(wanted)
        };
        let store = MemoryStore::with_pressure(usize::MAX, Arc::new(pressure));
        for name in ["a", "b", "c"] {
            store.put(key(name), block(LARGE_BYTES));
        }
        store.put(key("small"), block(10));
        assert_eq!(asked.load(Ordering::Relaxed), 3, "small results do not ask");
        store.get(&key("a"));
        store.put(key("d"), block(LARGE_BYTES));
        let kept = ["a", "b", "c", "small", "d"].map(|name| store.get(&key(name)).is_some());
        assert_eq!(kept, [true, false, false, true, true]);
    }

    #[test]
    fn results_without_values_are_limited_too() {
        let store = MemoryStore::new(10 * RESULT_BYTES);
        for i in 0..100 {
            store.put(key(&i.to_string()), [].into());
        }
        assert_eq!((0..100).filter(|i| store.get(&key(&i.to_string())).is_some()).count(), 10);
    }
}
