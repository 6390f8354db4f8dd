//! The manifest of a bulk run: the outcome of each row, one JSON object a line. A later run continues from it.
//!
//! A line is written in one piece when its row is done. A process that is killed may leave a partial line at the end,
//! which is dropped when the manifest is opened again. Only one process at a time can open a manifest.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use lsregen_engine::Key;
use lsregen_files::Kind;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::cli::{Exit, terminal, usage};

/// Version of the format: incremented when a field changes its meaning or is removed, not for new fields.
pub const VERSION: u32 = 1;

/// A line of the manifest.
#[derive(Clone, Serialize, Deserialize)]
pub struct Line {
    pub v: u32,
    /// From 1.
    pub row: usize,
    pub name: String,
    /// The values that the row or `--set` gave to parameters of the graph.
    pub params: Map<String, Json>,
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub files: Vec<WrittenFile>,
    /// Memo keys of the nodes that write files, by name.
    pub keys: BTreeMap<String, Key>,
    /// Nodes that ran.
    pub ran: usize,
    /// Nodes whose results were cached, or came from another node or run.
    pub known: usize,
    pub seconds: f64,
    /// The end of the row, in seconds since 1970.
    pub time: f64,
}

/// Whether a row succeeded.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Done,
    Failed,
}

/// A file that a row wrote.
#[derive(Clone, Serialize, Deserialize)]
pub struct WrittenFile {
    /// Relative to the output folder.
    pub path: PathBuf,
    pub bytes: u64,
}

impl Line {
    /// Whether the row need not run again: it is done, its results have the same `keys`, and its files still exist.
    pub fn is_done(&self, keys: &BTreeMap<String, Key>, output: &Path) -> bool {
        let sorted = |keys: &BTreeMap<String, Key>| {
            let mut keys: Vec<_> = keys.values().copied().collect();
            keys.sort_unstable();
            keys
        };
        let exists = |file: &WrittenFile| {
            fs::metadata(output.join(&file.path))
                .is_ok_and(|metadata| metadata.is_file() && metadata.len() == file.bytes)
        };
        self.status == Status::Done && sorted(&self.keys) == sorted(keys) && self.files.iter().all(exists)
    }
}

/// An open manifest. No other process can open it.
pub struct Manifest {
    path: PathBuf,
    file: Option<File>,
    /// The last line of each row, by name.
    lines: HashMap<String, Line>,
    /// Held until the process ends.
    _lock: File,
}

impl Manifest {
    /// Opens a manifest and reads its lines. The file is not changed yet.
    ///
    /// # Errors
    /// When it cannot be read or written, another process has it open, or a line is not one of this version; the reason
    /// is printed.
    pub fn open(path: PathBuf) -> Result<Manifest, Exit> {
        let shown = path.display().to_string();
        let cannot = |error: std::io::Error| {
            terminal::complain(format!(
                "{shown}: the manifest cannot be written: {error}; choose another with --manifest"
            ));
            Exit::Failed
        };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(cannot)?;
        }
        let lock = lsregen_files::open_with(&beside(&path, ".lock"), OpenOptions::new().create(true).append(true))
            .map_err(cannot)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let what = "another run is using this manifest; wait for it, or choose another with --manifest";
                terminal::complain(format!("{shown}: {what}"));
                return Err(Exit::Failed);
            }
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
        let bytes = match lsregen_files::read(&path, Kind::ROWS) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => vec![],
            Err(error) => return Err(cannot(error)),
        };
        let mut lines = HashMap::new();
        for (i, text) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
            match serde_json::from_slice::<Line>(text) {
                Ok(line) if line.v == VERSION => drop(lines.insert(line.name.clone(), line)),
                // A partial line of a process that was killed.
                _ if !text.ends_with(b"\n") && (i > 0 || text.starts_with(b"{\"v\":")) => {}
                _ if text.trim_ascii().is_empty() => {}
                _ => {
                    let what = "is not a line of a manifest of this version; remove the line, or choose another manifest with --manifest";
                    return Err(usage(format!("{shown}: line {} {what}", i + 1)));
                }
            }
        }
        Ok(Manifest { path, file: None, lines, _lock: lock })
    }

    /// The last line of the row with this name.
    pub fn get(&self, name: &str) -> Option<&Line> {
        self.lines.get(name)
    }

    /// Rewrites the file with one line for each row, without the rows of `again`, and with the current `numbers` of rows.
    /// Lines can be added from then on.
    ///
    /// # Errors
    /// When the file cannot be written; the reason is printed.
    pub fn compact(
        &mut self,
        again: impl IntoIterator<Item = String>,
        numbers: &HashMap<String, usize>,
    ) -> Result<(), Exit> {
        again.into_iter().for_each(|name| drop(self.lines.remove(&name)));
        for line in self.lines.values_mut() {
            line.row = numbers.get(&line.name).copied().unwrap_or(line.row);
        }
        let mut lines: Vec<_> = self.lines.values().collect();
        lines.sort_by(|a, b| (a.row, &a.name).cmp(&(b.row, &b.name)));
        let text = lines.into_iter().map(text).collect::<Result<String, _>>();
        let written = text.and_then(|text| {
            lsregen_files::write_over(&self.path, text.as_bytes())?;
            lsregen_files::open_with(&self.path, OpenOptions::new().append(true))
        });
        self.file = Some(written.map_err(|error| self.cannot(error))?);
        Ok(())
    }

    /// Appends the outcome of a row.
    ///
    /// # Errors
    /// When the file cannot be written; the reason is printed.
    pub fn add(&mut self, line: Line) -> Result<(), Exit> {
        let written = text(&line).and_then(|text| match &mut self.file {
            // One write, so that only the last line can be partial.
            Some(file) => file.write_all(text.as_bytes()),
            None => Ok(()),
        });
        written.map_err(|error| self.cannot(error))?;
        self.lines.insert(line.name.clone(), line);
        Ok(())
    }

    fn cannot(&self, error: std::io::Error) -> Exit {
        terminal::complain(format!("{}: the manifest cannot be written: {error}", self.path.display()));
        Exit::Failed
    }
}

fn text(line: &Line) -> std::io::Result<String> {
    Ok(serde_json::to_string(line)? + "\n")
}

/// The path with a suffix after its file name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
