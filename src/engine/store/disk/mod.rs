//! Results on disk: content-addressed, shared by processes, bounded, the least recently used removed first.
//!
//! A blob is written before the manifest that names it, each by way of a temporary file and a rename, so that whatever a
//! process leaves when it dies is whole. What is read is held against its digest. A cache may forget, but never fail a
//! run or change its result: what is damaged is a miss and is removed, what cannot be written is not kept, and both are
//! told in a warning. Nothing is flushed to the disk itself: what a power cut spoils, the digests find.

mod folder;
mod manifest;
pub(crate) mod sealed;
mod sweep;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

pub use folder::CacheFolder;
pub use manifest::{Blob, Manifest};
pub use sweep::{CacheStatus, Damaged, SweepReport, TypeUsage};

use crate::digest::Digest;
use crate::key::{Key, Material};
use crate::panic::guarded;
use crate::socket::SocketSpec;
use crate::value::{AnyCodec, EdgeValue};

/// Who is told of trouble that does not stop a run.
pub type Warn = Arc<dyn Fn(&str) + Send + Sync>;

/// A result used again this soon keeps its time of use: it saves a write.
const USE_STEP: Duration = Duration::from_secs(60);

/// The share of the limit that a process writes before it looks at the size of the whole.
const LOOK_EVERY: u64 = 16;

/// The outputs of nodes by memo key, in a folder that other processes may use at the same time.
pub struct DiskStore {
    folder: CacheFolder,
    limit: u64,
    warn: Warn,
    /// Troubles that were told already.
    told: Mutex<HashSet<(Trouble, ErrorKind)>>,
    /// Bytes written since this process last looked at the size of the whole.
    written: AtomicU64,
}

/// What went wrong with the folder.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Trouble {
    Read,
    Write,
    Remove,
}

/// Why a result cannot be had.
enum Miss {
    /// It is not there, or not in a form that can be read.
    Unknown,
    /// It is there, but not as it was written.
    Damaged(Damage),
    Unreadable(io::Error),
}

/// What is wrong with an entry.
#[derive(Debug)]
struct Damage {
    what: String,
    /// A blob that is not what its name says.
    blob: Option<PathBuf>,
}

impl DiskStore {
    /// The store in `folder`, which need not exist, of at most `limit` bytes.
    pub fn new(folder: impl AsRef<Path>, limit: u64, warn: Warn) -> DiskStore {
        let folder = CacheFolder::new(folder);
        DiskStore { folder, limit, warn, told: Mutex::default(), written: AtomicU64::new(0) }
    }

    pub fn folder(&self) -> &CacheFolder {
        &self.folder
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The outputs of the node of that key, in the order of its output sockets. Counts as a use.
    pub fn get(&self, key: &Key, sockets: &[SocketSpec]) -> Option<Arc<[EdgeValue]>> {
        match self.read(key, sockets) {
            Ok(outputs) => {
                self.touch(key);
                Some(outputs)
            }
            Err(Miss::Unknown) => None,
            Err(Miss::Unreadable(error)) => {
                self.tell(Trouble::Read, &error);
                None
            }
            Err(Miss::Damaged(_)) => {
                self.discard(key, |manifest| self.read_whole(manifest, sockets).map(drop));
                None
            }
        }
    }

    /// What is known of the result of that key, whether or not its values are on disk. Not a use.
    pub fn manifest(&self, key: &Key) -> Option<Manifest> {
        Manifest::from_bytes(&fs::read(self.folder.entry(key)).ok()?, key)
    }

    /// Keeps a result, or, where it has no form on disk or is too large, the record that there was one. `material` is
    /// what the key was made of; `sockets` are the node type's outputs.
    pub fn put(&self, key: Key, material: &Material, sockets: &[SocketSpec], outputs: &[EdgeValue]) {
        let encoded = encode(sockets, outputs).unwrap_or_else(|error| {
            (self.warn)(&format!("a result of {} cannot be kept: {error:#}", material.node_type));
            None
        });
        match self.write(key, material, sockets, encoded) {
            Ok(bytes) => {
                let written = self.written.fetch_add(bytes, Ordering::Relaxed) + bytes;
                if written > self.limit / LOOK_EVERY {
                    self.shrink();
                }
            }
            Err(error) => self.tell(Trouble::Write, &error),
        }
    }

    /// Removes what is over the limit, if this process wrote anything. Done too when the store is dropped.
    pub fn close(&self) {
        if self.written.load(Ordering::Relaxed) > 0 {
            self.shrink();
        }
    }

    fn read(&self, key: &Key, sockets: &[SocketSpec]) -> Result<Arc<[EdgeValue]>, Miss> {
        self.read_whole(&self.whole_manifest(key)?, sockets)
    }

    fn whole_manifest(&self, key: &Key) -> Result<Manifest, Miss> {
        let bytes = match fs::read(self.folder.entry(key)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(Miss::Unknown),
            Err(error) => return Err(Miss::Unreadable(error)),
        };
        Manifest::from_bytes(&bytes, key).ok_or_else(|| Miss::damaged("its manifest is damaged", None))
    }

    fn read_whole(&self, manifest: &Manifest, sockets: &[SocketSpec]) -> Result<Arc<[EdgeValue]>, Miss> {
        if !manifest.fits(sockets) {
            return Err(Miss::Unknown);
        }
        let blobs = manifest.blobs().zip(sockets);
        blobs.map(|(blob, socket)| decode(socket, &self.content(blob)?)).collect()
    }

    /// The bytes of a blob, which are those that were written.
    fn content(&self, blob: &Blob) -> Result<Vec<u8>, Miss> {
        let path = self.folder.blob(&blob.digest, &blob.format);
        match fs::read(&path) {
            Ok(bytes) if Digest::of(&bytes) == blob.digest => Ok(bytes),
            Ok(_) => Err(Miss::damaged("its data is damaged", Some(path))),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Miss::damaged("its data is gone", None)),
            Err(error) => Err(Miss::Unreadable(error)),
        }
    }

