//! Results in memory, the least recently used dropped first.
//!
//! Knows keys and sizes. Knows no graph; what is put in here is a result that may be used again, never an error.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use crate::key::Key;
use crate::value::EdgeValue;

/// What an entry costs beside its values, in bytes: so that results without values are bounded too.
const ENTRY_BYTES: usize = 256;

/// How many bytes ought to be freed now, if the machine runs short.
pub type Pressure = Arc<dyn Fn() -> Option<usize> + Send + Sync>;

/// Results smaller than this do not ask for the pressure.
const NOTABLE_BYTES: usize = 1 << 20;

/// The outputs of nodes by memo key, bounded in bytes.
pub struct MemoryStore {
    limit: usize,
    pressure: Option<Pressure>,
    entries: Mutex<CachedResults>,
}

#[derive(Default)]
struct CachedResults {
    by_key: HashMap<Key, CachedResult>,
    /// Time of last use → key; the first is dropped first.
    by_use: BTreeMap<u64, Key>,
    /// A clock that ticks at each use.
    now: u64,
    bytes: usize,
}

struct CachedResult {
    outputs: Arc<[EdgeValue]>,
    bytes: usize,
    used: u64,
}

impl MemoryStore {
    /// Keeps at most `limit` bytes, as [`Payload::bytes`](crate::Payload::bytes) counts them.
    pub fn new(limit: usize) -> MemoryStore {
        MemoryStore { limit, pressure: None, entries: Mutex::default() }
    }

    /// Keeps at most `limit` bytes, and less where `pressure`, asked whenever a result of a notable size comes, says
    /// that some should be freed.
    pub fn with_pressure(limit: usize, pressure: Pressure) -> MemoryStore {
        MemoryStore { pressure: Some(pressure), ..MemoryStore::new(limit) }
    }

    /// The outputs of the node of that key, in the order of its output sockets. Counts as a use.
    pub fn get(&self, key: &Key) -> Option<Arc<[EdgeValue]>> {
        self.with(|entries| entries.touch(key))
    }

    /// Keeps a result, if it is not larger than the whole store, and drops others for it.
    pub fn put(&self, key: Key, outputs: Arc<[EdgeValue]>) {
        let bytes = outputs.iter().fold(ENTRY_BYTES, |sum, value| sum.saturating_add(value.bytes()));
        if bytes > self.limit {
            return;
        }
        let pressure = self.pressure.as_ref().filter(|_| bytes >= NOTABLE_BYTES);
        let wanted = pressure.and_then(|pressure| pressure()).unwrap_or(0);
        // Dropped outside the lock: to free a model takes its time.
        let dropped = self.with(|entries| {
            let mut dropped = Vec::from_iter(entries.remove(&key));
            let room = (self.limit - bytes).min(entries.bytes.saturating_sub(wanted));
            while entries.bytes > room {
                let Some((_, oldest)) = entries.by_use.first_key_value() else { break };
                let oldest = *oldest;
                dropped.extend(entries.remove(&oldest));
            }
            entries.insert(key, outputs, bytes);
            dropped
        });
        drop(dropped);
    }

    /// Drops a result that no one will ask for again.
    pub fn forget(&self, key: &Key) {
        // Dropped outside the lock: to free a model takes its time.
        drop(self.with(|entries| entries.remove(key)));
    }

    /// Bytes kept now.
    pub fn bytes(&self) -> usize {
        self.with(|entries| entries.bytes)
    }

