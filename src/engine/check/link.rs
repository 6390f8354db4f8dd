//! What each input socket is linked to, and whether it fits.

use super::{Checker, Draft, DraftLink, Port, an, code};
use crate::document::did_you_mean;
use crate::nearest::either;
use crate::registry::Entry;
use crate::socket::{Arity, SocketSpec};
use crate::yaml::{Data, Item, Key, Place};

impl<'a> Checker<'a> {
    /// What each input socket is linked to.
    pub(super) fn links(&mut self) {
        for index in 0..self.drafts.len() {
            let Some(entry) = self.drafts[index].entry else { continue };
            let Draft { key: node, value, .. } = self.drafts[index];
            let Data::Map(keys) = &value.data else { continue };
            let kind = entry.node_type.name;
            for socket in entry.node_type.inputs {
                let port = Port { consumer: index, socket };
                let links = match value.get(socket.name) {
                    Some((key, item)) => self.socket(port, key, item),
                    None if socket.arity == Arity::One => {
                        self.links_incomplete = true;
                        // A misspelt key has been told of.
                        let unknown = |key: &Key| !entry.has_key(&key.name);
                        let misspelt = keys
                            .iter()
                            .any(|(key, _)| unknown(key) && self.nearest.find(&key.name, [socket.name]).is_some());
                        if !misspelt {
                            let message = format!("`{}` has no `{}`, which {kind} needs", node.name, socket.name);
                            let advice = format!("link it to {}", self.advice(port));
                            self.error("missing-input", message, node.place, "").help = Some(advice);
                        }
                        vec![]
                    }
                    None => vec![],
                };
                self.drafts[index].links.push(links);
            }
        }
    }

    fn socket(&mut self, port: Port, key: &'a Key, item: &'a Item) -> Vec<DraftLink> {
        let socket = port.socket;
        let name = socket.name;
        let wanted = an(socket.type_name);
        let before = self.diagnostics.len();
        let mut links = vec![];
        match (&item.data, socket.arity) {
            (Data::Poison, _) => self.links_incomplete = true,
            (Data::Null, Arity::Optional) => {}
            (Data::Null, _) => {
                let what = match socket.arity {
                    Arity::Many => "a list of links".to_string(),
                    _ => format!("a link to {wanted}"),
                };
                let help = match socket.arity {
                    Arity::Many => format!("write `{name}: []` for none"),
                    _ => format!("link it to {}", self.advice(port)),
                };
                self.error("not-a-link", format!("`{name}` takes {what}, but nothing is given"), key.place, "").help =
                    Some(help);
            }
            (Data::List(items), Arity::Many) => {
                links.extend(items.iter().filter_map(|item| self.link(port, item)));
            }
            (Data::List(items), _) => {
                let help = match items.as_slice() {
                    [Item { data: Data::Text(text), .. }] => format!("write it without the brackets: `{name}: {text}`"),
                    _ => format!("link `{name}` to one of them, without brackets"),
                };
                self.error("one-link", format!("`{name}` takes one link, but this is a list"), item.place, "").help =
                    Some(help);
            }
            (Data::Text(text), Arity::Many) => {
                let message = format!("`{name}` takes a list of links, but this is a single one");
                self.error("list-of-links", message, item.place, "").help =
                    Some(format!("put it in brackets: `{name}: [{text}]`"));
                // What it names is needed all the same, and may be faulty too.
                links.extend(self.link(port, item));
            }
            _ => links.extend(self.link(port, item)),
        }
        self.links_incomplete |= self.diagnostics.len() > before;
        links
    }

    /// The node and output that a text names.
    fn link(&mut self, port: Port, item: &'a Item) -> Option<DraftLink> {
        let socket = port.socket;
        let (name, wanted) = (socket.name, an(socket.type_name));
        let text = match &item.data {
            Data::Text(text) => text.as_str(),
            Data::Poison => {
                self.links_incomplete = true;
                return None;
            }
            _ => {
                let message = format!("`{name}` takes a link to {wanted}, but this is {}", item.describe());
                let help = format!("link it to {}", self.advice(port));
                self.error("not-a-link", message, item.place, "").help = Some(help);
                return None;
            }
        };
        let (node, output) = text.split_once('.').map_or((text, None), |(node, output)| (node, Some(output)));
        let Some(&producer) = self.by_name.get(node).or_else(|| self.by_name.get(text)) else {
            // A node whose own name is faulty has been told of.
            if self.misnamed.iter().any(|&draft| text.starts_with(&self.drafts[draft].key.name)) {
                return None;
            }
            let near = self.nearest.find(node, self.drafts.iter().map(|draft| draft.key.name.as_str()));
            let label = near.map(did_you_mean).unwrap_or_default();
            let help = format!("`{name}` takes a link to {wanted}: {}", self.advice(port));
            self.error("unknown-node", format!("there is no node {}", code(node)), item.place, label).help = Some(help);
            return None;
        };
        let Some(entry) = self.drafts[producer].entry else {
            return Some(DraftLink { place: item.place, producer, output: None });
        };
        let output = self.output(port, item.place, producer, entry, output);
        Some(DraftLink { place: item.place, producer, output })
    }

