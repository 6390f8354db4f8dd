//! The header of a safetensors file.
//!
//! The safetensors crate decodes it by way of a general value, which takes tens of times its size in memory. Here it is
//! decoded as what it is, so that a file may have as much metadata as the format allows.

use std::collections::HashMap;
use std::fmt;

use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

/// The most bytes of a header that the format allows.
pub const LONGEST: u64 = 100_000_000;

/// A decoded header.
pub struct Header {
    /// The first byte of the tensors in the file.
    pub start: usize,
    /// The tensors, in the order of their bytes.
    pub tensors: Vec<(String, TensorInfo)>,
    /// What the file says about itself.
    pub texts: HashMap<String, String>,
}

impl Header {
    /// Decodes the header of a file, and checks that its tensors fill the file.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn read(file: &[u8]) -> Result<Header, String> {
        let Some(length) = file.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else {
            return Err("the file is too short".into());
        };
        let start = usize::try_from(length).ok().and_then(|length| length.checked_add(8));
        let header = start.and_then(|start| file.get(8..start)).ok_or("its header is cut off")?;
        if length > LONGEST {
            return Err(format!("its header has {length} bytes, but {LONGEST} is the limit"));
        }
        let Entries { mut tensors, texts } = serde_json::from_slice(header).map_err(|e| e.to_string())?;
        tensors.sort_by_key(|(_, info)| info.data_offsets);
        let (names, infos): (Vec<_>, Vec<_>) = tensors.into_iter().unzip();
        // Checks that the tensors lie one after the other, each with as many bytes as its shape says.
        let named = names.iter().cloned().zip(infos.iter().cloned()).collect();
        Metadata::new(None, named).map_err(|e| e.to_string())?;
        let tensors = names.into_iter().zip(infos).collect();
        Ok(Header { start: 8 + header.len(), tensors, texts })
    }
}

/// The entries of a header as it is written.
#[derive(Default)]
struct Entries {
    tensors: Vec<(String, TensorInfo)>,
    texts: HashMap<String, String>,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a map of tensors")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entries, M::Error> {
        let mut entries = Entries::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                entries.texts = map.next_value::<Option<_>>()?.unwrap_or_default();
            } else {
                entries.tensors.push((name, map.next_value()?));
            }
        }
        Ok(entries)
    }
}
