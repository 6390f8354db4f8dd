//! YAML → a document: the workflow's parts with their locations, every `${…}` written in.
//!
//! Knows the shape of a workflow file. Knows no node type and no other file: what a node's keys mean is the graph check's
//! affair.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value as Json;

use crate::diagnostic::{Diagnostic, Label};
use crate::nearest::{NameFinder, listed};
use crate::overrides::Override;
use crate::sink::DiagnosticSink;
use crate::source::{Source, Span};
use crate::source_map::SourceMap;
use crate::yaml::{self, Location, MAX_COPIES, MAX_DEPTH, YamlData, YamlKey, YamlValue};

/// The format that this program reads: `lsregen: 1`.
const VERSION: u64 = 1;

/// Bytes of a file.
pub(crate) const MAX_SIZE: usize = 1 << 20;

const TOP_KEYS: [&str; 5] = ["lsregen", "about", "params", "nodes", "outputs"];

/// Faulty `${…}` that are told of one text.
const MAX_FAULTS: usize = 100;

/// Whether a node or parameter may have this name: letters, digits, `_` and `-`, a letter or `_` first.
pub(crate) fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
}

/// A workflow file, read. Parts that were faulty are left out of it, or marked as such.
pub struct Document {
    source: Arc<Source>,
    about: Option<String>,
    params: Vec<(YamlKey, YamlValue)>,
    pub(crate) nodes: Vec<(YamlKey, YamlValue)>,
    /// The links that the file declares as its outputs; `None` where it declares none.
    pub(crate) outputs: Option<Vec<(YamlKey, YamlValue)>>,
}

/// Where the values of a file's parameters come from, beside the file itself.
#[derive(Clone, Copy)]
pub(crate) enum Given<'a> {
    Overrides(&'a [Override]),
    /// The keys of a node whose type is the file `kind`.
    Node {
        kind: &'a str,
        keys: &'a [(YamlKey, YamlValue)],
    },
}

/// What came of reading a document.
pub(crate) struct Read {
    /// `None` where too little of it could be read to go on.
    pub document: Option<Document>,
    pub diagnostics: DiagnosticSink,
    /// What `${…}` wrote in, in the measure of [`MAX_COPIES`].
    pub copied: usize,
}

/// The YAML of a workflow file, its locations marked as those of the text `origin`.
pub(crate) fn read(source: &Arc<Source>, origin: usize) -> (Option<YamlValue>, DiagnosticSink) {
    if let Some(error) = unreadable(source) {
        let mut found = DiagnosticSink::default();
        found.push(error);
        return (None, found);
    }
    let (root, mut diagnostics) = yaml::read(source, origin);
    if root.is_none() && diagnostics.list().is_empty() {
        diagnostics.push(empty(source));
    }
    (root, diagnostics)
}

impl Document {
    /// Makes a document of what was [`read`] of the text `file`, the values of its parameters written in.
    pub(crate) fn of(root: YamlValue, file: usize, given: Given, sources: &mut SourceMap, names: &NameFinder) -> Read {
        let mut parser = Parser {
            sources,
            file,
            names,
            params: vec![],
            by_name: HashMap::new(),
            copied: 0,
            overfull: false,
            faulty_reference: false,
            diagnostics: DiagnosticSink::default(),
        };
        let document = parser.document(root, given);
        Read { document, diagnostics: parser.diagnostics, copied: parser.copied }
    }

    /// What the workflow says of itself.
    pub fn about(&self) -> Option<&str> {
        self.about.as_deref()
    }

    /// The parameters with their values after overrides, in the order of the file.
    pub fn params(&self) -> Vec<(&str, Json)> {
        self.params.iter().map(|(key, value)| (key.name.as_str(), json(value))).collect()
    }

    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }
}

/// A value as JSON; what is faulty is null.
pub(crate) fn json(item: &YamlValue) -> Json {
    match &item.data {
        YamlData::Null | YamlData::Poison => Json::Null,
        YamlData::Bool(flag) => Json::Bool(*flag),
        YamlData::Number(number) => Json::Number(number.clone()),
        YamlData::Text(text) => Json::String(text.clone()),
        YamlData::List(items) => items.iter().map(json).collect(),
        YamlData::Map(entries) => entries.iter().map(|(key, value)| (key.name.clone(), json(value))).collect(),
    }
}

