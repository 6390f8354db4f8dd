//! Results on disk: content-addressed, shared by processes, with a limit in bytes. The least recently used result is
//! removed first.
//!
//! A blob is written before the manifest that names it, each to a temporary file that is then renamed, so that a process
//! that dies leaves no incomplete result. Everything that is read is compared with its digest. The cache never makes a run
//! fail or changes its result: a damaged result counts as missing and is removed, and a result that cannot be written is
//! not stored; a warning reports both. Files are not flushed to the disk: digests detect the damage of a power failure.

mod folder;
mod manifest;
pub(super) mod sealed;
mod sweep;
mod wait;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

pub use folder::{CacheFolder, Damaged};
use lsregen_files::Kind;
pub use manifest::{Blob, Manifest};
pub use sweep::{CacheStatus, SweepReport, TypeUsage, Verified};

use crate::key::{Digest, Key, Material};
use crate::node::{AnyCodec, EdgeValue, SocketSpec, guarded};

/// Receives warnings about problems that do not stop a run.
pub type Warn = Arc<dyn Fn(&str) + Send + Sync>;

/// A result that is used again within this time keeps its time of use, which saves a write.
const USE_STEP: Duration = Duration::from_secs(60);

/// A process measures the whole cache each time it has written this fraction of the limit.
const MEASURE_EVERY: u64 = 16;

/// The outputs of nodes on disk, by memo key. Several processes may use the same folder at the same time.
pub struct DiskStore {
    folder: CacheFolder,
    limit: u64,
    warn: Warn,
    /// The problems that have been reported.
    reported: Mutex<HashSet<(Operation, ErrorKind)>>,
    /// How many bytes this process has written since it last measured the whole cache.
    written: AtomicU64,
}

/// What could not be done with the folder.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    Read,
    Write,
    Remove,
}

/// Why a result cannot be read.
enum Miss {
    /// It does not exist, or has a format that these sockets cannot read.
    Missing,
    /// Its content differs from what was written.
    Damaged(Damage),
    Unreadable(io::Error),
}

/// How a result is damaged.
#[derive(Debug)]
struct Damage {
    what: String,
    /// The damaged blob, if it is one.
    blob: Option<PathBuf>,
}

impl DiskStore {
    /// The store in `folder`, which need not exist, of at most `limit` bytes.
    pub fn new(folder: impl AsRef<Path>, limit: u64, warn: Warn) -> DiskStore {
        let folder = CacheFolder::new(folder).with_wait(warn.clone(), wait::PATIENCE);
        DiskStore { folder, limit, warn, reported: Mutex::default(), written: AtomicU64::new(0) }
    }

    /// Sets how long an operation waits for another process that holds the lock, before it goes on without the cache.
    pub fn with_patience(mut self, patience: Duration) -> DiskStore {
        self.folder = self.folder.clone().with_wait(self.warn.clone(), patience);
        self
    }

    /// The folder of the cache.
    pub fn folder(&self) -> &CacheFolder {
        &self.folder
    }

    /// The limit in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Returns the outputs with this key, in the order of the output sockets. Counts as a use.
    pub fn get(&self, key: &Key, sockets: &[SocketSpec]) -> Option<Arc<[EdgeValue]>> {
        match self.read(key, sockets) {
            Ok(outputs) => {
                self.touch(key);
                Some(outputs)
            }
            Err(Miss::Missing) => None,
            Err(Miss::Unreadable(error)) => {
                self.report(Operation::Read, &error);
                None
            }
            Err(Miss::Damaged(_)) => {
                if let Err(error) = self.discard(key, |manifest| self.read_values(manifest, sockets).map(drop)) {
                    self.report(Operation::Remove, &error);
                }
                None
            }
        }
    }

    /// Returns the manifest of this key, whether or not its values are on disk. Does not count as a use.
    pub fn manifest(&self, key: &Key) -> Option<Manifest> {
        Manifest::from_bytes(&lsregen_files::read(&self.folder.entry(key), Kind::CACHE_ENTRY).ok()?, key)
    }

    /// Stores a result. If it has no format on disk or is too large, only records that the node ran. `material` is the
    /// material of the key; `sockets` are the outputs of the node type.
    pub fn put(&self, key: Key, material: &Material, sockets: &[SocketSpec], outputs: &[EdgeValue]) {
        let encoded = encode(sockets, outputs).unwrap_or_else(|error| {
            (self.warn)(&format!("a result of {} cannot be stored: {error:#}", material.node_type));
            None
        });
        match self.write(key, material, sockets, encoded) {
            Ok(bytes) => {
                let written = self.written.fetch_add(bytes, Ordering::Relaxed) + bytes;
                if written > self.limit / MEASURE_EVERY {
                    self.shrink();
                }
            }
            Err(error) => self.report(Operation::Write, &error),
        }
    }

    /// Removes results until the cache is within its limit, if this process has written any. Dropping the store does the
    /// same.
    pub fn close(&self) {
        if self.written.load(Ordering::Relaxed) > 0 {
            self.shrink();
        }
    }

    fn read(&self, key: &Key, sockets: &[SocketSpec]) -> Result<Arc<[EdgeValue]>, Miss> {
        self.read_values(&self.read_manifest(key)?, sockets)
    }

