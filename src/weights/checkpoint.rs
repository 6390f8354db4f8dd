//! A weights file, or the shards of one, as one directory of tensors; the format is recognised by the content.
//!
//! Files are memory-mapped: opening reads headers only, and a tensor's pages are read when it is asked for. Knows
//! formats. Does not know what the tensors are.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::SafeTensors;
use serde::Deserialize;

use super::entry::{Directory, TensorEntry, elements};
use super::pickle;
use crate::{Error, Result};

/// The tensors of one weights file or of all shards of one.
pub struct Checkpoint {
    label: String,
    format: &'static str,
    /// Of a sharded one.
    index: Option<PathBuf>,
    parts: Vec<Part>,
    /// The texts that a safetensors file carries.
    texts: HashMap<String, String>,
}

struct Part {
    bytes: Bytes,
    path: Option<PathBuf>,
    tensors: Directory,
}

enum Bytes {
    Mapped(Mmap),
    Embedded(&'static [u8]),
}

impl Bytes {
    fn get(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Embedded(bytes) => bytes,
        }
    }
}

/// The index beside a sharded checkpoint.
#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

/// Bytes of the header of a safetensors file, which is read at once and takes tens of times its size while it is: SDXL's
/// have 250 kB.
const LONGEST_HEADER: u64 = 16 << 20;

/// An index is a small file; what is larger is none.
const LONGEST_INDEX: u64 = 64 << 20;

impl Checkpoint {
    /// Opens a file of any format that is known, or the index (`….index.json`) of a sharded one.
    ///
    /// Errors if the file is not whole, or of another kind; what it is instead is said where it can be seen.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        let map = map(path)?;
        if begins_as_json(&map) {
            return Self::open_shards(path, &map);
        }
        let (part, format, texts) = Part::of(map, path)?;
        Ok(Checkpoint { label: path.display().to_string(), format, index: None, parts: vec![part], texts })
    }

    /// Safetensors inside the program, which messages call `label`.
    pub fn embedded(label: &str, bytes: &'static [u8]) -> Result<Checkpoint> {
        let (tensors, format, texts) = directory(bytes, label)?;
        let parts = vec![Part { bytes: Bytes::Embedded(bytes), path: None, tensors }];
        Ok(Checkpoint { label: label.into(), format, index: None, parts, texts })
    }

    /// Opens the shards that the `text` of an index names.
    fn open_shards(index: &Path, text: &[u8]) -> Result<Checkpoint> {
        let label = index.display().to_string();
        let broken = |what: String| Error::Weights(format!("{label}: {what}"));
        let length = text.len();
        if length as u64 > LONGEST_INDEX {
            return Err(broken(format!("an index of {length} bytes is none")));
        }
        let map: Index = serde_json::from_slice(text)
            .map_err(|e| broken(format!("no index of a sharded checkpoint ({e}): it needs a `weight_map`")))?;
        let mut names: Vec<&String> = map.weight_map.values().collect();
        names.sort();
        names.dedup();
        let mut shards = Checkpoint {
            label: label.clone(),
            format: "none",
            index: Some(index.into()),
            parts: vec![],
            texts: HashMap::new(),
        };
        for name in names {
            let file = Path::new(name);
            if file.file_name().is_none_or(|n| n != file.as_os_str()) {
                return Err(broken(format!("`{name}` is no name of a file beside it")));
            }
            let (part, format, texts) = Part::open(&index.with_file_name(name))?;
            shards.parts.push(part);
            shards.format = format;
            shards.texts.extend(texts);
        }
        let missing = map.weight_map.iter().find(|(tensor, file)| {
            !shards.parts.iter().any(|part| part.is(file) && part.tensors.contains_key(*tensor))
        });
        match missing {
            Some((tensor, file)) => {
                Err(broken(format!("tensor `{tensor}` is not in {file}, where the index says it is; fetch both again")))
            }
            None => Ok(shards),
        }
    }

    /// How messages name it.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Its format in a word or two.
    pub fn format(&self) -> &'static str {
        self.format
    }

    /// The files that it is made of.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().filter_map(|part| part.path.as_deref()).chain(self.index.as_deref())
    }

    /// The texts that it carries beside its tensors.
    pub fn texts(&self) -> &HashMap<String, String> {
        &self.texts
    }

    /// Its tensors, each with the number of the part that holds it.
    pub fn tensors(&self) -> impl Iterator<Item = (usize, &str, &TensorEntry)> {
        let all = self.parts.iter().enumerate();
        all.flat_map(|(i, part)| part.tensors.iter().map(move |(name, entry)| (i, name.as_str(), entry)))
    }

    /// The bytes of an entry of a part.
    pub(super) fn bytes(&self, part: usize, entry: &TensorEntry) -> &[u8] {
        // Every directory has been checked to lie inside its file.
        &self.parts[part].bytes.get()[entry.bytes.clone()]
    }

    /// Lets the system take back the pages of an entry that has been copied: else a model is in memory twice.
    pub(super) fn release(&self, part: usize, entry: &TensorEntry) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = &self.parts[part].bytes {
            // SAFETY: the mapping is of a file and read-only: what is taken back is read from the file again.
            let advised = unsafe {
                map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, entry.bytes.start, entry.bytes.len())
            };
            // Where the system does not take advice, the pages stay for now.
            drop(advised);
        }
        #[cfg(not(unix))]
        let _ = (part, entry);
    }
}

