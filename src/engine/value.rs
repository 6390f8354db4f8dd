//! What travels along an edge: a shared, immutable value with a type name and a size.
//!
//! The set of payloads is open: the engine moves, counts and drops values, and never names one.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// A type that may travel along an edge.
pub trait Payload: Send + Sync + 'static {
    /// The name by which sockets are matched and which diagnostics show, such as `Image`. One name, one Rust type.
    const TYPE: &'static str;

    /// Memory held, in bytes; the store's bound counts it. Device memory counts too.
    fn bytes(&self) -> usize;
}

/// One value on an edge: cheap to clone, shared by all its readers.
#[derive(Clone)]
pub struct Value {
    type_name: &'static str,
    bytes: usize,
    payload: Arc<dyn Any + Send + Sync>,
}

impl Value {
    /// Wraps a payload. Its size is asked for here, once.
    pub fn new<P: Payload>(payload: Arc<P>) -> Value {
        Value { type_name: P::TYPE, bytes: payload.bytes(), payload }
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

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({} bytes)", self.type_name, self.bytes)
    }
}
