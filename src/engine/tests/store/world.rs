//! Fake payloads, keys by name, and a folder that several stores share.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use lsregen_engine::{Codec, DiskStore, EdgeValue, Key, Material, Outputs, Payload, SocketSpec, Warn, outputs};
use tempfile::TempDir;

/// A text that can be stored, except for certain texts.
pub struct Note(pub String);

impl Payload for Note {
    const TYPE: &'static str = "Note";
    const CODEC: Option<Codec<Note>> = Some(Codec {
        format: "txt",
        version: 1,
        encode: |note| match note.0.as_str() {
            "not to be kept" => Ok(None),
            "fail to encode" => Err(anyhow::anyhow!("no ink")),
            "panic in encoding" => panic!("no paper"),
            text => Ok(Some(text.as_bytes().to_vec())),
        },
        decode: |bytes| match std::str::from_utf8(bytes)? {
            "fail to decode" => Err(anyhow::anyhow!("no glasses")),
            "panic in decoding" => panic!("no light"),
            text => Ok(Note(text.into())),
        },
    });

    fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// A value that is kept only in memory.
pub struct Secret;

impl Payload for Secret {
    const TYPE: &'static str = "Secret";

    fn bytes(&self) -> usize {
        1
    }
}

outputs! { pub struct Notes { pub first: Arc<Note>, pub second: Arc<Note> } }
outputs! { pub struct Secrets { pub first: Arc<Secret> } }

/// The sockets of a node with two notes as outputs.
pub const NOTES: &[SocketSpec] = Notes::SPECS;
pub const SECRETS: &[SocketSpec] = Secrets::SPECS;

pub fn note(text: &str) -> EdgeValue {
    EdgeValue::new(Arc::new(Note(text.into())))
}

pub fn secret() -> EdgeValue {
    EdgeValue::new(Arc::new(Secret))
}

pub fn texts(values: &[EdgeValue]) -> Vec<String> {
    values.iter().map(|value| value.get::<Note>().unwrap().0.clone()).collect()
}

pub fn material(node_type: &str) -> Material {
    Material {
        node_type: node_type.to_string().into(),
        version: 1,
        params: "{}".into(),
        inputs: vec![],
        files: vec![],
        node_fingerprint: None,
        host_fingerprint: "cpu".into(),
    }
}

pub fn key(node_type: &str) -> Key {
    material(node_type).key()
}

/// A folder, and the warnings of its stores.
pub struct World {
    folder: TempDir,
    warnings: Arc<Mutex<Vec<String>>>,
}

impl World {
    pub fn new() -> World {
        World { folder: tempfile::tempdir().unwrap(), warnings: Arc::default() }
    }

    /// A store, as each process has its own.
    pub fn store(&self) -> DiskStore {
        self.store_of(u64::MAX)
    }

    pub fn store_of(&self, limit: u64) -> DiskStore {
        let warnings = self.warnings.clone();
        let warn: Warn = Arc::new(move |text: &str| warnings.lock().unwrap().push(text.into()));
        DiskStore::new(self.root(), limit, warn)
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// A folder of the cache.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.root().join("v1").join(name)
    }

    /// The warnings since the last call.
    pub fn warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.warnings.lock().unwrap())
    }

    pub fn entries(&self) -> Vec<PathBuf> {
        files(&self.folder("entries"))
    }

    pub fn blobs(&self) -> Vec<PathBuf> {
        files(&self.folder("blobs"))
    }

    pub fn temporary(&self) -> Vec<PathBuf> {
        files(&self.folder("tmp"))
    }

    pub fn entry(&self, name: &str) -> PathBuf {
        let key = key(name).to_string();
        self.folder("entries").join(&key[..2]).join(format!("{key}.json"))
    }

    pub fn remove_everything(&self) {
        fs::remove_dir_all(self.root()).unwrap();
    }
}

/// The files below a folder, sorted.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut ahead = vec![folder.to_path_buf()];
    while let Some(folder) = ahead.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { ahead.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// Sets the age of a file.
pub fn age(path: &Path, seconds: u64) {
    let then = SystemTime::now() - Duration::from_secs(seconds);
    File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
}

/// The age of a file.
pub fn age_of(path: &Path) -> Duration {
    fs::metadata(path).unwrap().modified().unwrap().elapsed().unwrap_or_default()
}
