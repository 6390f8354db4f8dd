//! The engine of lsregen: reads a graph written in YAML, checks all of it, plans it and runs it.
//!
//! ```text
//! YAML text ─► Document ─► Graph ─► Plan ─► Executor ─► Store ─► outputs
//!              typed,      checked   memo    lanes,      memory,
//!              spanned     types,    keys,   events,     disk
//!                          acyclic   cached  cancel
//! ```
//!
//! The modules stand in the order of this flow, and each uses only modules above it. The engine knows no tensor, image
//! or model: those belong to the node types.

#![warn(missing_docs)]

// Texts, locations in them, and what is reported about them.
mod text;
// Memo keys.
mod key;
// Node types, their sockets and values, and what a node can ask its host.
mod node;
// Text → Document.
mod document;
// The known node types, and their documentation.
mod registry;
// Document → Graph.
mod graph;
// Cached results, and digests of files.
mod store;
// Graph → Plan.
mod plan;
// Plan → outputs.
mod run;
// Changes of files on disk.
mod watch;

pub use document::{Document, Override};
pub use graph::{Checked, Cycle, Graph, GraphNode, Included, Link, check, check_with};
pub use key::{Digest, InputMaterial, Key, Material, ParseDigestError, canonical_json};
pub use node::{
    AnyCodec, Arity, Cancel, Cancelled, CheckContext, Codec, Context, DynNode, EdgeValue, Effect, Event, FetchProgress,
    FileRef, Host, Inputs, Lane, Lanes, LinkedNode, Links, Node, NodeError, NodeType, Outputs, Payload, RunRecord,
    Socket, SocketError, SocketSpec, Subscriber,
};
pub use petgraph::graph::NodeIndex;
pub use plan::{
    Action, Cause, Counts, Difference, Explanation, NearestResult, Plan, PlanError, RunReason, SkipReason, Step, fetch,
};
pub use registry::{ParamDoc, Registry, RegistryEntry, reference, workflow_schema};
pub use run::{Executor, GraphRecord, Outcome, Record, RecordError, RunRequest, Running, Summary};
pub use store::{
    Blob, CacheFolder, CacheStatus, Damaged, DiskStore, FileDigests, FileError, FileState, Manifest, MemoryStore,
    Pressure, Store, SweepReport, TypeUsage, Warn,
};
pub use text::{Diagnostic, GraphReader, Label, Position, Severity, Source, Span, read_source, render, to_json};
pub use watch::{Changed, Watcher};
