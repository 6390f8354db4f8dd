//! Node types: parameters that know how to run.
//!
//! The parameters are the struct itself, so that documentation, defaults, schema, memo key and code stand in one file.
//! Independent of documents and graphs.

mod context;
mod event;
mod host;
mod lane;
mod links;
mod panic;
mod socket;
mod value;

use std::path::PathBuf;
use std::sync::Arc;

use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::context::Awaited;
pub use self::context::{Cancel, Cancelled, CheckContext, Context, Findings, RecordPart, RunRecord};
pub use self::event::{Event, Subscriber};
pub use self::host::{Host, OutputRules};
pub use self::lane::{Lane, Lanes};
pub use self::links::{Declaration, LinkedNode, Links};
pub(crate) use self::panic::guarded;
pub use self::socket::{Arity, Inputs, Outputs, Socket, SocketError, SocketSpec};
pub use self::value::{AnyCodec, Codec, EdgeValue, Payload};

/// A type of node. The doc comments of the struct and its fields are its documentation for users. Ranges given by
/// `#[schemars(range(min = …, max = …))]` and `length` are documented and checked.
pub trait Node: Serialize + DeserializeOwned + JsonSchema + Send + Sync + Sized + 'static {
    /// The name of the type: what the document has after `type:`.
    const TYPE: &'static str;

    /// Part of the memo key. Raise it when the same parameters and inputs give another output than before.
    const VERSION: u32;

    /// The resource that the node keeps busy.
    const LANE: Lane = Lane::Cpu;

    /// Whether a run executes this node for its effect, such as an image that it saves. Other nodes run only if an
    /// output node needs them.
    const OUTPUT: bool = false;

    /// The struct of its input sockets: see [`sockets!`](crate::sockets).
    type Inputs: Inputs;

    /// The struct of its output sockets: see [`outputs!`](crate::outputs).
    type Outputs: Outputs;

    /// Reports errors in the parameters that types and ranges cannot express, such as combinations, and warnings. Must be
    /// fast, and read as little as possible.
    fn check(&self, _cx: &CheckContext) -> Vec<NodeError> {
        vec![]
    }

    /// Reports errors and warnings that depend on the nodes to which this one is linked, such as settings that must agree.
    fn check_links(&self, _links: &Links) -> Vec<NodeError> {
        vec![]
    }

    /// The files that the node reads. They must exist, and their contents are part of the memo key.
    fn files(&self, _cx: &CheckContext) -> Vec<FileRef> {
        vec![]
    }

    /// Downloads the node's files that are not on this machine, such as a model from a hub. Called before a run, but
    /// never by a check. Returns whether anything was downloaded: then the graph has to be checked again.
    ///
    /// # Errors
    /// Returns which file could not be downloaded, and why.
    fn fetch(&self, _cx: &CheckContext, _progress: &mut dyn FnMut(FetchProgress)) -> Result<bool, NodeError> {
        Ok(false)
    }

    /// The files that the node writes. No two nodes may write the same file.
    fn writes(&self, _cx: &CheckContext) -> Vec<FileRef> {
        vec![]
    }

    /// What keeps the node from its effect although the graph is valid, such as a file that it would have to replace. Asked
    /// before a run, so that nothing is computed in vain.
    fn obstacle(&self, _cx: &CheckContext) -> Option<NodeError> {
        None
    }

    /// Anything else that changes the outputs, such as the digest of built-in weights. Part of the memo key.
    fn fingerprint(&self) -> Option<String> {
        None
    }

    /// The variant (model family) of each output, if the node knows it before the run: `("model", "sdxl")`.
    fn variants(&self, _cx: &CheckContext) -> Vec<(&'static str, String)> {
        vec![]
    }

    /// A copy of the node that knows what its links declare, if it needs that for more than its checks, such as how many files
    /// it writes. It takes the place of the node; its memo key must be the same.
    fn linked(&self, _links: &Links) -> Option<Self> {
        None
    }

    /// What the node declares of its outputs before a run, for the [`check_links`](Node::check_links) of the nodes that link
    /// to them: at most one value of any type for each output, such as `("image", Box::new(ImageInfo { … }))`. The engine
    /// carries declarations and does not look into them.
    fn declare(&self, _links: &Links, _cx: &CheckContext) -> Vec<(&'static str, Declaration)> {
        vec![]
    }

    /// Whether the effect of a run with these outputs, such as a file that it wrote, is still there. Reports the files that
    /// are there: see [`Context::saved`].
    fn effect(&self, _outputs: &Self::Outputs, _cx: &Context) -> Effect {
        Effect::Intact
    }

    /// Restores the effect of a cached result. Called if [`effect`](Node::effect) returns [`Effect::Restorable`].
    ///
    /// # Errors
    /// As for [`run`](Node::run).
    fn restore(&self, _outputs: &Self::Outputs, _cx: &Context) -> anyhow::Result<()> {
        Ok(())
    }

    /// Runs the node.
    ///
    /// # Errors
    /// Say what happened, where, and what to do. Return [`Cancelled`] as it is.
    fn run(&self, inputs: Self::Inputs, cx: &Context) -> anyhow::Result<Self::Outputs>;
}

