//! Digests of the files that nodes read.
//!
//! A file is read again only after it has changed: 7 GB of weights take seconds to read. With a cache folder, this
//! holds across processes. Independent of nodes and keys.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use lsregen_files::Kind;
use serde::{Deserialize, Serialize};

use super::CacheFolder;
use super::disk::sealed;
use crate::key::Digest;

/// A file that was written more recently may be written again without a change of its times, because file systems count in
/// steps of up to two seconds. Its digest is not cached.
pub(crate) const SETTLED: Duration = Duration::from_secs(2);

/// How often a file is read again if it changes while it is read.
const ATTEMPTS: usize = 3;

/// Why a file has no digest.
#[derive(Debug, thiserror::Error)]
#[error("cannot read `{}`: {reason}", path.display())]
pub struct FileError {
    /// The path of the file.
    pub path: PathBuf,
    /// Why it cannot be read.
    pub reason: String,
}

/// The BLAKE3 digests of files, cached by path, length, times and identity.
#[derive(Default)]
pub struct FileDigests {
    known: Mutex<HashMap<PathBuf, (Stamp, Digest)>>,
    bytes_read: AtomicU64,
    /// The folder in which they are cached for other processes.
    folder: Option<CacheFolder>,
}

/// The digest of a file, as it is cached on disk.
#[derive(Serialize, Deserialize)]
struct FileRecord {
    /// For people. The name of the record is the digest of this path.
    path: PathBuf,
    stamp: Stamp,
    digest: Digest,
}

impl FileDigests {
    /// Digests that are cached in memory only.
    pub fn new() -> FileDigests {
        FileDigests::default()
    }

    /// Digests that are also cached in `folder`. If that cannot be read or written, files are read again.
    pub fn kept_in(folder: CacheFolder) -> FileDigests {
        FileDigests { folder: Some(folder), ..FileDigests::default() }
    }

    /// Returns the state of a file, with the digest of its content.
    ///
    /// # Errors
    /// Returns an error if the file is missing, cannot be read, is not a regular file, or keeps changing while it is read.
    pub fn digest(&self, path: &Path) -> Result<FileState, FileError> {
        let fail = |reason| FileError { path: path.into(), reason };
        let stamp = Stamp::of(path).map_err(|error| fail(error.to_string()))?;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied();
        if let Some((known, digest)) = known.or_else(|| self.recall(path))
            && known == stamp
        {
            self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(path.into(), (known, digest));
            return Ok(FileState { path: path.into(), stamp, digest });
        }
        for _ in 0..ATTEMPTS {
            let (state, bytes) = read(path).map_err(|error| fail(error.to_string()))?;
            self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
            let Some(state) = state else { continue };
            if state.stamp.is_settled() {
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.insert(path.into(), (state.stamp, state.digest));
                drop(known);
                self.record(&state);
            }
            return Ok(state);
        }
        Err(fail("it changes while it is read; run again when it is complete".into()))
    }

    /// Returns the digest of a file that is cached on disk.
    fn recall(&self, path: &Path) -> Option<(Stamp, Digest)> {
        let place = self.folder.as_ref()?.file(&name(path)?);
        let record: FileRecord = sealed::open(&lsregen_files::read(&place, Kind::CACHE_ENTRY).ok()?)?;
        Some((record.stamp, record.digest))
    }

    /// Caches the digest of a file on disk. If that fails, the file is read again next time.
    fn record(&self, state: &FileState) {
        let write = |folder: &CacheFolder| -> Option<()> {
            let path = std::path::absolute(&state.path).ok()?;
            let text = sealed::seal(&FileRecord { path, stamp: state.stamp, digest: state.digest }).ok()?;
            folder.write(&folder.share().ok()?, &folder.file(&name(&state.path)?), text.as_bytes()).ok()
        };
        self.folder.as_ref().and_then(write);
    }

    /// How many bytes of files were read so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }
}

/// A file as it was when its digest was computed.
#[derive(Clone, Debug)]
pub struct FileState {
    path: PathBuf,
    stamp: Stamp,
    digest: Digest,
}

impl FileState {
    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The digest of its content.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Whether the file still has this content. Reads it only if its stamp has changed.
    pub fn still_holds(&self) -> bool {
        Stamp::of(&self.path).is_ok_and(|stamp| stamp == self.stamp)
            || matches!(read(&self.path), Ok((Some(now), _)) if now.digest == self.digest)
    }
}

/// The name of the record of a file.
fn name(path: &Path) -> Option<Digest> {
    Some(Digest::of(std::path::absolute(path).ok()?.as_os_str().as_encoded_bytes()))
}