impl Part {
    fn open(path: &Path) -> Result<(Part, &'static str, HashMap<String, String>)> {
        Part::of(map(path)?, path)
    }

    /// The part that this mapped file is.
    fn of(map: Mmap, path: &Path) -> Result<(Part, &'static str, HashMap<String, String>)> {
        let label = path.display().to_string();
        let (tensors, format, texts) = directory(&map, &label)?;
        tracing::info!(path = label, format, tensors = tensors.len(), bytes = map.len(), "opened weights");
        Ok((Part { bytes: Bytes::Mapped(map), path: Some(path.into()), tensors }, format, texts))
    }

    fn is(&self, name: &str) -> bool {
        self.path.as_ref().and_then(|path| path.file_name()).is_some_and(|own| own == name)
    }
}

/// Maps a file into memory.
fn map(path: &Path) -> Result<Mmap> {
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    if file.metadata().map_err(Error::io(path))?.len() == 0 {
        return Err(Error::Weights(format!("{}: an empty file; fetch or copy it again", path.display())));
    }
    // SAFETY: the mapping is read-only; as with every memory-mapped checkpoint, another process that truncates the file
    // while it is mapped can fault this one.
    unsafe { Mmap::map(&file) }.map_err(Error::io(path))
}

/// Whether a file is JSON, by its first bytes: a brace, and no zero as in the length that a safetensors file begins with.
fn begins_as_json(file: &[u8]) -> bool {
    let beginning = &file[..file.len().min(8)];
    beginning.first() == Some(&b'{') && !beginning.contains(&0)
}

/// The directory of a file's content, its format, and the texts that it carries.
fn directory(file: &[u8], label: &str) -> Result<(Directory, &'static str, HashMap<String, String>)> {
    if pickle::recognises(file) {
        return Ok((pickle::directory(file, label)?, "PyTorch pickle", HashMap::new()));
    }
    let (tensors, texts) = safetensors(file, label)?;
    Ok((tensors, "safetensors", texts))
}

fn safetensors(file: &[u8], label: &str) -> Result<(Directory, HashMap<String, String>)> {
    if let Some(other) = other_kind(file) {
        return Err(Error::Weights(format!("{label}: {other}")));
    }
    let broken = |what: &dyn std::fmt::Display| {
        Error::Weights(format!("{label}: not a whole safetensors file ({what}); fetch or copy it again"))
    };
    let length = file.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if length > LONGEST_HEADER && length <= file.len() as u64 {
        return Err(Error::Weights(format!("{label}: a header of {length} bytes is none of a safetensors file")));
    }
    let (header, metadata) = SafeTensors::read_metadata(file).map_err(|e| broken(&e))?;
    let start = header + 8;
    let mut tensors = Directory::new();
    let mut end = start;
    for (name, info) in metadata.tensors() {
        if elements(&info.shape).is_none() {
            return Err(broken(&format_args!("tensor `{name:.100}` has a shape that no tensor can have")));
        }
        let bytes = start + info.data_offsets.0..start + info.data_offsets.1;
        end = end.max(bytes.end);
        tensors.insert(name, TensorEntry { dtype: info.dtype, shape: info.shape.clone(), strides: None, bytes });
    }
    if end != file.len() {
        return Err(broken(&format_args!("{} bytes where its header says {end}", file.len())));
    }
    Ok((tensors, metadata.metadata().clone().unwrap_or_default()))
}

/// What a file is that cannot hold weights, by its first bytes.
fn other_kind(file: &[u8]) -> Option<&'static str> {
    let begins = |with: &[u8]| file.starts_with(with);
    if begins(b"version https://git-lfs") {
        Some("a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`, or download it")
    } else if begins(b"<!DOCTYPE") || begins(b"<html") || begins(b"<!doctype") {
        Some("a web page, not weights: the download went wrong (a licence to be accepted, perhaps); fetch it again")
    } else if begins(b"GGUF") {
        Some("a GGUF file, which is not supported; take the safetensors of the same model")
    } else if begins(b"PK") {
        Some("a zip archive, but none that PyTorch saved")
    } else {
        None
    }
}
