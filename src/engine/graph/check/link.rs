//! Resolves links: of the input sockets of nodes, and of the outputs that a file declares.

use super::draft::{DeclaredOutput, DeclaredOutputs, Draft, DraftLink, INVALID, NodeOutputs, Port};
use super::{Checker, an};
use crate::node::Arity;
use crate::text::yaml::{Location, YamlData, YamlKey, YamlValue, code};
use crate::text::{did_you_mean, either_of};

impl<'a> Checker<'a> {
    /// Resolves the outputs that each file declares.
    pub(super) fn outputs(&mut self) {
        for index in 0..self.drafts.len() {
            let Some(entry) = self.drafts[index].entry else { continue };
            self.add_producer(index, entry.node_type.outputs.iter().map(|output| output.type_name));
        }
        self.outputs_of(0);
        self.producers.values_mut().for_each(|producers| producers.sort_unstable());
    }

    /// Inner graphs come first, because an output of the file may be an output of a graph in it.
    fn outputs_of(&mut self, scope: usize) {
        for index in self.ranges[scope].clone() {
            let Some(graph) = self.drafts[index].graph else { continue };
            self.outputs_of(graph);
            let declared = self.declared[graph].clone();
            let valid = declared.list.iter().filter(|output| output.link.is_some());
            self.add_producer(index, valid.map(|output| output.type_name));
        }
        let declared = self.scopes[scope].document.outputs.iter().flatten();
        let declared = declared.map(|(key, item)| self.declared(scope, key, item)).collect::<Vec<_>>();
        self.links_incomplete |= declared.iter().any(|output| output.link.is_none());
        self.declared[scope] = DeclaredOutputs::new(declared).into();
        self.diagnostics.settle();
    }

    fn add_producer(&mut self, index: usize, types: impl Iterator<Item = &'static str>) {
        for type_name in types {
            let producers = self.producers.entry(type_name).or_default();
            if producers.last() != Some(&index) {
                producers.push(index);
            }
        }
    }

