//! Writes files completely or not at all, through a temporary file in the same folder.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::open_with;

const PREFIX: &str = ".lsregen-";
const SUFFIX: &str = ".tmp";

/// Writes a file that must not exist yet. A link is not followed.
///
/// # Errors
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if there is a file or a link, or if the file cannot be written.
pub fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = temporary(path, bytes)?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        // A file system that can neither link nor rename without replacing.
        Err(failed) if failed.error.kind() != io::ErrorKind::AlreadyExists && fs::symlink_metadata(path).is_err() => {
            failed.file.persist(path).map(drop).map_err(|failed| failed.error)
        }
        Err(failed) => Err(failed.error),
    }
}

/// Writes a file, and replaces one that exists. A link is replaced, not followed.
///
/// # Errors
/// If the file cannot be written.
pub fn write_over(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = temporary(path, bytes)?;
    // What it replaces is not lost if the machine stops.
    file.as_file().sync_data()?;
    file.persist(path).map(drop).map_err(|failed| failed.error)
}

/// A file that is written piece by piece. Until it is [finished](GrowingFile::finish), it has a temporary name in its folder.
#[derive(Debug)]
pub struct GrowingFile {
    file: NamedTempFile,
    path: PathBuf,
}

impl GrowingFile {
    /// Begins a file.
    ///
    /// # Errors
    /// If the path names no file, or its folder takes no files.
    pub fn begin(path: &Path) -> io::Result<GrowingFile> {
        let is_folder =
            path.as_os_str().as_encoded_bytes().last().is_some_and(|byte| std::path::is_separator(*byte as char));
        if is_folder || path.file_name().is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it names no file"));
        }
        // A name that is too long, for example.
        if let Err(error) = fs::symlink_metadata(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        // tempfile's own message names its temporary path.
        let file = temporary(path, &[]).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => io::Error::new(io::ErrorKind::NotFound, "its folder does not exist; create it"),
            kind => io::Error::from(kind),
        })?;
        Ok(GrowingFile { file, path: path.into() })
    }

    /// Gives the file its name. Replaces a file that exists; a link is replaced, not followed.
    ///
    /// # Errors
    /// If it cannot be renamed, or the disk is full.
    pub fn finish(self) -> io::Result<()> {
        self.file.as_file().sync_data()?;
        self.file.persist(&self.path).map(drop).map_err(|failed| failed.error)
    }
}

impl Write for GrowingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Tries whether files can be written into a folder, which may have to be created first. Leaves nothing behind.
///
/// # Errors
/// When the folder, or the nearest one above it that exists, takes no files.
pub fn can_hold_files(folder: &Path) -> io::Result<()> {
    let above = folder.ancestors().map(|above| if above.as_os_str().is_empty() { Path::new(".") } else { above });
    let existing = above.into_iter().find(|above| fs::symlink_metadata(above).is_ok()).unwrap_or(Path::new("."));
    if !fs::metadata(existing)?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("`{}` is not a folder", existing.display())));
    }
    // tempfile's own message names its temporary path.
    tempfile::tempdir_in(existing).map(drop).map_err(|error| error.kind().into())
}

/// Creates a file that grows as a program runs, or truncates it. It may be a pipe that another process reads.
///
/// # Errors
/// If the file cannot be created, or if no process reads the pipe: opening it would wait for one.
pub fn create_log(path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    if fs::metadata(path).is_ok_and(|found| std::os::unix::fs::FileTypeExt::is_fifo(&found.file_type())) {
        let mut options = File::options();
        std::os::unix::fs::OpenOptionsExt::custom_flags(options.write(true), libc::O_NONBLOCK);
        let tried = options.open(path).map_err(|error| match error.raw_os_error() {
            Some(libc::ENXIO) => io::Error::new(error.kind(), "no process reads this pipe"),
            _ => error,
        })?;
        // There is a reader, so that this does not wait. Writes have to wait for it, which they would not in `tried`.
        let file = File::create(path);
        drop(tried);
        return file;
    }
    File::create(path)
}

/// Writes a temporary file beside `path`.
fn temporary(path: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sweep(folder);
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    // Gives the file the mode of any new file (less the umask); by default a temporary file is private to its owner.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    // Marks the file as in use. On a file system without locks this has no effect: see `is_left_behind`.
    let _ = file.as_file().lock();
    file.write_all(bytes)?;
    Ok(file)
}

/// Removes the temporary files of processes that were killed while they wrote into this folder.
fn sweep(folder: &Path) {
    const LOOKED_AT: usize = 10_000;
    for entry in fs::read_dir(folder).into_iter().flatten().take(LOOKED_AT).flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        if ours && is_left_behind(&entry.path()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether a temporary file is not in use: no process holds its lock, and it was not created just now.
fn is_left_behind(path: &Path) -> bool {
    const MINUTE: Duration = Duration::from_secs(60);
    let is_file = fs::symlink_metadata(path).is_ok_and(|facts| facts.is_file());
    let Ok(file) = open_with(path, File::options().write(true)) else { return false };
    let modified = file.metadata().and_then(|facts| facts.modified());
    let age = modified.ok().and_then(|modified| modified.elapsed().ok());
    is_file && age.is_some_and(|age| age >= MINUTE) && file.try_lock().is_ok()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    /// Creates a temporary file that was last written an hour ago.
    fn leave(folder: &Path, name: &str) -> File {
        let file = File::create(folder.join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
        file
    }

    #[test]
    fn files_of_killed_processes_are_removed_at_the_next_write() {
        let folder = tempfile::tempdir().unwrap();
        leave(folder.path(), ".lsregen-dead.tmp");
        let working = leave(folder.path(), ".lsregen-locked.tmp");
        working.lock().unwrap();
        leave(folder.path(), "own.tmp");
        File::create(folder.path().join(".lsregen-new.tmp")).unwrap();
        write_new(&folder.path().join("a.png"), b"image").unwrap();
        let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [".lsregen-locked.tmp", ".lsregen-new.tmp", "a.png", "own.tmp"]);
    }

    #[test]
    fn a_new_file_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a.png"), folder.path().join("other"));
        write_new(&path, b"one").unwrap();
        assert_eq!(write_new(&path, b"two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write_over(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        #[cfg(unix)]
        {
            fs::write(&other, "kept").unwrap();
            let link = folder.path().join("link");
            std::os::unix::fs::symlink(&other, &link).unwrap();
            assert_eq!(write_new(&link, b"x").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            write_over(&link, b"x").unwrap();
            assert_eq!(fs::read(&other).unwrap(), b"kept");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), if cfg!(unix) { 3 } else { 1 });
    }
}
