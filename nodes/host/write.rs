//! The files that nodes write: where they may lie, which files they may replace, and their names.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use lsregen_engine::{CacheFolder, CheckContext, Context, Digest, Effect, FileRef, Findings, NodeError, OutputRules};
use lsregen_files::{Kind, Leaves, create_folder, invalid_name, normal, outside_by_links, write_new, write_over};

use super::name::OutputName;

/// The cache whose values count as files of this program: a service of the host.
#[derive(Clone, Debug)]
pub struct WrittenBefore(pub CacheFolder);

/// A format of output files.
pub(crate) struct OutputFormat {
    /// What a path must end in, without the dot.
    pub extension: &'static str,
    /// The kind of file, which bounds what is read of one that is in the way.
    pub kind: Kind,
    /// Whether the content of a file says that this program wrote it.
    pub is_own: fn(&[u8]) -> bool,
}

/// An output file, as a parameter `path` names it.
pub(crate) struct OutputFile<'a> {
    pub path: &'a Path,
    pub format: OutputFormat,
}

/// What to do about a file that must not be replaced.
const REPLACE: &str = "pass `--overwrite` to replace it, or write `{counter}` into the `path`";

/// The most numbers that are tried, if other processes take the same numbers.
const ATTEMPTS: u64 = 10_000;