/// The state of a node's effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is as the run left it, or there never was one.
    Intact,
    /// It is gone or changed, but [`Node::restore`] can restore it from the outputs.
    Restorable,
    /// It is gone or changed, and only another run brings it back.
    Gone,
}

/// An error in a node's parameters or links, or a warning: the graph runs, but probably not as intended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeError {
    /// The code of the warning, as in `lsregen explain`; `None` for an error.
    pub warning: Option<&'static str>,
    /// Where: keys and indices below the node, as in `boxes/1/box`; empty for the node as a whole.
    pub path: String,
    /// What is wrong, or doubtful.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl NodeError {
    /// An error at `path`, without help.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> NodeError {
        NodeError { warning: None, path: path.into(), message: message.into(), help: None }
    }

    /// Makes it a warning with this code.
    pub fn as_warning(self, code: &'static str) -> NodeError {
        NodeError { warning: Some(code), ..self }
    }

    /// Whether it is an error, not a warning.
    pub fn is_error(&self) -> bool {
        self.warning.is_none()
    }

    /// Sets the help.
    pub fn help(mut self, help: impl Into<String>) -> NodeError {
        self.help = Some(help.into());
        self
    }
}

/// A file that a node reads or writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRef {
    /// The parameter that names it, as in [`NodeError::path`].
    pub param: String,
    /// The resolved path.
    pub path: PathBuf,
    /// The node has read the file, so that the check need not try to.
    pub is_readable: bool,
}

impl FileRef {
    /// A file that the parameter `param` names.
    pub fn new(param: impl Into<String>, path: impl Into<PathBuf>) -> FileRef {
        FileRef { param: param.into(), path: path.into(), is_readable: false }
    }

    /// The same file, of which the node knows that it can be read.
    pub fn readable(self) -> FileRef {
        FileRef { is_readable: true, ..self }
    }
}

/// The progress of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchProgress<'a> {
    /// The name of the file.
    pub file: &'a str,
    /// Bytes downloaded.
    pub done: u64,
    /// Bytes in all.
    pub of: u64,
}

