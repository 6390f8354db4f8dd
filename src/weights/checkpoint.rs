//! A weights file, or all shards of one, as one directory of tensors. The format is recognised by the content.
//!
//! Files are memory-mapped: opening reads only headers, and the pages of a tensor are read when it is loaded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use serde::Deserialize;

use super::Json;
use super::entry::{Directory, TensorEntry};
use super::header::Header;
use super::{foreign, pickle};
use crate::{Error, Result, elements};

/// The tensors of one weights file or of all shards of one.
pub struct Checkpoint {
    label: String,
    format: &'static str,
    /// The index of a sharded checkpoint.
    index: Option<PathBuf>,
    parts: Vec<CheckpointFile>,
    /// The metadata of a safetensors file.
    texts: HashMap<String, String>,
}

struct CheckpointFile {
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

/// The index file of a sharded checkpoint.
#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

/// The most bytes of an index.
const LONGEST_INDEX: u64 = 64 << 20;

impl Checkpoint {
    /// Opens a file of any supported format, or the index (`….index.json`) of a sharded checkpoint.
    ///
    /// # Errors
    /// If the file is corrupt or of another kind, which the message names if it is recognised.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        let map = map(path)?;
        if begins_as_json(&map) {
            return Self::open_shards(path, &map);
        }
        let (part, format, texts) = CheckpointFile::of(map, path)?;
        Ok(Checkpoint { label: path.display().to_string(), format, index: None, parts: vec![part], texts })
    }

    /// Opens safetensors that are embedded in the program. `label` is the name in messages.
    ///
    /// # Errors
    /// If they are corrupt.
    pub fn embedded(label: &str, bytes: &'static [u8]) -> Result<Checkpoint> {
        let (tensors, format, texts) = directory(bytes, label)?;
        let parts = vec![CheckpointFile { bytes: Bytes::Embedded(bytes), path: None, tensors }];
        Ok(Checkpoint { label: label.into(), format, index: None, parts, texts })
    }

    /// Opens the shards that the `text` of an index names.
    fn open_shards(index: &Path, text: &[u8]) -> Result<Checkpoint> {
        let label = index.display().to_string();
        let broken = |what: String| Error::Weights(format!("{label}: {what}"));
        let length = text.len();
        if length as u64 > LONGEST_INDEX {
            return Err(broken(format!("{length} bytes are too many for an index")));
        }
        let map: Index = Json::parse(text, &label)
            .and_then(|index| index.decode())
            .map_err(|e| Error::Weights(format!("{e}; an index of a sharded checkpoint has a `weight_map`")))?;
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
                return Err(broken(format!("`{name}` is not the name of a file beside it")));
            }
            let (part, format, texts) = CheckpointFile::open(&index.with_file_name(name))?;
            shards.parts.push(part);
            shards.format = format;
            shards.texts.extend(texts);
        }
        let missing = map.weight_map.iter().find(|(tensor, file)| {
            !shards.parts.iter().any(|part| part.is(file) && part.tensors.contains_key(*tensor))
        });
        match missing {
            Some((tensor, file)) => {
                Err(broken(format!("tensor `{tensor}` is not in {file}, where the index has it; download both again")))
            }
            None => Ok(shards),
        }
    }

    /// The name in messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The name of its format.
    pub fn format(&self) -> &'static str {
        self.format
    }

    /// Its files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().filter_map(|part| part.path.as_deref()).chain(self.index.as_deref())
    }

    /// The metadata of a safetensors file; empty for other formats.
    pub fn texts(&self) -> &HashMap<String, String> {
        &self.texts
    }

    /// Its tensors, each with the index of the file that holds it.
    pub fn tensors(&self) -> impl Iterator<Item = (usize, &str, &TensorEntry)> {
        let all = self.parts.iter().enumerate();
        all.flat_map(|(i, part)| part.tensors.iter().map(move |(name, entry)| (i, name.as_str(), entry)))
    }

    /// The bytes of a tensor of file number `part`.
    pub(super) fn bytes(&self, part: usize, entry: &TensorEntry) -> &[u8] {
        // Every entry has been checked to lie in its file.
        &self.parts[part].bytes.get()[entry.bytes.clone()]
    }

    /// Lets the system reclaim the pages of a tensor that has been copied. Otherwise a model would be in memory twice.
    pub(super) fn release(&self, part: usize, entry: &TensorEntry) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = &self.parts[part].bytes {
            // SAFETY: the mapping is read-only and of a file, so that reclaimed pages are read from the file again.
            let advised = unsafe {
                map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, entry.bytes.start, entry.bytes.len())
            };
            // If the system rejects the advice, the pages stay in memory.
            drop(advised);
        }
        #[cfg(not(unix))]
        let _ = (part, entry);
    }
}

