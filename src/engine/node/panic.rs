//! Turns a panic in a node's code into an error, so that a bug of one node does not end the run or the program.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// A node's code panicked.
#[derive(Debug, thiserror::Error)]
#[error("it panicked: {text} (this is a bug of the node type `{node_type}`, not of the graph)")]
pub(crate) struct Panicked {
    node_type: &'static str,
    text: String,
}

/// Calls code of a node of the type `node_type`.
///
/// # Errors
/// Returns the panic, if the code panics.
pub(crate) fn guarded<T>(node_type: &'static str, call: impl FnOnce() -> T) -> Result<T, Panicked> {
    // `call` reaches no state of the engine that a panic could leave half-changed.
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Panicked { node_type, text: text.unwrap_or_else(|| "without a message".into()) }
    })
}