    /// Removes an entry that is damaged: looked at again when no one else writes or removes, for it may have been
    /// replaced or removed since. `check` judges what a whole manifest names. Returns what was wrong.
    fn discard(&self, key: &Key, check: impl Fn(&Manifest) -> Result<(), Miss>) -> Option<String> {
        let _lock = match self.folder.claim() {
            Ok(lock) => lock,
            Err(error) => {
                self.tell(Trouble::Remove, &error);
                return None;
            }
        };
        let manifest = self.whole_manifest(key);
        let node_type = manifest.as_ref().map_or("a node".into(), |manifest| manifest.material.node_type.clone());
        let Err(Miss::Damaged(Damage { what, blob })) = manifest.and_then(|manifest| check(&manifest)) else {
            return None;
        };
        for path in [Some(self.folder.entry(key)), blob].into_iter().flatten() {
            if let Err(error) = fs::remove_file(&path) {
                self.tell(Trouble::Remove, &error);
            }
        }
        let what = format!("the result {key:.8} of {node_type} is removed from the cache: {what}");
        (self.warn)(&what);
        Some(what)
    }

    /// Bytes written.
    fn write(
        &self,
        key: Key,
        material: &Material,
        sockets: &[SocketSpec],
        encoded: Option<Vec<Vec<u8>>>,
    ) -> io::Result<u64> {
        let place = self.folder.entry(&key);
        let encoded = encoded.filter(|values| values.iter().map(|bytes| bytes.len() as u64).sum::<u64>() <= self.limit);
        if encoded.is_none() && place.exists() {
            // The record is there; or, better, a result, kept by a process with more room.
            self.touch(&key);
            return Ok(0);
        }
        let blobs = encoded.as_ref().map(|values| {
            let blobs = values.iter().zip(sockets).filter_map(|(bytes, socket)| Some((bytes, socket, socket.codec?)));
            let blob = |(bytes, socket, codec): (&Vec<u8>, &SocketSpec, AnyCodec)| Blob {
                type_name: socket.type_name.into(),
                format: codec.format.into(),
                version: codec.version,
                digest: Digest::of(bytes),
                bytes: bytes.len() as u64,
            };
            blobs.map(blob).collect::<Vec<_>>()
        });
        let manifest = Manifest::new(key, material.clone(), blobs);
        let text = manifest.to_text()?;
        // Held until the manifest is there: whoever removes sees each put whole or not at all.
        let lock = self.folder.share()?;
        let mut written = text.len() as u64;
        for (blob, bytes) in manifest.blobs().zip(encoded.iter().flatten()) {
            let place = self.folder.blob(&blob.digest, &blob.format);
            let there = fs::metadata(&place).is_ok_and(|metadata| metadata.is_file() && metadata.len() == blob.bytes);
            if !there {
                self.folder.write(&lock, &place, bytes)?;
                written += blob.bytes;
            }
        }
        self.folder.write(&lock, &place, text.as_bytes())?;
        Ok(written)
    }

    /// Marks a use: the time of a manifest's last change is that of its last use.
    fn touch(&self, key: &Key) {
        let path = self.folder.entry(key);
        let recent =
            fs::metadata(&path).ok().and_then(|metadata| folder::age(&metadata)).is_some_and(|age| age < USE_STEP);
        if !recent {
            // Where that is not allowed, the entry merely goes sooner.
            let _ = File::options().write(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        }
    }

    /// Warns of trouble with the folder, once of each kind.
    fn tell(&self, trouble: Trouble, error: &io::Error) {
        if !self.told.lock().unwrap_or_else(PoisonError::into_inner).insert((trouble, error.kind())) {
            return;
        }
        let folder = self.folder.path().display();
        (self.warn)(&match trouble {
            Trouble::Read => format!("the cache {folder} cannot be read: {error}; what it holds is computed again"),
            Trouble::Write => format!("results cannot be kept in the cache {folder}: {error}; the run goes on without"),
            Trouble::Remove => format!("nothing can be removed from the cache {folder}: {error}"),
        });
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl Miss {
    fn damaged(what: impl Into<String>, blob: Option<PathBuf>) -> Miss {
        Miss::Damaged(Damage { what: what.into(), blob })
    }
}

/// The bytes of each output; `None` where one of them cannot be kept.
fn encode(sockets: &[SocketSpec], outputs: &[EdgeValue]) -> anyhow::Result<Option<Vec<Vec<u8>>>> {
    if outputs.len() != sockets.len() {
        return Ok(None);
    }
    let encode = |(socket, value): (&SocketSpec, &EdgeValue)| match socket.codec {
        Some(codec) => guarded(socket.type_name, || codec.encode(value))?,
        None => Ok(None),
    };
    sockets.iter().zip(outputs).map(encode).collect()
}

fn decode(socket: &SocketSpec, bytes: &[u8]) -> Result<EdgeValue, Miss> {
    let Some(codec) = socket.codec else { return Err(Miss::Unknown) };
    let decoded = guarded(socket.type_name, || (codec.decode)(bytes)).unwrap_or_else(|panicked| Err(panicked.into()));
    decoded.map_err(|error| Miss::damaged(format!("it cannot be decoded: {error:#}"), None))
}
