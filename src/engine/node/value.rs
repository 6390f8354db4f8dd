//! The values on the edges of a graph: shared and immutable, with a type name, a size, and perhaps a format on disk.
//!
//! The engine moves, counts, stores and drops values. It knows none of their types.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// A type of values on an edge.
pub trait Payload: Send + Sync + Sized + 'static {
    /// The name that sockets and diagnostics use, such as `Image`. No two Rust types may have the same name.
    const TYPE: &'static str;

    /// The memory that it uses, in bytes, including device memory. It counts towards the limit of the store.
    fn bytes(&self) -> usize;

    /// Whether a value may still read the files of the node that it comes from, and of the values that this node took: a
    /// model, whose networks are loaded when they are used. The nodes that take it then answer for these files too.
    const READS_LATE: bool = false;

    /// The format on disk. A type without one, such as a loaded model, is kept only in memory.
    const CODEC: Option<Codec<Self>> = None;
}

/// The format of a payload on disk. The decoded value must equal the encoded one bit for bit.
pub struct Codec<P> {
    /// The format, which is also the file's extension: `safetensors`, `png`, `json`.
    pub format: &'static str,
    /// Raise it when the meaning of the bytes changes. Older files are then ignored.
    pub version: u32,
    /// Encodes a value; `None` if this value cannot be stored, although others of its type can.
    pub encode: fn(&P) -> anyhow::Result<Option<Vec<u8>>>,
    /// Decodes a value.
    pub decode: fn(&[u8]) -> anyhow::Result<P>,
}

/// A [`Codec`] for payloads of any type: how an output socket stores its values.
#[derive(Clone, Copy)]
pub struct AnyCodec {
    /// [`Codec::format`].
    pub format: &'static str,
    /// [`Codec::version`].
    pub version: u32,
    /// [`Codec::decode`].
    pub decode: fn(&[u8]) -> anyhow::Result<EdgeValue>,
    encode: fn(&(dyn Any + Send + Sync)) -> anyhow::Result<Option<Vec<u8>>>,
}

impl AnyCodec {
    /// The codec of the payload type `P`, if it has one.
    pub const fn of<P: Payload>() -> Option<AnyCodec> {
        match P::CODEC {
            None => None,
            Some(Codec { format, version, .. }) => {
                Some(AnyCodec { format, version, decode: decode::<P>, encode: encode::<P> })
            }
        }
    }

    /// Encodes a value of this codec's type; `None` if it cannot be stored.
    ///
    /// # Errors
    /// Returns an error if the value has another type or cannot be encoded.
    pub fn encode(&self, value: &EdgeValue) -> anyhow::Result<Option<Vec<u8>>> {
        (self.encode)(&*value.payload)
    }
}

impl fmt::Debug for AnyCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.format, self.version)
    }
}

fn encode<P: Payload>(payload: &(dyn Any + Send + Sync)) -> anyhow::Result<Option<Vec<u8>>> {
    match (P::CODEC, payload.downcast_ref::<P>()) {
        (Some(codec), Some(payload)) => (codec.encode)(payload),
        _ => anyhow::bail!("this is not a value of type {} (this is a bug of the engine)", P::TYPE),
    }
}

fn decode<P: Payload>(bytes: &[u8]) -> anyhow::Result<EdgeValue> {
    match P::CODEC {
        Some(codec) => Ok(EdgeValue::new(Arc::new((codec.decode)(bytes)?))),
        None => anyhow::bail!("{} has no format on disk (this is a bug of the engine)", P::TYPE),
    }
}

/// A value on an edge. Clones share the payload.
#[derive(Clone)]
pub struct EdgeValue {
    type_name: &'static str,
    bytes: usize,
    payload: Arc<dyn Any + Send + Sync>,
}

impl EdgeValue {
    /// Wraps a payload. Its size is determined once, here.
    pub fn new<P: Payload>(payload: Arc<P>) -> EdgeValue {
        EdgeValue { type_name: P::TYPE, bytes: payload.bytes(), payload }
    }

    /// The payload, if this value holds a `P`.
    pub fn get<P: Payload>(&self) -> Option<Arc<P>> {
        self.payload.clone().downcast().ok()
    }

    /// The [`Payload::TYPE`] of the payload.
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }

    /// The [`Payload::bytes`] of the payload.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl fmt::Debug for EdgeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({} bytes)", self.type_name, self.bytes)
    }
}
