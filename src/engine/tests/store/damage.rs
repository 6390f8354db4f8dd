//! Whatever happens to the files, a result is either the stored one or a miss.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lsregen_engine::{Codec, Payload, SocketSpec, Verified};

use crate::world::*;

/// A store with one result.
fn world() -> World {
    let world = World::new();
    world.store().put(key("a"), &material("a"), NOTES, &[note("one"), note("and the other")]);
    world
}

/// The result is a miss, it has been removed with a warning, and storing it again works.
fn assert_found_and_healed(world: &World, what: &str) {
    let store = world.store();
    assert!(store.get(&key("a"), NOTES).is_none(), "{what}");
    assert_eq!(world.entries(), [""; 0].map(PathBuf::from), "{what}");
    let warnings = world.warnings();
    assert_eq!(warnings.len(), 1, "{what}: {warnings:?}");
    assert!(warnings[0].contains("was removed from the cache"), "{warnings:?}");
    assert!(store.get(&key("a"), NOTES).is_none());
    store.put(key("a"), &material("a"), NOTES, &[note("one"), note("and the other")]);
    assert_eq!(texts(&store.get(&key("a"), NOTES).unwrap()), ["one", "and the other"], "{what}");
    assert_eq!(world.warnings(), [""; 0], "{what}");
}

fn each_file(world: &World) -> Vec<PathBuf> {
    let files = [world.entries(), world.blobs()].concat();
    assert_eq!(files.len(), 3);
    files
}

fn flip(path: &Path, at: usize, bit: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
}

#[test]
fn every_flipped_byte_is_found() {
    let world = world();
    for path in each_file(&world) {
        for at in 0..fs::metadata(&path).unwrap().len() as usize {
            flip(&path, at, at % 8);
            assert_found_and_healed(&world, &format!("byte {at} of {path:?}"));
        }
    }
}

#[test]
fn every_cut_is_found() {
    let world = world();
    for path in each_file(&world) {
        for length in 0..fs::metadata(&path).unwrap().len() {
            fs::File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
            assert_found_and_healed(&world, &format!("{path:?} cut to {length}"));
        }
    }
}

#[test]
fn a_file_that_grew_is_found() {
    let world = world();
    for path in each_file(&world) {
        fs::write(&path, [fs::read(&path).unwrap(), vec![b'\n']].concat()).unwrap();
        assert_found_and_healed(&world, &format!("{path:?}"));
    }
}

#[test]
fn a_missing_blob_is_found() {
    let world = world();
    for path in world.blobs() {
        fs::remove_file(&path).unwrap();
        assert_found_and_healed(&world, &format!("{path:?}"));
    }
}

#[test]
fn a_manifest_under_another_key_is_found() {
    let world = world();
    world.store().put(key("b"), &material("b"), NOTES, &[note("three"), note("four")]);
    fs::copy(world.entry("b"), world.entry("a")).unwrap();
    assert!(world.store().get(&key("a"), NOTES).is_none());
    assert_eq!(world.warnings().len(), 1);
    assert_eq!(texts(&world.store().get(&key("b"), NOTES).unwrap()), ["three", "four"]);
}

#[test]
fn a_value_that_cannot_be_decoded_is_a_miss() {
    for odd in ["fail to decode", "panic in decoding"] {
        let world = World::new();
        world.store().put(key("a"), &material("a"), NOTES, &[note("one"), note(odd)]);
        assert!(world.store().get(&key("a"), NOTES).is_none());
        let warnings = world.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("cannot be decoded"), "{warnings:?}");
        assert!(!world.entry("a").exists());
    }
}

/// A note with a newer codec.
struct NewNote;

impl Payload for NewNote {
    const TYPE: &'static str = "Note";
    const CODEC: Option<Codec<NewNote>> =
        Some(Codec { format: "txt", version: 2, encode: |_| Ok(None), decode: |_| Ok(NewNote) });

    fn bytes(&self) -> usize {
        0
    }
}

#[test]
fn a_result_of_another_version_is_a_miss_and_stays() {
    let world = world();
    let codec = |codec| NOTES.iter().map(|socket| SocketSpec { codec, ..*socket }).collect::<Vec<_>>();
    let others = [
        codec(lsregen_engine::AnyCodec::of::<NewNote>()),
        codec(None),
        NOTES.iter().map(|socket| SocketSpec { type_name: "Letter", ..*socket }).collect(),
        NOTES[..1].to_vec(),
        [NOTES, NOTES].concat(),
    ];
    for sockets in others {
        assert!(world.store().get(&key("a"), &sockets).is_none());
    }
    assert!(world.store().get(&key("a"), NOTES).is_some());
    assert_eq!(world.warnings(), [""; 0]);
}

#[test]
fn foreign_files_are_left_alone() {
    let world = world();
    let digest = "0".repeat(64);
    let foreign = [
        "README".to_string(),
        "entries/notes.txt".into(),
        "entries/ab/notes.json".into(),
        format!("entries/ab/{digest}.json"),
        format!("entries/00/{digest}.json.orig"),
        format!("blobs/00/{digest}"),
        format!("blobs/00/{digest}.tar.gz"),
        format!("blobs/{digest}.txt"),
        format!("blobs/00/{}.txt", "A".repeat(64)),
        "files/list".into(),
        "tmp/notes".into(),
        "tmp/.tmpa1b2c3".into(),
        "other/thing".into(),
    ];
    for name in &foreign {
        let path = world.folder(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "not ours").unwrap();
    }
    fs::create_dir_all(world.folder(&format!("blobs/00/{digest}.txt"))).unwrap();
    let store = world.store_of(1);
    assert_eq!(store.verify(&HashMap::new()), Verified::default());
    assert_eq!(store.status().damaged, 0);
    store.gc().unwrap();
    store.clear().unwrap();
    assert_eq!(world.warnings(), [""; 0]);
    for name in &foreign {
        assert_eq!(fs::read(world.folder(name)).unwrap(), b"not ours", "{name}");
    }
    assert!(!world.entry("a").exists());
}

