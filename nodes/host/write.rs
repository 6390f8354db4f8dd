//! Writes files completely or not at all.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use lsregen_engine::{CheckContext, Context, NodeError};

const PREFIX: &str = ".lsregen-";
const SUFFIX: &str = ".tmp";

/// Writes an output file by renaming a temporary one in the same folder, so that no reader sees a partial file. Creates
/// missing folders.
pub(crate) fn write(path: &Path, bytes: &[u8], cx: &Context) -> anyhow::Result<()> {
    let path = &*cx.output_path(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(|| {
        format!("{}: this folder cannot be created; choose another `path` or `--output-dir`", folder.display())
    })?;
    sweep(folder);
    let cannot = || format!("{}: cannot be written; choose another `path` or `--output-dir`", path.display());
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    // Gives the file the mode of any new file (less the umask); by default a temporary file is private to its owner.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).with_context(cannot)?;
    // Marks the file as in use. On a file system without locks this has no effect: see `is_left_behind`.
    let _ = file.as_file().lock();
    std::io::Write::write_all(&mut file, bytes).with_context(cannot)?;
    file.persist(path).map_err(|error| error.error).with_context(cannot)?;
    Ok(())
}

/// Whether the file still exists with this content.
pub(crate) fn is_intact(path: &Path, bytes: &[u8], cx: &Context) -> bool {
    let path = cx.output_path(path);
    let same_size = std::fs::metadata(&path).is_ok_and(|facts| facts.len() == bytes.len() as u64);
    same_size && std::fs::read(&path).is_ok_and(|there| there == bytes)
}

/// Removes the temporary files of processes that were killed while they wrote into this folder.
fn sweep(folder: &Path) {
    const LOOKED_AT: usize = 10_000;
    for entry in std::fs::read_dir(folder).into_iter().flatten().take(LOOKED_AT).flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        if ours && is_left_behind(&entry.path()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Whether a temporary file is not in use: no process holds its lock, and it was not created just now.
fn is_left_behind(path: &Path) -> bool {
    const MINUTE: Duration = Duration::from_secs(60);
    let Ok(file) = File::options().write(true).open(path) else { return false };
    let modified = file.metadata().and_then(|facts| facts.modified());
    let age = modified.ok().and_then(|modified| modified.elapsed().ok());
    age.is_some_and(|age| age >= MINUTE) && file.try_lock().is_ok()
}

/// Reports errors of a path to be written, whose name must end in `.{extension}`.
pub(crate) fn errors(path: &Path, extension: &str, cx: &CheckContext) -> Vec<NodeError> {
    if !path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension)) {
        let named = path.with_extension(extension);
        return vec![
            NodeError::new(
                "path",
                format!("`{}` must end in .{extension}, the format that is written", path.display()),
            )
            .help(format!("write `{}`", named.display())),
        ];
    }
    if cx.output_path(path).is_dir() {
        return vec![
            NodeError::new("path", format!("`{}` is a folder", path.display())).help("add the name of a file"),
        ];
    }
    vec![]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use lsregen_engine::Host;

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
        let cx = Context::detached(Arc::new(Host::new("", folder.path())));
        write(Path::new("a.png"), b"picture", &cx).unwrap();
        assert!(is_intact(Path::new("a.png"), b"picture", &cx) && !is_intact(Path::new("a.png"), b"Picture", &cx));
        let mut names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [".lsregen-locked.tmp", ".lsregen-new.tmp", "a.png", "own.tmp"]);
    }
}
