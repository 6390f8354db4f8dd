//! What travels along an edge: a shared, immutable value with a type name, a size, and perhaps a form for the disk.
//!
//! The set of payloads is open: the engine moves, counts, keeps and drops values, and never names one.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// A type that may travel along an edge.
pub trait Payload: Send + Sync + Sized + 'static {
    /// The name by which sockets are matched and which diagnostics show, such as `Image`. One name, one Rust type.
    const TYPE: &'static str;

    /// Memory held, in bytes; the store's bound counts it. Device memory counts too.
    fn bytes(&self) -> usize;

    /// How it is kept on disk. Without one, as a loaded model, it lives in memory only.
    const CODEC: Option<Codec<Self>> = None;
}

/// The form of a payload on disk. What is decoded must equal what was encoded, to the bit.
pub struct Codec<P> {
    /// The format, and the file's extension: `safetensors`, `png`, `json`.
    pub format: &'static str,
    /// Raise it when the bytes mean something else than before: older ones are then no longer read.
    pub version: u32,
    /// `None` where this value cannot be kept, though others of its type can.
    pub encode: fn(&P) -> anyhow::Result<Option<Vec<u8>>>,
    pub decode: fn(&[u8]) -> anyhow::Result<P>,
}

/// A [`Codec`] whose payload's type is forgotten: what an output socket knows of its values' form on disk.
#[derive(Clone, Copy)]
pub struct AnyCodec {
    pub format: &'static str,
    pub version: u32,
    pub decode: fn(&[u8]) -> anyhow::Result<EdgeValue>,
    encode: fn(&(dyn Any + Send + Sync)) -> anyhow::Result<Option<Vec<u8>>>,
}

impl AnyCodec {
    /// That of a payload's type, if it has one.
    pub const fn of<P: Payload>() -> Option<AnyCodec> {
        match P::CODEC {
            None => None,
            Some(Codec { format, version, .. }) => {
                Some(AnyCodec { format, version, decode: decode::<P>, encode: encode::<P> })
            }
        }
    }

    /// The bytes of a value of this codec's type; `None` where it cannot be kept.
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
        _ => anyhow::bail!("this is no {} (a bug of the engine)", P::TYPE),
    }
}

fn decode<P: Payload>(bytes: &[u8]) -> anyhow::Result<EdgeValue> {
    match P::CODEC {
        Some(codec) => Ok(EdgeValue::new(Arc::new((codec.decode)(bytes)?))),
        None => anyhow::bail!("{} has no form on disk (a bug of the engine)", P::TYPE),
    }
}

/// One value on an edge: cheap to clone, shared by all its readers.
#[derive(Clone)]
pub struct EdgeValue {
    type_name: &'static str,
    bytes: usize,
    payload: Arc<dyn Any + Send + Sync>,
}

impl EdgeValue {
    /// Wraps a payload. Its size is asked for here, once.
    pub fn new<P: Payload>(payload: Arc<P>) -> EdgeValue {
        EdgeValue { type_name: P::TYPE, bytes: payload.bytes(), payload }
    }

    /// The payload, if this value holds a `P`.
    pub fn get<P: Payload>(&self) -> Option<Arc<P>> {
        self.payload.clone().downcast().ok()
    }

    /// [`Payload::TYPE`] of what is inside.
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }

    /// [`Payload::bytes`] of what is inside.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl fmt::Debug for EdgeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({} bytes)", self.type_name, self.bytes)
    }
}