#[test]
fn verify_finds_all_damage_and_removes_it() {
    let world = World::new();
    let store = world.store();
    for name in ["whole", "cut", "flipped", "gone", "foul"] {
        let second = if name == "foul" { "fail to decode" } else { "two" };
        store.put(key(name), &material(name), NOTES, &[note(name), note(second)]);
    }
    let codecs = HashMap::from([("Note", NOTES[0].codec.unwrap())]);
    let blob = |text: &str| {
        let digest = lsregen_engine::Digest::of(text.as_bytes()).to_string();
        world.folder("blobs").join(&digest[..2]).join(format!("{digest}.txt"))
    };
    fs::write(world.entry("cut"), "{").unwrap();
    flip(&blob("flipped"), 3, 3);
    fs::remove_file(blob("gone")).unwrap();
    // A blob that no manifest names.
    fs::create_dir_all(blob("left behind").parent().unwrap()).unwrap();
    fs::write(blob("left behind"), "left behinD").unwrap();

    let mut damaged: Vec<_> = store.verify(&codecs).removed.into_iter().map(|damaged| damaged.path).collect();
    damaged.sort();
    let mut expected =
        [world.entry("cut"), world.entry("flipped"), world.entry("gone"), world.entry("foul"), blob("left behind")];
    expected.sort();
    assert_eq!(damaged, expected);
    assert_eq!(store.verify(&codecs), Verified::default());
    assert_eq!(world.entries(), [world.entry("whole")]);
    assert_eq!(texts(&store.get(&key("whole"), NOTES).unwrap()), ["whole", "two"]);
}

/// What cannot be read or cleaned is not intact.
#[test]
fn verify_says_what_it_could_not_do() {
    let world = World::new();
    let store = world.store().with_patience(Duration::ZERO);
    store.put(key("a"), &material("a"), NOTES, &[note("one"), note("two")]);
    // A folder in place of a value, which nobody can read.
    let blob = world.blobs()[0].clone();
    fs::remove_file(&blob).unwrap();
    fs::create_dir(&blob).unwrap();
    let verified = store.verify(&HashMap::new());
    assert_eq!((verified.removed.len(), verified.failed.len()), (0, 1), "{verified:?}");
    assert!(verified.failed[0].what.contains("cannot be read"), "{verified:?}");
    fs::remove_dir(&blob).unwrap();
    // A finding that is a link.
    #[cfg(unix)]
    {
        fs::create_dir_all(world.folder("findings")).unwrap();
        let link = world.folder("findings").join(format!("{}.json", "0".repeat(64)));
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        let verified = store.verify(&HashMap::new());
        assert!(verified.failed.iter().any(|failed| failed.path == link), "{verified:?}");
        fs::remove_file(&link).unwrap();
    }
    // Another process holds the lock.
    let lock = File::open(world.folder("lock")).unwrap();
    lock.lock_shared().unwrap();
    fs::write(world.entry("a"), "{").unwrap();
    let verified = store.verify(&HashMap::new());
    assert_eq!((verified.removed.len(), verified.failed.len()), (0, 1), "{verified:?}");
    assert!(verified.failed[0].what.contains("cannot be removed"), "{verified:?}");
    drop(lock);
    let verified = store.verify(&HashMap::new());
    assert_eq!((verified.removed.len(), verified.failed.len()), (1, 0), "{verified:?}");
}

/// Links in the cache lead to files of others: nothing is written or removed through them.
#[cfg(unix)]
#[test]
fn links_are_not_followed() {
    use std::os::unix::fs::symlink;
    let (world, elsewhere) = (World::new(), tempfile::tempdir().unwrap());
    let store = world.store();
    store.put(key("a"), &material("a"), NOTES, &[note("one"), note("two")]);
    let folders = [world.entry("a").parent().unwrap().to_path_buf(), world.blobs()[0].parent().unwrap().to_path_buf()];
    let moved: Vec<_> = folders.iter().enumerate().map(|(i, _)| elsewhere.path().join(i.to_string())).collect();
    for (folder, to) in folders.iter().zip(&moved) {
        fs::rename(folder, to).unwrap();
        symlink(to, folder).unwrap();
    }
    fs::create_dir(elsewhere.path().join("tmp")).unwrap();
    fs::write(elsewhere.path().join("tmp/lsregen-x.tmp"), "not ours").unwrap();
    fs::remove_dir(world.folder("tmp")).unwrap();
    symlink(elsewhere.path().join("tmp"), world.folder("tmp")).unwrap();
    let count = || moved.iter().map(|folder| fs::read_dir(folder).unwrap().count()).sum::<usize>();
    let before = count();
    assert_eq!(store.verify(&HashMap::new()).failed.len(), 3);
    store.gc().unwrap();
    store.clear().unwrap();
    store.put(key("b"), &material("b"), NOTES, &[note("three"), note("four")]);
    store.put(key("a"), &material("c"), NOTES, &[note("one"), note("two")]);
    assert_eq!(count(), before);
    assert_eq!(fs::read(elsewhere.path().join("tmp/lsregen-x.tmp")).unwrap(), b"not ours");
    assert!(world.warnings().iter().any(|warning| warning.contains("is a link")), "{:?}", world.warnings());
}
