//! What each input socket is linked to, what a file declares as its outputs, and whether it fits.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use petgraph::graph::NodeIndex;

use super::{Checker, an};
use crate::document::did_you_mean;
use crate::graph::Link;
use crate::nearest::{SHOWN, either, either_of};
use crate::node::DynNode;
use crate::registry::RegistryEntry;
use crate::socket::{Arity, SocketSpec};
use crate::yaml::{Location, YamlData, YamlKey, YamlValue, code};

/// A node as far as it is known.
pub(super) struct Draft<'a> {
    /// The file in which it stands, as it is used there.
    pub scope: usize,
    pub key: &'a YamlKey,
    pub value: &'a YamlValue,
    /// Its type; `None` where that is faulty, or a graph.
    pub entry: Option<&'a RegistryEntry>,
    /// The scope of the graph that it is.
    pub graph: Option<usize>,
    /// `None` where its parameters are faulty.
    pub node: Option<Arc<dyn DynNode>>,
    /// Of each input socket.
    pub links: Vec<Vec<DraftLink>>,
    /// It is a node of the whole graph: see [`Checker::keep`].
    pub kept: bool,
}

impl<'a> Draft<'a> {
    pub fn new(scope: usize, key: &'a YamlKey, value: &'a YamlValue) -> Draft<'a> {
        Draft { scope, key, value, entry: None, graph: None, node: None, links: vec![], kept: false }
    }
}

/// A link to a node that is there.
pub(super) struct DraftLink {
    pub location: Location,
    /// The node that it names.
    pub named: usize,
    /// The node that makes the value: inside the one that it names, where that is a graph.
    pub producer: usize,
    /// `None` where the output is faulty.
    pub output: Option<usize>,
}

impl DraftLink {
    pub fn sound(&self) -> bool {
        self.output.is_some()
    }

    /// The link in a graph whose nodes have these indices.
    pub fn finished(&self, index_of: &[NodeIndex]) -> Option<Link> {
        Some(Link { producer: index_of[self.producer], output: self.output? })
    }
}

/// An output that a file declares.
pub(super) struct Declared<'a> {
    pub name: &'a str,
    /// `None` where it is faulty.
    pub link: Option<DraftLink>,
    /// The type of its values, where it is sound.
    type_name: &'static str,
}

/// All outputs that a file declares.
#[derive(Default)]
pub(super) struct Declarations<'a> {
    pub list: Vec<Declared<'a>>,
    by_name: HashMap<&'a str, usize>,
    /// The outputs of each type.
    by_type: HashMap<&'static str, Vec<usize>>,
    /// Each type once.
    types: Vec<&'static str>,
    all: Vec<usize>,
}

impl<'a> Declarations<'a> {
    fn new(list: Vec<Declared<'a>>) -> Declarations<'a> {
        let by_name = list.iter().enumerate().map(|(index, output)| (output.name, index)).collect();
        let (mut by_type, mut types): (HashMap<_, Vec<_>>, _) = (HashMap::new(), vec![]);
        for (index, output) in list.iter().enumerate() {
            let alike = by_type.entry(output.type_name).or_default();
            if alike.is_empty() {
                types.push(output.type_name);
            }
            alike.push(index);
        }
        Declarations { by_name, by_type, types, all: (0..list.len()).collect(), list }
    }

    fn is_faulty(&self) -> bool {
        self.list.is_empty() || self.by_type.contains_key(FAULTY)
    }
}

/// The type of an output that is faulty.
const FAULTY: &str = "";

/// What takes a link: an input socket, or an output that a file declares.
#[derive(Clone, Copy)]
struct Port<'a> {
    scope: usize,
    /// The socket's node; of a declared output, one that is behind all.
    consumer: usize,
    name: &'a str,
    /// The type of the values that it takes; `None` for any.
    takes: Option<&'static str>,
}

impl Port<'_> {
    /// The key under which the link stands.
    fn key(&self) -> String {
        let outputs = if self.takes.is_none() { "outputs." } else { "" };
        format!("{outputs}{}", self.name)
    }

    /// `an Image`.
    fn wanted(&self) -> String {
        self.takes.map_or_else(|| "a value".into(), an)
    }
}