/// A [`Node`] of any type.
#[allow(missing_docs)] // Each method is the one of `Node` with the same name.
pub trait DynNode: Send + Sync {
    fn check(&self, cx: &CheckContext) -> Vec<NodeError>;
    fn check_links(&self, links: &Links) -> Vec<NodeError>;
    fn files(&self, cx: &CheckContext) -> Vec<FileRef>;
    fn fetch(&self, cx: &CheckContext, progress: &mut dyn FnMut(FetchProgress)) -> Result<bool, NodeError>;
    fn writes(&self, cx: &CheckContext) -> Vec<FileRef>;
    fn obstacle(&self, cx: &CheckContext) -> Option<NodeError>;
    fn fingerprint(&self) -> Option<String>;
    fn variants(&self, cx: &CheckContext) -> Vec<(&'static str, String)>;
    fn linked(&self, links: &Links) -> Option<Arc<dyn DynNode>>;
    fn declare(&self, links: &Links, cx: &CheckContext) -> Vec<(&'static str, Declaration)>;
    fn effect(&self, outputs: &[EdgeValue], cx: &Context) -> Effect;
    fn restore(&self, outputs: &[EdgeValue], cx: &Context) -> anyhow::Result<()>;
    /// Runs the node with the values of each socket, in the order of the type's input sockets.
    fn run(&self, inputs: Vec<Vec<EdgeValue>>, cx: &Context) -> anyhow::Result<Vec<EdgeValue>>;
    /// The parameters, including those that have their default.
    fn params(&self) -> Result<serde_json::Value, serde_json::Error>;
}

impl<N: Node> DynNode for N {
    fn check(&self, cx: &CheckContext) -> Vec<NodeError> {
        Node::check(self, cx)
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        Node::check_links(self, links)
    }

    fn files(&self, cx: &CheckContext) -> Vec<FileRef> {
        Node::files(self, cx)
    }

    fn fetch(&self, cx: &CheckContext, progress: &mut dyn FnMut(FetchProgress)) -> Result<bool, NodeError> {
        Node::fetch(self, cx, progress)
    }

    fn writes(&self, cx: &CheckContext) -> Vec<FileRef> {
        Node::writes(self, cx)
    }

    fn obstacle(&self, cx: &CheckContext) -> Option<NodeError> {
        Node::obstacle(self, cx)
    }

    fn fingerprint(&self) -> Option<String> {
        Node::fingerprint(self)
    }

    fn variants(&self, cx: &CheckContext) -> Vec<(&'static str, String)> {
        Node::variants(self, cx)
    }

    fn linked(&self, links: &Links) -> Option<Arc<dyn DynNode>> {
        Node::linked(self, links).map(|node| Arc::new(node) as Arc<dyn DynNode>)
    }

    fn declare(&self, links: &Links, cx: &CheckContext) -> Vec<(&'static str, Declaration)> {
        Node::declare(self, links, cx)
    }

    fn effect(&self, outputs: &[EdgeValue], cx: &Context) -> Effect {
        N::Outputs::from_values(outputs).map_or(Effect::Gone, |outputs| Node::effect(self, &outputs, cx))
    }

    fn restore(&self, outputs: &[EdgeValue], cx: &Context) -> anyhow::Result<()> {
        Node::restore(self, &N::Outputs::from_values(outputs)?, cx)
    }

    fn run(&self, inputs: Vec<Vec<EdgeValue>>, cx: &Context) -> anyhow::Result<Vec<EdgeValue>> {
        Ok(Node::run(self, N::Inputs::from_values(inputs)?, cx)?.into_values())
    }

    fn params(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::to_value(self)
    }
}

/// A node type as data: the constants of a [`Node`], and how to create a node of it.
#[derive(Clone, Copy)]
pub struct NodeType {
    /// [`Node::TYPE`].
    pub name: &'static str,
    /// [`Node::VERSION`].
    pub version: u32,
    /// [`Node::LANE`].
    pub lane: Lane,
    /// [`Node::OUTPUT`].
    pub output: bool,
    /// Its input sockets.
    pub inputs: &'static [SocketSpec],
    /// Its output sockets.
    pub outputs: &'static [SocketSpec],
    /// Returns the JSON Schema of the parameters.
    pub schema: fn() -> Schema,
    /// Creates a node from parameters. The [path](NodeError::path) of the error says which parameter is invalid.
    pub decode: fn(&serde_json::Value) -> Result<Arc<dyn DynNode>, NodeError>,
}

impl NodeType {
    /// The type of the nodes `N`.
    pub const fn of<N: Node>() -> NodeType {
        NodeType {
            name: N::TYPE,
            version: N::VERSION,
            lane: N::LANE,
            output: N::OUTPUT,
            inputs: N::Inputs::SPECS,
            outputs: N::Outputs::SPECS,
            schema: || schemars::schema_for!(N),
            decode: decode::<N>,
        }
    }
}

fn decode<N: Node>(params: &serde_json::Value) -> Result<Arc<dyn DynNode>, NodeError> {
    match serde_path_to_error::deserialize::<_, N>(params) {
        Ok(node) => Ok(Arc::new(node)),
        Err(error) => {
            let path = error.path().iter().filter_map(|segment| match segment {
                serde_path_to_error::Segment::Seq { index } => Some(index.to_string()),
                serde_path_to_error::Segment::Map { key } => Some(key.clone()),
                _ => None,
            });
            Err(NodeError::new(path.collect::<Vec<_>>().join("/"), error.inner().to_string()))
        }
    }
}
