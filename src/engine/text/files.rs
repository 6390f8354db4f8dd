//! Reads workflow files, and finds out why a file cannot be read.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsregen_files::Kind;

use super::names::{NameFinder, did_you_mean};
use super::{Diagnostic, Label, Source, Span};

/// The largest size of a workflow file, in bytes.
pub(crate) const MAX_FILE_SIZE: usize = Kind::GRAPH.most() as usize;

/// Returns the text of an included graph file. The path is relative to the folder of the outermost graph. Two paths to
/// one file must give the same source: this is how a check finds graphs that include themselves.
///
/// # Errors
/// Returns why the file cannot be read. The check reports the code, message and help of this diagnostic at the node that
/// names the file.
pub type GraphReader<'a> = dyn Fn(&Path) -> Result<Arc<Source>, Box<Diagnostic>> + 'a;

/// Reads a workflow file, for [`check`](crate::check()). The source is named by the path as given.
///
/// # Errors
/// Returns a diagnostic if the file does not exist, cannot be read or is not UTF-8. If the folder has a file with a
/// similar name, the diagnostic suggests it.
pub fn read_source(path: &Path) -> Result<Arc<Source>, Box<Diagnostic>> {
    read(path, &NameFinder::new())
}

fn read(path: &Path, names: &NameFinder) -> Result<Arc<Source>, Box<Diagnostic>> {
    let name = path.display().to_string();
    let nowhere = Source::new(&*name, "");
    let error = |code, message: String| Diagnostic::error(code, message, Label::new(&nowhere, Span::default(), ""));
    if let Some(problem) = why_unreadable(path) {
        let near = near_file(path, names);
        return Err(Box::new(error("file", problem).help(near.as_deref().map(did_you_mean))));
    }
    let mut text = vec![];
    // The check reports a file that is too large, so of such a file one byte more is read.
    let file = lsregen_files::open(path, Kind::ANY).map(|file| file.take(Kind::GRAPH.most() + 1));
    if let Err(cause) = file.and_then(|mut file| file.read_to_end(&mut text)) {
        return Err(Box::new(error("file", format!("the file `{name}` cannot be read: {cause}"))));
    }
    decoded(name, text)
}

/// The workflow that a file of this name, or stdin, contains.
///
/// # Errors
/// Returns a diagnostic if it is not UTF-8.
pub fn decoded(name: impl Into<String>, text: Vec<u8>) -> Result<Arc<Source>, Box<Diagnostic>> {
    let name = name.into();
    match String::from_utf8(text) {
        Ok(text) => Ok(Source::new(name, text)),
        // The last character of a file that is too large may have been cut. The check reports its size.
        Err(invalid) if invalid.as_bytes().len() > MAX_FILE_SIZE => {
            Ok(Source::new(name, String::from_utf8_lossy(invalid.as_bytes()).into_owned()))
        }
        Err(invalid) => {
            let at = invalid.utf8_error().valid_up_to();
            let line = 1 + invalid.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
            let message = format!("line {line} of `{name}` is not UTF-8");
            let nowhere = Label::new(&Source::new(&*name, ""), Span::default(), "");
            Err(Box::new(
                Diagnostic::error("not-utf8", message, nowhere)
                    .help("is this a text file? Save it as UTF-8".to_string()),
            ))
        }
    }
}

/// The graph files in a folder. Each file is read once, even if several paths lead to it.
pub(crate) struct GraphFolder {
    folder: PathBuf,
    /// By canonical path.
    sources: RefCell<HashMap<PathBuf, Arc<Source>>>,
    names: NameFinder,
}

impl GraphFolder {
    /// The folder of the file `source`, which has been read.
    pub fn new(folder: &Path, source: Arc<Source>) -> GraphFolder {
        let name = Some(source.file_name()).filter(|name| !name.is_empty());
        let own = name.and_then(|name| fs::canonicalize(folder.join(name)).ok());
        let sources = own.map(|path| (path, source)).into_iter().collect();
        GraphFolder { folder: folder.into(), sources: RefCell::new(sources), names: NameFinder::new() }
    }

    /// Reads a file, as a [`GraphReader`] does.
    pub fn read(&self, path: &Path) -> Result<Arc<Source>, Box<Diagnostic>> {
        let path = self.folder.join(path);
        let canonical = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        if let Some(source) = self.sources.borrow().get(&canonical) {
            return Ok(source.clone());
        }
        let source = read(&path, &self.names)?;
        self.sources.borrow_mut().insert(canonical, source.clone());
        Ok(source)
    }
}

/// Whether a `type` names a graph file rather than a node type.
pub(crate) fn is_graph_file(node_type: &str) -> bool {
    node_type.ends_with(".yaml") || node_type.ends_with(".yml")
}

/// Why a text is too long to be a workflow; `None` if it is not.
pub(crate) fn oversize(source: &Source) -> Option<String> {
    let size = source.text().len();
    (size > MAX_FILE_SIZE).then(|| format!("the file has {size} bytes; a workflow has at most {MAX_FILE_SIZE}"))
}

/// Why a file cannot be read; `None` if it can.
pub(crate) fn why_unreadable(path: &Path) -> Option<String> {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Some(format!("`{shown}` is a folder, but a file is needed")),
        Ok(metadata) if !metadata.is_file() => Some(format!("`{shown}` is a pipe or a device, but a file is needed")),
        Ok(_) => lsregen_files::open(path, Kind::ANY)
            .err()
            .map(|error| format!("the file `{shown}` cannot be read: {error}")),
        Err(error) if error.kind() == ErrorKind::NotFound => match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() && !folder.exists() => {
                Some(format!("there is no file `{shown}`, nor a folder `{}`", folder.display()))
            }
            _ => Some(format!("there is no file `{shown}`")),
        },
        Err(error) => Some(format!("the file `{shown}` cannot be read: {error}")),
    }
}

/// A file in the folder of a missing one that has a similar name.
pub(crate) fn near_file(path: &Path, names: &NameFinder) -> Option<String> {
    const MAX_FILES: usize = 1000;
    if names.is_spent() {
        return None;
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = fs::read_dir(folder).ok()?.take(MAX_FILES);
    let mut files: Vec<_> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    files.sort_unstable();
    let name = path.file_name()?.to_str()?;
    names.nearest(name, files.iter().map(String::as_str)).filter(|near| *near != name).map(str::to_string)
}
