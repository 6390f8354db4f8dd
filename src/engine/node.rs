//! A node: parameters that know how to run. And its type, erased, as the registry holds it.
//!
//! Parameters are the struct itself, so that documentation, defaults, schema, memo key and code stand in one file.
//! Knows nothing of documents or of other nodes.

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;

use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::{CheckContext, Context};
use crate::lane::Lane;
use crate::links::{Declaration, Links};
use crate::socket::{Inputs, Outputs, SocketSpec};
use crate::value::EdgeValue;

/// A kind of node. The doc comments of the struct and its fields are the reference the user reads; ranges given by
/// `#[schemars(range(min = …, max = …))]` and `length` are checked as well as shown.
pub trait Node: Serialize + DeserializeOwned + JsonSchema + Send + Sync + Sized + 'static {
    /// What the document writes after `type:`.
    const TYPE: &'static str;

    /// Part of the memo key: raise it when the same parameters and inputs give another output than before.
    const VERSION: u32;

    const LANE: Lane = Lane::Cpu;

    /// Whether a run wants this node for its own sake (a picture saved), not for what others make of it.
    const OUTPUT: bool = false;

    type Inputs: Inputs;
    type Outputs: Outputs;

    /// Faults that types and ranges cannot say, such as combinations. Quick; reads no more than it must.
    fn check(&self, _cx: &CheckContext) -> Vec<NodeError> {
        vec![]
    }

    /// Faults that show only beside the nodes that this one is linked to, such as settings that must agree.
    fn check_links(&self, _links: &Links) -> Vec<NodeError> {
        vec![]
    }

    /// What the node reads from disk. The files must exist; their content is part of the memo key.
    fn files(&self, _cx: &CheckContext) -> Vec<FileRef> {
        vec![]
    }

    /// Brings to this machine what the node's files are, where they are elsewhere: a model from a hub. Called before a run,
    /// never by a check. Says whether anything came, for then there is more to check.
    ///
    /// # Errors
    /// What could not be brought, and why.
    fn fetch(&self, _cx: &CheckContext, _progress: &mut dyn FnMut(FetchProgress)) -> Result<bool, NodeError> {
        Ok(false)
    }

    /// What the node writes, so that no two nodes write one file.
    fn writes(&self, _cx: &CheckContext) -> Vec<FileRef> {
        vec![]
    }

    /// Further material of the memo key, such as the digest of built-in weights.
    fn fingerprint(&self) -> Option<String> {
        None
    }

    /// The variant (model family) of outputs where the node itself knows it before the run: `("model", "sdxl")`.
    fn variants(&self, _cx: &CheckContext) -> Vec<(&'static str, String)> {
        vec![]
    }

    /// What the node declares of its outputs before a run, for the [`check_links`](Node::check_links) of the nodes that link
    /// to them: at most one value of any type for each output, such as `("image", Box::new(ImageSize { … }))`. The engine
    /// carries declarations and does not look into them.
    fn declare(&self, _links: &Links, _cx: &CheckContext) -> Vec<(&'static str, Declaration)> {
        vec![]
    }

    /// What has become of the effect of a run that gave these outputs, such as a file that it wrote.
    fn effect(&self, _outputs: &Self::Outputs, _cx: &Context) -> Effect {
        Effect::Intact
    }

    /// Makes the effect again of a known result, where [`effect`](Node::effect) said that this can be done.
    ///
    /// # Errors
    /// As those of [`run`](Node::run).
    fn restore(&self, _outputs: &Self::Outputs, _cx: &Context) -> anyhow::Result<()> {
        Ok(())
    }

    /// # Errors
    /// Say what happened, where, and what to do. [`Cancelled`](crate::Cancelled) is passed on as it comes.
    fn run(&self, inputs: Self::Inputs, cx: &Context) -> anyhow::Result<Self::Outputs>;
}

/// What has become of a node's effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is as the run left it, or there never was one.
    Intact,
    /// It is gone or changed, but [`Node::restore`] can make it again from the outputs.
    Restorable,
    /// It is gone or changed, and only another run brings it back.
    Gone,
}

/// A fault of a node's parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeError {
    /// Where: keys and indices from the node downward, as in `boxes/1/box`; empty for the node as a whole.
    pub path: String,
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl NodeError {
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> NodeError {
        NodeError { path: path.into(), message: message.into(), help: None }
    }

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
    /// Its place, already resolved.
    pub path: PathBuf,
}

impl FileRef {
    pub fn new(param: impl Into<String>, path: impl Into<PathBuf>) -> FileRef {
        FileRef { param: param.into(), path: path.into() }
    }
}

/// How far the bringing of a file is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchProgress<'a> {
    pub file: &'a str,
    pub done: u64,
    pub of: u64,
}

/// A node whose type is forgotten: every [`Node`] is one.
pub trait DynNode: Send + Sync {
    fn check(&self, cx: &CheckContext) -> Vec<NodeError>;
    fn check_links(&self, links: &Links) -> Vec<NodeError>;
    fn files(&self, cx: &CheckContext) -> Vec<FileRef>;
    fn fetch(&self, cx: &CheckContext, progress: &mut dyn FnMut(FetchProgress)) -> Result<bool, NodeError>;
    fn writes(&self, cx: &CheckContext) -> Vec<FileRef>;
    fn fingerprint(&self) -> Option<String>;
    fn variants(&self, cx: &CheckContext) -> Vec<(&'static str, String)>;
    fn declare(&self, links: &Links, cx: &CheckContext) -> Vec<(&'static str, Declaration)>;
    fn effect(&self, outputs: &[EdgeValue], cx: &Context) -> Effect;
    fn restore(&self, outputs: &[EdgeValue], cx: &Context) -> anyhow::Result<()>;
    /// `inputs`: the values of each socket, in the order of the type's input sockets.
    fn run(&self, inputs: Vec<Vec<EdgeValue>>, cx: &Context) -> anyhow::Result<Vec<EdgeValue>>;
    /// The parameters after defaults.
    fn params(&self) -> Result<serde_json::Value, serde_json::Error>;
    fn as_any(&self) -> &dyn Any;
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

    fn fingerprint(&self) -> Option<String> {
        Node::fingerprint(self)
    }

    fn variants(&self, cx: &CheckContext) -> Vec<(&'static str, String)> {
        Node::variants(self, cx)
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

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The facts of a node type, and how to make a node of it.
#[derive(Clone, Copy)]
pub struct NodeType {
    pub name: &'static str,
    pub version: u32,
    pub lane: Lane,
    /// See [`Node::OUTPUT`].
    pub output: bool,
    pub inputs: &'static [SocketSpec],
    pub outputs: &'static [SocketSpec],
    /// JSON Schema of the parameters.
    pub schema: fn() -> Schema,
    /// Parameters to node. The error names the place, as in [`NodeError::path`].
    pub decode: fn(&serde_json::Value) -> Result<Arc<dyn DynNode>, NodeError>,
}

impl NodeType {
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