    fn read_manifest(&self, key: &Key) -> Result<Manifest, Miss> {
        let bytes = match lsregen_files::read(&self.folder.entry(key), Kind::CACHE_ENTRY) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(Miss::Missing),
            Err(error) => return Err(Miss::Unreadable(error)),
        };
        Manifest::from_bytes(&bytes, key).ok_or_else(|| Miss::damaged("its manifest is damaged", None))
    }

    fn read_values(&self, manifest: &Manifest, sockets: &[SocketSpec]) -> Result<Arc<[EdgeValue]>, Miss> {
        if !manifest.fits(sockets) {
            return Err(Miss::Missing);
        }
        let blobs = manifest.blobs().zip(sockets);
        blobs.map(|(blob, socket)| decode(socket, &self.content(blob)?)).collect()
    }

    /// Reads the bytes of a blob.
    fn content(&self, blob: &Blob) -> Result<Vec<u8>, Miss> {
        let path = self.folder.blob(&blob.digest, &blob.format);
        match lsregen_files::read(&path, Kind::CACHE_VALUE.at_most(blob.bytes)) {
            Ok(bytes) if Digest::of(&bytes) == blob.digest => Ok(bytes),
            Ok(_) => Err(Miss::damaged("its data is damaged", Some(path))),
            Err(error) if error.kind() == ErrorKind::FileTooLarge => {
                Err(Miss::damaged("its data is damaged", Some(path)))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Miss::damaged("its data is missing", None)),
            Err(error) => Err(Miss::Unreadable(error)),
        }
    }

    /// Removes a damaged result. Examines it again when nobody else writes or removes, because it may have been replaced or
    /// removed since. `check` examines the values of a valid manifest. Returns what was wrong.
    ///
    /// # Errors
    /// If it is damaged, but cannot be removed.
    fn discard(&self, key: &Key, check: impl Fn(&Manifest) -> Result<(), Miss>) -> io::Result<Option<String>> {
        let _lock = self.folder.claim()?;
        let manifest = self.read_manifest(key);
        let node_type = manifest.as_ref().map_or("a node".into(), |manifest| manifest.material.node_type.clone());
        let Err(Miss::Damaged(Damage { what, blob })) = manifest.and_then(|manifest| check(&manifest)) else {
            return Ok(None);
        };
        for path in [Some(self.folder.entry(key)), blob].into_iter().flatten() {
            match self.folder.remove(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let what = format!("the result {key:.8} of {node_type} was removed from the cache: {what}");
        (self.warn)(&what);
        Ok(Some(what))
    }

    /// Writes a result. Returns how many bytes were written.
    fn write(
        &self,
        key: Key,
        material: &Material,
        sockets: &[SocketSpec],
        encoded: Option<Vec<Vec<u8>>>,
    ) -> io::Result<u64> {
        let path = self.folder.entry(&key);
        let encoded = encoded.filter(|values| values.iter().map(|bytes| bytes.len() as u64).sum::<u64>() <= self.limit);
        if encoded.is_none() && path.exists() {
            // The store already has a record, or a result from a process with a higher limit.
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
        // Held until the manifest is written, so that a process that removes never sees half a result.
        let lock = self.folder.share()?;
        let mut written = text.len() as u64;
        for (blob, bytes) in manifest.blobs().zip(encoded.iter().flatten()) {
            let blob_path = self.folder.blob(&blob.digest, &blob.format);
            let exists =
                fs::metadata(&blob_path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == blob.bytes);
            if !exists {
                self.folder.write(&lock, &blob_path, bytes)?;
                written += blob.bytes;
            }
        }
        self.folder.write(&lock, &path, text.as_bytes())?;
        Ok(written)
    }

    /// Marks a use: the modification time of a manifest is the time of its last use.
    fn touch(&self, key: &Key) {
        let path = self.folder.entry(key);
        if !fs::symlink_metadata(&path).is_ok_and(|facts| facts.is_file()) {
            return;
        }
        let recent =
            fs::metadata(&path).ok().and_then(|metadata| folder::age(&metadata)).is_some_and(|age| age < USE_STEP);
        if !recent {
            // If this fails, the result is only removed sooner.
            let file = lsregen_files::open_with(&path, File::options().write(true));
            let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
        }
    }

    /// Warns of a problem with the folder, once for each kind.
    fn report(&self, operation: Operation, error: &io::Error) {
        if !self.reported.lock().unwrap_or_else(PoisonError::into_inner).insert((operation, error.kind())) {
            return;
        }
        let folder = self.folder.path().display();
        (self.warn)(&match operation {
            Operation::Read => format!("the cache {folder} cannot be read: {error}; its results are computed again"),
            Operation::Write => {
                format!("results cannot be stored in the cache {folder}: {error}; the run goes on without it")
            }
            Operation::Remove => format!("nothing can be removed from the cache {folder}: {error}"),
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

/// Encodes each output; `None` if one of them cannot be stored.
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
    let Some(codec) = socket.codec else { return Err(Miss::Missing) };
    let decoded = guarded(socket.type_name, || (codec.decode)(bytes)).unwrap_or_else(|panicked| Err(panicked.into()));
    decoded.map_err(|error| Miss::damaged(format!("it cannot be decoded: {error:#}"), None))
}
