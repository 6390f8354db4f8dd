//! The store on disk: what is read back, found damaged and removed, and what other processes see.

mod bound;
mod damage;
mod explained;
mod shared;
mod world;

use std::sync::Arc;

use lsregen_engine::{MemoryStore, Store};

use crate::world::*;

#[test]
fn another_process_reads_what_was_stored() {
    let world = World::new();
    world.store().put(key("a"), &material("a"), NOTES, &[note("one"), note("two")]);
    let store = world.store();
    assert_eq!(texts(&store.get(&key("a"), NOTES).unwrap()), ["one", "two"]);
    assert!(store.get(&key("b"), NOTES).is_none());
    let manifest = store.manifest(&key("a")).unwrap();
    assert_eq!((manifest.key, manifest.material), (key("a"), material("a")));
    assert_eq!(world.warnings(), [""; 0]);
}

#[test]
fn a_result_without_values_is_kept_too() {
    let world = World::new();
    world.store().put(key("a"), &material("a"), &[], &[]);
    assert!(world.store().get(&key("a"), &[]).unwrap().is_empty());
}

#[test]
fn equal_values_lie_there_once() {
    let world = World::new();
    let store = world.store();
    store.put(key("a"), &material("a"), NOTES, &[note("same"), note("same")]);
    store.put(key("b"), &material("b"), NOTES, &[note("same"), note("other")]);
    assert_eq!((world.blobs().len(), world.entries().len()), (2, 2));
    assert_eq!(texts(&store.get(&key("b"), NOTES).unwrap()), ["same", "other"]);
}

#[test]
fn a_result_without_a_format_is_recorded() {
    let world = World::new();
    let store = world.store();
    // A type without a codec, and a value that its codec cannot store.
    store.put(key("a"), &material("a"), SECRETS, &[secret()]);
    store.put(key("b"), &material("b"), NOTES, &[note("fine"), note("not to be kept")]);
    for (name, sockets) in [("a", SECRETS), ("b", NOTES)] {
        assert!(store.get(&key(name), sockets).is_none());
        assert_eq!(store.manifest(&key(name)).unwrap().outputs, None);
    }
    assert_eq!((world.blobs().len(), world.warnings().len()), (0, 0));
    assert_eq!(store.status().by_type["a"].records, 1);
}

#[test]
fn a_value_that_cannot_be_encoded_is_reported_and_not_stored() {
    let world = World::new();
    let store = world.store();
    store.put(key("a"), &material("a"), NOTES, &[note("one"), note("fail to encode")]);
    store.put(key("b"), &material("b"), NOTES, &[note("one"), note("panic in encoding")]);
    assert!(store.get(&key("a"), NOTES).is_none() && store.get(&key("b"), NOTES).is_none());
    let warnings = world.warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("a result of a cannot be stored") && warnings[1].contains("panicked"), "{warnings:?}");
}

#[test]
fn a_store_of_both_keeps_in_memory_what_it_read_from_disk() {
    let world = World::new();
    world.store().put(key("a"), &material("a"), NOTES, &[note("one"), note("two")]);
    let store = Store::new(MemoryStore::new(1 << 20), Some(world.store()));
    assert!(store.memory().get(&key("a")).is_none());
    let first = store.get(&key("a"), NOTES).unwrap();
    world.remove_everything();
    let second = store.get(&key("a"), NOTES).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    // A new result is stored in both.
    store.put(key("b"), &material("b"), NOTES, &vec![note("three"), note("four")].into());
    assert!(store.memory().get(&key("b")).is_some());
    assert_eq!(texts(&world.store().get(&key("b"), NOTES).unwrap()), ["three", "four"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_reported_once_and_fails_nothing() {
    let world = World::new();
    std::fs::write(world.root(), "a file where a folder is wanted").unwrap();
    let store = world.store();
    for name in ["a", "b"] {
        assert!(store.get(&key(name), NOTES).is_none());
        store.put(key(name), &material(name), NOTES, &[note("one"), note("two")]);
    }
    let warnings = world.warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("cannot be read") && warnings[1].contains("cannot be stored"), "{warnings:?}");
}

/// A process that may only read still gets the results. (For root nothing is forbidden, so this tests nothing.)
#[cfg(unix)]
#[test]
fn a_read_only_folder_is_read() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    world.store().put(key("a"), &material("a"), NOTES, &[note("one"), note("two")]);
    let folders = ["", "entries", "blobs", "tmp"].map(|name| world.folder(name));
    let allow = |mode| {
        for folder in &folders {
            std::fs::set_permissions(folder, PermissionsExt::from_mode(mode)).unwrap();
        }
    };
    allow(0o555);
    let forbidden = std::fs::write(world.folder("probe"), "").is_err();
    let store = world.store();
    assert_eq!(texts(&store.get(&key("a"), NOTES).unwrap()), ["one", "two"]);
    store.put(key("b"), &material("b"), NOTES, &[note("three"), note("four")]);
    store.put(key("c"), &material("c"), NOTES, &[note("five"), note("six")]);
    if forbidden {
        assert_eq!(world.warnings().len(), 1, "{:?}", world.warnings());
        assert!(store.get(&key("b"), NOTES).is_none());
    }
    drop(store);
    allow(0o755);
}
