//! A weights file, or all shards of one, as one directory of tensors. The format is recognised by the content.
//!
//! Opening reads only headers; the numbers of a tensor are read when it is loaded.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use lsregen_files::{Kind, RangeFile};
use serde::Deserialize;

use super::Json;
use super::content::Content;
use super::entry::{Directory, TensorEntry};
use super::header::{self, Header};
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
    content: Content,
    tensors: Directory,
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
        let content = content(path)?;
        if begins_as_json(&content.start(8).map_err(Error::io(path))?) {
            return Self::open_shards(path, &content);
        }
        let (part, format, texts) = CheckpointFile::of(content, path)?;
        Ok(Checkpoint { label: path.display().to_string(), format, index: None, parts: vec![part], texts })
    }

    /// Opens safetensors that are embedded in the program. `label` is the name in messages.
    ///
    /// # Errors
    /// If they are corrupt.
    pub fn embedded(label: &str, bytes: &'static [u8]) -> Result<Checkpoint> {
        let content = Content::Memory(Cow::Borrowed(bytes));
        let (tensors, format, texts) = directory(&content, label)?;
        let parts = vec![CheckpointFile { content, tensors }];
        Ok(Checkpoint { label: label.into(), format, index: None, parts, texts })
    }

    /// Opens the shards that an index names.
    fn open_shards(index: &Path, content: &Content) -> Result<Checkpoint> {
        let label = index.display().to_string();
        let broken = |what: String| Error::Weights(format!("{label}: {what}"));
        let length = content.len();
        if length as u64 > LONGEST_INDEX {
            return Err(broken(format!("{length} bytes are too many for an index")));
        }
        let text = content.start(length).map_err(Error::io(index))?;
        let index_json = Json::parse(&text, &label).map_err(|e| Error::Weights(e.to_string()))?;
        let map: Index = index_json.decode().map_err(|e| {
            Error::Weights(format!("{e}, so it is no index of a sharded checkpoint, nor other weights"))
        })?;
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
        self.parts.iter().filter_map(|part| part.content.path()).chain(self.index.as_deref())
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
    ///
    /// # Errors
    /// If they cannot be read, because the file has become shorter for example.
    pub(super) fn bytes(&self, part: usize, entry: &TensorEntry) -> Result<Cow<'_, [u8]>> {
        let content = &self.parts[part].content;
        content.read(entry.bytes.clone()).map_err(|error| Error::io(content.path().unwrap_or(Path::new("")))(error))
    }
}

#[cfg(feature = "cuda")]
impl Checkpoint {
    /// Fills `to` with the bytes of file number `part` from `start` on.
    ///
    /// # Errors
    /// If they cannot be read, because the file has become shorter for example.
    pub(super) fn fill(&self, part: usize, start: usize, to: &mut [u8]) -> Result<()> {
        let content = &self.parts[part].content;
        content.fill(start, to).map_err(|error| Error::io(content.path().unwrap_or(Path::new("")))(error))
    }
}

impl CheckpointFile {
    fn open(path: &Path) -> Result<(CheckpointFile, &'static str, HashMap<String, String>)> {
        CheckpointFile::of(content(path)?, path)
    }

    /// Reads the directory of a file.
    fn of(content: Content, path: &Path) -> Result<(CheckpointFile, &'static str, HashMap<String, String>)> {
        let label = path.display().to_string();
        let (tensors, format, texts) = directory(&content, &label)?;
        tracing::info!(path = label, format, tensors = tensors.len(), bytes = content.len(), "opened weights");
        Ok((CheckpointFile { content, tensors }, format, texts))
    }

    fn is(&self, name: &str) -> bool {
        self.content.path().and_then(Path::file_name).is_some_and(|own| own == name)
    }
}

/// Opens a file that is not empty.
fn content(path: &Path) -> Result<Content> {
    let file = RangeFile::open(path, Kind::WEIGHTS).map_err(Error::io(path))?;
    if file.is_empty() {
        return Err(Error::Weights(format!("{}: the file is empty; download or copy it again", path.display())));
    }
    Ok(Content::File(file))
}

/// Whether a file starts like JSON: with a brace, and without a zero, which is in the length that safetensors start with.
fn begins_as_json(file: &[u8]) -> bool {
    let beginning = &file[..file.len().min(8)];
    beginning.first() == Some(&b'{') && !beginning.contains(&0)
}

/// The tensors of a file, its format, and its metadata.
fn directory(file: &Content, label: &str) -> Result<(Directory, &'static str, HashMap<String, String>)> {
    if pickle::recognises(file) {
        return Ok((pickle::directory(file, label)?, "PyTorch pickle", HashMap::new()));
    }
    let (tensors, texts) = safetensors(file, label)?;
    Ok((tensors, "safetensors", texts))
}

fn safetensors(file: &Content, label: &str) -> Result<(Directory, HashMap<String, String>)> {
    let read = |range| file.read(range).map_err(Error::io(label));
    let beginning = read(0..file.len().min(64))?;
    if let Some(other) = other_kind(&beginning) {
        return Err(Error::Weights(format!("{label}: {other}")));
    }
    let broken = |what: &dyn std::fmt::Display| {
        Error::Weights(format!("{label}: incomplete or corrupt safetensors file ({what}); download or copy it again"))
    };
    let length = beginning.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let length = length.ok_or_else(|| broken(&"it ends too early"))?;
    if length > header::LONGEST && length <= file.len() as u64 {
        return Err(Error::Weights(format!(
            "{label}: its header has {length} bytes, but safetensors allow no more than {}",
            header::LONGEST
        )));
    }
    let start = usize::try_from(length).ok().and_then(|length| length.checked_add(8));
    let start = start.filter(|start| *start <= file.len()).ok_or_else(|| broken(&"its header ends too early"))?;
    let Header { tensors, texts } = Header::decode(&read(8..start)?).map_err(|what| broken(&what))?;
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
