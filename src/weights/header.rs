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
    /// The tensors, in the order of their bytes.
    pub tensors: Vec<(String, TensorInfo)>,
    /// What the file says about itself.
    pub texts: HashMap<String, String>,
}

impl Header {
    /// Decodes the JSON of a header. Checks that the tensors lie one after the other, each with as many bytes as its shape
    /// says.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn decode(json: &[u8]) -> Result<Header, String> {
        let Entries { mut tensors, texts } = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        tensors.sort_by_key(|(_, info)| info.data_offsets);
        Metadata::new(None, tensors.clone()).map_err(|e| e.to_string())?;
        Ok(Header { tensors, texts })
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
