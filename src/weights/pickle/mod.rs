//! PyTorch's checkpoints (`.bin`, `.ckpt`, `.pt`, `.pth`): which tensors a file has, and where they lie in it.
//!
//! A checkpoint is a pickle, a program for a stack machine that builds Python objects, beside the raw numbers of its
//! tensors: in a zip file since PyTorch 1.6, before that all in a row. Python runs whatever functions such a program
//! names. Ours ([`machine`]) runs none: it knows tensors and plain containers and refuses a call of anything else, by
//! name. Numbers are never read here; entries are slices of the file.
//!
//! Names are the keys on the way to a tensor, joined by dots: of `{"model": {"a.weight": …}}` it is `model.a.weight`.
//! Lists and tuples count from 0. Where the outermost dictionary has a dictionary `state_dict`, the names are those in
//! it and the rest (a trainer's counters, callbacks, optimiser) is left out. What is no tensor has no entry.
//!
//! A hostile file costs no more than a large one: all that is kept is counted, and stops at sixteen times the file's size and a MiB.

mod archive;
mod machine;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;

use super::entry::{Directory, Entry, elements};
use crate::{Error, Result};
use archive::Archive;
use machine::{Heap, Room, Storage, Tensor, Value};

/// What a fault says of the file; [`directory`] says which file.
type Outcome<T> = std::result::Result<T, String>;

/// A name out of a file, as a message shows it: however long it is there.
fn shown(name: &str) -> String {
    const LENGTH: usize = 100;
    match name.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_string(),
    }
}

fn damaged(what: impl Display) -> String {
    format!("not a whole PyTorch checkpoint ({what}); fetch or copy it again")
}

/// Why a file that is whole is not read.
fn refused(what: impl Display) -> String {
    format!(
        "{what}, and only tensors in plain containers are read; nothing of the file was run. If you trust where it is \
         from, convert it to safetensors with a program that you trust"
    )
}

/// Whether a file is a PyTorch checkpoint, or the beginning of one, by its content.
pub(super) fn recognises(file: &[u8]) -> bool {
    if Archive::recognises(file) {
        return Archive::open(file)
            .map_or_else(|_| Archive::begins_with_pickle(file), |archive| archive.root().is_some());
    }
    after_magic(file).is_some()
}

/// The tensors of a checkpoint. Errors name the file by `label`.
pub(super) fn directory(file: &[u8], label: &str) -> Result<Directory> {
    let read = if Archive::recognises(file) { zipped(file) } else { in_a_row(file) };
    read.map_err(|fault| Error::Weights(format!("{label}: {fault}")))
}

/// The format since PyTorch 1.6: `data.pkl`, and a file `data/KEY` a storage.
fn zipped(file: &[u8]) -> Outcome<Directory> {
    let archive = Archive::open(file)?;
    let root = archive.root().ok_or_else(|| damaged("it has no entry `data.pkl`"))?;
    let order = format!("{root}byteorder");
    if archive.has(&order) && &file[archive.range(&order)?] != b"little" {
        return Err(
            "its numbers are not little-endian, as they are on every usual machine; save it again on one".into()
        );
    }
    let pickle = &file[archive.range(&format!("{root}data.pkl"))?];
    let (heap, value) = machine::load(&mut Reader::new(pickle, 0), &mut Room::of(file))?;
    entries(&heap, value, pickle.len(), |storage| archive.range(&format!("{root}data/{}", storage.key)))
}

/// The format before: magic number, version, the writing machine, the object and its storages' keys, each a pickle; then
/// a storage after the other, its length before it.
fn in_a_row(file: &[u8]) -> Outcome<Directory> {
    let start = after_magic(file).ok_or_else(|| damaged("it does not begin as one"))?;
    let mut reader = Reader::new(file, start);
    let room = &mut Room::of(file);
    let (_, version) = machine::load(&mut reader, room)?;
    if !matches!(version, Value::Int(1001)) {
        return Err(refused("it is of a version that this program does not know"));
    }
    let (system, value) = machine::load(&mut reader, room)?;
    if matches!(system.child(value, "little_endian"), Some(Value::Bool(false))) {
        return Err(
            "its numbers are not little-endian, as they are on every usual machine; save it again on one".into()
        );
    }
    let start = reader.at;
    let (heap, value) = machine::load(&mut reader, room)?;
    let length = reader.at - start;
    let (names, keys) = machine::load(&mut reader, room)?;
    let keys = names.sequence(keys).ok_or_else(|| damaged("it has no list of its storages"))?;
    let sizes: BTreeMap<&str, usize> = heap.storages().iter().map(|s| (s.key, s.element())).collect();
    let mut places = BTreeMap::new();
    for key in keys {
        let Value::Text(key) = key else { return Err(damaged("a storage has no name")) };
        let size = sizes.get(key).ok_or_else(|| damaged(format!("nothing uses its storage `{}`", shown(key))))?;
        let bytes = reader.length()?.checked_mul(*size).ok_or_else(|| damaged("a storage is too long"))?;
        let start = reader.at;
        reader.take(bytes)?;
        places.insert(*key, start..reader.at);
    }
    entries(&heap, value, length, |storage| {
        places
            .get(storage.key)
            .cloned()
            .ok_or_else(|| damaged(format!("its storage `{}` is missing", shown(storage.key))))
    })
}

/// Where the pickles begin that follow the magic number.
fn after_magic(file: &[u8]) -> Option<usize> {
    const MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let protocol = *file.get(1).filter(|_| file[0] == 0x80)?;
    // From protocol 4 on, a frame of eight bytes' length is around it.
    let start = if protocol >= 4 && file.get(2) == Some(&0x95) { 11 } else { 2 };
    file.get(start..)?.starts_with(MAGIC).then_some(start + MAGIC.len())
}

