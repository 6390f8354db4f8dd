//! Checks the graph as a whole: cycles, model families, files that two nodes write, unneeded nodes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use lsregen_files::identity;
use petgraph::graph::{DiGraph, NodeIndex};

use super::Checker;
use super::draft::{Draft, DraftLink};
use crate::graph::cycles::cycles;
use crate::node::{Declaration, FileRef, LinkedNode, Links, SocketSpec};
use crate::registry::RegistryEntry;
use crate::text::yaml::{Location, YamlData};
use crate::text::{either, listed};

impl Checker<'_> {
    /// Reports cycles.
    pub(super) fn cycles(&mut self) {
        for index in 0..self.drafts.len() {
            let to_itself: Option<Location> = self.drafts[index]
                .links
                .iter()
                .flatten()
                .find(|link| link.is_valid() && link.producer == index)
                .map(|link| link.location);
            if let Some(location) = to_itself {
                let name = &self.drafts[index].key.name;
                let message = format!("`{name}` is linked to itself");
                let help = "link it to a node that does not depend on it".to_string();
                self.error("cycle", message, location, "").help = Some(help);
            }
        }
        for cycle in cycles(&self.link_graph()) {
            self.cycle(&cycle);
        }
    }

    fn cycle(&mut self, cycle: &[NodeIndex]) {
        const MAX_LABELS: usize = 12;
        let names: Vec<_> = cycle.iter().map(|node| self.drafts[node.index()].key.name.as_str()).collect();
        let message = format!("{} form a cycle", listed(names.iter().copied()));
        let labels = cycle.iter().zip(cycle.iter().cycle().skip(1)).take(MAX_LABELS).filter_map(|(node, next)| {
            let draft = &self.drafts[node.index()];
            let link = draft.links.iter().flatten().find(|link| link.producer == next.index())?;
            let text = format!("`{}` needs `{}`", draft.key.name, self.drafts[next.index()].key.name);
            Some((link.location, self.sources.label(link.location, text)))
        });
        let mut labels = labels.collect::<Vec<_>>().into_iter();
        let Some((location, first)) = labels.next() else { return };
        let error = self.error("cycle", message, location, first.text);
        error.secondary.extend(labels.map(|(_, label)| label));
        error.help = Some("remove one of these links: a node cannot depend on itself".into());
    }

    /// Reports values of a variant (model family) that their consumers do not accept, and the errors that nodes find in
    /// their links. The variant of an output is the one that its node returns, or that of the input that it is declared to
    /// be like, or that of the only input of the same type.
    pub(super) fn variants(&mut self) {
        // For each output, the node that its variant comes from, and the variant.
        let mut known: Vec<Vec<Option<(usize, String)>>> = vec![vec![]; self.drafts.len()];
        for index in self.producers_first() {
            let draft = &self.drafts[index];
            let Some(entry) = draft.entry else { continue };
            let own = draft.node.as_ref().map(|node| node.variants(&self.cx(index))).unwrap_or_default();
            let inherited = |output: &SocketSpec| {
                let sockets = entry.node_type.inputs.iter().zip(&draft.links);
                let mut links = sockets
                    .filter(|(input, _)| match output.like {
                        Some(like) => input.name == like,
                        None => input.type_name == output.type_name,
                    })
                    .flat_map(|(_, links)| links);
                let link = links.next().filter(|_| links.next().is_none())?;
                known[link.producer].get(link.output?)?.clone()
            };
            let outputs = entry.node_type.outputs.iter().map(|output| {
                let own = own.iter().find(|(name, _)| *name == output.name);
                own.map(|(_, variant)| (index, variant.clone())).or_else(|| inherited(output))
            });
            known[index] = outputs.collect();
        }
        for index in 0..self.drafts.len() {
            let Some(entry) = self.drafts[index].entry else { continue };
            for (at, socket) in entry.node_type.inputs.iter().enumerate().filter(|(_, s)| !s.variants.is_empty()) {
                let links = self.drafts[index].links.get(at).into_iter().flatten();
                let wrong: Vec<_> = links
                    .filter_map(|link| {
                        let (origin, variant) = known[link.producer].get(link.output?)?.as_ref()?;
                        let fits = socket.variants.contains(&variant.as_str());
                        (!fits).then(|| (link.location, link.named, *origin, variant.clone()))
                    })
                    .collect();
                for (location, named, origin, variant) in wrong {
                    self.wrong_variant(index, socket, (location, named), origin, &variant, &known);
                }
            }
        }
        self.check_links(&known);
    }

    /// Reports the errors that nodes find in their links, by the variants of all outputs and what nodes declare of them.
    fn check_links(&mut self, variants: &[Vec<Option<(usize, String)>>]) {
        // A node's declarations can use those of its producers, so that no check traverses the graph again.
        let mut declared: Vec<Vec<Option<Declaration>>> = Vec::new();
        declared.resize_with(self.drafts.len(), Vec::new);
        for index in self.producers_first() {
            let draft = &self.drafts[index];
            let (Some(entry), Some(node)) = (draft.entry, &draft.node) else { continue };
            let mut own = node.declare(&self.links_of_node(index, entry, variants, &declared), &self.cx(index));
            let outputs = entry.node_type.outputs.iter().map(|output| {
                let at = own.iter().position(|(name, _)| *name == output.name)?;
                Some(own.swap_remove(at).1)
            });
            declared[index] = outputs.collect();
        }
        for index in 0..self.drafts.len() {
            let (Some(entry), Some(node)) = (self.drafts[index].entry, self.drafts[index].node.clone()) else {
                continue;
            };
            let links = self.links_of_node(index, entry, variants, &declared);
            let (mut errors, linked) = (node.check_links(&links), node.linked(&links));
            if let Some(linked) = &linked {
                // What its links declare may be a reason for further errors of the node's own.
                let known: Vec<_> = node.check(&self.cx(index)).into_iter().map(|error| error.message).collect();
                let own = linked.check(&self.cx(index)).into_iter();
                errors.extend(own.filter(|error| !known.contains(&error.message)));
            }
            self.drafts[index].node = linked.or(Some(node));
            errors.into_iter().for_each(|error| self.node_error(index, "invalid", error));
        }
    }

    fn links_of_node<'b>(
        &'b self,
        index: usize,
        entry: &RegistryEntry,
        variants: &'b [Vec<Option<(usize, String)>>],
        declared: &'b [Vec<Option<Declaration>>],
    ) -> Links<'b> {
        let sockets = entry.node_type.inputs.iter().zip(&self.drafts[index].links);
        let links = sockets.flat_map(|(socket, links)| {
            links.iter().enumerate().map(|(index, link)| {
                let variant = link.output.and_then(|output| variants[link.producer].get(output)?.as_ref());
                let declaration = link.output.and_then(|output| declared[link.producer].get(output)?.as_deref());
                LinkedNode {
                    socket: socket.name,
                    index,
                    name: &self.drafts[link.named].key.name,
                    variant: variant.map(|(_, variant)| variant.as_str()),
                    declaration,
                }
            })
        });
        let is_given = |socket: &SocketSpec| {
            let value = self.drafts[index].value.get(socket.name).map(|(_, value)| &value.data);
            match value {
                None | Some(YamlData::Null) => false,
                Some(YamlData::List(items)) => !items.is_empty(),
                Some(_) => true,
            }
        };
        let given = entry.node_type.inputs.iter().filter(|socket| is_given(socket));
        Links::new(links.collect(), given.map(|socket| socket.name).collect())
    }

    /// The graph of all valid links, without those of nodes to themselves.
    fn link_graph(&self) -> DiGraph<(), ()> {
        let mut graph = DiGraph::with_capacity(self.drafts.len(), self.drafts.len());
        for _ in &self.drafts {
            graph.add_node(());
        }
        for (index, draft) in self.drafts.iter().enumerate() {
            for link in draft.links.iter().flatten().filter(|link| link.is_valid() && link.producer != index) {
                graph.add_edge(NodeIndex::new(link.producer), NodeIndex::new(index), ());
            }
        }
        graph
    }

    fn producers_first(&self) -> Vec<usize> {
        let graph = self.link_graph();
        petgraph::algo::kosaraju_scc(&graph).into_iter().rev().flatten().map(NodeIndex::index).collect()
    }

    fn wrong_variant(
        &mut self,
        consumer: usize,
        socket: &SocketSpec,
        (location, named): (Location, usize),
        origin: usize,
        variant: &str,
        known: &[Vec<Option<(usize, String)>>],
    ) {
        let name = |index: usize| self.drafts[index].key.name.as_str();
        let families = either(socket.variants.iter().copied());
        let kind = socket.type_name;
        let message = format!(
            "`{}` takes a {kind} of the family {families}, but `{}` is of the family `{variant}`",
            socket.name,
            name(named)
        );
        const MAX_NODES: usize = 100;
        let fits = self.producers_of_type(self.drafts[consumer].scope, kind).iter().take(MAX_NODES).filter(|&&index| {
            let mut variants = known[index].iter().flatten();
            variants.any(|(_, variant)| socket.variants.contains(&variant.as_str()))
        });
        let fits: Vec<_> = fits.map(|&index| name(index)).collect();
        let help = match fits.as_slice() {
            [] => format!("link it to a {kind} of the family {families}"),
            _ => format!("link it to {}", either(fits)),
        };
        let label =
            self.sources.label(self.drafts[origin].key.location, format!("the family `{variant}` comes from here"));
        let error = self.error("wrong-family", message, location, format!("{families} is needed here"));
        error.secondary.insert(0, label);
        error.help = Some(help);
    }

    /// Keeps the nodes of the graph's own file, and those nodes of included graphs that the outputs of these graphs need.
    /// Output nodes of included graphs are not kept, unless they are needed.
    pub(super) fn keep(&mut self) {
        let mut queue: Vec<_> = self.ranges.first().cloned().into_iter().flatten().collect();
        while let Some(index) = queue.pop() {
            if std::mem::replace(&mut self.drafts[index].kept, true) {
                continue;
            }
            let draft = &self.drafts[index];
            queue.extend(draft.links.iter().flatten().map(|link| link.producer));
            let declared = draft.graph.map(|graph| self.declared[graph].list.iter());
            queue.extend(declared.into_iter().flatten().flat_map(|output| &output.link).map(|link| link.producer));
        }
    }

    /// Reports files that two nodes write, and a file whose path another one needs as a folder.
    pub(super) fn written(&mut self) {
        let mut first: HashMap<PathBuf, Location> = HashMap::new();
        let mut folders: HashMap<PathBuf, Location> = HashMap::new();
        for index in 0..self.drafts.len() {
            let Some(node) = self.drafts[index].node.clone().filter(|_| self.drafts[index].kept) else { continue };
            for file in node.writes(&self.cx(index)) {
                let location = self.location_of(index, &file.param);
                let place = identity(&file.path);
                let above = || place.ancestors().skip(1);
                let shown = file.path.display();
                let (former, message) = if let Some(former) = first.get(&place) {
                    (*former, format!("two nodes write the file `{shown}`"))
                } else if let Some(former) = folders.get(&place).or_else(|| above().find_map(|path| first.get(path))) {
                    (
                        *former,
                        format!("one node writes a file, and another one a file in a folder of that name: `{shown}`"),
                    )
                } else {
                    folders.extend(above().map(|path| (path.to_path_buf(), location)));
                    first.insert(place, location);
                    continue;
                };
                let label = self.sources.label(former, "written here");
                let error = self.error("written-twice", message, location, "and here again");
                if former != location {
                    error.secondary.insert(0, label);
                }
                error.help = Some("give one of them another path".into());
            }
        }
    }

    /// Reports files that a node reads and another one writes: the next run would read something else.
    pub(super) fn overwritten(&mut self) {
        // Two paths may lead to one file.
        let place = |path: &Path| std::fs::canonicalize(path).ok();
        let mut read: HashMap<PathBuf, Location> = HashMap::new();
        let mut written = vec![];
        for index in (0..self.drafts.len()).filter(|&index| self.drafts[index].kept) {
            let Some(node) = self.drafts[index].node.clone() else { continue };
            let located = |file: FileRef| (place(&file.path), self.location_of(index, &file.param), file.path);
            written.extend(node.writes(&self.cx(index)).into_iter().map(located));
            let located = node.files(&self.cx(index)).into_iter().map(located);
            read.extend(located.filter_map(|(place, location, _)| Some((place?, location))));
        }
        for (place, location, path) in written {
            let Some(&reads) = place.and_then(|place| read.get(&place)) else { continue };
            let label = self.sources.label(reads, "read here");
            let message = format!("`{}` would overwrite a file that the graph reads", path.display());
            let error = self.error("overwritten-input", message, location, "");
            error.secondary.insert(0, label);
            error.help = Some("write another file: each run has to read what the former one read".into());
        }
    }

    /// The location of a parameter of a node, or of the node if the parameter has its default.
    fn location_of(&self, index: usize, param: &str) -> Location {
        let (found_key, found) = self.drafts[index].value.find(param);
        if found_key.is_some() { found.location } else { self.drafts[index].key.location }
    }

    /// Reports a graph without output nodes, and warns of nodes that no output needs.
    pub(super) fn needed(&mut self) {
        let own = self.ranges.first().cloned().unwrap_or_default();
        if self.links_incomplete || own.is_empty() {
            return;
        }
        let is_output = |draft: &Draft| draft.entry.is_some_and(|entry| entry.node_type.output);
        let leads = |link: &DraftLink| [link.named, link.producer];
        let declared = self.declared[0].list.iter().flat_map(|output| &output.link).flat_map(leads);
        let outputs: Vec<_> = own.clone().filter(|&index| is_output(&self.drafts[index])).chain(declared).collect();
        if outputs.is_empty() {
            let types = self.registry.iter().filter(|entry| entry.node_type.output).map(|entry| entry.node_type.name);
            let help = format!("add an output: a node of type {}", either(types));
            let last = self.drafts[own.end - 1].key.location;
            let message = "nothing would run, because the graph has no output node";
            self.error("no-output", message, last, "the last node").help = Some(help);
            return;
        }
        if self.diagnostics.any_error() {
            return;
        }
        let mut needed = vec![false; self.drafts.len()];
        let mut queue = outputs;
        while let Some(index) = queue.pop() {
            if !std::mem::replace(&mut needed[index], true) {
                queue.extend(self.drafts[index].links.iter().flatten().flat_map(leads));
            }
        }
        for (draft, _) in self.drafts[own].iter().zip(needed).filter(|(_, needed)| !needed) {
            let message = format!("`{}` does not run, because no output needs it", draft.key.name);
            let help = format!("link an input of another node to `{}`, or remove it", draft.key.name);
            self.diagnostics.push(self.sources.warning("unneeded-node", message, draft.key.location).help(help));
        }
    }
}