/// Why a text is too long to be a workflow.
pub(crate) fn oversize(source: &Source) -> Option<String> {
    let size = source.text().len();
    (size > MAX_SIZE).then(|| format!("the file has {size} bytes; a workflow has at most {MAX_SIZE}"))
}

/// Whether a character has no business in a text file.
pub(crate) fn is_stray(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
        || matches!(c, '\u{fdd0}'..='\u{fdef}' | '\u{fffe}' | '\u{ffff}')
}

/// Why a text is not even tried.
fn unreadable(source: &Arc<Source>) -> Option<Diagnostic> {
    let text = source.text();
    if let Some(message) = oversize(source) {
        let help = "is this the right file? Long lists of boxes can stand in a JSON file (`layout_file`)";
        return Some(
            Diagnostic::error("too-large", message, Label::new(source, Span::new(0, 0), "")).help(help.to_string()),
        );
    }
    let (at, stray) = text.char_indices().find(|&(_, c)| is_stray(c))?;
    let message = format!("the control character U+{:04X} stands in the text", u32::from(stray));
    let span = Span::new(at, at + stray.len_utf8());
    let help = "remove it; is this a text file, in UTF-8?";
    Some(Diagnostic::error("control-character", message, Label::new(source, span, "")).help(help.to_string()))
}

fn empty(source: &Arc<Source>) -> Diagnostic {
    Diagnostic::error("empty", "the file is empty", Label::new(source, Span::new(0, 0), ""))
        .help("begin with `lsregen: 1` and `nodes:`; docs/authoring.md shows how".to_string())
}

struct Parser<'t> {
    sources: &'t mut SourceMap,
    /// The document's own text.
    file: usize,
    names: &'t NameFinder,
    params: Vec<Param>,
    by_name: HashMap<String, usize>,
    copied: usize,
    /// More than [`MAX_COPIES`] were copied, which was told.
    overfull: bool,
    /// A faulty `${…}` was told of, so that a parameter may seem unused which is not.
    faulty_reference: bool,
    diagnostics: DiagnosticSink,
}

struct Param {
    key: YamlKey,
    /// As written, then with what it names written in.
    value: YamlValue,
    used: bool,
    /// An outer graph gave it, with everything written in already.
    given: bool,
    /// Of the value with what it names written in.
    weight: usize,
    depth: usize,
}

