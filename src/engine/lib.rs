//! The engine of lsregen: a graph written in YAML is read, checked whole, planned and run.
//!
//! ```text
//! YAML text ─► Document ─► Graph ─► Plan ─► Executor ─► Store ─► outputs
//!              typed,      checked   memo    lanes,      memory,
//!              spanned     types,    keys,   events,     disk
//!                          no cycle  hits    cancel
//! ```
//!
//! One direction, one type a station, one file a station; the modules below stand in that order. The engine knows no
//! tensor, no picture and no model: what its nodes do is their own affair.

// What a node is, what it may know, and how it is told to a reader.
mod context;
mod event;
mod lane;
mod node;
mod links;
mod socket;
mod value;
mod schema;
mod registry;
pub mod reference;
mod workflow_schema;

// Text → Document → Graph, or what is wrong with it.
mod source;
mod diagnostic;
mod sink;
mod yaml;
mod source_map;
mod nearest;
mod overrides;
mod document;
mod resolved;
mod graph;
mod check;

// Graph → Plan → Executor → Store.
mod digest;
mod files;
mod key;
mod plan;
mod live;
mod panic;
mod record;
mod task;
mod run;
mod executor;
mod store;
mod explain;

// What the rest is made of may change on disk.
mod watch;

pub use check::{Checked, GraphReader, check, check_with, read_source};
pub use context::{Cancel, Cancelled, CheckContext, Context, Host};
pub use diagnostic::{Diagnostic, Label, Severity, render, to_json};
pub use digest::{Digest, ParseDigestError};
pub use document::Document;
pub use event::{Event, Subscriber};
pub use executor::{Executor, RunRequest, Running};
pub use explain::{Cause, Difference, Explanation, NearestResult};
pub use files::{FileDigests, FileError, FileState};
pub use graph::{Cycle, Graph, GraphNode, Included, Link};
pub use key::{InputMaterial, Key, Material, canonical_json};
pub use lane::{Lane, Lanes};
pub use links::{LinkedNode, Links};
pub use nearest::nearest;
pub use node::{DynNode, Effect, FetchProgress, FileRef, Node, NodeError, NodeType};
pub use overrides::Override;
pub use petgraph::graph::NodeIndex;
pub use plan::{Action, Counts, Plan, PlanError, RunReason, SkipReason, Step};
pub use record::{GraphRecord, Record, RecordError};
pub use registry::{ParamDoc, Registry, RegistryEntry};
pub use run::{Outcome, Summary};
pub use socket::{Arity, Inputs, Outputs, Socket, SocketError, SocketSpec};
pub use source::{Position, Source, Span};
pub use store::{
    Blob, CacheFolder, CacheStatus, Damaged, DiskStore, Manifest, MemoryStore, Pressure, Store, SweepReport, TypeUsage,
    Warn,
};
pub use value::{AnyCodec, Codec, EdgeValue, Payload};
pub use watch::{Changed, Watcher};
pub use workflow_schema::workflow_schema;
