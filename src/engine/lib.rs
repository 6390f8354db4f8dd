//! The engine of lsregen: a graph written in YAML is read, checked whole, planned and run.
//!
//! ```text
//! YAML text ─► Document ─► Graph ─► Plan ─► Executor ─► Store ─► outputs
//!              typed,      checked   memo    events,     memory
//!              spanned     types,    keys,   cancel
//!                          no cycle  hits
//! ```
//!
//! One direction, one type a station, one file a station; the modules below stand in that order. The engine knows no
//! tensor, no picture and no model: what its nodes do is their own affair.

// What a node is.
mod context;
mod event;
mod lane;
mod node;
pub mod reference;
mod registry;
mod schema;
mod socket;
mod value;

// Where the data goes.
mod check;
mod diagnostic;
mod document;
mod graph;
mod key;
mod nearest;
mod overrides;
mod source;
mod yaml;

pub use check::{Checked, check, read_source};
pub use context::{Cancel, Cancelled, CheckContext, Context, Host};
pub use diagnostic::{Diagnostic, Label, Severity, render, to_json};
pub use document::Document;
pub use event::{Event, Subscriber};
pub use graph::{Cycle, Graph, GraphNode, Link};
pub use key::Key;
pub use lane::Lane;
pub use node::{DynNode, Fault, FileRef, Node, NodeType};
pub use overrides::Override;
pub use registry::{Entry, ParamDoc, Registry};
pub use socket::{Arity, Inputs, Outputs, Socket, SocketError, SocketSpec};
pub use source::{Position, Source, Span};
pub use value::{Payload, Value};
