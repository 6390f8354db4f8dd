//! Handles and descriptors that the libraries give out: numbers that are never used twice, so that the use of a destroyed
//! descriptor is found.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::ffi::c_void;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

use crate::fault::{Fault, fault};

struct Object {
    kind: &'static str,
    value: Arc<dyn Any + Send + Sync>,
}

#[derive(Default)]
struct Registry {
    last: usize,
    live: HashMap<usize, Object>,
}

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(|broken| broken.into_inner())
}

/// Creates an object and writes its handle to `to`. Returns whether `to` may be written.
pub(super) fn create<T: Send + 'static>(to: *mut *mut c_void, kind: &'static str, value: T) -> bool {
    if to.is_null() {
        return false;
    }
    let mut registry = registry();
    registry.last += 16;
    let handle = 0x0d00_0000 + registry.last;
    registry.live.insert(handle, Object { kind, value: Arc::new(Mutex::new(value)) });
    // SAFETY: the caller of the library gives the address of a handle.
    unsafe { *to = handle as *mut c_void };
    true
}

/// Destroys an object.
pub(super) fn destroy(handle: *mut c_void, kind: &str) {
    match registry().live.remove(&(handle as usize)) {
        Some(object) if object.kind == kind => {}
        Some(object) => fault(Fault::InvalidCall, format!("a {} is destroyed as a {kind}", object.kind)),
        None => {
            fault(Fault::InvalidCall, format!("{handle:?} is destroyed, but is no {kind} (or was destroyed before)"))
        }
    }
}

/// Returns an object. Reports a fault if the handle is not one of a living object of this type.
pub(super) fn get<T: Send + 'static>(handle: *const c_void, kind: &str) -> Arc<Mutex<T>> {
    let value = registry().live.get(&(handle as usize)).map(|object| object.value.clone());
    match value.and_then(|value| value.downcast::<Mutex<T>>().ok()) {
        Some(value) => value,
        None => fault(Fault::InvalidCall, format!("{handle:?} is used, but is no living {kind}")),
    }
}

/// Runs `with` on an object.
pub(super) fn with<T: Send + 'static, R>(handle: *const c_void, kind: &str, with: impl FnOnce(&mut T) -> R) -> R {
    let object = get::<T>(handle, kind);
    let mut value = object.lock().unwrap_or_else(|broken| broken.into_inner());
    with(&mut value)
}

/// The number of living objects of each kind.
pub fn living() -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for object in registry().live.values() {
        *counts.entry(object.kind).or_default() += 1;
    }
    counts
}