impl OutputFile<'_> {
    /// Reports errors of the path.
    pub(crate) fn errors(&self, cx: &CheckContext) -> Vec<NodeError> {
        let (path, extension) = (self.path, self.format.extension);
        let error = |message: String| NodeError::new("path", format!("`{}` {message}", path.display()));
        if !path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension)) {
            let named = path.with_extension(extension);
            return vec![
                error(format!("must end in .{extension}, the format that is written"))
                    .help(format!("write `{}`", named.display())),
            ];
        }
        if let Err(leaves) = self.place(cx.output_rules()) {
            let help = match leaves {
                Leaves::Home => {
                    "write the whole path and pass `--allow-outside`, or choose the folder with `--output-dir`"
                }
                _ => {
                    "write a path below the output folder, which `--output-dir` chooses; `--allow-outside` allows \
                     every path"
                }
            };
            return vec![error(format!("leaves the output folder: it {leaves}")).help(help)];
        }
        let names = match self.names() {
            Ok(names) => names,
            Err(message) => {
                let help = "write `{counter}` for a number, once and in the name of the file, `{date}` for the day, or \
                            the name of one of the file's `params`";
                return vec![NodeError::new("path", message).help(help)];
            }
        };
        if !cx.output_rules().allow_outside && self.is_linked_outside(cx.output_folder()).unwrap_or(false) {
            let help = "choose the folder with `--output-dir`; `--allow-outside` follows the link";
            return vec![error("leaves the output folder: a link on the way leads out of it".into()).help(help)];
        }
        let written = cx.output_path(path);
        let above = written.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
        if let Some(file) = above.into_iter().find(|above| above.is_file()) {
            let message = format!("cannot be written: `{}` is a file, not a folder", file.display());
            return vec![error(message).help("choose another folder")];
        }
        if names.iter().all(OutputName::is_fixed) && written.is_dir() {
            return vec![error("is a folder".into()).help("add the name of a file")];
        }
        vec![]
    }

    /// The file that is written, for comparison with those of other nodes.
    pub(crate) fn writes(&self, cx: &CheckContext) -> Vec<FileRef> {
        let place = self.place(cx.output_rules()).unwrap_or(self.path.into());
        vec![FileRef::new("path", cx.output_path(&place))]
    }

    /// Reports a file at this path that must not be replaced.
    pub(crate) fn obstacle(&self, cx: &CheckContext) -> Option<NodeError> {
        let is_fixed = self.names().ok()?.iter().all(OutputName::is_fixed);
        let path = cx.output_path(&self.place(cx.output_rules()).ok()?);
        if !is_fixed || cx.output_rules().overwrite || fs::symlink_metadata(&path).is_err() {
            return None;
        }
        let is_own = self.is_own(&path, None, cx.service());
        let message = || format!("`{}` exists, and lsregen did not write it or it was changed since", path.display());
        (!is_own).then(|| NodeError::new("path", message()).help(REPLACE))
    }

    /// Whether a file with this content is where it was or would be written. Reports it.
    pub(crate) fn effect(&self, bytes: &[u8], cx: &Context) -> Effect {
        match self.found(bytes, cx) {
            Some(path) => {
                cx.saved(&path, false);
                Effect::Intact
            }
            None => Effect::Restorable,
        }
    }

    /// Writes the file, unless its name has a counter or the day and a file with this content is there already.
    ///
    /// # Errors
    /// If the path leaves the output folder, the file cannot be written, or this program did not write the file that is
    /// there.
    pub(crate) fn write(&self, bytes: &[u8], cx: &Context) -> anyhow::Result<()> {
        let rules = cx.output_rules();
        let shown = self.path.display();
        let place =
            self.place(rules).map_err(|leaves| anyhow::anyhow!("`{shown}` leaves the output folder: it {leaves}"))?;
        let names = self.names().map_err(anyhow::Error::msg)?;
        if !names.iter().all(OutputName::is_fixed)
            && let Some(path) = self.found(bytes, cx)
        {
            cx.saved(&path, false);
            return Ok(());
        }
        let date = today();
        let parent = filled_parent(&place, &names, &date);
        let folder = cx.output_folder();
        let inner = parent.join("file");
        let created = match rules.allow_outside {
            true => fs::create_dir_all(Path::new(".").join(folder).join(&parent)),
            false => create_folder(folder, &inner),
        };
        let parent = folder.join(parent);
        created.with_context(|| {
            format!("{}: this folder cannot be created; choose another `path` or `--output-dir`", parent.display())
        })?;
        let path = self.write_numbered(&parent, names.last().context("a path has a name")?, &date, bytes, cx)?;
        cx.saved(&path, true);
        Ok(())
    }

    /// Writes into an existing folder. Returns the path of the file.
    fn write_numbered(
        &self,
        folder: &Path,
        name: &OutputName,
        date: &str,
        bytes: &[u8],
        cx: &Context,
    ) -> anyhow::Result<PathBuf> {
        let first = if name.is_counted() { last_number(folder, name, date) + 1 } else { 0 };
        for counter in first..first + ATTEMPTS {
            let path = folder.join(name.filled(counter, date));
            let cannot = || format!("{}: cannot be written; choose another `path` or `--output-dir`", path.display());
            match write_new(&path, bytes) {
                Ok(()) => return Ok(path),
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error).with_context(cannot),
                Err(_) if name.is_counted() => {}
                Err(_) if path.is_dir() => {
                    bail!("{}: cannot be written, because it is a folder; choose another `path`", path.display())
                }
                Err(_) if cx.output_rules().overwrite || self.is_own(&path, Some(bytes), cx.service().ok()) => {
                    write_over(&path, bytes).with_context(cannot)?;
                    return Ok(path);
                }
                Err(_) => bail!(
                    "{}: this file exists, and lsregen did not write it or it was changed since; {REPLACE}",
                    path.display()
                ),
            }
        }
        bail!(
            "{}: every number is taken; choose another `path` or `--output-dir`",
            folder.join(name.filled(first, date)).display()
        )
    }

    /// Whether this program wrote the file at `path`: its content says so, or is the new one, or the cache has it. A link is
    /// never its own.
    fn is_own(&self, path: &Path, new: Option<&[u8]>, cache: Option<Arc<WrittenBefore>>) -> bool {
        if !fs::symlink_metadata(path).is_ok_and(|facts| facts.is_file()) {
            return false;
        }
        let Ok(there) = lsregen_files::read(path, self.format.kind) else { return false };
        let is_cached = || {
            cache.is_some_and(|cache| {
                cache.0.has_value(&there, "file") || cache.0.recall(&written_before(&there)).is_some()
            })
        };
        new.is_some_and(|new| new == there) || (self.format.is_own)(&there) || is_cached()
    }

    /// The path without `.` and `..`, relative to the output folder.
    fn place(&self, rules: OutputRules) -> Result<PathBuf, Leaves> {
        match normal(self.path) {
            Ok(path) => Ok(path),
            Err(Leaves::Home) => Err(Leaves::Home),
            Err(_) if rules.allow_outside => Ok(self.path.into()),
            Err(leaves) => Err(leaves),
        }
    }

    /// The components of the path.
    fn names(&self) -> Result<Vec<OutputName>, String> {
        let place = normal(self.path).unwrap_or(self.path.into());
        let parts = place.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
        let names = parts.map(|text| match invalid_name(&text) {
            Some(reason) => Err(format!("the name {text:?} cannot be that of a file: {reason}")),
            None => OutputName::parse(&text),
        });
        let names: Vec<OutputName> = names.collect::<Result<_, _>>()?;
        match names.split_last() {
            Some((_, folders)) if folders.iter().any(OutputName::is_counted) => {
                Err("`{counter}` is allowed only in the name of the file, not of a folder".into())
            }
            _ => Ok(names),
        }
    }

    fn is_linked_outside(&self, folder: &Path) -> std::io::Result<bool> {
        outside_by_links(folder, &normal(self.path).unwrap_or(self.path.into()))
    }

    /// The file with this content among those that the path names.
    fn found(&self, bytes: &[u8], cx: &Context) -> Option<PathBuf> {
        let place = self.place(cx.output_rules()).ok()?;
        let names = self.names().ok()?;
        let has = |path: &PathBuf| {
            let same_size = fs::metadata(path).is_ok_and(|facts| facts.len() == bytes.len() as u64);
            same_size && lsregen_files::read(path, self.format.kind).is_ok_and(|there| there == bytes)
        };
        if names.iter().all(OutputName::is_fixed) {
            return Some(cx.output_path(&place)).filter(has);
        }
        // The folders of all days.
        let mut folders = vec![cx.output_folder().to_path_buf()];
        let (file, above) = names.split_last()?;
        for (name, part) in above.iter().zip(place.components()) {
            folders = match name.is_fixed() {
                true => folders.into_iter().map(|folder| folder.join(part)).collect(),
                false => folders.iter().flat_map(|folder| named(folder, name)).collect(),
            };
        }
        folders.iter().flat_map(|folder| named(folder, file)).find(has)
    }
}

