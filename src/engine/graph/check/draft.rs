//! Nodes, links and outputs while a graph is checked.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use petgraph::graph::NodeIndex;

use super::an;
use crate::graph::Link;
use crate::node::{DynNode, SocketSpec};
use crate::registry::RegistryEntry;
use crate::text::SHOWN;
use crate::text::yaml::{Location, YamlKey, YamlValue};

/// A node while it is checked.
pub(super) struct Draft<'a> {
    /// The scope that it belongs to: its file, as one node uses it.
    pub scope: usize,
    pub key: &'a YamlKey,
    pub value: &'a YamlValue,
    /// Its type; `None` if that is invalid or a graph file.
    pub entry: Option<&'a RegistryEntry>,
    /// The scope of its graph file, if its type is one.
    pub graph: Option<usize>,
    /// `None` if its parameters are invalid.
    pub node: Option<Arc<dyn DynNode>>,
    /// The links of each input socket.
    pub links: Vec<Vec<DraftLink>>,
    /// It is part of the graph: see `Checker::keep`.
    pub kept: bool,
}

impl<'a> Draft<'a> {
    pub fn new(scope: usize, key: &'a YamlKey, value: &'a YamlValue) -> Draft<'a> {
        Draft { scope, key, value, entry: None, graph: None, node: None, links: vec![], kept: false }
    }
}

/// A link to an existing node.
pub(super) struct DraftLink {
    pub location: Location,
    /// The node that it names.
    pub named: usize,
    /// The node that produces the value. If `named` is a graph, this is a node in it.
    pub producer: usize,
    /// `None` if the output is invalid.
    pub output: Option<usize>,
}

impl DraftLink {
    pub fn is_valid(&self) -> bool {
        self.output.is_some()
    }

    /// The link in a graph whose nodes have these indices.
    pub fn finished(&self, index_of: &[NodeIndex]) -> Option<Link> {
        Some(Link { producer: index_of[self.producer], output: self.output? })
    }
}

/// An output that a file declares.
pub(super) struct DeclaredOutput<'a> {
    pub name: &'a str,
    /// `None` if it is invalid.
    pub link: Option<DraftLink>,
    /// The type of its values, or [`INVALID`].
    pub type_name: &'static str,
}

/// The outputs that a file declares.
#[derive(Default)]
pub(super) struct DeclaredOutputs<'a> {
    pub list: Vec<DeclaredOutput<'a>>,
    by_name: HashMap<&'a str, usize>,
    /// The outputs of each type.
    by_type: HashMap<&'static str, Vec<usize>>,
    /// Each type once.
    types: Vec<&'static str>,
    all: Vec<usize>,
}

impl<'a> DeclaredOutputs<'a> {
    pub fn new(list: Vec<DeclaredOutput<'a>>) -> DeclaredOutputs<'a> {
        let by_name = list.iter().enumerate().map(|(index, output)| (output.name, index)).collect();
        let (mut by_type, mut types): (HashMap<_, Vec<_>>, _) = (HashMap::new(), vec![]);
        for (index, output) in list.iter().enumerate() {
            let same_type = by_type.entry(output.type_name).or_default();
            if same_type.is_empty() {
                types.push(output.type_name);
            }
            same_type.push(index);
        }
        DeclaredOutputs { by_name, by_type, types, all: (0..list.len()).collect(), list }
    }

    pub fn has_error(&self) -> bool {
        self.list.is_empty() || self.by_type.contains_key(INVALID)
    }
}

/// The type of an invalid output.
pub(super) const INVALID: &str = "";

/// The target of a link: an input socket, or an output that a file declares.
#[derive(Clone, Copy)]
pub(super) struct Port<'a> {
    pub scope: usize,
    /// The node of the socket. For a declared output, the index after the last node of the file.
    pub consumer: usize,
    pub name: &'a str,
    /// The type of its values; `None` for any.
    pub takes: Option<&'static str>,
}

impl Port<'_> {
    /// The key that has the link.
    pub fn key(&self) -> String {
        let outputs = if self.takes.is_none() { "outputs." } else { "" };
        format!("{outputs}{}", self.name)
    }

    /// The type of its values with an article: `an Image`.
    pub fn wanted(&self) -> String {
        self.takes.map_or_else(|| "a value".into(), an)
    }
}

/// The outputs of a node: those of its type, or those that its graph file declares.
#[derive(Clone)]
pub(super) enum NodeOutputs<'a> {
    Type(&'static [SocketSpec]),
    Graph(Rc<DeclaredOutputs<'a>>),
}

impl NodeOutputs<'_> {
    pub fn len(&self) -> usize {
        match self {
            NodeOutputs::Type(sockets) => sockets.len(),
            NodeOutputs::Graph(declared) => declared.list.len(),
        }
    }

    pub fn name(&self, output: usize) -> &str {
        match self {
            NodeOutputs::Type(sockets) => sockets[output].name,
            NodeOutputs::Graph(declared) => declared.list[output].name,
        }
    }

    pub fn type_name(&self, output: usize) -> &'static str {
        match self {
            NodeOutputs::Type(sockets) => sockets[output].type_name,
            NodeOutputs::Graph(declared) => declared.list[output].type_name,
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|output| self.name(output))
    }

    /// Whether an error in them has been reported.
    pub fn has_error(&self) -> bool {
        match self {
            NodeOutputs::Type(_) => false,
            NodeOutputs::Graph(declared) => declared.has_error(),
        }
    }

    /// The output of this name.
    pub fn named(&self, name: &str) -> Option<usize> {
        match self {
            NodeOutputs::Type(sockets) => sockets.iter().position(|socket| socket.name == name),
            NodeOutputs::Graph(declared) => declared.by_name.get(name).copied(),
        }
    }

    /// The outputs of the type `takes`, or all.
    pub fn fitting(&self, takes: Option<&str>) -> Cow<'_, [usize]> {
        match (self, takes) {
            (NodeOutputs::Type(sockets), _) => {
                let fits = |&output: &usize| takes.is_none_or(|takes| takes == sockets[output].type_name);
                (0..sockets.len()).filter(fits).collect()
            }
            (NodeOutputs::Graph(declared), None) => (&declared.all).into(),
            (NodeOutputs::Graph(declared), Some(takes)) => {
                declared.by_type.get(takes).map_or(Cow::Borrowed(&[]), |same_type| same_type.into())
            }
        }
    }

    /// The types of the outputs.
    pub fn types(&self) -> Vec<&'static str> {
        match self {
            NodeOutputs::Type(sockets) => sockets.iter().map(|socket| socket.type_name).collect(),
            NodeOutputs::Graph(declared) => declared.types.clone(),
        }
    }

    /// Lists the outputs: `image` (Image), `latent` (Latent).
    pub fn listed(&self) -> String {
        let shown = (0..self.len()).take(SHOWN);
        let outputs = shown.map(|output| format!("`{}` ({})", self.name(output), self.type_name(output)));
        let more = self.len().checked_sub(SHOWN).filter(|more| *more > 0).map(|more| format!("{more} more"));
        outputs.chain(more).collect::<Vec<_>>().join(", ")
    }
}
