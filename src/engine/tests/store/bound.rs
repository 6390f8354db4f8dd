//! The limit: what is removed, in which order, and what never is.

use std::fs;
use std::time::Duration;

use crate::world::*;

/// Stores results of about 1000 bytes each, the oldest first.
fn world(names: &[&str]) -> World {
    let world = World::new();
    let store = world.store();
    for (i, name) in names.iter().enumerate() {
        store.put(key(name), &material(name), NOTES, &[note(&name.repeat(500)), note("")]);
        age(&world.entry(name), 1000 - i as u64);
    }
    world
}

fn kept(world: &World, names: &[&str]) -> Vec<bool> {
    names.iter().map(|name| world.entry(name).exists()).collect()
}

#[test]
fn the_least_recently_used_is_removed_first() {
    let names = ["a", "b", "c", "d"];
    let world = world(&names);
    let each = world.store().bytes() / 4;
    let store = world.store_of(each * 3);
    assert!(store.get(&key("a"), NOTES).is_some(), "a use");
    let swept = store.gc().unwrap();
    // Down to 90 % of the size of three: two are left.
    assert_eq!(kept(&world, &names), [true, false, false, true]);
    assert_eq!((swept.entries, swept.blobs), (2, 2));
    assert_eq!(swept.left, store.bytes());
    assert!(store.get(&key("a"), NOTES).is_some() && store.get(&key("d"), NOTES).is_some());
    assert_eq!(store.gc().unwrap().entries, 0);
}

#[test]
fn the_bound_holds_while_results_come() {
    let world = World::new();
    let limit = 20_000;
    let store = world.store_of(limit);
    for i in 0..100 {
        let name = i.to_string();
        store.put(key(&name), &material(&name), NOTES, &[note(&"x".repeat(i * 137 % 3000)), note(&name)]);
        // Between two measurements up to a sixteenth of the limit may be written, plus the result that exceeds it.
        assert!(store.bytes() <= limit + limit / 16 + 4000, "{} bytes", store.bytes());
    }
    store.close();
    assert!(store.bytes() <= limit);
    assert!(store.get(&key("99"), NOTES).is_some() && store.get(&key("0"), NOTES).is_none());
    assert_eq!(world.warnings(), [""; 0]);
}

#[test]
fn a_dropped_store_keeps_the_bound() {
    let names: Vec<_> = ('a'..='t').map(String::from).collect();
    let world = world(&names.iter().map(String::as_str).collect::<Vec<_>>());
    // A limit so high that one more result causes no measurement.
    let limit = world.store().bytes() - 1;
    let store = world.store_of(limit);
    store.put(key("small"), &material("small"), &[], &[]);
    assert!(store.bytes() > limit);
    drop(store);
    assert!(world.store().bytes() <= limit);
    assert_eq!(kept(&world, &["a", "small"]), [false, true]);
}

#[test]
fn a_result_larger_than_the_limit_is_not_written() {
    let world = world(&["a"]);
    let store = world.store_of(5000);
    store.put(key("b"), &material("b"), NOTES, &[note(&"x".repeat(5001)), note("")]);
    assert!(store.get(&key("b"), NOTES).is_none());
    assert_eq!(store.manifest(&key("b")).unwrap().outputs, None, "a record of it is");
    assert!(store.get(&key("a"), NOTES).is_some());
    // A process with a higher limit stores it, and one with a lower limit leaves it.
    world.store().put(key("b"), &material("b"), NOTES, &[note(&"x".repeat(5001)), note("")]);
    store.put(key("b"), &material("b"), NOTES, &[note(&"x".repeat(5001)), note("")]);
    assert!(world.store().get(&key("b"), NOTES).is_some());
}

#[test]
fn a_shared_blob_stays_with_its_last_reader() {
    let world = World::new();
    let store = world.store();
    for (name, old) in [("a", 30), ("b", 20), ("c", 10)] {
        store.put(key(name), &material(name), NOTES, &[note(&"same".repeat(500)), note(name)]);
        age(&world.entry(name), old);
    }
    let small = world.store_of(store.bytes() - 1);
    small.gc().unwrap();
    assert_eq!(kept(&world, &["a", "b", "c"]), [false, true, true]);
    assert!(small.get(&key("b"), NOTES).is_some());
    assert_eq!(world.blobs().len(), 3);
}

#[test]
fn blobs_without_a_manifest_go() {
    let world = world(&["a", "b"]);
    fs::remove_file(world.entry("a")).unwrap();
    let swept = world.store().gc().unwrap();
    assert_eq!((swept.entries, swept.blobs), (0, 1));
    assert!(world.store().get(&key("b"), NOTES).is_some());
}

#[test]
fn a_use_is_marked_but_not_each_time() {
    let world = world(&["a"]);
    let store = world.store();
    age(&world.entry("a"), 50);
    store.get(&key("a"), NOTES);
    assert!(age_of(&world.entry("a")) >= Duration::from_secs(50));
    age(&world.entry("a"), 500);
    store.get(&key("a"), NOTES);
    assert!(age_of(&world.entry("a")) < Duration::from_secs(50));
}

#[test]
fn clear_removes_everything() {
    let world = world(&["a", "b", "c"]);
    fs::write(world.folder("tmp/lsregen-left.tmp"), "half").unwrap();
    let swept = world.store().clear().unwrap();
    assert_eq!((swept.entries, swept.blobs, swept.temporary), (3, 4, 1));
    assert_eq!((world.store().bytes(), world.entries().len(), world.temporary().len()), (0, 0, 0));
    world.store().put(key("a"), &material("a"), NOTES, &[note("one"), note("two")]);
    assert!(world.store().get(&key("a"), NOTES).is_some());
}

#[test]
fn nothing_is_created_if_nothing_is_stored() {
    let world = World::new();
    let store = world.store();
    assert_eq!((store.gc().unwrap(), store.clear().unwrap()), Default::default());
    assert!(store.get(&key("a"), NOTES).is_none() && store.status().by_type.is_empty());
    drop(store);
    assert!(!world.root().exists());
}
