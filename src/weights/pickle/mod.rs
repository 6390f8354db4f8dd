//! PyTorch's checkpoints (`.bin`, `.ckpt`, `.pt`, `.pth`): which tensors a file has, and where they lie in it.
//!
//! A checkpoint has a pickle and the raw numbers of its tensors: in a zip file since PyTorch 1.6, one after the other
//! before. A pickle is a program for a stack machine that builds Python objects. Python runs any function that such a
//! program names. The machine here ([`machine`]) runs none: it supports tensors and plain containers, and refuses every
//! other call by name. This module never reads numbers; entries are slices of the file.
//!
//! The name of a tensor is the keys that lead to it, joined by dots: `model.a.weight` for `{"model": {"a.weight": …}}`.
//! The keys of lists and tuples count from 0. If the outermost dictionary has a dictionary `state_dict`, only the tensors
//! in that one count; the rest is a trainer's counters, callbacks and optimiser. Other values have no entry.
//!
//! A hostile file costs no more memory than a large one: reading stops at sixteen times the file's size and 1 MiB
//! ([`MemoryBudget`]).

mod archive;
mod classes;
mod entries;
mod heap;
mod machine;
mod opcodes;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;

use super::content::Content;
use super::entry::Directory;
use crate::{Error, Result};
use archive::Archive;
use entries::entries;
use heap::{MemoryBudget, PickleValue};

/// A result whose error does not name the file yet; [`directory`] adds the name.
type Outcome<T> = std::result::Result<T, String>;

/// A name from a file, shortened for a message.
fn shown(name: &str) -> String {
    const LENGTH: usize = 100;
    match name.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_string(),
    }
}

/// The error for a corrupt file.
fn damaged(what: impl Display) -> String {
    format!("incomplete or corrupt PyTorch checkpoint ({what}); download or copy it again")
}

/// The error for a complete file that is not supported.
fn refused(what: impl Display) -> String {
    format!(
        "{what}, and only tensors in plain containers are supported; nothing of the file was run. If you trust its \
         source, convert it to safetensors with a program that you trust"
    )
}

/// Whether a file is a PyTorch checkpoint or the beginning of one, judged by its content.
pub(super) fn recognises(file: &Content) -> bool {
    let Ok(start) = file.start(1 << 10) else { return false };
    if Archive::recognises(&start) {
        return Archive::open(file)
            .map_or_else(|_| Archive::begins_with_pickle(&start), |archive| archive.root().is_some());
    }
    after_magic(&start).is_some()
}

/// The tensors of a checkpoint. Errors name the file by `label`.
pub(super) fn directory(file: &Content, label: &str) -> Result<Directory> {
    let read = read(file, 0..file.len().min(4)).and_then(|start| match Archive::recognises(&start) {
        true => zipped(file),
        false => legacy(file),
    });
    read.map_err(|error| Error::Weights(format!("{label}: {error}")))
}

/// Reads a range of a file.
fn read(file: &Content, range: Range<usize>) -> Outcome<Cow<'_, [u8]>> {
    let whole = range.start <= range.end && range.end <= file.len();
    let range = whole.then_some(range).ok_or_else(|| damaged("it ends too early"))?;
    file.read(range).map_err(|error| error.to_string())
}

/// The most bytes of a pickle. It has names and shapes, not numbers: those of the largest models have a few megabytes.
const LONGEST: usize = 256 << 20;

const BIG_ENDIAN: &str = "its numbers are big-endian; save it again on a little-endian machine, as all common ones are";

/// The format since PyTorch 1.6: `data.pkl`, and a file `data/KEY` for each storage.
fn zipped(file: &Content) -> Outcome<Directory> {
    let archive = Archive::open(file)?;
    let root = archive.root().ok_or_else(|| damaged("it has no entry `data.pkl`"))?;
    let order = format!("{root}byteorder");
    if archive.has(&order) && *read(file, archive.range(&order)?)? != *b"little" {
        return Err(BIG_ENDIAN.into());
    }
    let range = archive.range(&format!("{root}data.pkl"))?;
    if range.len() > LONGEST {
        return Err(refused("its pickle is longer than that of any model"));
    }
    let pickle = &*read(file, range)?;
    let (heap, value) = machine::load(&mut Reader::new(pickle, 0), &mut MemoryBudget::of(file.len()))?;
    entries(&heap, value, pickle.len(), |storage| archive.range(&format!("{root}data/{}", storage.key)))
}

