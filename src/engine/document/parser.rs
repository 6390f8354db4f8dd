//! Reads the parts of a workflow file: its version, description, parameters, nodes and outputs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Document, FORMAT, ParamValues, ParsedDocument, empty};
use crate::text::yaml::{Location, YamlData, YamlKey, YamlValue, quoted};
use crate::text::{Diagnostic, DiagnosticSink, NameFinder, Source, SourceMap, Span, did_you_mean, is_name, listed};

const TOP_KEYS: [&str; 5] = ["lsregen", "about", "params", "nodes", "outputs"];

/// The state of reading one document.
pub(super) struct Parser<'t> {
    pub sources: &'t mut SourceMap,
    /// The document's own text.
    pub file: usize,
    pub names: &'t NameFinder,
    pub params: Vec<Param>,
    pub by_name: HashMap<String, usize>,
    /// The names of the nodes.
    pub nodes: HashSet<String>,
    /// How much the values of `${…}` added.
    pub copied: usize,
    /// `copied` has exceeded its limit, and this has been reported.
    pub overfull: bool,
    /// An invalid `${…}` has been reported, so a parameter may seem unused that is not.
    pub invalid_reference: bool,
    diagnostics: DiagnosticSink,
}

/// A parameter of the file.
pub(super) struct Param {
    pub key: YamlKey,
    /// The value, first as written, later with the values of its `${…}`.
    pub value: YamlValue,
    pub used: bool,
    /// The value comes from an outer graph, where its `${…}` were already replaced.
    pub given: bool,
    /// The weight of the final value.
    pub weight: usize,
    /// The depth of the final value.
    pub depth: usize,
}