    fn output(
        &mut self,
        port: Port,
        place: Place,
        producer: usize,
        entry: &'a Entry,
        named: Option<&str>,
    ) -> Option<usize> {
        let socket = port.socket;
        let outputs = entry.node_type.outputs;
        let (node, kind) = (&self.drafts[producer].key.name, entry.node_type.name);
        let node_place = self.drafts[producer].key.place;
        let gives = |outputs: &[SocketSpec]| {
            let texts: Vec<_> = outputs.iter().map(|o| format!("`{}` ({})", o.name, o.type_name)).collect();
            texts.join(", ")
        };
        if outputs.is_empty() {
            let message = format!("`{node}` gives nothing that could be linked to");
            let label = self.document.texts.label(node_place, format!("{kind} has no outputs"));
            let help = format!("link `{}` to {}", socket.name, self.advice(port));
            let fault = self.error("type-mismatch", message, place, "");
            fault.secondary.push(label);
            fault.help = Some(help);
            return None;
        }
        let fitting: Vec<_> = (0..outputs.len()).filter(|&i| outputs[i].type_name == socket.type_name).collect();
        let output = match named {
            Some(named) => match outputs.iter().position(|output| output.name == named) {
                Some(output) => output,
                None => {
                    let near = self.nearest.find(named, outputs.iter().map(|output| output.name));
                    let only = match fitting.as_slice() {
                        [only] => Some(outputs[*only].name),
                        _ => None,
                    };
                    let label = near.or(only).map(|name| did_you_mean(&format!("{node}.{name}"))).unwrap_or_default();
                    let message = format!("`{node}` has no output {}", code(named));
                    let help = format!("{kind} gives {}", gives(outputs));
                    self.error("unknown-output", message, place, label).help = Some(help);
                    return None;
                }
            },
            None => match fitting.as_slice() {
                [only] => *only,
                [] => 0,
                several => {
                    let names: Vec<_> = several.iter().map(|&i| format!("{node}.{}", outputs[i].name)).collect();
                    let message = format!("`{node}` gives more than one {}", socket.type_name);
                    let help = format!("name one: {}", either(names.iter().map(String::as_str)));
                    self.error("ambiguous-output", message, place, "which one?").help = Some(help);
                    return None;
                }
            },
        };
        if outputs[output].type_name == socket.type_name {
            return Some(output);
        }
        let given = outputs[output].type_name;
        let written = match named {
            _ if outputs.len() == 1 => format!("`{node}` gives {}", an(given)),
            Some(named) => format!("`{node}.{named}` is {}", an(given)),
            None => format!("`{node}` gives {}", gives(outputs)),
        };
        let message = format!("`{}` takes {}, but {written}", socket.name, an(socket.type_name));
        let help = self.conversion(port, node, outputs, &fitting, named.map_or(outputs, |_| &outputs[output..=output]));
        let label = format!("{kind} gives {}", gives(outputs));
        let label = self.document.texts.label(node_place, label);
        let fault = self.error("type-mismatch", message, place, format!("{} is needed here", an(socket.type_name)));
        fault.secondary.push(label);
        fault.help = Some(help);
        None
    }

    /// What to do about a value of the wrong type.
    fn conversion(
        &self,
        port: Port,
        node: &str,
        outputs: &[SocketSpec],
        fitting: &[usize],
        given: &[SocketSpec],
    ) -> String {
        if let Some(&other) = fitting.first() {
            return format!("write `{node}.{}`", outputs[other].name);
        }
        // By custom, what a node works on is the last thing that it must have; before it stand its tools.
        let converts = |entry: &&Entry| {
            let works_on = entry.node_type.inputs.iter().rfind(|input| input.arity == Arity::One);
            let fits = works_on.is_some_and(|input| {
                input.variants.is_empty() && given.iter().any(|given| given.type_name == input.type_name)
            });
            fits && entry.node_type.outputs.iter().any(|output| output.type_name == port.socket.type_name)
        };
        let mut converters: Vec<_> = self.registry.iter().filter(converts).collect();
        converters.sort_by_key(|entry| entry.node_type.inputs.len());
        let names = converters.iter().map(|entry| entry.node_type.name).take(2).collect::<Vec<_>>();
        if names.is_empty() {
            return format!("link `{}` to {}", port.socket.name, self.advice(port));
        }
        let given = given.iter().map(|given| an(given.type_name)).collect::<Vec<_>>();
        format!("put {} between: it makes {} of {}", either(names), an(port.socket.type_name), given.join(" or "))
    }

    /// What a socket may be linked to: the nodes before it that give its type; failing these, the others; at last node
    /// types.
    fn advice(&self, port: Port) -> String {
        const SHOWN: usize = 3;
        let wanted = an(port.socket.type_name);
        let givers = self.givers.get(port.socket.type_name).map(Vec::as_slice).unwrap_or_default();
        let (before, after) = givers.split_at(givers.partition_point(|&giver| giver < port.consumer));
        let near = if before.is_empty() { after } else { &before[before.len().saturating_sub(SHOWN)..] };
        let links = near.iter().filter(|&&giver| giver != port.consumer).take(SHOWN).filter_map(|&giver| {
            let draft = &self.drafts[giver];
            let outputs = draft.entry?.node_type.outputs.iter();
            let mut fitting = outputs.filter(|output| output.type_name == port.socket.type_name);
            let first = fitting.next()?;
            let alone = fitting.next().is_none();
            Some(if alone { draft.key.name.clone() } else { format!("{}.{}", draft.key.name, first.name) })
        });
        let links: Vec<_> = links.collect();
        if !links.is_empty() {
            return format!("a node that gives {wanted}, such as {}", either(links.iter().map(String::as_str)));
        }
        let gives = |entry: &&Entry| entry.node_type.outputs.iter().any(|o| o.type_name == port.socket.type_name);
        let types: Vec<_> = self.registry.iter().filter(gives).map(|entry| entry.node_type.name).collect();
        match types.as_slice() {
            [] => format!("{wanted}, which no node type gives"),
            _ => format!("a node that gives {wanted}: add one of the type {}", either(types)),
        }
    }
}
