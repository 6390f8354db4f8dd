//! Writes the previews of a run into a folder, one file a preview.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use lsregen_engine::{Event, Subscriber};

use super::{Exit, console, usage};

/// A folder for previews.
pub struct Previews {
    folder: PathBuf,
    /// That one could not be written was told; once is enough.
    told: AtomicBool,
}

impl Previews {
    /// Makes the folder where it is not there.
    pub fn new(folder: &Path) -> Result<Previews, Exit> {
        std::fs::create_dir_all(folder)
            .map_err(|error| usage(format!("{}: no folder for previews: {error}", folder.display())))?;
        Ok(Previews { folder: folder.into(), told: AtomicBool::new(false) })
    }

    /// The file of a node's preview after `done` steps.
    pub fn path(&self, node: &str, done: usize) -> PathBuf {
        self.folder.join(format!("{}-{done:03}.png", node.replace('/', "_")))
    }
}

impl Subscriber for Previews {
    fn event(&self, event: &Event) {
        let Event::Preview { node, done, png, .. } = event else { return };
        let path = self.path(node, *done);
        if let Err(error) = std::fs::write(&path, png)
            && !self.told.swap(true, Ordering::Relaxed)
        {
            console::complain(format!("{}: the preview cannot be written: {error}", path.display()));
        }
    }
}
