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
    /// Without a stamp: a file that did not exist.
    stamps: Vec<(PathBuf, Option<FileStamp>)>,
}

impl<K, V> Default for FileCache<K, V> {
    fn default() -> Self {
        FileCache(Mutex::default())
    }
}

impl<K: Clone + PartialEq, V> FileCache<K, V> {
    /// Returns the value under `key` if none of its files has changed, and otherwise reads it with `read`. `files` lists
    /// the files that a value was read from, and those that would take precedence if they existed. Their folders count
    /// too, because a new file may take precedence.
    ///
    /// # Errors
    /// Returns the error of `read`. Errors are not cached.
    pub fn get<E>(
        &self,
        key: &K,
        read: impl FnOnce() -> Result<V, E>,
        files: impl FnOnce(&V) -> Vec<PathBuf>,
    ) -> Result<Arc<V>, E> {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A value of changed or deleted files is of no use any more, but may keep them open.
        values.retain(|cached| cached.stamps.iter().all(|(path, stamp)| FileStamp::of(path) == *stamp));
        if let Some(cached) = values.iter().find(|cached| cached.key == *key) {
            return Ok(cached.value.clone());
        }
        let start = SystemTime::now();
        let value = Arc::new(read()?);
        let files = files(&value);
        let folders = files.iter().filter_map(|file| file.parent()).map(Path::to_path_buf);
        let paths: BTreeSet<PathBuf> = folders.chain(files.iter().cloned()).collect();
        let stamped = |path: PathBuf| {
            let stamp = FileStamp::of(&path);
            (path, stamp)
        };
        let stamps: Vec<_> = paths.into_iter().map(stamped).collect();
        // A file that was written meanwhile may have been read in its former state.
        if stamps.iter().flat_map(|(_, stamp)| stamp).all(|stamp| stamp.is_older_than(start)) {
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

    /// Whether the file was last written before `time`. The time of modification can be set by hand, as `cp -p` does; the
    /// time at which the inode changed cannot.
    fn is_older_than(&self, time: SystemTime) -> bool {
        #[cfg(unix)]
        {
            let (.., seconds, nanoseconds) = self.inode;
            let since_epoch = Duration::new(seconds.max(0) as u64, nanoseconds as u32);
            if SystemTime::UNIX_EPOCH + since_epoch + CLOCK_LAG >= time {
                return false;
            }
        }
        self.modified.is_some_and(|modified| modified + CLOCK_LAG < time)
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
        let write = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).unwrap();
            std::thread::sleep(2 * CLOCK_LAG);
        };
        let cache = FileCache::<&str, String>::default();
        let reads = Cell::new(0);
        let get = |key: &'static str| {
            let read = || {
                reads.set(reads.get() + 1);
                Ok::<_, Infallible>(fs::read_to_string(&path).unwrap())
            };
            cache.get(&key, read, |_| vec![path.clone(), folder.path().join("later/file")]).unwrap().to_string()
        };
        write("config.json", "one");
        assert_eq!((get("a"), get("a"), reads.get()), ("one".into(), "one".into(), 1));
        assert_eq!((get("b"), reads.get()), ("one".into(), 2));
        // The length is the same.
        write("config.json", "two");
        assert_eq!((get("a"), get("a"), reads.get()), ("two".into(), "two".into(), 3));
        write("beside", "");
        assert_eq!((get("a"), reads.get()), ("two".into(), 4));
    }

    /// `cp -p` and `rsync --times` overwrite a file and set its time back.
    #[test]
    fn a_file_that_is_overwritten_while_it_is_read_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs::write(&path, "one").unwrap();
        std::thread::sleep(2 * CLOCK_LAG);
        let cache = FileCache::<u32, String>::default();
        let read = || {
            let text = fs::read_to_string(&path).unwrap();
            let modified = fs::metadata(&path).unwrap().modified().unwrap();
            fs::write(&path, "two").unwrap();
            fs::File::options().append(true).open(&path).unwrap().set_modified(modified).unwrap();
            Ok::<_, Infallible>(text)
        };
        assert_eq!(*cache.get(&0, read, |_| vec![path.clone()]).unwrap(), "one");
        let again = cache.get(&0, || Ok::<_, Infallible>(fs::read_to_string(&path).unwrap()), |_| vec![path.clone()]);
        assert_eq!(*again.unwrap(), "two");
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
