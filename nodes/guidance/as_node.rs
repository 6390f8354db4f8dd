//! What guidance nodes share: a trait for what each one is, and the node that it becomes.

use std::sync::Arc;

use lsregen_engine::{
    CheckContext, Context, Declaration, FetchProgress, FileRef, Inputs, Lane, Links, Node, NodeError, NodeType,
    Payload, outputs,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::params::clip::ClipPath;
use crate::params::guidance::{GuidanceParams, Strength};
use crate::values::{Guidance, Image, Phrases, SamplingNeeds, batch_errors, declared};

/// The parameters of a node that creates a guidance for samplings of any size. [`node_type`](GuidanceNode::node_type)
/// makes it a node, with the checks that all guidances have.
pub trait GuidanceNode: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// The name of the node type.
    const TYPE: &'static str;
    /// See [`Node::VERSION`].
    const VERSION: u32;
    /// See [`Node::LANE`].
    const LANE: Lane = Lane::Cpu;
    /// The name of the parameter that [`strength`](Self::strength) returns.
    const STRENGTH: &'static str = "scale";

    /// The struct of its input sockets; `layout` is the socket of the boxes in which the guidance acts.
    type Inputs: Inputs;

    /// Returns how strong the guidance is.
    fn strength(&self) -> Strength;

    /// Returns the parameters that every guidance has.
    fn params(&self) -> &GuidanceParams;

    /// Creates the guidance.
    ///
    /// # Errors
    /// As for [`Node::run`].
    fn guidance(&self, inputs: Self::Inputs, cx: &Context) -> anyhow::Result<Guidance>;

    /// Returns what it requires of a sampling that it guides, such as phrases that the prompt must contain. The phrases of
    /// its layout are added.
    fn needs(&self, _links: &Links) -> SamplingNeeds {
        SamplingNeeds::default()
    }

    /// Reports errors in its own parameters: see [`Node::check`].
    fn check(&self, _cx: &CheckContext) -> Vec<NodeError> {
        vec![]
    }

    /// Reports errors in its own links: see [`Node::check_links`].
    fn check_links(&self, _links: &Links) -> Vec<NodeError> {
        vec![]
    }

    /// Returns the files that it reads, besides those of a CLIP.
    fn files(&self, _cx: &CheckContext) -> Vec<FileRef> {
        vec![]
    }

    /// Returns the CLIP that it loads, if it loads one.
    fn clip(&self) -> Option<ClipPath<'_>> {
        None
    }

    /// Returns the node type, for a registry.
    fn node_type() -> NodeType
    where
        Self: Sized,
    {
        NodeType::of::<AsNode<Self>>()
    }
}

/// A [`GuidanceNode`] as a [`Node`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent, bound(deserialize = "G: DeserializeOwned"))]
pub struct AsNode<G>(pub G);

impl<G: JsonSchema> JsonSchema for AsNode<G> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        G::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        G::json_schema(generator)
    }
}

outputs! {
    /// The output of every guidance node but Invert.
    pub struct GuidanceOutputs {
        /// The guidance, for any sampling.
        pub guidance: Arc<Guidance>,
    }
}

impl<G: GuidanceNode> Node for AsNode<G> {
    const TYPE: &'static str = G::TYPE;
    const VERSION: u32 = G::VERSION;
    const LANE: Lane = G::LANE;

    type Inputs = G::Inputs;
    type Outputs = GuidanceOutputs;

    fn check(&self, cx: &CheckContext) -> Vec<NodeError> {
        let clip = self.0.clip().and_then(|clip| clip.error(cx));
        self.0.params().errors().into_iter().chain(clip).chain(self.0.check(cx)).collect()
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        let auto = self.0.params().auto_error(G::STRENGTH, self.0.strength(), links);
        // A guidance has one reference.
        let images = G::Inputs::SPECS.iter().filter(|socket| socket.type_name == Image::TYPE);
        let batches = batch_errors(links, images.map(|socket| socket.name));
        auto.into_iter().chain(batches).chain(self.0.check_links(links)).collect()
    }

    fn declare(&self, links: &Links, _: &CheckContext) -> Vec<(&'static str, Declaration)> {
        let params = self.0.params();
        let window = params.window().filter(|_| params.errors().is_empty());
        let layout = Phrases::of_layout(links);
        declared("guidance", Some(SamplingNeeds { layout, window, ..self.0.needs(links) }))
    }

    fn files(&self, cx: &CheckContext) -> Vec<FileRef> {
        let clip = self.0.clip().map(|clip| clip.files(cx));
        clip.into_iter().flatten().chain(self.0.files(cx)).collect()
    }

    fn fetch(&self, cx: &CheckContext, progress: &mut dyn FnMut(FetchProgress)) -> Result<bool, NodeError> {
        self.0.clip().map_or(Ok(false), |clip| clip.fetch(cx, progress))
    }

    fn fingerprint(&self) -> Option<String> {
        self.0.clip()?.fingerprint()
    }

    fn run(&self, inputs: G::Inputs, cx: &Context) -> anyhow::Result<GuidanceOutputs> {
        Ok(GuidanceOutputs { guidance: Arc::new(self.0.guidance(inputs, cx)?) })
    }
}
