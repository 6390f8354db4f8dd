//! `--previews`: writes the preview images of runs into a folder.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use lsregen_engine::{Event, Subscriber};
use lsregen_files::Kind;
use lsregen_nodes::metadata;

use crate::cli::{Exit, terminal, usage};

/// A folder for previews.
pub struct Previews {
    folder: PathBuf,
    /// Whether a write error was reported: only the first one is reported.
    reported: AtomicBool,
}

impl Previews {
    /// Creates the folder if it does not exist.
    ///
    /// # Errors
    /// When it cannot be created; the reason is printed.
    pub fn new(folder: &Path) -> Result<Previews, Exit> {
        std::fs::create_dir_all(folder).map_err(|error| {
            usage(format!("{}: the folder for previews cannot be created: {error}", folder.display()))
        })?;
        Ok(Previews { folder: folder.into(), reported: AtomicBool::new(false) })
    }

    /// The file for the preview of a node after `done` steps.
    pub fn path(&self, node: &str, done: usize) -> PathBuf {
        self.folder.join(format!("{}-{done:03}.png", node.replace('/', "_")))
    }
}

/// Replaces the preview of an earlier run, but neither follows a link nor replaces another program's file.
fn write(path: &Path, png: &[u8]) -> io::Result<()> {
    match lsregen_files::write_new(path, png) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let there = lsregen_files::read(path, Kind::IMAGE);
            if !std::fs::symlink_metadata(path)?.is_file() || !there.is_ok_and(|there| metadata::is_carried(&there)) {
                return Err(io::Error::other("this file exists, and lsregen did not write it"));
            }
            lsregen_files::write_over(path, png)
        }
        written => written,
    }
}

impl Subscriber for Previews {
    fn event(&self, event: &Event) {
        let Event::Preview { node, done, png, .. } = event else { return };
        let path = self.path(node, *done);
        if let Err(error) = write(&path, png)
            && !self.reported.swap(true, Ordering::Relaxed)
        {
            terminal::lost(format!("{}: the preview cannot be written: {error}", path.display()));
        }
    }
}