/// The format before PyTorch 1.6: five pickles (magic number, version, the machine that wrote the file, the object, the
/// keys of its storages), then the storages, each after its length.
fn legacy(file: &Content) -> Outcome<Directory> {
    // The length of the pickles is known only when they are read. The storages behind them are not read.
    let mut length = (1 << 20).min(file.len());
    loop {
        match pickles(file, &read(file, 0..length)?) {
            Err(_) if length < file.len().min(LONGEST) => length = (length * 16).min(file.len()).min(LONGEST),
            done => return done,
        }
    }
}

/// Reads a file of the old format, whose pickles lie in its beginning.
fn pickles(file: &Content, beginning: &[u8]) -> Outcome<Directory> {
    let start = after_magic(beginning).ok_or_else(|| damaged("it does not start with the magic number"))?;
    let mut reader = Reader::new(beginning, start);
    let budget = &mut MemoryBudget::of(file.len());
    let (_, version) = machine::load(&mut reader, budget)?;
    if !matches!(version, PickleValue::Int(1001)) {
        return Err(refused("its version is not supported"));
    }
    let (system, value) = machine::load(&mut reader, budget)?;
    if matches!(system.child(value, "little_endian"), Some(PickleValue::Bool(false))) {
        return Err(BIG_ENDIAN.into());
    }
    let start = reader.at;
    let (heap, value) = machine::load(&mut reader, budget)?;
    let length = reader.at - start;
    let (names, keys) = machine::load(&mut reader, budget)?;
    let keys = names.sequence(keys).ok_or_else(|| damaged("it has no list of its storages"))?;
    let sizes: BTreeMap<&str, usize> = heap.storages().iter().map(|s| (s.key, s.element())).collect();
    let mut ranges = BTreeMap::new();
    let mut at = reader.at;
    for key in keys {
        let PickleValue::Text(key) = key else { return Err(damaged("a storage has no name")) };
        let size = sizes.get(key).ok_or_else(|| damaged(format!("no tensor uses its storage `{}`", shown(key))))?;
        let start = at.checked_add(8).ok_or_else(|| damaged("it ends too early"))?;
        let count = Reader::new(&read(file, at..start)?, 0).length()?;
        let bytes = count.checked_mul(*size).ok_or_else(|| damaged("a storage is too long"))?;
        let end = start.checked_add(bytes).filter(|end| *end <= file.len());
        at = end.ok_or_else(|| damaged("it ends too early"))?;
        ranges.insert(*key, start..at);
    }
    entries(&heap, value, length, |storage| {
        ranges
            .get(storage.key)
            .cloned()
            .ok_or_else(|| damaged(format!("its storage `{}` is missing", shown(storage.key))))
    })
}

/// Where the pickles after the magic number begin.
fn after_magic(file: &[u8]) -> Option<usize> {
    const MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let protocol = *file.get(1).filter(|_| file[0] == opcodes::PROTO)?;
    // From protocol 4 on, a frame header of nine bytes precedes it.
    let start = if protocol >= 4 && file.get(2) == Some(&opcodes::FRAME) { 11 } else { 2 };
    file.get(start..)?.starts_with(MAGIC).then_some(start + MAGIC.len())
}

/// Reads a file from front to back. Reading past its end is an error.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], at: usize) -> Self {
        Reader { bytes, at }
    }

    fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    fn take(&mut self, length: usize) -> Outcome<&'a [u8]> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| damaged("it ends too early"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| damaged("it ends too early"))
    }

    fn u8(&mut self) -> Outcome<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u16(&mut self) -> Outcome<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Outcome<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A length of 64 bits.
    fn length(&mut self) -> Outcome<usize> {
        usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| damaged("a length is too large"))
    }

    /// The rest of the line, without its end.
    fn line(&mut self) -> Outcome<&'a str> {
        let rest = &self.bytes[self.at.min(self.bytes.len())..];
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| damaged("it ends too early"))?;
        self.at += length + 1;
        text(&rest[..length])
    }
}

fn text(bytes: &[u8]) -> Outcome<&str> {
    std::str::from_utf8(bytes).map_err(|_| damaged("a text is not UTF-8"))
}
