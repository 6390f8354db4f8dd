//! Waiting for the lock of a cache: says for whom, can be interrupted, and ends after a while.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::Warn;

/// How often the lock is tried.
const PAUSE: Duration = Duration::from_millis(20);

/// A wait of this length is reported.
const REPORTED: Duration = Duration::from_secs(1);

/// How this process waits for the lock of a folder.
pub(super) struct LockWait {
    warn: Option<Warn>,
    patience: Duration,
    /// Nothing waits any more.
    stopped: AtomicBool,
    /// A wait has been reported.
    reported: AtomicBool,
}

/// How long a run waits for the cache.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

impl Default for LockWait {
    fn default() -> LockWait {
        LockWait { warn: None, patience: PATIENCE, stopped: AtomicBool::new(false), reported: AtomicBool::new(false) }
    }
}

impl LockWait {
    pub fn new(warn: Warn, patience: Duration) -> LockWait {
        LockWait { warn: Some(warn), patience, ..LockWait::default() }
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Locks a file by `lock`, which does not wait. If it `gives_up`, then after a while, and from then on at once.
    pub fn lock(
        &self,
        file: &File,
        path: &Path,
        lock: fn(&File) -> Result<(), TryLockError>,
        gives_up: bool,
    ) -> io::Result<()> {
        let start = Instant::now();
        loop {
            match lock(file) {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => continue,
                Err(TryLockError::Error(error)) => return Err(error),
            }
            let waited = start.elapsed();
            if gives_up && waited >= self.patience {
                self.stop();
            }
            if gives_up && self.stopped.load(Ordering::Relaxed) {
                return Err(io::Error::new(ErrorKind::WouldBlock, format!("{} holds its lock", holder(file))));
            }
            if waited >= REPORTED.min(self.patience / 2) && !self.reported.swap(true, Ordering::Relaxed) {
                let end = if gives_up { "" } else { "; Ctrl-C ends the wait" };
                let holder = holder(file);
                let folder = path.parent().unwrap_or(path).display();
                self.warn
                    .iter()
                    .for_each(|warn| warn(&format!("waiting for the cache {folder}: {holder} holds its lock{end}")));
            }
            sleep(PAUSE);
        }
    }
}

/// The process that has locked a file, as far as the system tells.
fn holder(file: &File) -> String {
    #[cfg(target_os = "linux")]
    if let Some(process) = linux(file) {
        return process;
    }
    let _ = file;
    "another process".into()
}

/// Finds the process in the list of locks: `1: FLOCK ADVISORY WRITE 4242 08:01:123456 0 EOF`.
#[cfg(target_os = "linux")]
fn linux(file: &File) -> Option<String> {
    use std::os::unix::fs::MetadataExt;

    use lsregen_files::{Kind, read_text};

    let inode = format!(":{}", file.metadata().ok()?.ino());
    let locks = read_text(Path::new("/proc/locks"), Kind::SETTINGS).ok()?;
    let process = locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "FLOCK").skip(3);
        let (process, place) = (words.next()?, words.next()?);
        (place.ends_with(&inode) && process.parse::<u32>().is_ok()).then_some(process)
    })?;
    let name = read_text(&Path::new("/proc").join(process).join("comm"), Kind::SETTINGS).ok();
    let name = name.as_deref().map_or("", str::trim);
    Some(if name.is_empty() { format!("the process {process}") } else { format!("the process {process} ({name})") })
}

impl fmt::Debug for LockWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockWait").field("patience", &self.patience).finish_non_exhaustive()
    }
}