/// Reads a file. Returns its state, or `None` if it changed while it was read, and how many bytes were read.
fn read(path: &Path) -> io::Result<(Option<FileState>, u64)> {
    let stamp = Stamp::of(path)?;
    let file = lsregen_files::open(path, Kind::ANY)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&file)?;
    // Reads the metadata by path again, because the file may have been replaced.
    let unchanged = Stamp::of(path)? == stamp && stamp.length == hasher.count();
    let state = FileState { path: path.into(), stamp, digest: Digest(*hasher.finalize().as_bytes()) };
    Ok((unchanged.then_some(state), hasher.count()))
}

/// The metadata by which a change of a file is noticed without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
    identity: Identity,
}

/// Device, inode, and when the inode last changed. Programs that reset the modification time cannot hide that.
#[cfg(unix)]
type Identity = (u64, u64, i64, i64);
#[cfg(not(unix))]
type Identity = Option<SystemTime>;

impl Stamp {
    pub fn of(path: &Path) -> io::Result<Stamp> {
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        Ok(Stamp { length: metadata.len(), modified: metadata.modified().ok(), identity: identity(&metadata) })
    }

    /// Whether a later write to the file would change its times.
    pub fn is_settled(&self) -> bool {
        self.modified.and_then(|modified| modified.elapsed().ok()).is_some_and(|age| age >= SETTLED)
    }
}

#[cfg(unix)]
fn identity(metadata: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn identity(metadata: &Metadata) -> Identity {
    metadata.created().ok()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn write_long_ago(path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        File::options().write(true).open(path).unwrap().set_modified(hour_ago).unwrap();
    }

    #[test]
    fn an_unchanged_file_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        write_long_ago(&path, "1234567");
        let digests = FileDigests::new();
        let first = digests.digest(&path).unwrap();
        assert_eq!(first.digest(), Digest::of(b"1234567"));
        assert_eq!(digests.digest(&path).unwrap().digest(), first.digest());
        assert_eq!(digests.bytes_read(), 7);
        assert!(first.still_holds());
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        write_long_ago(&path, "1234567");
        let digests = FileDigests::new();
        let first = digests.digest(&path).unwrap();
        write_long_ago(&path, "7654321");
        assert!(!first.still_holds());
        assert_ne!(digests.digest(&path).unwrap().digest(), first.digest());
        write_long_ago(&path, "1234567");
        assert!(first.still_holds());
        // Replaced by rename, as editors do.
        let other = folder.path().join("other");
        write_long_ago(&other, "abcdefg");
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(digests.digest(&path).unwrap().digest(), Digest::of(b"abcdefg"));
    }

    #[test]
    fn the_digest_of_a_file_just_written_is_not_cached() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("picture");
        std::fs::write(&path, "123").unwrap();
        let digests = FileDigests::new();
        digests.digest(&path).unwrap();
        digests.digest(&path).unwrap();
        assert_eq!(digests.bytes_read(), 6);
    }

    #[test]
    fn another_process_need_not_read_an_unchanged_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, cache) = (folder.path().join("weights"), CacheFolder::new(folder.path().join("cache")));
        write_long_ago(&path, "1234567");
        // Each call is like a new process.
        let read = || {
            let digests = FileDigests::kept_in(cache.clone());
            let digest = digests.digest(&path).unwrap().digest();
            (digest, digests.bytes_read())
        };
        assert_eq!(read(), (Digest::of(b"1234567"), 7));
        assert_eq!(read(), (Digest::of(b"1234567"), 0));
        write_long_ago(&path, "7654321");
        assert_eq!(read(), (Digest::of(b"7654321"), 7));
        assert_eq!(read().1, 0);
        // The digest of a file just written is not cached.
        std::fs::write(&path, "123").unwrap();
        assert_eq!((read().1, read().1), (3, 3));
        // A damaged record is ignored, and replaced when the file has been read.
        write_long_ago(&path, "7654321");
        read();
        let record = cache.files().next().unwrap().path;
        std::fs::write(&record, std::fs::read_to_string(&record).unwrap().replacen('7', "8", 1)).unwrap();
        assert_eq!((read().1, read().1), (7, 0));
    }

    #[test]
    fn without_a_writable_folder_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let (path, blocked) = (folder.path().join("weights"), folder.path().join("blocked"));
        std::fs::write(&blocked, "a file in place of a folder").unwrap();
        write_long_ago(&path, "1234567");
        let digests = FileDigests::kept_in(CacheFolder::new(blocked));
        assert_eq!(digests.digest(&path).unwrap().digest(), Digest::of(b"1234567"));
    }

    #[test]
    fn an_unreadable_file_is_an_error_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        let digests = FileDigests::new();
        assert!(digests.digest(&missing).unwrap_err().to_string().contains("missing`: No such file"));
        let error = digests.digest(folder.path()).unwrap_err();
        assert_eq!(error.path, folder.path());
        assert_eq!(error.reason, "it is not a file");
        // Removed after its digest was computed.
        write_long_ago(&missing, "here");
        let state = digests.digest(&missing).unwrap();
        std::fs::remove_file(&missing).unwrap();
        assert!(!state.still_holds());
        assert!(digests.digest(&missing).is_err());
    }
}