/// The outputs of a node: those of its type, or those that the graph which it is declares.
#[derive(Clone)]
enum Gives<'a> {
    Type(&'static [SocketSpec]),
    Graph(Rc<Declarations<'a>>),
}

impl Gives<'_> {
    fn len(&self) -> usize {
        match self {
            Gives::Type(sockets) => sockets.len(),
            Gives::Graph(declared) => declared.list.len(),
        }
    }

    fn name(&self, output: usize) -> &str {
        match self {
            Gives::Type(sockets) => sockets[output].name,
            Gives::Graph(declared) => declared.list[output].name,
        }
    }

    fn type_name(&self, output: usize) -> &'static str {
        match self {
            Gives::Type(sockets) => sockets[output].type_name,
            Gives::Graph(declared) => declared.list[output].type_name,
        }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|output| self.name(output))
    }

    /// Something of it is faulty, which was told.
    fn is_faulty(&self) -> bool {
        match self {
            Gives::Type(_) => false,
            Gives::Graph(declared) => declared.is_faulty(),
        }
    }

    /// The output of this name.
    fn named(&self, name: &str) -> Option<usize> {
        match self {
            Gives::Type(sockets) => sockets.iter().position(|socket| socket.name == name),
            Gives::Graph(declared) => declared.by_name.get(name).copied(),
        }
    }

    /// The outputs of a type, or all.
    fn fitting(&self, takes: Option<&str>) -> Cow<'_, [usize]> {
        match (self, takes) {
            (Gives::Type(sockets), _) => {
                let fits = |&output: &usize| takes.is_none_or(|takes| takes == sockets[output].type_name);
                (0..sockets.len()).filter(fits).collect()
            }
            (Gives::Graph(declared), None) => (&declared.all).into(),
            (Gives::Graph(declared), Some(takes)) => {
                declared.by_type.get(takes).map_or(Cow::Borrowed(&[]), |alike| alike.into())
            }
        }
    }

    /// Of all its outputs.
    fn types(&self) -> Vec<&'static str> {
        match self {
            Gives::Type(sockets) => sockets.iter().map(|socket| socket.type_name).collect(),
            Gives::Graph(declared) => declared.types.clone(),
        }
    }

    /// `image` (Image), `latent` (Latent).
    fn listed(&self) -> String {
        let shown = (0..self.len()).take(SHOWN);
        let outputs = shown.map(|output| format!("`{}` ({})", self.name(output), self.type_name(output)));
        let more = self.len().checked_sub(SHOWN).filter(|more| *more > 0).map(|more| format!("{more} more"));
        outputs.chain(more).collect::<Vec<_>>().join(", ")
    }
}

impl<'a> Checker<'a> {
    /// What each file declares as its outputs.
    pub(super) fn outputs(&mut self) {
        for index in 0..self.drafts.len() {
            let Some(entry) = self.drafts[index].entry else { continue };
            self.gives_types(index, entry.node_type.outputs.iter().map(|output| output.type_name));
        }
        self.outputs_of(0);
        self.givers.values_mut().for_each(|givers| givers.sort_unstable());
    }

    /// Those of inner graphs first, for an output may be that of a graph.
    fn outputs_of(&mut self, scope: usize) {
        for index in self.ranges[scope].clone() {
            let Some(graph) = self.drafts[index].graph else { continue };
            self.outputs_of(graph);
            let declared = self.declared[graph].clone();
            let sound = declared.list.iter().filter(|output| output.link.is_some());
            self.gives_types(index, sound.map(|output| output.type_name));
        }
        let declared = self.scopes[scope].document.outputs.iter().flatten();
        let declared = declared.map(|(key, item)| self.declared(scope, key, item)).collect::<Vec<_>>();
        self.links_incomplete |= declared.iter().any(|output| output.link.is_none());
        self.declared[scope] = Declarations::new(declared).into();
        self.diagnostics.settle();
    }

    fn gives_types(&mut self, index: usize, types: impl Iterator<Item = &'static str>) {
        for type_name in types {
            let givers = self.givers.entry(type_name).or_default();
            if givers.last() != Some(&index) {
                givers.push(index);
            }
        }
    }

