//! Document + registry → graph, or every fault of the document at once.
//!
//! A cause is told once: what is faulty is left out of the later steps, so that nothing follows from it.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use petgraph::graph::{DiGraph, NodeIndex};
use serde_json::{Map, Value as Json};

use crate::context::{CheckContext, Host};
use crate::diagnostic::{Diagnostic, Label};
use crate::document::{Document, MAX_SIZE, Override, did_you_mean, json};
use crate::graph::{Graph, GraphNode, Link, find, knots};
use crate::nearest::{Nearest, either, listed};
use crate::node::{DynNode, Fault};
use crate::registry::{Entry, Registry};
use crate::schema::{self, readable};
use crate::socket::{Arity, SocketSpec};
use crate::source::{Source, Span};
use crate::yaml::{Data, Item, Key, Place, quoted};

/// What a check found.
pub struct Checked {
    /// There is one exactly when no diagnostic is an error.
    pub graph: Option<Graph>,
    pub document: Option<Document>,
    /// In the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// Checks a whole workflow. Nothing of it runs; files that it names are looked for, but not read.
pub fn check(source: Arc<Source>, overrides: &[Override], registry: &Registry, host: &Host) -> Checked {
    let (document, diagnostics) = Document::parse(source.clone(), overrides);
    let Some(document) = document else { return Checked { graph: None, document, diagnostics } };
    let mut checker = Checker::new(&document, registry, host, diagnostics);
    checker.nodes();
    checker.links();
    checker.cycles();
    checker.variants();
    checker.written();
    checker.needed();
    let Checker { drafts, mut diagnostics, .. } = checker;
    in_order(&mut diagnostics, &source);
    let graph = if diagnostics.iter().any(Diagnostic::is_error) { None } else { assemble(&source, &drafts) };
    Checked { graph, diagnostics, document: Some(document) }
}

fn assemble(source: &Arc<Source>, drafts: &[Draft]) -> Option<Graph> {
    let nodes = drafts.iter().map(|draft| {
        Some(GraphNode {
            name: draft.key.name.as_str().into(),
            span: draft.key.place.span,
            node_type: draft.entry?.node_type,
            node: draft.node.clone()?,
            inputs: draft.links.iter().map(|links| links.iter().filter_map(DraftLink::finished).collect()).collect(),
        })
    });
    let graph = Graph::assemble(source.clone(), nodes.collect::<Option<_>>()?).ok()?;
    Some(graph.with_values(drafts.iter().map(|draft| draft.value.clone()).collect()))
}

/// Sorts by place in the file; a fault that two steps found stays once.
fn in_order(diagnostics: &mut Vec<Diagnostic>, source: &Arc<Source>) {
    let mut told = HashSet::new();
    diagnostics.retain(|diagnostic| {
        let primary = &diagnostic.primary;
        told.insert((diagnostic.code, Arc::as_ptr(&primary.source), primary.span, diagnostic.message.clone()))
    });
    diagnostics.sort_by_key(|diagnostic| {
        let mut labels = std::iter::once(&diagnostic.primary).chain(&diagnostic.secondary);
        labels.find(|label| Arc::ptr_eq(&label.source, source)).map_or(0, |label| label.span.start)
    });
}

/// A node as far as it is known.
struct Draft<'a> {
    key: &'a Key,
    value: &'a Item,
    /// Its type; `None` where that is faulty.
    entry: Option<&'a Entry>,
    /// `None` where its parameters are faulty.
    node: Option<Arc<dyn DynNode>>,
    /// Of each input socket.
    links: Vec<Vec<DraftLink>>,
}

/// An input socket of a node.
#[derive(Clone, Copy)]
struct Port {
    consumer: usize,
    socket: &'static SocketSpec,
}

/// A link to a node that is there.
struct DraftLink {
    place: Place,
    producer: usize,
    /// `None` where the output is faulty.
    output: Option<usize>,
}

impl DraftLink {
    fn sound(&self) -> bool {
        self.output.is_some()
    }

    fn finished(&self) -> Option<Link> {
        Some(Link { producer: NodeIndex::new(self.producer), output: self.output? })
    }
}

