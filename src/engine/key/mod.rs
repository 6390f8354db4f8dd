//! Memo keys: everything that determines a node's result, and its digest.
//!
//! Two nodes with equal keys have the same result, in any graph and process and on any machine. The name of a node is
//! not part of its key. Independent of graphs and stores.

mod digest;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

pub use self::digest::{Digest, ParseDigestError};

/// The format of keys. Raise it when [`Material::key`] changes, so that keys of different formats differ.
const FORMAT: u32 = 1;

/// A memo key: the digest of everything that determines a node's result.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(
    /// The digest.
    pub Digest,
);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self:.8})")
    }
}

/// Everything that a key is the digest of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Material {
    /// The name of the node type.
    pub node_type: Cow<'static, str>,
    /// The node type's [`VERSION`](crate::Node::VERSION).
    pub version: u32,
    /// The parameters, including defaults, as [canonical JSON](canonical_json).
    pub params: String,
    /// The links, in the order of the sockets and of the links of each socket.
    pub inputs: Vec<InputMaterial>,
    /// The files that the node reads: the parameter that names the file, and the digest of its content.
    pub files: Vec<(String, Digest)>,
    /// [`Node::fingerprint`](crate::Node::fingerprint).
    pub node_fingerprint: Option<String>,
    /// [`Host::fingerprint`](crate::Host::fingerprint).
    pub host_fingerprint: Arc<str>,
}

/// A link as part of a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputMaterial {
    /// The input socket.
    pub socket: Cow<'static, str>,
    /// The key of the node that the link comes from.
    pub producer: Key,
    /// The index of the output among the producer's output sockets.
    pub output: usize,
}

impl Material {
    /// The digest of all parts. The length or count of each part is hashed before it, so that different materials have
    /// different keys.
    pub fn key(&self) -> Key {
        let Material { node_type, version, params, inputs, files, node_fingerprint, host_fingerprint } = self;
        let mut writer = Writer(blake3::Hasher::new());
        writer.number(FORMAT.into());
        writer.bytes(node_type.as_bytes());
        writer.number((*version).into());
        writer.bytes(params.as_bytes());
        writer.number(inputs.len() as u64);
        for input in inputs {
            writer.bytes(input.socket.as_bytes());
            writer.bytes(&input.producer.0.0);
            writer.number(input.output as u64);
        }
        writer.number(files.len() as u64);
        for (param, digest) in files {
            writer.bytes(param.as_bytes());
            writer.bytes(&digest.0);
        }
        writer.number(node_fingerprint.iter().count() as u64);
        if let Some(fingerprint) = node_fingerprint {
            writer.bytes(fingerprint.as_bytes());
        }
        writer.bytes(host_fingerprint.as_bytes());
        Key(Digest(*writer.0.finalize().as_bytes()))
    }
}

struct Writer(blake3::Hasher);

impl Writer {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }
}

/// Writes JSON without spaces and with the keys of every object sorted. Numbers are written as the parameters' types
/// serialise them: an `f64` field gives `1.0` whether the document has 1 or 1.0.
pub fn canonical_json(json: &Json) -> String {
    let mut text = String::new();
    write_canonical(json, &mut text);
    text
}

fn write_canonical(json: &Json, text: &mut String) {
    match json {
        Json::Array(items) => {
            text.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                write_canonical(item, text);
            }
            text.push(']');
        }
        Json::Object(object) => {
            let mut members: Vec<_> = object.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            text.push('{');
            for (i, (name, value)) in members.into_iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                text.push_str(&Json::from(name.as_str()).to_string());
                text.push(':');
                write_canonical(value, text);
            }
            text.push('}');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn material() -> Material {
        let input = InputMaterial { socket: "image".into(), producer: Key(Digest([1; 32])), output: 0 };
        Material {
            node_type: "Blur".into(),
            version: 1,
            params: canonical_json(&json!({ "radius": 2 })),
            inputs: vec![input],
            files: vec![("mask".into(), Digest([2; 32]))],
            node_fingerprint: None,
            host_fingerprint: "cpu".into(),
        }
    }

    #[test]
    fn every_part_changes_the_key() {
        let base = material();
        let input = || base.inputs[0].clone();
        let variants = [
            base.clone(),
            Material { node_type: "Blu".into(), ..base.clone() },
            Material { version: 2, ..base.clone() },
            Material { params: "{}".into(), ..base.clone() },
            Material { inputs: vec![], ..base.clone() },
            Material { inputs: vec![input(), input()], ..base.clone() },
            Material { inputs: vec![InputMaterial { socket: "mask".into(), ..input() }], ..base.clone() },
            Material { inputs: vec![InputMaterial { producer: Key(Digest([3; 32])), ..input() }], ..base.clone() },
            Material { inputs: vec![InputMaterial { output: 1, ..input() }], ..base.clone() },
            Material { files: vec![], ..base.clone() },
            Material { files: vec![("mask".into(), Digest([3; 32]))], ..base.clone() },
            Material { files: vec![("mask2".into(), Digest([2; 32]))], ..base.clone() },
            Material { node_fingerprint: Some(String::new()), ..base.clone() },
            Material { node_fingerprint: Some("w".into()), ..base.clone() },
            Material { host_fingerprint: "cuda".into(), ..base.clone() },
        ];
        let keys: std::collections::HashSet<_> = variants.iter().map(Material::key).collect();
        assert_eq!(keys.len(), variants.len());
        assert_eq!(base.key(), material().key());
    }

    #[test]
    fn text_cannot_move_from_one_part_to_the_next() {
        let one = Material { node_type: "ab".into(), params: "c".into(), ..material() };
        let other = Material { node_type: "a".into(), params: "bc".into(), ..material() };
        assert_ne!(one.key(), other.key());
    }

    #[test]
    fn canonical_form_sorts_keys_at_every_depth() {
        let json = json!({ "b": [ { "d": 1, "c": "\"" }, null, 1.0 ], "a": true });
        assert_eq!(canonical_json(&json), r#"{"a":true,"b":[{"c":"\"","d":1},null,1.0]}"#);
    }

    /// If keys change while [`FORMAT`] stays, results cached by earlier versions are wrong or lost.
    #[test]
    fn keys_of_this_format_stay_as_they_are() {
        assert_eq!(material().key().to_string(), "7059183b54d7ce05551ce1c53752009385f4ca2626577d7caed0c9acccfc6900");
    }
}
