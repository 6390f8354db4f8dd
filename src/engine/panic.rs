//! A panic of a node's code becomes an error: a bug of one node must not take the engine, or the rest of a run, down.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// A node's code panicked.
#[derive(Debug, thiserror::Error)]
#[error("it panicked: {text} (this is a bug of the node type `{node_type}`, not of the graph)")]
pub(crate) struct Panicked {
    node_type: &'static str,
    text: String,
}

/// Calls code of a node of that type.
pub(crate) fn guarded<T>(node_type: &'static str, call: impl FnOnce() -> T) -> Result<T, Panicked> {
    // Nothing of the engine is reached by `call` in a state that a panic could leave half-done.
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Panicked { node_type, text: text.unwrap_or_else(|| "without a message".into()) }
    })
}