struct Checker<'a> {
    document: &'a Document,
    registry: &'a Registry,
    cx: CheckContext<'a>,
    nearest: Nearest,
    drafts: Vec<Draft<'a>>,
    by_name: HashMap<&'a str, usize>,
    /// The nodes that give each type, for advice.
    givers: HashMap<&'static str, Vec<usize>>,
    /// What is known of files, so that each is looked at once.
    files: HashMap<PathBuf, Option<String>>,
    /// Nodes whose names are faulty.
    misnamed: Vec<usize>,
    /// Something may be missing from the links, so that no one knows what is needed.
    links_incomplete: bool,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Checker<'a> {
    fn new(
        document: &'a Document,
        registry: &'a Registry,
        host: &'a Host,
        diagnostics: Vec<Diagnostic>,
    ) -> Checker<'a> {
        let drafts = document.nodes.iter();
        let drafts: Vec<_> =
            drafts.map(|(key, value)| Draft { key, value, entry: None, node: None, links: vec![] }).collect();
        let by_name = drafts.iter().enumerate().map(|(index, draft)| (draft.key.name.as_str(), index)).collect();
        Checker {
            document,
            registry,
            cx: CheckContext::new(host),
            nearest: Nearest::new(),
            drafts,
            by_name,
            givers: HashMap::new(),
            files: HashMap::new(),
            misnamed: vec![],
            links_incomplete: false,
            diagnostics,
        }
    }

    fn error(
        &mut self,
        code: &'static str,
        message: impl Into<String>,
        place: Place,
        label: impl Into<String>,
    ) -> &mut Diagnostic {
        let diagnostic = self.document.texts.error(code, message, place, label);
        self.diagnostics.push(diagnostic);
        self.diagnostics.last_mut().expect("just pushed")
    }

    /// Types, keys, parameters and files: what each node says of itself.
    fn nodes(&mut self) {
        for index in 0..self.drafts.len() {
            let Some(entry) = self.node_type(index) else {
                self.links_incomplete = true;
                if self.drafts[index].value.data == Data::Poison {
                    self.misnamed.push(index);
                }
                continue;
            };
            self.drafts[index].entry = Some(entry);
            for output in entry.node_type.outputs {
                let givers = self.givers.entry(output.type_name).or_default();
                if givers.last() != Some(&index) {
                    givers.push(index);
                }
            }
            let missing = self.keys(index, entry);
            if let Some(node) = self.decode(index, entry, &missing) {
                self.faults(index, &*node);
                self.drafts[index].node = Some(node);
            }
        }
    }

    fn node_type(&mut self, index: usize) -> Option<&'a Entry> {
        let Draft { key, value, .. } = self.drafts[index];
        let name = &key.name;
        let advice = "`lsregen nodes` lists the types";
        let entries = match &value.data {
            Data::Map(entries) => entries,
            Data::Poison => return None,
            _ => {
                let place = if value.data == Data::Null { key.place } else { value.place };
                let message = match value.data {
                    Data::Null => format!("`{name}` must be a node, a mapping with a `type`, but nothing is given"),
                    _ => format!("`{name}` must be a node, a mapping with a `type`, but is {}", value.describe()),
                };
                self.error("wrong-type", message, place, "").help =
                    Some(format!("write `{name}: {{ type: …, … }}`; {advice}"));
                return None;
            }
        };
        let Some((_, kind)) = value.get("type") else {
            let written = |key: &Key| key.name.starts_with("type ") || self.nearest.find(&key.name, ["type"]).is_some();
            let misspelt = entries.iter().find(|(key, _)| written(key));
            let message = format!("the node `{name}` has no `type`");
            let (place, label) = match misspelt {
                Some((key, _)) => match key.name.strip_prefix("type ") {
                    Some(kind) => (key.place, did_you_mean(&format!("type: {kind}"))),
                    None => (key.place, did_you_mean("type")),
                },
                None => (key.place, String::new()),
            };
            self.error("missing-type", message, place, label).help = Some(format!("give it one; {advice}"));
            return None;
        };
        let text = match &kind.data {
            Data::Text(text) => text,
            Data::Poison => return None,
            _ => {
                let message =
                    format!("the `type` of `{name}` must be the name of a node type, but is {}", kind.describe());
                self.error("unknown-type", message, kind.place, "").help = Some(advice.into());
                return None;
            }
        };
        let entry = self.registry.get(text);
        if entry.is_none() {
            let near = self.nearest.find(text, self.registry.iter().map(|entry| entry.node_type.name));
            let label = near.map(did_you_mean).unwrap_or_default();
            self.error("unknown-type", format!("there is no node type {}", code(text)), kind.place, label).help =
                Some(advice.into());
        }
        entry
    }

    /// Unknown keys, and missing parameters and inputs. Gives the keys that are surely meant by misspelt ones.
    fn keys(&mut self, index: usize, entry: &'a Entry) -> HashSet<&'a str> {
        let Draft { key: node, value, .. } = self.drafts[index];
        let Data::Map(keys) = &value.data else { return HashSet::new() };
        let kind = entry.node_type.name;
        let names = || {
            let sockets = entry.node_type.inputs.iter().map(|socket| socket.name);
            sockets.chain(entry.params.iter().map(|param| param.name.as_str()))
        };
        let mut meant = HashSet::new();
        for (key, value_of_key) in keys {
            if key.name == "type" || names().any(|name| name == key.name) {
                continue;
            }
            let free = names().filter(|name| value.get(name).is_none());
            let near = self.nearest.find(&key.name, free);
            meant.extend(near);
            let message = format!("{kind} has no input or parameter {}", code(&key.name));
            let is_output = entry.node_type.outputs.iter().any(|output| output.name == key.name);
            let (label, help) = if is_output && near.is_none() {
                let help = format!("remove it here; another node links to it by `{}.{}`", node.name, key.name);
                (format!("this is an output of {kind}"), help)
            } else if near.is_none() && self.has_no_colon(key, value_of_key) {
                let help = "if it belongs to the text before the comma, put that whole text in quotes";
                ("a key without a value".into(), help.to_string())
            } else if names().next().is_none() {
                (String::new(), format!("{kind} takes nothing but its `type`"))
            } else {
                (near.map(did_you_mean).unwrap_or_default(), format!("{kind} takes {}", listed(names())))
            };
            self.error("unknown-key", message, key.place, label).help = Some(help);
        }
        let absent = |name: &str| value.get(name).is_none() && !meant.contains(name);
        for param in entry.params.iter().filter(|param| param.required && absent(&param.name)) {
            let message = format!("`{}` has no `{}`, which {kind} needs", node.name, param.name);
            let range = if param.range.is_empty() { String::new() } else { format!(", {}", param.range) };
            let doc = first_sentence(&param.doc).map(|doc| format!(": {doc}")).unwrap_or_default();
            let help = format!("add `{}: …` ({}{range}){doc}", param.name, param.type_text);
            self.error("missing-param", message, node.place, "").help = Some(help);
        }
        meant
    }

    /// Whether a key stands for itself, as in `{ prompt: red, blue }`.
    fn has_no_colon(&self, key: &Key, value: &Item) -> bool {
        let source = self.document.texts.label(key.place, "").source;
        value.data == Data::Null && !source.text()[key.place.span.end..].trim_start().starts_with(':')
    }

    /// The node, where its parameters allow one.
    fn decode(&mut self, index: usize, entry: &'a Entry, meant: &HashSet<&str>) -> Option<Arc<dyn DynNode>> {
        let value = self.drafts[index].value;
        let Data::Map(keys) = &value.data else { return None };
        let mut params = Map::new();
        let is_absent = |name: &str| value.get(name).is_none();
        let mut sound = meant.is_empty() && !entry.params.iter().any(|param| param.required && is_absent(&param.name));
        for (key, item) in keys {
            if !entry.params.iter().any(|param| param.name == key.name) {
                continue;
            }
            let json = json(item);
            let mut poisoned = vec![];
            poison(item, key.name.clone(), &mut poisoned);
            sound &= poisoned.is_empty();
            for misfit in schema::misfits(&entry.schema, &key.name, &json, &self.nearest) {
                // What is said above, at or below a faulty place may follow from it.
                let inside = |outer: &str, inner: &str| {
                    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                };
                if poisoned.iter().any(|place| inside(place, &misfit.path) || inside(&misfit.path, place)) {
                    continue;
                }
                sound = false;
                let (found_key, found) = find(value, &misfit.path);
                let place = match found_key {
                    Some(key) if misfit.on_key || found.data == Data::Null => key.place,
                    _ => found.place,
                };
                let link = match &found.data {
                    Data::Text(text) if misfit.code == "wrong-type" && misfit.path == key.name => {
                        self.link_advice(text, &key.name, entry)
                    }
                    _ => None,
                };
                self.error(misfit.code, misfit.message, place, misfit.label).help = link.or(misfit.help);
            }
            params.insert(key.name.clone(), json);
        }
        if !sound {
            return None;
        }
        match (entry.node_type.decode)(&Json::Object(params)) {
            Ok(node) => Some(node),
            Err(fault) => {
                self.fault(index, "wrong-value", fault);
                None
            }
        }
    }

    /// Advice where a parameter was given the name of a node.
    fn link_advice(&self, text: &str, param: &str, entry: &Entry) -> Option<String> {
        let name = text.split('.').next().unwrap_or_default();
        self.by_name.get(name)?;
        let inputs = entry.node_type.inputs;
        let instead = match inputs.is_empty() {
            true => String::new(),
            false => format!("; the inputs of {} are {}", entry.node_type.name, listed(inputs.iter().map(|s| s.name))),
        };
        Some(format!("`{name}` is a node, but `{param}` is a parameter and takes a value{instead}"))
    }

    fn fault(&mut self, index: usize, code: &'static str, fault: Fault) {
        let Draft { key, value, .. } = self.drafts[index];
        let (found_key, found) = find(value, &fault.path);
        let place = if found_key.is_some() { found.place } else { key.place };
        let message = match (fault.path.is_empty(), fault.message) {
            (true, message) => format!("`{}`: {message}", key.name),
            // A message that names its place needs no other name.
            (false, message) if message.contains('`') => message,
            (false, message) => format!("`{}`: {message}", readable(&fault.path)),
        };
        self.error(code, message, place, "").help = fault.help;
    }

    /// What the node itself objects to, and files that are not there.
    fn faults(&mut self, index: usize, node: &dyn DynNode) {
        for fault in node.check(&self.cx) {
            self.fault(index, "invalid", fault);
        }
        for file in node.files(&self.cx) {
            let problem = match self.files.get(&file.path) {
                Some(problem) => problem.clone(),
                None => {
                    let problem = unusable(&file.path);
                    self.files.insert(file.path.clone(), problem.clone());
                    problem
                }
            };
            let Some(message) = problem else { continue };
            let (found_key, found) = find(self.drafts[index].value, &file.param);
            let place = if found_key.is_some() { found.place } else { self.drafts[index].key.place };
            let near = near_file(&file.path, &self.nearest);
            self.error("file", message, place, near.as_deref().map(did_you_mean).unwrap_or_default()).help =
                Some("files are looked for beside the graph; an absolute path is taken as it is".into());
        }
    }

    /// What each input socket is linked to.
    fn links(&mut self) {
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

    /// Nodes that wait for each other.
    fn cycles(&mut self) {
        for index in 0..self.drafts.len() {
            let to_itself: Option<Place> = self.drafts[index]
                .links
                .iter()
                .flatten()
                .find(|link| link.sound() && link.producer == index)
                .map(|link| link.place);
            if let Some(place) = to_itself {
                let name = &self.drafts[index].key.name;
                let message = format!("`{name}` is linked to itself");
                let help = "link it to what comes before it".to_string();
                self.error("cycle", message, place, "").help = Some(help);
            }
        }
        for cycle in knots(&self.link_graph()) {
            self.cycle(&cycle);
        }
    }

    fn cycle(&mut self, cycle: &[NodeIndex]) {
        const LABELLED: usize = 12;
        let names: Vec<_> = cycle.iter().map(|node| self.drafts[node.index()].key.name.as_str()).collect();
        let message = format!("{} wait for each other", listed(names.iter().copied()));
        let labels = cycle.iter().zip(cycle.iter().cycle().skip(1)).take(LABELLED).filter_map(|(node, next)| {
            let draft = &self.drafts[node.index()];
            let link = draft.links.iter().flatten().find(|link| link.producer == next.index())?;
            let text = format!("`{}` needs `{}`", draft.key.name, self.drafts[next.index()].key.name);
            Some((link.place, self.document.texts.label(link.place, text)))
        });
        let mut labels = labels.collect::<Vec<_>>().into_iter();
        let Some((place, first)) = labels.next() else { return };
        let fault = self.error("cycle", message, place, first.text);
        fault.secondary.extend(labels.map(|(_, label)| label));
        fault.help = Some("remove one of these links: a node can only take what is made before it".into());
    }

    /// Whether values are of a variant (model family) that their consumers take. A node hands on the variant of its
    /// input to an output of the same type.
    fn variants(&mut self) {
        // Where each output's variant comes from, and which it is.
        let mut known: Vec<Vec<Option<(usize, String)>>> = vec![vec![]; self.drafts.len()];
        for index in self.producers_first() {
            let draft = &self.drafts[index];
            let Some(entry) = draft.entry else { continue };
            let own = draft.node.as_ref().map(|node| node.variants(&self.cx)).unwrap_or_default();
            let inherited = |type_name: &str| {
                let sockets = entry.node_type.inputs.iter().zip(&draft.links);
                let mut links = sockets.filter(|(s, _)| s.type_name == type_name).flat_map(|(_, links)| links);
                let link = links.next().filter(|_| links.next().is_none())?;
                known[link.producer].get(link.output?)?.clone()
            };
            let outputs = entry.node_type.outputs.iter().map(|output| {
                let own = own.iter().find(|(name, _)| *name == output.name);
                own.map(|(_, variant)| (index, variant.clone())).or_else(|| inherited(output.type_name))
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
                        (!fits).then(|| (link.place, link.producer, *origin, variant.clone()))
                    })
                    .collect();
                for (place, producer, origin, variant) in wrong {
                    self.wrong_variant(socket, place, producer, origin, &variant, &known);
                }
            }
        }
    }

    /// From producers to consumers by sound links, without nodes that are linked to themselves.
    fn link_graph(&self) -> DiGraph<(), ()> {
        let mut graph = DiGraph::with_capacity(self.drafts.len(), self.drafts.len());
        for _ in &self.drafts {
            graph.add_node(());
        }
        for (index, draft) in self.drafts.iter().enumerate() {
            for link in draft.links.iter().flatten().filter(|link| link.sound() && link.producer != index) {
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
        socket: &SocketSpec,
        place: Place,
        producer: usize,
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
            name(producer)
        );
        const LOOKED_AT: usize = 100;
        let givers = self.givers.get(kind).into_iter().flatten().take(LOOKED_AT);
        let fits = givers.filter(|&&index| {
            let mut variants = known[index].iter().flatten();
            variants.any(|(_, variant)| socket.variants.contains(&variant.as_str()))
        });
        let fits: Vec<_> = fits.map(|&index| name(index)).collect();
        let help = match fits.as_slice() {
            [] => format!("link it to a {kind} of the family {families}"),
            _ => format!("link it to {}", either(fits)),
        };
        let label =
            self.document.texts.label(self.drafts[origin].key.place, format!("the family `{variant}` comes from here"));
        let fault = self.error("wrong-family", message, place, format!("{families} is needed here"));
        fault.secondary.push(label);
        fault.help = Some(help);
    }

    /// Two nodes that write one file.
    fn written(&mut self) {
        let mut first: HashMap<PathBuf, Place> = HashMap::new();
        for index in 0..self.drafts.len() {
            let Some(node) = self.drafts[index].node.clone() else { continue };
            for file in node.writes(&self.cx) {
                let (found_key, found) = find(self.drafts[index].value, &file.param);
                let place = if found_key.is_some() { found.place } else { self.drafts[index].key.place };
                let Some(&former) = first.get(&file.path) else {
                    first.insert(file.path, place);
                    continue;
                };
                let label = self.document.texts.label(former, "written here");
                let message = format!("two nodes write the file `{}`", file.path.display());
                let fault = self.error("written-twice", message, place, "and here again");
                if former != place {
                    fault.secondary.insert(0, label);
                }
                fault.help = Some("give one of them another path".into());
            }
        }
    }

    /// What a run would be for, and what it would not touch.
    fn needed(&mut self) {
        if self.links_incomplete || self.drafts.is_empty() {
            return;
        }
        let is_output = |draft: &Draft| draft.entry.is_some_and(|entry| entry.node_type.output);
        let outputs: Vec<_> = (0..self.drafts.len()).filter(|&index| is_output(&self.drafts[index])).collect();
        if outputs.is_empty() {
            let types = self.registry.iter().filter(|entry| entry.node_type.output).map(|entry| entry.node_type.name);
            let help = format!("add an output: a node of the type {}", either(types));
            let last = self.drafts[self.drafts.len() - 1].key.place;
            let message = "nothing would run, because no node writes anything";
            self.error("no-output", message, last, "the last node").help = Some(help);
            return;
        }
        if self.diagnostics.iter().any(Diagnostic::is_error) {
            return;
        }
        let mut needed = vec![false; self.drafts.len()];
        let mut queue = outputs;
        while let Some(index) = queue.pop() {
            if !std::mem::replace(&mut needed[index], true) {
                queue.extend(self.drafts[index].links.iter().flatten().map(|link| link.producer));
            }
        }
        for (draft, _) in self.drafts.iter().zip(needed).filter(|(_, needed)| !needed) {
            let message = format!("`{}` does not run, because no output needs it", draft.key.name);
            let label = Label::new(self.document.source(), draft.key.place.span, "");
            let help = "link an output to it, or remove it".to_string();
            self.diagnostics.push(Diagnostic::warning("unneeded-node", message, label).help(help));
        }
    }
}

/// Paths of faulty values within a parameter.
fn poison(item: &Item, path: String, found: &mut Vec<String>) {
    match &item.data {
        Data::Poison => found.push(path),
        Data::List(items) => {
            items.iter().enumerate().for_each(|(index, item)| poison(item, format!("{path}/{index}"), found));
        }
        Data::Map(entries) => {
            entries.iter().for_each(|(key, item)| poison(item, format!("{path}/{}", key.name), found));
        }
        _ => {}
    }
}

/// A name as code, shortened where it is long.
fn code(name: &str) -> String {
    let quoted = quoted(name);
    format!("`{}`", &quoted[1..quoted.len() - 1])
}

fn an(type_name: &str) -> String {
    let vowel = type_name.starts_with(['A', 'E', 'I', 'O', 'U']);
    format!("{} {type_name}", if vowel { "an" } else { "a" })
}

fn first_sentence(doc: &str) -> Option<&str> {
    let paragraph = doc.split("\n\n").next()?.trim();
    let sentence = paragraph.split(". ").next().unwrap_or(paragraph);
    (!sentence.is_empty()).then(|| sentence.trim_end_matches('.'))
}

/// Reads a workflow file, for [`check`]. Messages call it by the path as given.
///
/// # Errors
/// When there is no such file, or it is too large to be a workflow, or no text.
pub fn read_source(path: &Path) -> Result<Arc<Source>, Box<Diagnostic>> {
    let name = path.display().to_string();
    let nowhere = Source::new(&*name, "");
    let fault = |code, message: String| Diagnostic::error(code, message, Label::new(&nowhere, Span::default(), ""));
    if let Some(problem) = unusable(path) {
        let near = near_file(path, &Nearest::new());
        return Err(Box::new(fault("file", problem).help(near.as_deref().map(did_you_mean))));
    }
    let mut text = vec![];
    let file = fs::File::open(path).map(|file| file.take(MAX_SIZE as u64 + 1));
    if let Err(error) = file.and_then(|mut file| file.read_to_end(&mut text)) {
        return Err(Box::new(fault("file", format!("the file `{name}` cannot be read: {error}"))));
    }
    // The last character of what is too large may be cut; that it is too large is said by the check.
    match String::from_utf8(text) {
        Ok(text) => Ok(Source::new(name, text)),
        Err(error) if error.as_bytes().len() > MAX_SIZE => {
            Ok(Source::new(name, String::from_utf8_lossy(error.as_bytes()).into_owned()))
        }
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
            let message = format!("line {line} of `{name}` is not UTF-8");
            Err(Box::new(fault("not-utf8", message).help("is this a text file? Save it as UTF-8".to_string())))
        }
    }
}

/// Why a file cannot be read; `None` where it can.
fn unusable(path: &Path) -> Option<String> {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(facts) if facts.is_dir() => Some(format!("`{shown}` is a folder, but a file is needed")),
        Ok(_) => fs::File::open(path).err().map(|error| format!("the file `{shown}` cannot be read: {error}")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() && !folder.exists() => {
                Some(format!("there is no file `{shown}`, nor a folder `{}`", folder.display()))
            }
            _ => Some(format!("there is no file `{shown}`")),
        },
        Err(error) => Some(format!("the file `{shown}` cannot be read: {error}")),
    }
}

/// A file beside the missing one with nearly its name.
fn near_file(path: &Path, nearest: &Nearest) -> Option<String> {
    const LOOKED_AT: usize = 1000;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = fs::read_dir(folder).ok()?.take(LOOKED_AT);
    let mut names: Vec<_> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort_unstable();
    let name = path.file_name()?.to_str()?;
    nearest.find(name, names.iter().map(String::as_str)).filter(|near| *near != name).map(str::to_string)
}
