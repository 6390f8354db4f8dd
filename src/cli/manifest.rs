//! What came of each row of a bulk run, a JSON object a line; a later run goes on from it.
//!
//! A line is written whole, when its row is done. A process that is killed may leave a part of a line at the end; it is
//! dropped when the manifest is opened the next time. One process at a time may have it open.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use lsregen_engine::Key;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::{Exit, console, usage};

/// Raised when a field changes its meaning or goes; new fields do not raise it.
pub const VERSION: u32 = 1;

/// A line of the manifest.
#[derive(Clone, Serialize, Deserialize)]
pub struct Line {
    pub v: u32,
    /// From 1.
    pub row: usize,
    pub name: String,
    /// The values given to the graph's parameters, by the row or by `--set`.
    pub params: Map<String, Json>,
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub files: Vec<Written>,
    /// Memo keys of the nodes that write something.
    pub keys: BTreeMap<String, Key>,
    /// How many nodes ran, and how many results were known.
    pub ran: usize,
    pub known: usize,
    pub seconds: f64,
    /// Seconds since 1970, when the row was done.
    pub time: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Done,
    Failed,
}

/// A file that a row wrote.
#[derive(Clone, Serialize, Deserialize)]
pub struct Written {
    /// Relative to the output folder.
    pub path: PathBuf,
    pub bytes: u64,
}

impl Line {
    /// Whether the row is done and need not run again: for the same results, and all it wrote is still there.
    pub fn stands(&self, keys: &BTreeMap<String, Key>, output: &Path) -> bool {
        let sorted = |keys: &BTreeMap<String, Key>| {
            let mut keys: Vec<_> = keys.values().copied().collect();
            keys.sort_unstable();
            keys
        };
        let there = |file: &Written| {
            fs::metadata(output.join(&file.path)).is_ok_and(|facts| facts.is_file() && facts.len() == file.bytes)
        };
        self.status == Status::Done && sorted(&self.keys) == sorted(keys) && self.files.iter().all(there)
    }
}

/// An open manifest, which no other process has open.
pub struct Manifest {
    path: PathBuf,
    file: Option<File>,
    /// By name: the last line of each row.
    lines: HashMap<String, Line>,
    /// Held until the process ends.
    _lock: File,
}

impl Manifest {
    /// Opens it, and reads what is there. Nothing of it is changed yet.
    pub fn open(path: PathBuf) -> Result<Manifest, Exit> {
        let shown = path.display().to_string();
        let cannot = |error: std::io::Error| {
            console::complain(format!(
                "{shown}: the manifest cannot be written: {error}; choose another with --manifest"
            ));
            Exit::Failed
        };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(cannot)?;
        }
        let lock = OpenOptions::new().create(true).append(true).open(beside(&path, ".lock")).map_err(cannot)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let what = "another run has this manifest open; wait for it, or choose another with --manifest";
                console::complain(format!("{shown}: {what}"));
                return Err(Exit::Failed);
            }
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => vec![],
            Err(error) => return Err(cannot(error)),
        };
        let mut lines = HashMap::new();
        for (i, text) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
            match serde_json::from_slice::<Line>(text) {
                Ok(line) if line.v == VERSION => drop(lines.insert(line.name.clone(), line)),
                // The end of a process that was killed.
                _ if !text.ends_with(b"\n") && (i > 0 || text.starts_with(b"{\"v\":")) => {}
                _ if text.trim_ascii().is_empty() => {}
                _ => {
                    let what = "is no line of a manifest of this version; remove it, or choose another with --manifest";
                    return Err(usage(format!("{shown}: line {} {what}", i + 1)));
                }
            }
        }
        Ok(Manifest { path, file: None, lines, _lock: lock })
    }

    pub fn get(&self, name: &str) -> Option<&Line> {
        self.lines.get(name)
    }

    /// Writes it anew without the rows of `again`, and with the numbers that rows now have, so that each row stands in
    /// it once; from now on lines may be added.
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
            let new = beside(&self.path, ".new");
            let mut file = File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &self.path)?;
            OpenOptions::new().append(true).open(&self.path)
        });
        self.file = Some(written.map_err(|error| self.cannot(error))?);
        Ok(())
    }

    /// Adds what came of a row.
    pub fn add(&mut self, line: Line) -> Result<(), Exit> {
        let written = text(&line).and_then(|text| match &mut self.file {
            // In one piece, so that a line is whole or at the end.
            Some(file) => file.write_all(text.as_bytes()),
            None => Ok(()),
        });
        written.map_err(|error| self.cannot(error))?;
        self.lines.insert(line.name.clone(), line);
        Ok(())
    }

    fn cannot(&self, error: std::io::Error) -> Exit {
        console::complain(format!("{}: the manifest cannot be written: {error}", self.path.display()));
        Exit::Failed
    }
}

fn text(line: &Line) -> std::io::Result<String> {
    Ok(serde_json::to_string(line)? + "\n")
}

/// The same path with something after it.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