impl CheckpointFile {
    fn open(path: &Path) -> Result<(CheckpointFile, &'static str, HashMap<String, String>)> {
        CheckpointFile::of(map(path)?, path)
    }

    /// Reads the directory of a mapped file.
    fn of(map: Mmap, path: &Path) -> Result<(CheckpointFile, &'static str, HashMap<String, String>)> {
        let label = path.display().to_string();
        let (tensors, format, texts) = directory(&map, &label)?;
        tracing::info!(path = label, format, tensors = tensors.len(), bytes = map.len(), "opened weights");
        Ok((CheckpointFile { bytes: Bytes::Mapped(map), path: Some(path.into()), tensors }, format, texts))
    }

    fn is(&self, name: &str) -> bool {
        self.path.as_ref().and_then(|path| path.file_name()).is_some_and(|own| own == name)
    }
}

/// Maps a file into memory.
fn map(path: &Path) -> Result<Mmap> {
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    if file.metadata().map_err(Error::io(path))?.len() == 0 {
        return Err(Error::Weights(format!("{}: the file is empty; download or copy it again", path.display())));
    }
    // SAFETY: the mapping is read-only; as with every memory-mapped checkpoint, another process that truncates the file
    // while it is mapped can fault this one.
    unsafe { Mmap::map(&file) }.map_err(Error::io(path))
}

/// Whether a file starts like JSON: with a brace, and without a zero, which is in the length that safetensors start with.
fn begins_as_json(file: &[u8]) -> bool {
    let beginning = &file[..file.len().min(8)];
    beginning.first() == Some(&b'{') && !beginning.contains(&0)
}

/// The tensors of a file, its format, and its metadata.
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
        Error::Weights(format!("{label}: incomplete or corrupt safetensors file ({what}); download or copy it again"))
    };
    let Header { start, tensors, texts } = Header::read(file).map_err(|what| broken(&what))?;
    let mut directory = Directory::new();
    let mut end = start;
    for (name, info) in tensors {
        if elements(&info.shape).is_none() {
            return Err(broken(&format_args!("tensor `{name:.100}` has an impossible shape")));
        }
        let bytes = start + info.data_offsets.0..start + info.data_offsets.1;
        end = end.max(bytes.end);
        directory.insert(name, TensorEntry { dtype: info.dtype, shape: info.shape, strides: None, bytes });
    }
    if end != file.len() {
        return Err(broken(&format_args!("{} bytes, but its header says {end}", file.len())));
    }
    Ok((directory, texts))
}

/// Describes a file that cannot hold weights, by its first bytes.
fn other_kind(file: &[u8]) -> Option<&'static str> {
    let begins = |with: &[u8]| file.starts_with(with);
    if let Some(other) = foreign::recognised(file) {
        Some(other)
    } else if begins(b"GGUF") {
        Some("a GGUF file, which is not supported; take the safetensors of the same model")
    } else if begins(b"PK") {
        Some("a zip archive, but not one that PyTorch saved")
    } else {
        None
    }
}