    fn declared(&mut self, scope: usize, key: &'a YamlKey, item: &'a YamlValue) -> DeclaredOutput<'a> {
        let port = Port { scope, consumer: self.ranges[scope].end, name: &key.name, takes: None };
        let link = self.link(port, item).filter(DraftLink::is_valid);
        let type_name = link.as_ref().and_then(|link| {
            let output = self.drafts[link.producer].entry?.node_type.outputs.get(link.output?)?;
            Some(output.type_name)
        });
        DeclaredOutput { name: &key.name, link, type_name: type_name.unwrap_or(INVALID) }
    }

    /// Resolves the links of every input socket.
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
                    // A misspelt key has already been reported.
                    let unknown = |key: &YamlKey| !entry.has_key(&key.name);
                    let misspelt = keys
                        .iter()
                        .any(|(key, _)| unknown(key) && self.names.nearest(&key.name, [socket.name]).is_some());
                    if !misspelt {
                        let message = format!("`{}` has no `{}`, which {kind} requires", node.name, socket.name);
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
                self.error(
                    "one-link",
                    format!("`{name}` takes a single link, but this is a list"),
                    item.location,
                    "",
                )
                .help = Some(help);
            }
            (YamlData::Text(text), Arity::Many) => {
                let message = format!("`{name}` takes a list of links, but this is a single link");
                self.error("list-of-links", message, item.location, "").help =
                    Some(format!("put it in brackets: `{name}: [{text}]`"));
                // The link may have errors of its own.
                links.extend(self.link(port, item));
            }
            _ => links.extend(self.link(port, item)),
        }
        self.links_incomplete |= self.diagnostics.count() > before;
        links
    }

    /// Resolves a link: the node and output that a text names.
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
            // An invalid name of a node has already been reported.
            if self.is_misnamed(port.scope, text) {
                return None;
            }
            let names = self.drafts[self.ranges[port.scope].clone()].iter().map(|draft| draft.key.name.as_str());
            let label = self.names.nearest(node, names).map(did_you_mean).unwrap_or_default();
            let help = format!("`{}` takes a link to {}: {}", port.key(), port.wanted(), self.advice(port));
            self.error("unknown-node", format!("there is no node {}", code(node)), location, label).help = Some(help);
            return None;
        };
        let invalid = DraftLink { location, named, producer: named, output: None };
        let Some(outputs) = self.outputs_of_node(named) else { return Some(invalid) };
        let Some(output) = self.output(port, location, named, &outputs, output) else { return Some(invalid) };
        let inner = match &outputs {
            NodeOutputs::Type(_) => return Some(DraftLink { output: Some(output), ..invalid }),
            NodeOutputs::Graph(declared) => declared.list[output].link.as_ref(),
        };
        Some(inner.map_or(invalid, |inner| DraftLink { location, named, ..*inner }))
    }

    /// Whether a link names a node with an invalid name. Such a name may contain dots; only the first few are tried.
    fn is_misnamed(&self, scope: usize, link: &str) -> bool {
        const MAX_DOTS: usize = 8;
        let ends = link.match_indices('.').map(|(at, _)| at).take(MAX_DOTS).chain([link.len()]);
        !self.misnamed.is_empty() && ends.into_iter().any(|end| self.misnamed.contains(&(scope, &link[..end])))
    }

    /// The outputs of a node; `None` if its type is invalid.
    pub(super) fn outputs_of_node(&self, index: usize) -> Option<NodeOutputs<'a>> {
        let draft = &self.drafts[index];
        match draft.graph {
            Some(graph) => Some(NodeOutputs::Graph(self.declared[graph].clone())),
            None => Some(NodeOutputs::Type(draft.entry?.node_type.outputs)),
        }
    }

    /// Names the type of a node in a sentence.
    fn kind(&self, index: usize) -> String {
        let draft = &self.drafts[index];
        match (draft.entry, draft.value.get("type")) {
            (Some(entry), _) => entry.node_type.name.into(),
            (None, Some((_, YamlValue { data: YamlData::Text(file), .. }))) => code(file),
            (None, _) => "it".into(),
        }
    }

    /// The index of the output that a link to the node `producer` names; `None` after reporting an error.
    fn output(
        &mut self,
        port: Port<'a>,
        location: Location,
        producer: usize,
        outputs: &NodeOutputs<'a>,
        named: Option<&str>,
    ) -> Option<usize> {
        let node = self.drafts[producer].key.name.as_str();
        let node_place = self.drafts[producer].key.location;
        if outputs.len() == 0 && !outputs.has_error() {
            let message = format!("`{node}` has no outputs to link to");
            let label = self.sources.label(node_place, format!("{} has no outputs", self.kind(producer)));
            let help = format!("link `{}` to {}", port.key(), self.advice(port));
            let error = self.error("type-mismatch", message, location, "");
            error.secondary.insert(0, label);
            error.help = Some(help);
            return None;
        }
        let fitting = outputs.fitting(port.takes);
        let output = match named {
            Some(named) => match outputs.named(named) {
                Some(output) => output,
                None => {
                    let near = self.names.nearest(named, outputs.names());
                    let only = match &*fitting {
                        [only] => Some(outputs.name(*only)),
                        _ => None,
                    };
                    let label = near.or(only).map(|name| did_you_mean(&format!("{node}.{name}"))).unwrap_or_default();
                    let message = format!("`{node}` has no output {}", code(named));
                    let help = format!("{} gives {}", self.kind(producer), outputs.listed());
                    if !(outputs.has_error() && outputs.len() == 0) {
                        self.error("unknown-output", message, location, label).help = Some(help);
                    }
                    return None;
                }
            },
            // The output that is meant may be an invalid one.
            None if outputs.has_error() => return None,
            None => match &*fitting {
                [only] => *only,
                [] => 0,
                several => {
                    let names = either_of(several.len(), |index| format!("{node}.{}", outputs.name(several[index])));
                    let message = format!("`{node}` has more than one {}", port.takes.unwrap_or("output"));
                    let help = format!("name one: {names}");
                    self.error("ambiguous-output", message, location, "which one?").help = Some(help);
                    return None;
                }
            },
        };
        let Some(takes) = port.takes.filter(|takes| *takes != outputs.type_name(output)) else { return Some(output) };
        if outputs.type_name(output).is_empty() {
            return None;
        }
        let given = outputs.type_name(output);
        let written = match named {
            _ if outputs.len() == 1 => format!("`{node}` gives {}", an(given)),
            Some(named) => format!("`{node}.{named}` is {}", an(given)),
            None => format!("`{node}` gives {}", outputs.listed()),
        };
        let message = format!("`{}` takes {}, but {written}", port.name, an(takes));
        let considered = named.map_or_else(|| outputs.types(), |_| vec![given]);
        let help = self.conversion(port, node, outputs, &fitting, considered);
        let label = self.sources.label(node_place, format!("{} gives {}", self.kind(producer), outputs.listed()));
        let error = self.error("type-mismatch", message, location, format!("{} is needed here", an(takes)));
        error.secondary.insert(0, label);
        error.help = Some(help);
        None
    }
}
