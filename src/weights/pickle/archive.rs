//! The zip archive of a PyTorch checkpoint: where its entries lie.
//!
//! Supports the central directory with zip64, but no compression: the content of an entry is a range of the file. No count
//! in the file is trusted. (The `zip` crate reserves memory for as many entries as a file claims to have.)

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Content, Outcome, Reader, damaged, read, shown};

/// The entries of an archive by name.
pub struct Archive<'a> {
    file: &'a Content,
    entries: BTreeMap<String, Record>,
}

struct Record {
    flags: u16,
    method: u16,
    /// Bytes of the entry in the file.
    packed: usize,
    /// Bytes of the entry when unpacked.
    size: usize,
    /// Where the entry's local header lies.
    header: usize,
}

const ENCRYPTED: u16 = 1;

/// Bytes of a local header before its name.
const HEADER: usize = 30;

/// The most bytes of the list of entries: about a million entries.
const LONGEST: usize = 64 << 20;

impl<'a> Archive<'a> {
    /// Whether a file starts like a zip archive.
    pub fn recognises(file: &[u8]) -> bool {
        file.starts_with(b"PK\x03\x04")
    }

    /// Whether the first entry is a checkpoint's pickle, as PyTorch writes it. Recognises truncated files too.
    pub fn begins_with_pickle(file: &[u8]) -> bool {
        let length = file.get(26..28).map_or(0, |length| usize::from(u16::from_le_bytes([length[0], length[1]])));
        file.get(30..30 + length).is_some_and(|name| name.ends_with(b"/data.pkl"))
    }

    pub fn open(file: &'a Content) -> Outcome<Self> {
        let (start, size) = directory(file)?;
        let end = start.checked_add(size).filter(|end| *end <= file.len() && size <= LONGEST);
        let end = end.ok_or_else(|| damaged("its list of entries is beyond its end"))?;
        let list = read(file, start..end)?;
        let mut reader = Reader::new(&list, 0);
        let mut entries = BTreeMap::new();
        while reader.left() > 0 {
            let (name, record) = record(&mut reader)?;
            if entries.insert(name.to_string(), record).is_some() {
                return Err(damaged(format!("it has two entries called `{}`", shown(name))));
            }
        }
        Ok(Archive { file, entries })
    }

    /// The folder with `data.pkl` in the archive, with its slash. All of a checkpoint lies in it.
    pub fn root(&self) -> Option<&str> {
        self.entries.keys().find_map(|name| name.strip_suffix("data.pkl").filter(|root| root.ends_with('/')))
    }

    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The range of an entry's content in the file.
    pub fn range(&self, name: &str) -> Outcome<Range<usize>> {
        let record =
            self.entries.get(name).ok_or_else(|| damaged(format!("its entry `{}` is missing", shown(name))))?;
        if record.flags & ENCRYPTED != 0 {
            return Err(format!("its entry `{}` is encrypted; save it without a password", shown(name)));
        }
        if record.method != 0 {
            return Err(format!(
                "its entry `{}` is compressed, which PyTorch never does; unpack it and zip it again without \
                 compression (zip -0 -r), or save it again with torch.save",
                shown(name)
            ));
        }
        let start = record.header.checked_add(HEADER).ok_or_else(|| damaged("it ends too early"))?;
        let head = read(self.file, record.header..start)?;
        if !head.starts_with(b"PK\x03\x04") || record.packed != record.size {
            return Err(damaged(format!("the header of its entry `{}` is invalid", shown(name))));
        }
        let [name_length, extra_length] = [26, 28].map(|at| usize::from(u16::from_le_bytes([head[at], head[at + 1]])));
        let start = start.checked_add(name_length + extra_length);
        let end = start.and_then(|start| start.checked_add(record.size)).filter(|end| *end <= self.file.len());
        let (Some(start), Some(end)) = (start, end) else { return Err(damaged("it ends too early")) };
        Ok(start..end)
    }
}

/// The start of the central directory, and its length in bytes.
fn directory(file: &Content) -> Outcome<(usize, usize)> {
    const LENGTH: usize = 22;
    const LOCATOR: usize = 20;
    const COMMENT: usize = 0xffff;
    // The end record is followed only by a comment, and preceded by the locator of zip64.
    let before = file.len().saturating_sub(LOCATOR + LENGTH + COMMENT);
    let end = &*read(file, before..file.len())?;
    let last = end.len().checked_sub(LENGTH).ok_or_else(|| damaged("it ends too early"))?;
    let place = (last.saturating_sub(COMMENT)..=last).rev().find(|&at| {
        let record = &end[at..at + LENGTH];
        record.starts_with(b"PK\x05\x06") && usize::from(u16::from_le_bytes([record[20], record[21]])) == last - at
    });
    let place = place.ok_or_else(|| damaged("the list of its entries, which must be at the end, is missing"))?;
    let mut reader = Reader::new(end, place + 12);
    let (size, start) = (reader.u32()?, reader.u32()?);
    let locator = place.checked_sub(LOCATOR).filter(|at| end[*at..].starts_with(b"PK\x06\x07"));
    let Some(locator) = locator else { return Ok((start as usize, size as usize)) };
    let record = Reader::new(end, locator + 8).length()?;
    let after = record.checked_add(56).ok_or_else(|| damaged("it ends too early"))?;
    let record = read(file, record..after)?;
    let mut reader = Reader::new(&record, 0);
    if reader.take(4)? != b"PK\x06\x06" {
        return Err(damaged("the list of its entries is not at the place that the file states"));
    }
    reader.take(36)?;
    let size = reader.length()?;
    Ok((reader.length()?, size))
}

/// Reads one record of the central directory, and its name.
fn record<'a>(reader: &mut Reader<'a>) -> Outcome<(&'a str, Record)> {
    if reader.take(4)? != b"PK\x01\x02" {
        return Err(damaged("the list of its entries is corrupt"));
    }
    reader.take(4)?;
    let (flags, method) = (reader.u16()?, reader.u16()?);
    reader.take(8)?;
    let (packed, size) = (reader.u32()?, reader.u32()?);
    let [name, extra, comment] = [reader.u16()?, reader.u16()?, reader.u16()?].map(usize::from);
    reader.take(8)?;
    let header = reader.u32()?;
    let name = std::str::from_utf8(reader.take(name)?).map_err(|_| damaged("the name of an entry is not UTF-8"))?;
    let mut extra = Reader::new(reader.take(extra)?, 0);
    reader.take(comment)?;
    let mut long = None;
    while extra.left() >= 4 && long.is_none() {
        let (kind, length) = (extra.u16()?, extra.u16()?);
        let content = extra.take(length.into())?;
        long = (kind == 1).then(|| Reader::new(content, 0));
    }
    // Fields whose bits are all ones are in the zip64 extra field, in this order.
    let mut widened = |field: u32| match (&mut long, field) {
        (Some(long), u32::MAX) => long.length(),
        _ => Ok(field as usize),
    };
    let (size, packed, header) = (widened(size)?, widened(packed)?, widened(header)?);
    Ok((name, Record { flags, method, packed, size, header }))
}