/// Keeps in the cache that this program has written a file with this content, for one that neither says so itself nor is a
/// value of the cache: one of a batch.
pub(crate) fn keep_as_written(bytes: &[u8], cx: &Context) {
    if let Some(findings) = cx.findings() {
        findings.keep(&written_before(bytes), "written");
    }
}

/// What the finding about a written file is about.
fn written_before(bytes: &[u8]) -> String {
    format!("file {} of a batch", Digest::of(bytes))
}

/// The folder of a file, with the day.
fn filled_parent(place: &Path, names: &[OutputName], date: &str) -> PathBuf {
    let components = place.components().zip(names).take(names.len().saturating_sub(1));
    components
        .map(|(part, name)| match name.is_fixed() {
            true => part.as_os_str().to_owned(),
            false => name.filled(0, date).into(),
        })
        .collect()
}

/// The entries of a folder whose names have this form on any day.
fn named(folder: &Path, name: &OutputName) -> Vec<PathBuf> {
    let fits = |entry: &fs::DirEntry| entry.file_name().to_str().is_some_and(|text| name.number(text, None).is_some());
    entries(folder).filter(fits).map(|entry| folder.join(entry.file_name())).collect()
}

/// The greatest number of today's files in a folder.
fn last_number(folder: &Path, name: &OutputName, date: &str) -> u64 {
    let numbers = entries(folder).filter_map(|entry| name.number(entry.file_name().to_str()?, Some(date)));
    numbers.filter(|number| *number < u64::MAX - ATTEMPTS).max().unwrap_or(0)
}

fn entries(folder: &Path) -> impl Iterator<Item = fs::DirEntry> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    fs::read_dir(folder).into_iter().flatten().flatten()
}

/// The day, as `2026-01-31`, by the clock and the time zone of this machine.
fn today() -> String {
    jiff::Zoned::now().date().to_string()
}