    fn declared(&mut self, scope: usize, key: &'a YamlKey, item: &'a YamlValue) -> Declared<'a> {
        let port = Port { scope, consumer: self.ranges[scope].end, name: &key.name, takes: None };
        let link = self.link(port, item).filter(DraftLink::sound);
        let type_name = link.as_ref().and_then(|link| {
            let output = self.drafts[link.producer].entry?.node_type.outputs.get(link.output?)?;
            Some(output.type_name)
        });
        Declared { name: &key.name, link, type_name: type_name.unwrap_or(FAULTY) }
    }

    /// What each input socket is linked to.
    pub(super) fn links(&mut self) {
        for scope in 0..self.scopes.len() {
            for index in self.ranges[scope].clone() {
                self.links_of(index);
            }
            self.diagnostics.settle();
        }
    }

    fn links_of(&mut self, index: usize) {
        let Some(entry) = self.drafts[index].entry else { return };
        let Draft { scope, key: node, value, .. } = self.drafts[index];
        let YamlData::Map(keys) = &value.data else { return };
        let kind = entry.node_type.name;
        for socket in entry.node_type.inputs {
            let port = Port { scope, consumer: index, name: socket.name, takes: Some(socket.type_name) };
            let links = match value.get(socket.name) {
                Some((key, item)) => self.socket(port, socket.arity, key, item),
                None if socket.arity == Arity::One => {
                    self.links_incomplete = true;
                    // A misspelt key has been told of.
                    let unknown = |key: &YamlKey| !entry.has_key(&key.name);
                    let misspelt = keys
                        .iter()
                        .any(|(key, _)| unknown(key) && self.names.nearest(&key.name, [socket.name]).is_some());
                    if !misspelt {
                        let message = format!("`{}` has no `{}`, which {kind} needs", node.name, socket.name);
                        let advice = format!("link it to {}", self.advice(port));
                        self.error("missing-input", message, node.location, "").help = Some(advice);
                    }
                    vec![]
                }
                None => vec![],
            };
            self.drafts[index].links.push(links);
        }
    }

    fn socket(&mut self, port: Port<'a>, arity: Arity, key: &'a YamlKey, item: &'a YamlValue) -> Vec<DraftLink> {
        let name = port.name;
        let before = self.diagnostics.count();
        let mut links = vec![];
        match (&item.data, arity) {
            (YamlData::Poison, _) => self.links_incomplete = true,
            (YamlData::Null, Arity::Optional) => {}
            (YamlData::Null, _) => {
                let what = match arity {
                    Arity::Many => "a list of links".to_string(),
                    _ => format!("a link to {}", port.wanted()),
                };
                let help = match arity {
                    Arity::Many => format!("write `{name}: []` for none"),
                    _ => format!("link it to {}", self.advice(port)),
                };
                self.error("not-a-link", format!("`{name}` takes {what}, but nothing is given"), key.location, "")
                    .help = Some(help);
            }
            (YamlData::List(items), Arity::Many) => {
                links.extend(items.iter().filter_map(|item| self.link(port, item)));
            }
            (YamlData::List(items), _) => {
                let help = match items.as_slice() {
                    [YamlValue { data: YamlData::Text(text), .. }] => {
                        format!("write it without the brackets: `{name}: {text}`")
                    }
                    _ => format!("link `{name}` to one of them, without brackets"),
                };
                self.error("one-link", format!("`{name}` takes one link, but this is a list"), item.location, "")
                    .help = Some(help);
            }
            (YamlData::Text(text), Arity::Many) => {
                let message = format!("`{name}` takes a list of links, but this is a single one");
                self.error("list-of-links", message, item.location, "").help =
                    Some(format!("put it in brackets: `{name}: [{text}]`"));
                // What it names is needed all the same, and may be faulty too.
                links.extend(self.link(port, item));
            }
            _ => links.extend(self.link(port, item)),
        }
        self.links_incomplete |= self.diagnostics.count() > before;
        links
    }

    /// The node and output that a text names.
    fn link(&mut self, port: Port<'a>, item: &'a YamlValue) -> Option<DraftLink> {
        let location = item.location;
        let text = match &item.data {
            YamlData::Text(text) => text.as_str(),
            YamlData::Poison => {
                self.links_incomplete = true;
                return None;
            }
            _ => {
                let message =
                    format!("`{}` takes a link to {}, but this is {}", port.key(), port.wanted(), item.describe());
                let help = format!("link it to {}", self.advice(port));
                self.error("not-a-link", message, location, "").help = Some(help);
                return None;
            }
        };
        let (node, output) = text.split_once('.').map_or((text, None), |(node, output)| (node, Some(output)));
        let by_name = &self.by_name[port.scope];
        let Some(&named) = by_name.get(node).or_else(|| by_name.get(text)) else {
            // A node whose own name is faulty has been told of.
            if self.is_misnamed(port.scope, text) {
                return None;
            }
            let names = self.drafts[self.ranges[port.scope].clone()].iter().map(|draft| draft.key.name.as_str());
            let label = self.names.nearest(node, names).map(did_you_mean).unwrap_or_default();
            let help = format!("`{}` takes a link to {}: {}", port.key(), port.wanted(), self.advice(port));
            self.error("unknown-node", format!("there is no node {}", code(node)), location, label).help = Some(help);
            return None;
        };
        let faulty = DraftLink { location, named, producer: named, output: None };
        let Some(gives) = self.gives(named) else { return Some(faulty) };
        let Some(output) = self.output(port, location, named, &gives, output) else { return Some(faulty) };
        let inner = match &gives {
            Gives::Type(_) => return Some(DraftLink { output: Some(output), ..faulty }),
            Gives::Graph(declared) => declared.list[output].link.as_ref(),
        };
        Some(inner.map_or(faulty, |inner| DraftLink { location, named, ..*inner }))
    }

    /// Whether a link names a node whose own name is faulty; such a name may have a few dots in it.
    fn is_misnamed(&self, scope: usize, link: &str) -> bool {
        const DOTS: usize = 8;
        let ends = link.match_indices('.').map(|(at, _)| at).take(DOTS).chain([link.len()]);
        !self.misnamed.is_empty() && ends.into_iter().any(|end| self.misnamed.contains(&(scope, &link[..end])))
    }

    /// The outputs of a node; `None` where its type is faulty.
    fn gives(&self, index: usize) -> Option<Gives<'a>> {
        let draft = &self.drafts[index];
        match draft.graph {
            Some(graph) => Some(Gives::Graph(self.declared[graph].clone())),
            None => Some(Gives::Type(draft.entry?.node_type.outputs)),
        }
    }

    /// What a node is, for a sentence.
    fn kind(&self, index: usize) -> String {
        let draft = &self.drafts[index];
        match (draft.entry, draft.value.get("type")) {
            (Some(entry), _) => entry.node_type.name.into(),
            (None, Some((_, YamlValue { data: YamlData::Text(file), .. }))) => code(file),
            (None, _) => "it".into(),
        }
    }

    /// The number of the output that a link to the node `producer` names.
    fn output(
        &mut self,
        port: Port<'a>,
        location: Location,
        producer: usize,
        gives: &Gives<'a>,
        named: Option<&str>,
    ) -> Option<usize> {
        let node = self.drafts[producer].key.name.as_str();
        let node_place = self.drafts[producer].key.location;
        if gives.len() == 0 && !gives.is_faulty() {
            let message = format!("`{node}` gives nothing that could be linked to");
            let label = self.sources.label(node_place, format!("{} has no outputs", self.kind(producer)));
            let help = format!("link `{}` to {}", port.key(), self.advice(port));
            let error = self.error("type-mismatch", message, location, "");
            error.secondary.insert(0, label);
            error.help = Some(help);
            return None;
        }
        let fitting = gives.fitting(port.takes);
        let output = match named {
            Some(named) => match gives.named(named) {
                Some(output) => output,
                None => {
                    let near = self.names.nearest(named, gives.names());
                    let only = match &*fitting {
                        [only] => Some(gives.name(*only)),
                        _ => None,
                    };
                    let label = near.or(only).map(|name| did_you_mean(&format!("{node}.{name}"))).unwrap_or_default();
                    let message = format!("`{node}` has no output {}", code(named));
                    let help = format!("{} gives {}", self.kind(producer), gives.listed());
                    if !(gives.is_faulty() && gives.len() == 0) {
                        self.error("unknown-output", message, location, label).help = Some(help);
                    }
                    return None;
                }
            },
            // What is faulty may be what is meant.
            None if gives.is_faulty() => return None,
            None => match &*fitting {
                [only] => *only,
                [] => 0,
                several => {
                    let names = either_of(several.len(), |index| format!("{node}.{}", gives.name(several[index])));
                    let message = format!("`{node}` gives more than one {}", port.takes.unwrap_or("output"));
                    let help = format!("name one: {names}");
                    self.error("ambiguous-output", message, location, "which one?").help = Some(help);
                    return None;
                }
            },
        };
        let Some(takes) = port.takes.filter(|takes| *takes != gives.type_name(output)) else { return Some(output) };
        if gives.type_name(output).is_empty() {
            return None;
        }
        let given = gives.type_name(output);
        let written = match named {
            _ if gives.len() == 1 => format!("`{node}` gives {}", an(given)),
            Some(named) => format!("`{node}.{named}` is {}", an(given)),
            None => format!("`{node}` gives {}", gives.listed()),
        };
        let message = format!("`{}` takes {}, but {written}", port.name, an(takes));
        let considered = named.map_or_else(|| gives.types(), |_| vec![given]);
        let help = self.conversion(port, node, gives, &fitting, considered);
        let label = self.sources.label(node_place, format!("{} gives {}", self.kind(producer), gives.listed()));
        let error = self.error("type-mismatch", message, location, format!("{} is needed here", an(takes)));
        error.secondary.insert(0, label);
        error.help = Some(help);
        None
    }

    /// What to do about a value of the wrong type.
    fn conversion(&self, port: Port<'a>, node: &str, gives: &Gives<'a>, fitting: &[usize], given: Vec<&str>) -> String {
        if let Some(&other) = fitting.first() {
            return format!("write `{node}.{}`", gives.name(other));
        }
        // By custom, what a node works on is the last thing that it must have; before it stand its tools.
        let converts = |entry: &&RegistryEntry| {
            // One that must be told something is more than a conversion.
            if entry.params.iter().any(|param| param.required) {
                return false;
            }
            let works_on = entry.node_type.inputs.iter().rfind(|input| input.arity == Arity::One);
            let fits = works_on.is_some_and(|input| input.variants.is_empty() && given.contains(&input.type_name));
            fits && entry.node_type.outputs.iter().any(|output| Some(output.type_name) == port.takes)
        };
        let mut converters: Vec<_> = self.registry.iter().filter(converts).collect();
        converters.sort_by_key(|entry| entry.node_type.inputs.len());
        let names = converters.iter().map(|entry| entry.node_type.name).take(2).collect::<Vec<_>>();
        if names.is_empty() {
            return format!("link `{}` to {}", port.name, self.advice(port));
        }
        let given = given.into_iter().map(an).collect::<Vec<_>>();
        format!("put {} between: it makes {} of {}", either(names), port.wanted(), given.join(" or "))
    }

    /// The nodes of a scope that give a type.
    pub(super) fn givers(&self, scope: usize, kind: &str) -> &[usize] {
        let givers = self.givers.get(kind).map(Vec::as_slice).unwrap_or_default();
        let Range { start, end } = self.ranges[scope];
        let givers = &givers[givers.partition_point(|&giver| giver < start)..];
        &givers[..givers.partition_point(|&giver| giver < end)]
    }

    /// What a port may be linked to: the nodes before it that give its type; failing these, the others; at last node
    /// types.
    fn advice(&self, port: Port<'a>) -> String {
        const SHOWN: usize = 3;
        let Some(takes) = port.takes else {
            return "a node of this graph, written `node` or `node.output`".into();
        };
        let wanted = an(takes);
        let givers = self.givers(port.scope, takes);
        let (before, after) = givers.split_at(givers.partition_point(|&giver| giver < port.consumer));
        let near = if before.is_empty() { after } else { &before[before.len().saturating_sub(SHOWN)..] };
        let links = near.iter().filter(|&&giver| giver != port.consumer).take(SHOWN).filter_map(|&giver| {
            let (name, gives) = (&self.drafts[giver].key.name, self.gives(giver)?);
            Some(match &*gives.fitting(Some(takes)) {
                [] => return None,
                [_] => name.clone(),
                [first, ..] => format!("{name}.{}", gives.name(*first)),
            })
        });
        let links: Vec<_> = links.collect();
        if !links.is_empty() {
            return format!("a node that gives {wanted}, such as {}", either(links.iter().map(String::as_str)));
        }
        let gives = |entry: &&RegistryEntry| entry.node_type.outputs.iter().any(|output| output.type_name == takes);
        let types: Vec<_> = self.registry.iter().filter(gives).map(|entry| entry.node_type.name).collect();
        match types.as_slice() {
            [] => format!("{wanted}, which no node type gives"),
            _ => format!("a node that gives {wanted}: add one of the type {}", either(types)),
        }
    }
}
