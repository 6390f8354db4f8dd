//! The folder of a cache: its layout, its lock, and how files are written completely or not at all.
//!
//! ```text
//! v1/entries/3f/3f….json         manifests of results, by key
//! v1/blobs/a0/a0….safetensors    values, by the digest of their bytes
//! v1/files/7c….json              digests of files that nodes read
//! v1/tmp/                        files that are being written
//! v1/lock                        shared by writers, exclusive for removal
//! ```
//!
//! Independent of values and manifests. Other files in the folder are neither read nor removed.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::key::{Digest, Key};

/// The version of the layout. Each version has a folder of its own.
const LAYOUT: &str = "v1";

/// If the file system has no locks, a temporary file of this age is considered abandoned.
const ABANDONED: Duration = Duration::from_secs(3600);

/// The folder of a cache on disk. It is created by the first write.
#[derive(Clone, Debug)]
pub struct CacheFolder {
    root: PathBuf,
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

impl CacheFolder {
    /// The cache in `folder`, which need not exist yet.
    pub fn new(folder: impl AsRef<Path>) -> CacheFolder {
        CacheFolder { root: folder.as_ref().join(LAYOUT) }
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

    /// The files that are being written, or were when their process died.
    pub(crate) fn temporary(&self) -> impl Iterator<Item = (PathBuf, Metadata)> {
        list(&self.root.join("tmp"))
    }

    /// The files in subfolders that are named by two digits.
    fn spread(&self, kind: &str) -> impl Iterator<Item = StoredFile> {
        let folders = fs::read_dir(self.root.join(kind)).into_iter().flatten().flatten();
        folders.flat_map(|folder| {
            let name = folder.file_name();
            list(&folder.path()).filter_map(found).filter(move |found| {
                name.to_str().is_some_and(|name| name.len() == 2 && found.digest.to_string().starts_with(name))
            })
        })
    }

    /// Returns the right to write, together with other writers. Waits for a removal to end. Creates the folder.
    pub(crate) fn share(&self) -> io::Result<Lock> {
        fs::create_dir_all(self.root.join("tmp"))?;
        self.lock(File::lock_shared)
    }

    /// Returns the right to remove. Waits for all writers, so that the files in `tmp/` belong to dead processes.
    pub(crate) fn claim(&self) -> io::Result<Lock> {
        self.lock(File::lock)
    }

    /// Opens the file each time: a lock belongs to the open file, and each thread needs its own.
    fn lock(&self, lock: fn(&File) -> io::Result<()>) -> io::Result<Lock> {
        let file = lsregen_files::open_with(
            &self.root.join("lock"),
            File::options().create(true).truncate(false).write(true),
        )?;
        loop {
            return match lock(&file) {
                Ok(()) => Ok(Lock { file: Some(file) }),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Lock { file: None }),
                Err(error) => Err(error),
            };
        }
    }

    /// Whether a process is writing or removing now.
    pub fn is_busy(&self) -> bool {
        let file = lsregen_files::open_with(&self.root.join("lock"), File::options().write(true));
        file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// Writes a file, completely or not at all.
    pub(crate) fn write(&self, _: &Lock, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut builder = tempfile::Builder::new();
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

/// The regular files in a folder; none if it cannot be read.
fn list(folder: &Path) -> impl Iterator<Item = (PathBuf, Metadata)> + use<> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| {
        let metadata = file.metadata().ok().filter(Metadata::is_file)?;
        Some((file.path(), metadata))
    })
}

/// The file, if its name is one that the cache uses.
fn found((path, metadata): (PathBuf, Metadata)) -> Option<StoredFile> {
    let name = path.file_name().and_then(OsStr::to_str)?;
    let (digits, format) = name.split_once('.')?;
    let digest: Digest = digits.parse().ok()?;
    let is_ours = digest.to_string() == digits && is_format(format);
    is_ours.then(|| StoredFile { digest, format: format.into(), metadata, path: path.clone() })
}

/// Whether a text is a valid extension of a blob.
pub(crate) fn is_format(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
