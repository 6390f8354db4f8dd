//! The folder of a cache: its layout, its lock, and how files are written completely or not at all.
//!
//! ```text
//! v1/entries/3f/3f….json         manifests of results, by key
//! v1/blobs/a0/a0….safetensors    values, by the digest of their bytes
//! v1/files/7c….json              digests of files that nodes read
//! v1/findings/8d….json           what nodes found out beside their results
//! v1/tmp/                        files that are being written
//! v1/lock                        shared by writers, exclusive for removal
//! ```
//!
//! Independent of values and manifests. Other files in the folder are neither read nor removed, and nothing is written or
//! removed through a link.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Warn;
use super::wait::LockWait;
use crate::key::{Digest, Key};

/// The version of the layout. Each version has a folder of its own.
const LAYOUT: &str = "v1";

/// If the file system has no locks, a temporary file of this age is considered abandoned.
const ABANDONED: Duration = Duration::from_secs(3600);

/// The names of temporary files.
const TEMPORARY: [&str; 2] = ["lsregen-", ".tmp"];

/// The folder of a cache on disk. It is created by the first write. Clones share what is known of its lock.
#[derive(Clone, Debug)]
pub struct CacheFolder {
    root: PathBuf,
    wait: Arc<LockWait>,
}

/// The right to write (shared) or to remove (exclusive), until it is dropped. The system releases it when a process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    /// `None` if the file system has no locks.
    file: Option<File>,
}

/// A file of the cache.
#[derive(Debug)]
pub(crate) struct StoredFile {
    pub path: PathBuf,
    pub digest: Digest,
    /// The extension of its name.
    pub format: String,
    pub metadata: Metadata,
}

/// A damaged file in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// The path of the file.
    pub path: PathBuf,
    /// How it is damaged.
    pub what: String,
}

impl CacheFolder {
    /// The cache in `folder`, which need not exist yet.
    pub fn new(folder: impl AsRef<Path>) -> CacheFolder {
        CacheFolder { root: folder.as_ref().join(LAYOUT), wait: Arc::default() }
    }

    /// The same folder. `warn` is told for whom a process waits, and `patience` is how long it waits before it goes on
    /// without the cache.
    pub(crate) fn with_wait(self, warn: Warn, patience: Duration) -> CacheFolder {
        CacheFolder { wait: Arc::new(LockWait::new(warn, patience)), ..self }
    }

    /// Ends all waits for the lock, now and later: the operations that need it fail.
    pub fn stop_waiting(&self) {
        self.wait.stop();
    }

    /// The folder of this version of the layout.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Whether the cache has a value with this content in this format. Its presence tells, not its content.
    pub fn has_value(&self, bytes: &[u8], format: &str) -> bool {
        let length = |facts: Metadata| facts.is_file() && facts.len() == bytes.len() as u64;
        fs::symlink_metadata(self.blob(&Digest::of(bytes), format)).is_ok_and(length)
    }

    pub(crate) fn entry(&self, key: &Key) -> PathBuf {
        self.at("entries", &key.to_string(), "json")
    }

    pub(crate) fn blob(&self, digest: &Digest, format: &str) -> PathBuf {
        self.at("blobs", &digest.to_string(), format)
    }

    /// The record of the file whose path has this digest.
    pub(crate) fn file(&self, path: &Digest) -> PathBuf {
        self.root.join("files").join(format!("{path}.json"))
    }

    /// The finding about what has this digest.
    pub(crate) fn finding(&self, about: &Digest) -> PathBuf {
        self.root.join("findings").join(format!("{about}.json"))
    }

    fn at(&self, kind: &str, digest: &str, extension: &str) -> PathBuf {
        self.root.join(kind).join(&digest[..2]).join(format!("{digest}.{extension}"))
    }

    /// All manifests.
    pub(crate) fn entries(&self) -> impl Iterator<Item = StoredFile> {
        self.spread("entries").filter(|found| found.format == "json")
    }

