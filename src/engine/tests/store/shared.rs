//! Several stores on one folder, like those of several processes.

use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lsregen_engine::Verified;

use crate::world::*;

#[test]
fn results_of_one_store_are_read_by_others() {
    let world = World::new();
    let (one, other) = (world.store(), world.store());
    one.put(key("a"), &material("a"), NOTES, &[note("one"), note("two")]);
    assert_eq!(texts(&other.get(&key("a"), NOTES).unwrap()), ["one", "two"]);
    other.clear().unwrap();
    assert!(one.get(&key("a"), NOTES).is_none());
    assert_eq!(world.warnings(), [""; 0]);
}

#[test]
fn the_files_of_a_dead_writer_are_removed() {
    let world = World::new();
    let store = world.store();
    store.put(key("a"), &material("a"), NOTES, &[note("one"), note("two")]);
    fs::write(world.folder("tmp/lsregen-dead.tmp"), "half a bl").unwrap();
    let status = store.status();
    assert_eq!((status.temporary, status.temporary_bytes), (1, 9));
    assert_eq!(store.gc().unwrap().temporary, 1);
    assert!(world.temporary().is_empty() && store.get(&key("a"), NOTES).is_some());
}

/// Acts as another process that has written a blob but not its manifest, and holds the lock.
#[test]
fn a_sweep_waits_for_writers() {
    let world = World::new();
    let store = world.store();
    store.put(key("a"), &material("a"), NOTES, &[note("one"), note("two")]);
    let writer = File::open(world.folder("lock")).unwrap();
    writer.lock_shared().unwrap();
    let (half, blob) = (world.folder("tmp/lsregen-half.tmp"), world.blobs()[0].with_extension("bin"));
    fs::write(&half, "half").unwrap();
    fs::write(&blob, "no manifest names it yet").unwrap();
    assert!(store.status().busy);
    let swept = AtomicBool::new(false);
    thread::scope(|scope| {
        let sweep = scope.spawn(|| {
            let done = store.gc().unwrap();
            swept.store(true, Ordering::SeqCst);
            done
        });
        // Readers and other writers do not wait.
        assert!(world.store().get(&key("a"), NOTES).is_some());
        world.store().put(key("b"), &material("b"), NOTES, &[note("three"), note("four")]);
        thread::sleep(Duration::from_millis(50));
        assert!(!swept.load(Ordering::SeqCst) && half.exists() && blob.exists());
        drop(writer);
        let done = sweep.join().unwrap();
        assert_eq!((done.temporary, done.blobs, done.entries), (1, 1, 0));
    });
    assert!(!half.exists() && !blob.exists() && !store.status().busy);
    assert!(store.get(&key("b"), NOTES).is_some());
}

/// Writers, readers and sweeps at the same time: a reader gets what was stored or nothing, and there is no warning.
#[test]
fn all_at_once() {
    let world = World::new();
    let value = |i: usize| format!("{i} ").repeat(200);
    thread::scope(|scope| {
        for thread in 0..4 {
            let world = &world;
            scope.spawn(move || {
                let store = world.store_of(30_000);
                for round in 0..150 {
                    let i = (round * 7 + thread * 3) % 40;
                    let name = i.to_string();
                    match store.get(&key(&name), NOTES) {
                        Some(values) => assert_eq!(texts(&values), [value(i), value(i / 2)]),
                        None => store.put(key(&name), &material(&name), NOTES, &[note(&value(i)), note(&value(i / 2))]),
                    }
                    if round % 25 == 24 {
                        store.gc().unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(world.warnings(), [""; 0]);
    let store = world.store_of(30_000);
    assert_eq!(store.verify(&Default::default()), Verified::default());
    assert!(world.temporary().is_empty() && store.gc().unwrap().left <= 30_000);
}

/// Another process holds the lock and does not let go: says so, and goes on without the cache.
#[test]
fn a_held_lock_does_not_stop_a_run() {
    let world = World::new();
    world.store().put(key("a"), &material("a"), NOTES, &[note("one"), note("two")]);
    let other = File::open(world.folder("lock")).unwrap();
    other.lock().unwrap();
    let store = world.store().with_patience(Duration::from_millis(300));
    assert!(store.get(&key("a"), NOTES).is_some(), "reading needs no lock");
    let put = |name: &str| {
        let start = Instant::now();
        store.put(key(name), &material(name), NOTES, &[note(name), note("x")]);
        start.elapsed()
    };
    let waited = put("b");
    assert!(waited >= Duration::from_millis(300) && waited < Duration::from_secs(5), "{waited:?}");
    assert!(put("c") < Duration::from_millis(250), "it does not wait again");
    let warnings = world.warnings();
    assert!(warnings.len() == 2 && warnings[0].contains("waiting for the cache"), "{warnings:?}");
    assert!(warnings[1].contains("holds its lock") && warnings[1].contains("goes on without it"), "{warnings:?}");
    if cfg!(target_os = "linux") {
        let process = format!("the process {} (", std::process::id());
        assert!(warnings.iter().all(|warning| warning.contains(&process)), "{warnings:?}");
    }
    drop(other);
    put("d");
    assert!(store.get(&key("d"), NOTES).is_some(), "the cache is used again");
}

/// As Ctrl-C does.
#[test]
fn a_wait_can_be_ended() {
    let world = World::new();
    world.store().put(key("a"), &material("a"), NOTES, &[note("one"), note("two")]);
    let other = File::open(world.folder("lock")).unwrap();
    other.lock().unwrap();
    let store = world.store();
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| store.put(key("b"), &material("b"), NOTES, &[note("three"), note("four")]));
        thread::sleep(Duration::from_millis(100));
        store.folder().stop_waiting();
    });
    assert!(start.elapsed() < Duration::from_secs(5));
}
