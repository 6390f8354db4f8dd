//! The engine of lsregen: reads a graph written in YAML, checks all of it, plans it and runs it.
//!
//! ```text
//! YAML text ─► Document ─► Graph ─► Plan ─► Executor ─► Store ─► outputs
//!              typed,      checked   memo    lanes,      memory,
//!              spanned     types,    keys,   events,     disk
//!                          acyclic   cached  cancel
//! ```
//!
//! The modules below are in the order of this flow, and each uses only modules above it. The engine knows no tensor, image
//! or model: those belong to the node types.
//!
//! # Example
//!
//! Two node types, and a run of a graph of them:
//!
//! ```
//! use std::sync::{Arc, Mutex};
//!
//! use lsregen_engine::*;
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//!
//! struct Text(String);
//!
//! impl Payload for Text {
//!     const TYPE: &'static str = "Text";
//!
//!     fn bytes(&self) -> usize {
//!         self.0.len()
//!     }
//! }
//!
//! outputs! {
//!     pub struct GreetOutputs {
//!         /// The greeting.
//!         pub text: Arc<Text>,
//!     }
//! }
//!
//! /// Greets someone.
//! #[derive(Serialize, Deserialize, JsonSchema)]
//! struct Greet {
//!     /// Whom to greet.
//!     name: String,
//! }
//!
//! impl Node for Greet {
//!     const TYPE: &'static str = "Greet";
//!     const VERSION: u32 = 1;
//!     type Inputs = ();
//!     type Outputs = GreetOutputs;
//!
//!     fn run(&self, _: (), _: &Context) -> anyhow::Result<GreetOutputs> {
//!         Ok(GreetOutputs { text: Arc::new(Text(format!("Hello, {}!", self.name))) })
//!     }
//! }
//!
//! sockets! {
//!     pub struct PrintInputs {
//!         /// The text to print.
//!         pub text: Arc<Text>,
//!     }
//! }
//!
//! /// Prints a text.
//! #[derive(Serialize, Deserialize, JsonSchema)]
//! struct Print {}
//!
//! impl Node for Print {
//!     const TYPE: &'static str = "Print";
//!     const VERSION: u32 = 1;
//!     const OUTPUT: bool = true;
//!     type Inputs = PrintInputs;
//!     type Outputs = ();
//!
//!     fn run(&self, inputs: PrintInputs, cx: &Context) -> anyhow::Result<()> {
//!         cx.note(inputs.text.0.as_str());
//!         Ok(())
//!     }
//! }
//!
//! let text = "
//! lsregen: 1
//! nodes:
//!   greet: { type: Greet, name: world }
//!   print: { type: Print, text: greet }
//! ";
//! let registry = Registry::new(&[NodeType::of::<Greet>(), NodeType::of::<Print>()]);
//! let host = Arc::new(Host::new(".", "."));
//! let checked = check(Source::new("graph.yaml", text), &[], &registry, &host);
//! let graph = Arc::new(checked.graph.expect("no errors"));
//!
//! let store = Arc::new(Store::in_memory(1 << 20));
//! let plan = Plan::new(&graph, &host, &store, &FileDigests::new()).expect("keys for all nodes");
//! assert_eq!(plan.counts().run, 2);
//!
//! let printed: Arc<Mutex<Vec<String>>> = Arc::default();
//! let subscriber = {
//!     let printed = printed.clone();
//!     Arc::new(move |event: &Event| {
//!         if let Event::Note { text, .. } = event {
//!             printed.lock().unwrap().push(text.clone());
//!         }
//!     })
//! };
//! let request = RunRequest { graph, plan, host, subscriber, cancel: Cancel::new(), fail_fast: false };
//! let executor = Executor::new(Lanes::NARROW, store);
//! let runtime = tokio::runtime::Runtime::new().unwrap();
//! let summary = runtime.block_on(async { executor.start(request).finished().await });
//! assert!(summary.succeeded());
//! assert_eq!(*printed.lock().unwrap(), ["Hello, world!"]);
//! ```

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
pub use graph::{Checked, Cycle, DrawnSeed, Graph, GraphNode, Included, Link, check, check_with};
pub use key::{Digest, InputMaterial, Key, Material, ParseDigestError, canonical_json};
pub use node::{
    AnyCodec, Arity, Cancel, Cancelled, CheckContext, Codec, Context, Declaration, DynNode, EdgeValue, Effect, Event,
    FetchProgress, FileRef, Findings, Host, Inputs, Lane, Lanes, LinkedNode, Links, Node, NodeError, NodeType,
    OutputRules, Outputs, Payload, RecordPart, RunRecord, Socket, SocketError, SocketSpec, Subscriber,
};
pub use petgraph::graph::NodeIndex;
pub use plan::{
    Action, Cause, Counts, Difference, Explanation, NearestResult, Plan, PlanError, RunReason, SkipReason, Step, fetch,
};
pub use registry::{ParamDoc, ParamRole, Registry, RegistryEntry, reference, workflow_schema};
pub use run::{Executor, GraphRecord, Outcome, Record, RecordError, RunRequest, Running, Summary};
pub use store::{
    Blob, CacheFolder, CacheStatus, Damaged, DiskStore, FileDigests, FileError, FileState, Manifest, MemoryStore,
    Pressure, Store, SweepReport, TypeUsage, Verified, Warn,
};
pub use text::{
    Diagnostic, ForeignName, GraphReader, Label, Position, Severity, Source, Span, decoded, filled, nearest,
    read_source, render, render_within, to_json, visible,
};
pub use watch::{Changed, Watcher};