/// Names the tensors that can be reached from `root`. `length` is that of the pickle.
fn entries<'a>(
    heap: &Heap<'a>,
    root: Value<'a>,
    length: usize,
    place: impl Fn(&Storage) -> Outcome<Range<usize>>,
) -> Outcome<Directory> {
    let root = match heap.child(root, "state_dict") {
        Some(inner @ Value::Dict(_)) => inner,
        _ => root,
    };
    let mut directory = Directory::new();
    // Containers can stand in many places, or in themselves: the ways to them may be endless where the file is short.
    // In an honest file every step has bytes of its own, and most of every name.
    let mut left = length.saturating_mul(2).saturating_add(1 << 12);
    let mut name = String::new();
    let mut ways = vec![Way { container: root, next: 0, name: 0 }];
    while let Some(way) = ways.last_mut() {
        name.truncate(way.name);
        let Some((key, value)) = heap.item(way.container, way.next) else {
            ways.pop();
            continue;
        };
        way.next += 1;
        let inside = matches!(value, Value::Tensor(_) | Value::Dict(_) | Value::List(_) | Value::Tuple(..));
        let step = match key {
            Value::Text(key) if inside => Some(Cow::Borrowed(key)),
            Value::Int(index) if inside => Some(index.to_string().into()),
            // Nothing to name, or a key that gives no name: a class, a pair of things.
            _ => None,
        };
        let used = 1 + step.as_ref().map_or(0, |step| name.len() + step.len());
        left = left.checked_sub(used).ok_or_else(|| damaged("its containers hold each other without end"))?;
        let Some(step) = step else { continue };
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&step);
        match value {
            Value::Tensor(tensor) => {
                let entry = entry(heap, heap.tensor(tensor), &place)
                    .map_err(|fault| format!("tensor `{}`: {fault}", shown(&name)))?;
                if directory.insert(name.clone(), entry).is_some() {
                    return Err(damaged(format!("two tensors are called `{}`", shown(&name))));
                }
            }
            Value::Dict(_) | Value::List(_) | Value::Tuple(..) => {
                ways.push(Way { container: value, next: 0, name: name.len() });
            }
            _ => {}
        }
    }
    if directory.is_empty() {
        return Err("a PyTorch checkpoint without a single named tensor; it is no model's".into());
    }
    Ok(directory)
}

/// A container on the way to a tensor, how far it has been looked through, and how much of the name it stands for.
struct Way<'a> {
    container: Value<'a>,
    next: usize,
    name: usize,
}

/// Where a tensor lies, from what the pickle says of it.
fn entry(heap: &Heap, tensor: &Tensor, place: impl Fn(&Storage) -> Outcome<Range<usize>>) -> Outcome<Entry> {
    /// More than any network has. Shapes are shared between tensors: without a bound, a long one costs nothing to repeat.
    const DIMENSIONS: usize = 8;
    let storage = &heap.storages()[tensor.storage];
    let dtype = tensor.dtype.or(storage.dtype).ok_or_else(|| damaged("it has no dtype"))?;
    let size = dtype.bitsize() / 8;
    let whole = place(storage)?;
    let bytes = storage.count.checked_mul(storage.element()).filter(|bytes| *bytes <= whole.len());
    let bytes = bytes.ok_or_else(|| damaged("its storage is shorter than it says"))?;
    let list = |value: Value| -> Outcome<Vec<usize>> {
        let items = heap.sequence(value).filter(|items| items.len() <= DIMENSIONS);
        let items = items.ok_or_else(|| damaged(format!("its shape is not one of at most {DIMENSIONS} sizes")))?;
        items.iter().map(|item| item.size().ok_or_else(|| damaged("its shape has something else than sizes"))).collect()
    };
    let (shape, strides) = (list(tensor.shape)?, list(tensor.strides)?);
    let offset = tensor.offset.size().ok_or_else(|| damaged("its offset is not a size"))?;
    let outside = || damaged(format!("its shape {shape:?} reaches past its storage"));
    if shape.len() != strides.len() {
        return Err(damaged("its shape and strides differ in length"));
    }
    let count = elements(&shape).ok_or_else(outside)?;
    // A view that repeats elements must not come to more than what is stored: a few bytes would become a tensor of any
    // size.
    if count.checked_mul(size).is_none_or(|view| view > bytes) {
        return Err(format!(
            "its shape {shape:?} has more elements than its storage; if it is an expanded view, save it again as a \
             contiguous tensor; if not, fetch or copy the file again"
        ));
    }
    let reach = |shape: &[usize]| {
        let last = shape
            .iter()
            .zip(&strides)
            .try_fold(0usize, |at, (n, stride)| at.checked_add((n - 1).checked_mul(*stride)?))?;
        last.checked_add(1)
    };
    let reached = if count == 0 { Some(0) } else { reach(&shape) };
    let start = offset.checked_mul(size);
    let end = reached.and_then(|n| offset.checked_add(n)).and_then(|n| n.checked_mul(size)).filter(|end| *end <= bytes);
    let (Some(start), Some(end)) = (start, end) else { return Err(outside()) };
    let mut next = 1;
    let in_order = count == 0
        || shape.iter().zip(&strides).rev().all(|(n, stride)| {
            let fits = *n == 1 || *stride == next;
            next *= n;
            fits
        });
    let strides = (!in_order).then_some(strides);
    Ok(Entry { dtype, shape, strides, bytes: whole.start + start..whole.start + end })
}

/// Reads a file forward; its end is an error.
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

    /// A length of 64 bits. One that no file can have is an error.
    fn length(&mut self) -> Outcome<usize> {
        usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| damaged("a length is too large"))
    }

    /// Up to the end of the line, and past it.
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