    fn with<T>(&self, work: impl FnOnce(&mut CachedResults) -> T) -> T {
        work(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl CachedResults {
    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn touch(&mut self, key: &Key) -> Option<Arc<[EdgeValue]>> {
        let now = self.tick();
        let entry = self.by_key.get_mut(key)?;
        self.by_use.remove(&mem::replace(&mut entry.used, now));
        self.by_use.insert(now, *key);
        Some(entry.outputs.clone())
    }

    fn insert(&mut self, key: Key, outputs: Arc<[EdgeValue]>, bytes: usize) {
        let used = self.tick();
        self.by_use.insert(used, key);
        self.by_key.insert(key, CachedResult { outputs, bytes, used });
        self.bytes += bytes;
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<[EdgeValue]>> {
        let entry = self.by_key.remove(key)?;
        self.by_use.remove(&entry.used);
        self.bytes -= entry.bytes;
        Some(entry.outputs)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::key::Material;
    use crate::value::Payload;

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
    fn the_least_recently_used_goes_first() {
        let store = MemoryStore::new(3 * (1000 + ENTRY_BYTES));
        for name in ["a", "b", "c"] {
            store.put(key(name), block(1000));
        }
        assert!(store.get(&key("a")).is_some());
        store.put(key("d"), block(1000));
        let kept = ["a", "b", "c", "d"].map(|name| store.get(&key(name)).is_some());
        assert_eq!(kept, [true, false, true, true]);
    }

    #[test]
    fn the_bound_is_kept_in_bytes() {
        let limit = 10_000;
        let store = MemoryStore::new(limit);
        for i in 0..200 {
            store.put(key(&i.to_string()), block(i * 37 % 4000));
            assert!(store.bytes() <= limit, "{} bytes", store.bytes());
        }
        // What takes the place of several: they go, and no more than they.
        let store = MemoryStore::new(limit);
        for name in ["a", "b", "c", "d"] {
            store.put(key(name), block(2000));
        }
        store.put(key("e"), block(4000));
        let kept = ["a", "b", "c", "d", "e"].map(|name| store.get(&key(name)).is_some());
        assert_eq!(kept, [false, false, true, true, true]);
        assert_eq!(store.bytes(), 2 * 2000 + 4000 + 3 * ENTRY_BYTES);
    }

    #[test]
    fn what_is_too_large_is_not_kept_and_displaces_nothing() {
        let store = MemoryStore::new(1000);
        store.put(key("small"), block(10));
        store.put(key("large"), block(1000));
        store.put(key("huge"), block(usize::MAX));
        assert!(store.get(&key("small")).is_some());
        assert!(store.get(&key("large")).is_none());
        assert!(store.get(&key("huge")).is_none());
    }

    #[test]
    fn what_is_forgotten_makes_room() {
        let store = MemoryStore::new(10_000);
        store.put(key("a"), block(100));
        store.put(key("b"), block(200));
        store.forget(&key("a"));
        store.forget(&key("never put"));
        assert!(store.get(&key("a")).is_none() && store.get(&key("b")).is_some());
        assert_eq!(store.bytes(), 200 + ENTRY_BYTES);
    }

    #[test]
    fn putting_again_replaces() {
        let store = MemoryStore::new(10_000);
        store.put(key("a"), block(100));
        store.put(key("a"), block(200));
        assert_eq!(store.bytes(), 200 + ENTRY_BYTES);
        assert_eq!(store.get(&key("a")).unwrap()[0].bytes(), 200);
    }

    #[test]
    fn under_pressure_the_least_recently_used_goes_until_enough_is_free() {
        let (asked, wanted) = (Arc::new(AtomicUsize::new(0)), 1_500_000);
        let pressure = {
            let asked = asked.clone();
            move || (asked.fetch_add(1, Ordering::Relaxed) == 3).then_some(wanted)
        };
        let store = MemoryStore::with_pressure(usize::MAX, Arc::new(pressure));
        for name in ["a", "b", "c"] {
            store.put(key(name), block(NOTABLE_BYTES));
        }
        store.put(key("small"), block(10));
        assert_eq!(asked.load(Ordering::Relaxed), 3, "small results do not ask");
        store.get(&key("a"));
        store.put(key("d"), block(NOTABLE_BYTES));
        let kept = ["a", "b", "c", "small", "d"].map(|name| store.get(&key(name)).is_some());
        assert_eq!(kept, [true, false, false, true, true]);
    }

    #[test]
    fn results_without_values_are_bounded_too() {
        let store = MemoryStore::new(10 * ENTRY_BYTES);
        for i in 0..100 {
            store.put(key(&i.to_string()), [].into());
        }
        assert_eq!((0..100).filter(|i| store.get(&key(&i.to_string())).is_some()).count(), 10);
    }
}