    /// All blobs.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = StoredFile> {
        self.spread("blobs")
    }

    /// All records of files.
    pub(crate) fn files(&self) -> impl Iterator<Item = StoredFile> {
        list(&self.root.join("files")).filter_map(found)
    }

    /// All findings.
    pub(crate) fn findings(&self) -> impl Iterator<Item = StoredFile> {
        list(&self.root.join("findings")).filter_map(found)
    }

    /// The files that are being written, or were when their process died.
    pub(crate) fn temporary(&self) -> impl Iterator<Item = (PathBuf, Metadata)> {
        let [prefix, suffix] = TEMPORARY;
        list(&self.root.join("tmp")).filter(move |(path, _)| {
            let name = path.file_name().and_then(OsStr::to_str);
            name.is_some_and(|name| name.starts_with(prefix) && name.ends_with(suffix))
        })
    }

    /// The files in subfolders that are named by two digits.
    fn spread(&self, kind: &str) -> impl Iterator<Item = StoredFile> {
        let folders = entries(&self.root.join(kind));
        folders.flat_map(|folder| {
            let name = folder.file_name();
            list(&folder.path()).filter_map(found).filter(move |found| {
                name.to_str().is_some_and(|name| name.len() == 2 && found.digest.to_string().starts_with(name))
            })
        })
    }

    /// Returns the right to write, together with other writers. Waits for a removal to end, but not for ever. Creates the
    /// folder.
    pub(crate) fn share(&self) -> io::Result<Lock> {
        fs::create_dir_all(self.root.join("tmp"))?;
        self.lock(File::try_lock_shared, true)
    }

    /// Returns the right to remove. Waits for all writers, but not for ever, so that the files in `tmp/` belong to dead
    /// processes.
    pub(crate) fn claim(&self) -> io::Result<Lock> {
        self.lock(File::try_lock, true)
    }

    /// Returns the right to remove, as [`claim`](CacheFolder::claim) does, however long it takes.
    pub(crate) fn claim_patiently(&self) -> io::Result<Lock> {
        self.lock(File::try_lock, false)
    }

    /// Opens the file each time: a lock belongs to the open file, and each thread needs its own.
    fn lock(&self, lock: fn(&File) -> Result<(), TryLockError>, gives_up: bool) -> io::Result<Lock> {
        let path = self.root.join("lock");
        self.refuse_links(&path)?;
        let file = lsregen_files::open_with(&path, File::options().create(true).truncate(false).write(true))?;
        match self.wait.lock(&file, &path, lock, gives_up) {
            Ok(()) => Ok(Lock { file: Some(file) }),
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Lock { file: None }),
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// If a path in the folder is a link, or leads through one.
    fn refuse_links(&self, path: &Path) -> io::Result<()> {
        let inside = path.strip_prefix(&self.root).unwrap_or(path);
        let below = inside.iter().scan(self.root.clone(), |place, part| {
            place.push(part);
            Some(place.clone())
        });
        for place in [self.root.clone()].into_iter().chain(below) {
            if fs::symlink_metadata(&place).is_ok_and(|facts| facts.is_symlink()) {
                let message = format!("{} is a link, and the cache follows none", place.display());
                return Err(io::Error::new(ErrorKind::PermissionDenied, message));
            }
        }
        Ok(())
    }

    /// The folders that cannot be read or are links, and what has the name of one of the cache's files but is none, each with
    /// the reason.
    pub(crate) fn unreadable(&self) -> Vec<Damaged> {
        let mut found = vec![];
        let mut ahead: Vec<_> =
            ["entries", "blobs", "files", "findings", "tmp"].map(|kind| (self.root.join(kind), 0)).into();
        let blobs = self.root.join("blobs");
        while let Some((folder, depth)) = ahead.pop() {
            let entries = self.refuse_links(&folder).and_then(|()| fs::read_dir(&folder));
            match entries {
                Ok(entries) => {
                    for entry in entries.flatten() {
                        let (path, kind) = (entry.path(), entry.file_type().ok());
                        // A value in whose place something else is, is missing to the manifest that names it.
                        let is_named = digest_in(&path).is_some() && !path.starts_with(&blobs);
                        if is_named && kind.is_none_or(|kind| !kind.is_file()) {
                            found.push(Damaged { path, what: "it is not a regular file".into() });
                        } else if depth == 0 && path.is_dir() {
                            ahead.push((path, 1));
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => found.push(Damaged { path: folder, what: format!("it cannot be read: {error}") }),
            }
        }
        found
    }

    /// Removes a file.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        self.refuse_links(path.parent().unwrap_or(path))?;
        fs::remove_file(path)
    }

    /// Whether a process is writing or removing now.
    pub fn is_busy(&self) -> bool {
        let file = lsregen_files::open_with(&self.root.join("lock"), File::options().write(true));
        file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// Writes a file, completely or not at all.
    pub(crate) fn write(&self, _: &Lock, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.refuse_links(path)?;
        self.refuse_links(&self.root.join("tmp"))?;
        let [prefix, suffix] = TEMPORARY;
        let mut builder = tempfile::Builder::new();
        builder.prefix(prefix).suffix(suffix);
        // The permissions of any new file; those of a temporary file are for its owner only. The umask applies.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(self.root.join("tmp"))?;
        file.write_all(bytes)?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }
}

impl Lock {
    /// Whether a file that no manifest names was left behind by a dead process.
    pub(crate) fn is_left_behind(&self, metadata: &Metadata) -> bool {
        self.file.is_some() || age(metadata).is_some_and(|age| age >= ABANDONED)
    }

    /// The lock on a file system without locks.
    #[cfg(test)]
    pub(crate) fn none() -> Lock {
        Lock { file: None }
    }
}

/// How long ago a file was written or used; `None` if the clock or the file system does not report it.
pub(crate) fn age(metadata: &Metadata) -> Option<Duration> {
    SystemTime::now().duration_since(metadata.modified().ok()?).ok()
}

/// The entries of a folder; none if it cannot be read, or is a link.
fn entries(folder: &Path) -> impl Iterator<Item = fs::DirEntry> + use<> {
    let is_folder = fs::symlink_metadata(folder).is_ok_and(|facts| facts.is_dir());
    let entries = is_folder.then(|| fs::read_dir(folder).ok()).flatten();
    entries.into_iter().flatten().flatten()
}

/// The regular files in a folder; none if it cannot be read, or is a link.
fn list(folder: &Path) -> impl Iterator<Item = (PathBuf, Metadata)> + use<> {
    entries(folder).filter_map(|file| {
        let metadata = file.metadata().ok().filter(Metadata::is_file)?;
        Some((file.path(), metadata))
    })
}

/// The file, if its name is one that the cache uses.
fn found((path, metadata): (PathBuf, Metadata)) -> Option<StoredFile> {
    let (digest, format) = digest_in(&path)?;
    Some(StoredFile { digest, format: format.into(), metadata, path: path.clone() })
}

/// The digest and the format in the name of one of the cache's files.
fn digest_in(path: &Path) -> Option<(Digest, &str)> {
    let (digits, format) = path.file_name().and_then(OsStr::to_str)?.split_once('.')?;
    let digest: Digest = digits.parse().ok()?;
    (digest.to_string() == digits && is_format(format)).then_some((digest, format))
}

/// Whether a text is a valid extension of a blob.
pub(crate) fn is_format(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
