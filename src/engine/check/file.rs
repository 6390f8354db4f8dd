//! Files: those that a node names, and the workflow's own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::context::Host;
use crate::diagnostic::{Diagnostic, Label};
use crate::document::{MAX_SIZE, did_you_mean};
use crate::nearest::NameFinder;
use crate::source::{Source, Span};

/// Reads a workflow file, for [`check`](super::check). Messages call it by the path as given.
///
/// # Errors
/// When there is no such file, or it is too large to be a workflow, or no text.
pub fn read_source(path: &Path) -> Result<Arc<Source>, Box<Diagnostic>> {
    read_beside(path, &NameFinder::new())
}

/// Where there is no such file, one of nearly its name is looked for.
fn read_beside(path: &Path, names: &NameFinder) -> Result<Arc<Source>, Box<Diagnostic>> {
    let name = path.display().to_string();
    let nowhere = Source::new(&*name, "");
    let unreadable =
        |code, message: String| Diagnostic::error(code, message, Label::new(&nowhere, Span::default(), ""));
    if let Some(problem) = unusable(path) {
        let near = near_file(path, names);
        return Err(Box::new(unreadable("file", problem).help(near.as_deref().map(did_you_mean))));
    }
    let mut text = vec![];
    let file = fs::File::open(path).map(|file| file.take(MAX_SIZE as u64 + 1));
    if let Err(error) = file.and_then(|mut file| file.read_to_end(&mut text)) {
        return Err(Box::new(unreadable("file", format!("the file `{name}` cannot be read: {error}"))));
    }
    // The last character of what is too large may be cut; that it is too large is said by the check.
    match String::from_utf8(text) {
        Ok(text) => Ok(Source::new(name, text)),
        Err(error) if error.as_bytes().len() > MAX_SIZE => {
            Ok(Source::new(name, String::from_utf8_lossy(error.as_bytes()).into_owned()))
        }
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
            let message = format!("line {line} of `{name}` is not UTF-8");
            Err(Box::new(unreadable("not-utf8", message).help("is this a text file? Save it as UTF-8".to_string())))
        }
    }
}

/// The graph files of a folder, each read once, whatever path leads to it.
pub(super) struct Disk {
    folder: PathBuf,
    /// By their canonical paths.
    known: RefCell<HashMap<PathBuf, Arc<Source>>>,
    names: NameFinder,
}

impl Disk {
    /// `source` is the graph's own file, which lies in the graph folder under the last part of its name.
    pub fn new(source: Arc<Source>, host: &Host) -> Disk {
        let folder = host.graph_folder();
        let own = Path::new(source.name()).file_name().and_then(|name| fs::canonicalize(folder.join(name)).ok());
        let known = own.map(|path| (path, source)).into_iter().collect();
        Disk { folder: folder.into(), known: RefCell::new(known), names: NameFinder::new() }
    }

    pub fn read(&self, path: &Path) -> Result<Arc<Source>, Box<Diagnostic>> {
        let path = self.folder.join(path);
        let canonical = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        if let Some(source) = self.known.borrow().get(&canonical) {
            return Ok(source.clone());
        }
        let source = read_beside(&path, &self.names)?;
        self.known.borrow_mut().insert(canonical, source.clone());
        Ok(source)
    }
}

/// Why a file cannot be read; `None` where it can.
pub(super) fn unusable(path: &Path) -> Option<String> {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(facts) if facts.is_dir() => Some(format!("`{shown}` is a folder, but a file is needed")),
        // Opening a pipe waits for its other end, and a device may be read for ever.
        Ok(facts) if !facts.is_file() => Some(format!("`{shown}` is a pipe or a device, but a file is needed")),
        Ok(_) => fs::File::open(path).err().map(|error| format!("the file `{shown}` cannot be read: {error}")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() && !folder.exists() => {
                Some(format!("there is no file `{shown}`, nor a folder `{}`", folder.display()))
            }
            _ => Some(format!("there is no file `{shown}`")),
        },
        Err(error) => Some(format!("the file `{shown}` cannot be read: {error}")),
    }
}

/// A file beside the missing one with nearly its name.
pub(super) fn near_file(path: &Path, names: &NameFinder) -> Option<String> {
    const LOOKED_AT: usize = 1000;
    if names.is_spent() {
        return None;
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = fs::read_dir(folder).ok()?.take(LOOKED_AT);
    let mut files: Vec<_> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    files.sort_unstable();
    let name = path.file_name()?.to_str()?;
    names.nearest(name, files.iter().map(String::as_str)).filter(|near| *near != name).map(str::to_string)
}
