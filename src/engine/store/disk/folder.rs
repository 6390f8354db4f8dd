//! The folder of a cache: where things lie in it, how a file comes into it whole, and its lock.
//!
//! ```text
//! v1/entries/3f/3f….json         what is known of a result, by its key
//! v1/blobs/a0/a0….safetensors    the values, by the digest of their bytes
//! v1/files/7c….json              digests of files that nodes read
//! v1/tmp/                        files in the making
//! v1/lock                        shared by writers, alone for whoever removes
//! ```
//!
//! Knows no value and no manifest. Other files in the folder are not ours: they are neither read nor removed.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::digest::Digest;
use crate::key::Key;

/// The version of the layout: another one begins with an empty folder of its own.
const LAYOUT: &str = "v1";

/// Where the file system has no locks, a temporary file this old is taken for a dead process'.
const ABANDONED: Duration = Duration::from_secs(3600);

/// The folder of a cache on disk. Nothing is made until something is written.
#[derive(Clone, Debug)]
pub struct CacheFolder {
    root: PathBuf,
}

/// The right to write (shared) or to remove (alone), until it is dropped; the system takes it from a process that dies.
#[derive(Debug)]
pub(crate) struct Lock {
    /// `None` where the file system has no locks.
    file: Option<File>,
}

/// A file of ours in the folder.
#[derive(Debug)]
pub(crate) struct StoredFile {
    pub path: PathBuf,
    pub digest: Digest,
    /// What follows the digest in its name.
    pub format: String,
    pub metadata: Metadata,
}

impl CacheFolder {
    /// The cache in `folder`, which need not exist yet.
    pub fn new(folder: impl AsRef<Path>) -> CacheFolder {
        CacheFolder { root: folder.as_ref().join(LAYOUT) }
    }

    /// Where everything of this version lies.
    pub fn path(&self) -> &Path {
        &self.root
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

    /// What is in the making, or was when its process died.
    pub(crate) fn temporary(&self) -> impl Iterator<Item = (PathBuf, Metadata)> {
        list(&self.root.join("tmp"))
    }

    /// The files of a kind that lie in folders of two digits.
    fn spread(&self, kind: &str) -> impl Iterator<Item = StoredFile> {
        let folders = fs::read_dir(self.root.join(kind)).into_iter().flatten().flatten();
        folders.flat_map(|folder| {
            let name = folder.file_name();
            list(&folder.path()).filter_map(found).filter(move |found| {
                name.to_str().is_some_and(|name| name.len() == 2 && found.digest.to_string().starts_with(name))
            })
        })
    }

    /// The right to write, beside others who write. Waits while someone removes. Makes the folder.
    pub(crate) fn share(&self) -> io::Result<Lock> {
        fs::create_dir_all(self.root.join("tmp"))?;
        self.lock(File::lock_shared)
    }

    /// The right to remove. Waits for all writers; the files in `tmp/` are then of processes that died.
    pub(crate) fn claim(&self) -> io::Result<Lock> {
        self.lock(File::lock)
    }

    /// Opened anew each time: a lock belongs to the open file, and threads lock for themselves.
    fn lock(&self, lock: fn(&File) -> io::Result<()>) -> io::Result<Lock> {
        let file = File::options().create(true).truncate(false).write(true).open(self.root.join("lock"))?;
        loop {
            return match lock(&file) {
                Ok(()) => Ok(Lock { file: Some(file) }),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Lock { file: None }),
                Err(error) => Err(error),
            };
        }
    }

    /// Whether someone writes or removes at this moment.
    pub fn is_busy(&self) -> bool {
        let file = File::options().write(true).open(self.root.join("lock"));
        file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// A file with these bytes at `place`, whole or not at all.
    pub(crate) fn write(&self, _: &Lock, place: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut builder = tempfile::Builder::new();
        // As any new file, where a temporary one would be its owner's alone. The umask applies.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(self.root.join("tmp"))?;
        file.write_all(bytes)?;
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder)?;
        }
        file.persist(place).map_err(|error| error.error)?;
        Ok(())
    }
}

impl Lock {
    /// Whether a file without a name in the store can only be what a dead process left behind.
    pub(crate) fn is_left_behind(&self, metadata: &Metadata) -> bool {
        self.file.is_some() || age(metadata).is_some_and(|age| age >= ABANDONED)
    }

    /// The lock of a file system that has none.
    #[cfg(test)]
    pub(crate) fn none() -> Lock {
        Lock { file: None }
    }
}

/// How long ago a file was written or used; `None` where the clock or the file system does not say.
pub(crate) fn age(metadata: &Metadata) -> Option<Duration> {
    SystemTime::now().duration_since(metadata.modified().ok()?).ok()
}

/// The regular files in a folder; none where it cannot be read.
fn list(folder: &Path) -> impl Iterator<Item = (PathBuf, Metadata)> + use<> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| {
        let metadata = file.metadata().ok().filter(Metadata::is_file)?;
        Some((file.path(), metadata))
    })
}

/// The file, if its name is one that we give.
fn found((path, metadata): (PathBuf, Metadata)) -> Option<StoredFile> {
    let name = path.file_name().and_then(OsStr::to_str)?;
    let (digits, format) = name.split_once('.')?;
    let digest: Digest = digits.parse().ok()?;
    let ours = digest.to_string() == digits && is_format(format);
    ours.then(|| StoredFile { digest, format: format.into(), metadata, path: path.clone() })
}

/// Whether a text may be the extension of a blob.
pub(crate) fn is_format(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
