//! Values that are read from files, shared while the files are unchanged.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Values that are kept; beyond this the oldest is dropped.
const CAPACITY: usize = 16;

/// Values of one type, each under a key that names its files.
pub struct FileCache<K, V>(Mutex<Vec<CachedValue<K, V>>>);

struct CachedValue<K, V> {
    key: K,
    value: Arc<V>,
    stamps: Vec<(PathBuf, FileStamp)>,
}

impl<K, V> Default for FileCache<K, V> {
    fn default() -> Self {
        FileCache(Mutex::default())
    }
}

impl<K: Clone + PartialEq, V> FileCache<K, V> {
    /// Returns the value under `key` if none of its files has changed, and otherwise reads it with `read`. `files` lists
    /// the files that a value was read from; their folders count too, because a new file may take precedence.
    ///
    /// # Errors Returns the error of `read`. Errors are not cached.
    pub fn get<E>(
        &self,
        key: &K,
        read: impl FnOnce() -> Result<V, E>,
        files: impl FnOnce(&V) -> Vec<PathBuf>,
    ) -> Result<Arc<V>, E> {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = values.iter().position(|cached| cached.key == *key) {
            let is_unchanged = |(path, stamp): &(PathBuf, FileStamp)| FileStamp::of(path).as_ref() == Some(stamp);
            if values[at].stamps.iter().all(is_unchanged) {
                return Ok(values[at].value.clone());
            }
            values.remove(at);
        }
        let start = SystemTime::now();
        let value = Arc::new(read()?);
        let files = files(&value);
        let folders = files.iter().filter_map(|file| file.parent()).map(Path::to_path_buf);
        let paths: BTreeSet<PathBuf> = folders.chain(files.iter().cloned()).collect();
        let stamps = paths.into_iter().map(|path| FileStamp::of(&path).map(|stamp| (path, stamp)));
        // A file that was written meanwhile may have been read in its former state.
        if let Some(stamps) = stamps.collect::<Option<Vec<_>>>()
            && stamps.iter().all(|(_, stamp)| stamp.modified.is_some_and(|modified| modified + CLOCK_LAG < start))
        {
            if values.len() == CAPACITY {
                values.remove(0);
            }
            values.push(CachedValue { key: key.clone(), value: value.clone(), stamps });
        }
        Ok(value)
    }
}

/// The most by which the times of files lag behind the clock: the kernel updates the time that it gives them once a tick.
const CLOCK_LAG: Duration = Duration::from_millis(20);

/// The metadata by which a changed file or folder is recognised.
#[derive(PartialEq, Eq)]
struct FileStamp {
    length: u64,
    modified: Option<SystemTime>,
    /// Device, inode, and the time at which the inode last changed.
    #[cfg(unix)]
    inode: (u64, u64, i64, i64),
}

impl FileStamp {
    /// `None` if there is no such file.
    fn of(path: &Path) -> Option<FileStamp> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let metadata = fs::metadata(path).ok()?;
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt as _;
        Some(FileStamp {
            length: metadata.len(),
            modified: metadata.modified().ok(),
            #[cfg(unix)]
            inode: (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn a_value_is_read_again_when_its_files_or_their_folder_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        let age = |path: &Path| fs::File::open(path).unwrap().set_modified(hour_ago).unwrap();
        let write = |text: &str| {
            fs::write(&path, text).unwrap();
            fs::File::options().append(true).open(&path).unwrap().set_modified(hour_ago).unwrap();
        };
        let cache = FileCache::<&str, String>::default();
        let reads = Cell::new(0);
        let get = |key: &'static str| {
            let read = || {
                reads.set(reads.get() + 1);
                Ok::<_, Infallible>(fs::read_to_string(&path).unwrap())
            };
            cache.get(&key, read, |_| vec![path.clone()]).unwrap().to_string()
        };
        write("one");
        age(folder.path());
        assert_eq!((get("a"), get("a"), reads.get()), ("one".into(), "one".into(), 1));
        assert_eq!((get("b"), reads.get()), ("one".into(), 2));
        // The same length and time, but another inode.
        write("two");
        assert_eq!((get("a"), get("a"), reads.get()), ("two".into(), "two".into(), 3));
        fs::write(folder.path().join("beside"), "").unwrap();
        assert_eq!((get("a"), reads.get()), ("two".into(), 4));
    }

    #[test]
    fn an_error_is_not_kept_and_neither_is_a_file_that_is_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let cache = FileCache::<u32, u32>::default();
        assert_eq!(cache.get(&0, || Err("missing"), |_| vec![]), Err("missing"));
        let read = |value| {
            fs::write(&path, "").unwrap();
            Ok::<_, Infallible>(value)
        };
        assert_eq!(*cache.get(&0, || read(1), |_| vec![path.clone()]).unwrap(), 1);
        assert_eq!(*cache.get(&0, || read(2), |_| vec![path.clone()]).unwrap(), 2);
    }
}