impl Parser<'_> {
    fn document(&mut self, root: YamlValue, given: Given) -> Option<Document> {
        let described = root.describe();
        let entries = match root.data {
            YamlData::Map(entries) => entries,
            YamlData::Null => {
                let error = empty(self.source());
                self.diagnostics.push(error);
                return None;
            }
            _ => {
                let message =
                    format!("a workflow is a mapping with the keys {}, but this is {described}", listed(TOP_KEYS));
                self.error("not-a-workflow", message, root.location, "").help =
                    Some("begin with `lsregen: 1` and `nodes:`; docs/authoring.md shows how".into());
                return None;
            }
        };
        let mut parts: [Option<(YamlKey, YamlValue)>; 5] = Default::default();
        let mut misspelt = vec![];
        for (key, value) in entries {
            match TOP_KEYS.iter().position(|name| *name == key.name) {
                Some(index) => parts[index] = Some((key, value)),
                None => {
                    let near = self.names.nearest(&key.name, TOP_KEYS);
                    let message = format!("a workflow has no key `{}`", key.name);
                    self.error("unknown-key", message, key.location, near.map(did_you_mean).unwrap_or_default()).help =
                        Some(format!("its keys are {}", listed(TOP_KEYS)));
                    misspelt.extend(near.map(|near| (near, (key, value))));
                }
            }
        }
        // What was surely meant is read on, so that nothing follows from the wrong letter.
        for (name, entry) in misspelt {
            if let Some(index) = TOP_KEYS.iter().position(|key| *key == name) {
                parts[index].get_or_insert(entry);
            }
        }
        let [version, about, params, nodes, outputs] = parts;
        self.version(version, root.location);
        let about = about.and_then(|(_, value)| self.about(value));
        let params_known = params.is_none_or(|(_, value)| self.params(value));
        match given {
            Given::Overrides(overrides) => self.overrides(overrides),
            Given::Node { kind, keys } if params_known => self.given(kind, keys, outputs.as_ref()),
            Given::Node { .. } => {}
        }
        for index in 0..self.params.len() {
            let value = self.params[index].value.clone();
            let value = if self.params[index].given { value } else { self.fill(value, index) };
            let param = &mut self.params[index];
            (param.weight, param.depth) = (value.weight(), value.depth());
            param.value = value;
        }
        let nodes = self.nodes(nodes, root.location);
        let outputs = outputs.and_then(|(_, value)| self.outputs(value));
        if !self.faulty_reference && nodes.is_some() {
            self.unused();
        }
        let params = std::mem::take(&mut self.params).into_iter().map(|param| (param.key, param.value)).collect();
        let source = self.source().clone();
        Some(Document { source, about, params, nodes: nodes.unwrap_or_default(), outputs })
    }

    fn source(&self) -> &Arc<Source> {
        self.sources.source(self.file)
    }

    fn error(
        &mut self,
        code: &'static str,
        message: impl Into<String>,
        location: Location,
        label: impl Into<String>,
    ) -> &mut Diagnostic {
        let diagnostic = self.sources.error(code, message, location, label);
        self.diagnostics.push(diagnostic)
    }

    fn version(&mut self, version: Option<(YamlKey, YamlValue)>, root: Location) {
        let Some((_, value)) = version else {
            let span = first_line(self.source(), root.span);
            self.error("version", "the file does not say which format it has", Location { span, ..root }, "").help =
                Some(format!("begin it with `lsregen: {VERSION}`"));
            return;
        };
        match &value.data {
            YamlData::Number(number) if number.as_u64() == Some(VERSION) => {}
            YamlData::Poison => {}
            YamlData::Number(number) if number.as_u64().is_some_and(|newer| newer > VERSION) => {
                let message = format!("the file has format {number}, but this lsregen reads format {VERSION}");
                self.error("version", message, value.location, "").help = Some("use a newer lsregen".into());
            }
            _ => {
                let message = format!("the format is `{VERSION}`, but this is {}", value.describe());
                self.error("version", message, value.location, "").help = Some(format!("write `lsregen: {VERSION}`"));
            }
        }
    }

    fn about(&mut self, value: YamlValue) -> Option<String> {
        match value.data {
            YamlData::Text(text) => Some(text),
            YamlData::Null | YamlData::Poison => None,
            _ => {
                let message = format!("`about` is a text, but this is {}", value.describe());
                self.error("wrong-type", message, value.location, "").help = Some("put it in quotes".into());
                None
            }
        }
    }

    /// Whether it is known which parameters there are.
    fn params(&mut self, value: YamlValue) -> bool {
        let described = value.describe();
        let entries = match value.data {
            YamlData::Map(entries) => entries,
            YamlData::Null => return true,
            YamlData::Poison => return false,
            _ => {
                let message = format!("`params` is a mapping of names to values, but this is {described}");
                self.error("wrong-type", message, value.location, "").help =
                    Some("write `name: value`, one a line".into());
                return false;
            }
        };
        for (key, value) in entries {
            if !self.name(&key, "a parameter") {
                continue;
            }
            self.by_name.insert(key.name.clone(), self.params.len());
            self.params.push(Param { key, value, used: false, given: false, weight: 0, depth: 0 });
        }
        true
    }

    /// Whether the name will do; if not, it is told.
    fn name(&mut self, key: &YamlKey, what: &str) -> bool {
        if is_name(&key.name) {
            return true;
        }
        let message = format!("{} is no name for {what}", yaml::quoted(&key.name));
        let help = "a name has letters, digits, `_` and `-`, and begins with a letter";
        let label = if key.name.contains('.') { "a dot parts a node from its output" } else { "" };
        self.error("name", message, key.location, label).help = Some(help.into());
        false
    }

    fn overrides(&mut self, overrides: &[Override]) {
        for given in overrides {
            let known = self.by_name.get(&given.name).copied();
            let declared = known.map(|index| self.params[index].key.location.span);
            let origin = self.sources.add_override(self.file, given.source.clone(), declared);
            let Some(index) = known else {
                let names: Vec<_> = self.params.iter().map(|param| param.key.name.clone()).collect();
                let near = self.names.nearest(&given.name, names.iter().map(String::as_str)).map(did_you_mean);
                let location = Location { origin, span: given.name_span, via: None };
                let message = format!("the file has no parameter `{}`", given.name);
                self.error("unknown-param", message, location, near.unwrap_or_default()).help =
                    Some(match names.len() {
                        0 => "it declares none; those that `--set` may change stand under `params:`".into(),
                        _ => format!("its `params` are {}", listed(names.iter().map(String::as_str))),
                    });
                continue;
            };
            let param = &mut self.params[index];
            let mut value = given.value_for(&param.value);
            mark(&mut value, &mut |location| location.origin = origin);
            param.value = value;
        }
    }

    /// The keys of a node that this file is the type of, as values of its parameters.
    fn given(&mut self, kind: &str, keys: &[(YamlKey, YamlValue)], outputs: Option<&(YamlKey, YamlValue)>) {
        let kind = yaml::code(kind);
        let help = match self.params.is_empty() {
            true => format!("it declares none; what a node may give stands under `params:` of {kind}"),
            false => {
                format!(
                    "the `params` of {kind} are {}",
                    listed(self.params.iter().map(|param| param.key.name.as_str()))
                )
            }
        };
        // Names that a misspelt key may mean: there may be very many of both.
        let present: HashSet<_> = keys.iter().map(|(key, _)| key.name.as_str()).collect();
        let names = self.params.iter().map(|param| &param.key.name);
        let absent: Vec<_> = names.filter(|name| !present.contains(name.as_str())).cloned().collect();
        for (key, value) in keys.iter().filter(|(key, _)| key.name != "type") {
            let Some(&index) = self.by_name.get(&key.name) else {
                let near = self.names.nearest(&key.name, absent.iter().map(String::as_str)).map(did_you_mean);
                let is_output = outputs.is_some_and(|(_, outputs)| outputs.get(&key.name).is_some());
                let (label, help) = match near {
                    None if is_output => (format!("this is an output of {kind}"), help.clone()),
                    None if has_no_colon(self.sources, key, value) => NO_COLON.map(str::to_string).into(),
                    near => (near.unwrap_or_default(), help.clone()),
                };
                let message = format!("{kind} has no parameter {}", yaml::code(&key.name));
                self.error("unknown-key", message, key.location, label).help = Some(help);
                continue;
            };
            let declared = self.params[index].key.location.span;
            let mut value = value.clone();
            let mut origins = HashMap::new();
            mark(&mut value, &mut |location| {
                let Location { origin, via, .. } = *location;
                let new = || self.sources.add_given(self.file, *location, declared);
                let origin = *origins.entry((origin, via)).or_insert_with(new);
                *location = Location { origin, via: None, span: location.span };
            });
            (self.params[index].value, self.params[index].given) = (value, true);
        }
    }

    /// What the file gives where it is a node of another graph. `None` where it says nothing of that.
    fn outputs(&mut self, value: YamlValue) -> Option<Vec<(YamlKey, YamlValue)>> {
        let described = value.describe();
        let entries = match value.data {
            YamlData::Map(entries) if !entries.is_empty() => entries,
            YamlData::Map(_) | YamlData::Null => return None,
            YamlData::Poison => return Some(vec![]),
            _ => {
                let message = format!("`outputs` is a mapping of names to links, but this is {described}");
                self.error("wrong-type", message, value.location, "").help =
                    Some("write `name: node.output`, one a line".into());
                return Some(vec![]);
            }
        };
        let count = self.params.len();
        let named = entries.into_iter().filter_map(|(key, value)| {
            let value = self.fill(value, count);
            self.name(&key, "an output").then_some((key, value))
        });
        Some(named.collect())
    }

    fn nodes(&mut self, nodes: Option<(YamlKey, YamlValue)>, root: Location) -> Option<Vec<(YamlKey, YamlValue)>> {
        let help = "a node is written `name: { type: …, … }`; `lsregen nodes` lists the types";
        let Some((key, value)) = nodes else {
            let span = first_line(self.source(), root.span);
            self.error("no-nodes", "the workflow has no `nodes`", Location { span, ..root }, "").help =
                Some(help.into());
            return None;
        };
        let described = value.describe();
        let entries = match value.data {
            YamlData::Map(entries) => entries,
            YamlData::Poison => return None,
            YamlData::Null => vec![],
            _ => {
                let message = format!("`nodes` is a mapping of names to nodes, but this is {described}");
                self.error("wrong-type", message, value.location, "").help = Some(help.into());
                return None;
            }
        };
        if entries.is_empty() {
            self.error("no-nodes", "the workflow has no nodes", key.location, "").help = Some(help.into());
            return None;
        }
        let count = self.params.len();
        let mut nodes = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let named = self.name(&key, "a node");
            let value = self.fill(value, count);
            // A node without a proper name could not be linked to: it is left out of all that follows.
            nodes.push((key, if named { value } else { YamlValue { data: YamlData::Poison, ..value } }));
        }
        Some(nodes)
    }

    /// Writes parameters in for every `${…}`; those from `visible` on may not be named yet.
    fn fill(&mut self, item: YamlValue, visible: usize) -> YamlValue {
        let YamlValue { location, data } = item;
        let data = match data {
            YamlData::List(items) => YamlData::List(items.into_iter().map(|item| self.fill(item, visible)).collect()),
            YamlData::Map(entries) => {
                YamlData::Map(entries.into_iter().map(|(key, value)| (key, self.fill(value, visible))).collect())
            }
            YamlData::Text(text) if text.contains("${") => return self.fill_text(&text, location, visible),
            other => other,
        };
        YamlValue { location, data }
    }

    fn fill_text(&mut self, text: &str, location: Location, visible: usize) -> YamlValue {
        let poison = YamlValue { location, data: YamlData::Poison };
        if let Some(name) =
            text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).filter(|name| !name.contains('}'))
        {
            let Some(index) = self.reference(name, text, location, visible) else { return poison };
            let param = &self.params[index];
            self.copied += param.weight;
            if self.copied > MAX_COPIES {
                return self.too_large(poison);
            }
            if param.depth > MAX_DEPTH / 2 {
                let message = format!("`{name}` lies too deep to be written in");
                self.error("too-deep", message, location, "").help =
                    Some("nothing in a workflow needs that: flatten it".into());
                return poison;
            }
            let mut value = param.value.clone();
            if location.origin == self.file {
                mark(&mut value, &mut |inner| inner.via = Some(location.span));
            }
            return value;
        }
        let mut written = String::new();
        let mut rest = text;
        let mut faulty = 0;
        while let Some(at) = rest.find("${") {
            // Each error is looked for in the whole text as it was written: of a hopeless one, some are enough.
            if faulty >= MAX_FAULTS {
                self.faulty_reference = true;
                return poison;
            }
            if rest[..at].ends_with('$') {
                written.push_str(&rest[..at - 1]);
                written.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            written.push_str(&rest[..at]);
            let Some(end) = rest[at..].find('}') else {
                let span = self.within(location, &rest[at..], "${");
                self.faulty_reference = true;
                self.error("reference", "a `${` is never closed", span, "").help =
                    Some("write `${name}`; a plain `${` is written `$${`".into());
                return poison;
            };
            let reference = &rest[at..=at + end];
            rest = &rest[at + end + 1..];
            let Some(index) = self.reference(&reference[2..reference.len() - 1], reference, location, visible) else {
                faulty += 1;
                continue;
            };
            match &self.params[index].value.data {
                YamlData::Text(text) => written.push_str(text),
                YamlData::Number(number) => written.push_str(&number.to_string()),
                YamlData::Bool(flag) => written.push_str(if *flag { "true" } else { "false" }),
                YamlData::Poison => faulty += 1,
                _ => {
                    let message = format!(
                        "`{reference}` is {}, which cannot be written into a text",
                        self.params[index].value.describe()
                    );
                    let declared = self.params[index].key.location;
                    let declared = self.sources.label(declared, "declared here");
                    let span = self.within(location, reference, reference);
                    let error = self.error("reference", message, span, "");
                    error.secondary.push(declared);
                    error.help = Some(format!("let `{reference}` stand alone, or name a text or number"));
                    faulty += 1;
                }
            }
            self.copied += 1 + written.len() / 32;
            if self.copied > MAX_COPIES {
                return self.too_large(poison);
            }
        }
        written.push_str(rest);
        if faulty > 0 { poison } else { YamlValue { location, data: YamlData::Text(written) } }
    }

    /// The parameter that a reference names.
    fn reference(&mut self, name: &str, reference: &str, location: Location, visible: usize) -> Option<usize> {
        let known = self.by_name.get(name).copied();
        if let Some(index) = known {
            self.params[index].used = true;
            if index < visible {
                return known;
            }
        }
        let span = self.within(location, reference, reference);
        self.faulty_reference = true;
        if let Some(index) = known {
            let declared = self.sources.label(self.params[index].key.location, "declared here");
            let error = self.error("reference", format!("`{name}` is not known yet here"), span, "");
            error.secondary.push(declared);
            error.help = Some("a parameter may name those above it: change their order".into());
            return None;
        }
        let names = || self.params.iter().take(visible).map(|param| param.key.name.as_str());
        let near = self.names.nearest(name, names()).map(did_you_mean);
        let (message, help) = match visible.min(self.params.len()) {
            _ if name.trim().is_empty() => {
                ("a `${}` names no parameter".into(), "write `${name}`; a plain `${` is written `$${`".into())
            }
            0 => (
                format!("there is no parameter `{name}`"),
                format!("declare it: `params: {{ {name}: … }}`; a plain `${{` is written `$${{`"),
            ),
            _ => (format!("there is no parameter `{name}`"), format!("`params` has {}", listed(names()))),
        };
        self.error("unknown-param", message, span, near.unwrap_or_default()).help = Some(help);
        None
    }

    /// The location of a part of a text, where it stands in the source as it is; else of the whole text.
    fn within(&self, location: Location, from: &str, part: &str) -> Location {
        let source = self.sources.label(location, "").source;
        let written = source.slice(location.span);
        let at = written.find(from).or_else(|| written.find(part));
        match at {
            Some(at) => Location {
                span: Span::new(location.span.start + at, location.span.start + at + part.len()),
                ..location
            },
            None => location,
        }
    }

    /// Told once; from then on everything that is written in is poison.
    fn too_large(&mut self, poison: YamlValue) -> YamlValue {
        if !std::mem::replace(&mut self.overfull, true) {
            let message = format!("written out, the `${{…}}` of this file make more than {MAX_COPIES} values");
            self.error("too-large", message, poison.location, "").help =
                Some("name large parameters in fewer locations; boxes can stand in a JSON file (`layout_file`)".into());
        }
        poison
    }

    fn unused(&mut self) {
        for param in self.params.iter().filter(|param| !param.used) {
            let message = format!("the parameter `{}` is not used", param.key.name);
            let help = format!("name it as `${{{}}}`, or remove it", param.key.name);
            self.diagnostics.push(self.sources.warning("unused-param", message, param.key.location).help(help));
        }
    }
}