impl<'t> Parser<'t> {
    pub fn new(file: usize, sources: &'t mut SourceMap, names: &'t NameFinder) -> Parser<'t> {
        Parser {
            sources,
            file,
            names,
            params: vec![],
            by_name: HashMap::new(),
            nodes: HashSet::new(),
            copied: 0,
            overfull: false,
            invalid_reference: false,
            diagnostics: DiagnosticSink::default(),
        }
    }

    pub fn parse(mut self, root: YamlValue, values: ParamValues) -> ParsedDocument {
        let document = self.document(root, values);
        ParsedDocument { document, diagnostics: self.diagnostics, copied: self.copied }
    }

    fn document(&mut self, root: YamlValue, values: ParamValues) -> Option<Document> {
        let location = root.location;
        let entries = self.top_level(root)?;
        let [version, about, params, nodes, outputs] = self.parts(entries);
        self.version(version, location);
        let about = about.and_then(|(_, value)| self.about(value));
        if let Some((_, YamlValue { data: YamlData::Map(entries), .. })) = &nodes {
            self.nodes = entries.iter().map(|(key, _)| key.name.clone()).collect();
        }
        let params_known = params.is_none_or(|(_, value)| self.params(value));
        match values {
            ParamValues::Overrides(overrides) => self.overrides(overrides),
            ParamValues::Node { file, keys } if params_known => self.given(file, keys, outputs.as_ref()),
            ParamValues::Node { .. } => {}
        }
        for index in 0..self.params.len() {
            let value = self.params[index].value.clone();
            let value = if self.params[index].given { value } else { self.fill(value, index) };
            let param = &mut self.params[index];
            (param.weight, param.depth) = (value.weight(), value.depth());
            param.value = value;
        }
        let nodes = self.nodes(nodes, location);
        let outputs = outputs.and_then(|(_, value)| self.outputs(value));
        if !self.invalid_reference && nodes.is_some() {
            self.report_unused();
        }
        let params = std::mem::take(&mut self.params).into_iter().map(|param| (param.key, param.value)).collect();
        let source = self.source().clone();
        Some(Document { source, about, params, nodes: nodes.unwrap_or_default(), outputs })
    }

    /// The entries of the file.
    fn top_level(&mut self, root: YamlValue) -> Option<Vec<(YamlKey, YamlValue)>> {
        let described = root.describe();
        match root.data {
            YamlData::Map(entries) if is_comfyuis(&entries) => {
                let message = "this is a workflow of ComfyUI, which lsregen cannot read".to_string();
                self.error("not-a-workflow", message, entries[0].0.location, "").help =
                    Some("write its nodes as a graph: `lsregen nodes KSampler` names the counterpart of a node".into());
                None
            }
            YamlData::Map(entries) => Some(entries),
            YamlData::Null => {
                let error = empty(self.source());
                self.diagnostics.push(error);
                None
            }
            _ => {
                let message =
                    format!("a workflow is a mapping with the keys {}, but this is {described}", listed(TOP_KEYS));
                self.error("not-a-workflow", message, root.location, "").help =
                    Some("begin with `lsregen: 1` and `nodes:`; docs/authoring.md shows how".into());
                None
            }
        }
    }

    /// The entry of each top-level key, in the order of `TOP_KEYS`.
    fn parts(&mut self, entries: Vec<(YamlKey, YamlValue)>) -> [Option<(YamlKey, YamlValue)>; 5] {
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
        // A misspelt key is read as the key that it resembles, so that no further errors follow from it.
        for (name, entry) in misspelt {
            if let Some(index) = TOP_KEYS.iter().position(|key| *key == name) {
                parts[index].get_or_insert(entry);
            }
        }
        parts
    }

    fn source(&self) -> &Arc<Source> {
        self.sources.source(self.file)
    }

    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    pub fn error(
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
            self.error(
                "version",
                "the file has no `lsregen`, the version of its format",
                Location { span, ..root },
                "",
            )
            .help = Some(format!("begin the file with `lsregen: {FORMAT}`"));
            return;
        };
        match &value.data {
            YamlData::Number(number) if number.as_u64() == Some(FORMAT) => {}
            YamlData::Poison => {}
            YamlData::Number(number) if number.as_u64().is_some_and(|newer| newer > FORMAT) => {
                let message = format!("the file has format {number}, but this lsregen reads format {FORMAT}");
                self.error("version", message, value.location, "").help = Some("use a newer lsregen".into());
            }
            _ => {
                let message = format!("`lsregen` is the format, `{FORMAT}`, but this is {}", value.describe());
                self.error("version", message, value.location, "").help = Some(format!("write `lsregen: {FORMAT}`"));
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

    /// Reads the parameters. Returns whether their names are known.
    fn params(&mut self, value: YamlValue) -> bool {
        let described = value.describe();
        let entries = match value.data {
            YamlData::Map(entries) => entries,
            YamlData::Null => return true,
            YamlData::Poison => return false,
            _ => {
                let message = format!("`params` is a mapping of names to values, but this is {described}");
                self.error("wrong-type", message, value.location, "").help =
                    Some("write one `name: value` on each line".into());
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

    /// Whether a name is valid. If not, reports it.
    pub fn name(&mut self, key: &YamlKey, what: &str) -> bool {
        if is_name(&key.name) {
            return true;
        }
        let message = format!("{} is not a valid name for {what}", quoted(&key.name));
        let help = "a name has letters, digits, `_` and `-`, and begins with a letter";
        let label = if key.name.contains('.') { "a dot separates a node from its output" } else { "" };
        self.error("name", message, key.location, label).help = Some(help.into());
        false
    }

    /// Reads the outputs: what the file gives as a node of another graph. `None` if it declares none.
    fn outputs(&mut self, value: YamlValue) -> Option<Vec<(YamlKey, YamlValue)>> {
        let described = value.describe();
        let entries = match value.data {
            YamlData::Map(entries) if !entries.is_empty() => entries,
            YamlData::Map(_) | YamlData::Null => return None,
            YamlData::Poison => return Some(vec![]),
            _ => {
                let message = format!("`outputs` is a mapping of names to links, but this is {described}");
                self.error("wrong-type", message, value.location, "").help =
                    Some("write one `name: node.output` on each line".into());
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
            // No link can name a node without a valid name: the node is ignored from here on.
            nodes.push((key, if named { value } else { YamlValue { data: YamlData::Poison, ..value } }));
        }
        Some(nodes)
    }

    fn report_unused(&mut self) {
        for param in self.params.iter().filter(|param| !param.used) {
            let message = format!("the parameter `{}` is not used", param.key.name);
            let help = format!("use it as `${{{}}}`, or remove it", param.key.name);
            self.diagnostics.push(self.sources.warning("unused-param", message, param.key.location).help(help));
        }
    }
}

fn first_line(source: &Source, span: Span) -> Span {
    let line = source.line_span(source.position(span.start).line);
    Span::new(span.start, line.end.max(span.start))
}

/// Whether a file is ComfyUI's: each node has a `class_type`, or the frontend counted them.
fn is_comfyuis(entries: &[(YamlKey, YamlValue)]) -> bool {
    entries.iter().any(|(key, value)| match &value.data {
        YamlData::Map(fields) => fields.iter().any(|(key, _)| key.name == "class_type"),
        _ => key.name == "last_node_id",
    })
}