/// Whether a key stands for itself, as in `{ prompt: red, blue }`.
pub(crate) fn has_no_colon(sources: &SourceMap, key: &YamlKey, value: &YamlValue) -> bool {
    /// Spaces before a colon; no one writes more.
    const LOOKED_AT: usize = 200;
    let text = sources.source(key.location.origin).text();
    let mut after = text[key.location.span.end..].chars().take(LOOKED_AT);
    value.data == YamlData::Null && after.find(|c| !c.is_whitespace()) != Some(':')
}

/// What to say of such a key: label and help.
pub(crate) const NO_COLON: [&str; 2] =
    ["a key without a value", "if it belongs to the text before the comma, put that whole text in quotes"];

pub(crate) fn did_you_mean(name: &str) -> String {
    format!("did you mean `{name}`?")
}

fn first_line(source: &Source, span: Span) -> Span {
    let line = source.line_span(source.position(span.start).line);
    Span::new(span.start, line.end.max(span.start))
}

/// Changes every location in a value.
pub(crate) fn mark(item: &mut YamlValue, change: &mut impl FnMut(&mut Location)) {
    change(&mut item.location);
    match &mut item.data {
        YamlData::List(items) => items.iter_mut().for_each(|item| mark(item, change)),
        YamlData::Map(entries) => entries.iter_mut().for_each(|(key, value)| {
            change(&mut key.location);
            mark(value, change);
        }),
        _ => {}
    }
}
