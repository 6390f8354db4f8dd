//! Checks each node by itself: its type, keys, parameters and files.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::Checker;
use super::draft::Draft;
use super::output_path::{self, UnknownName};
use crate::document::{NO_COLON, has_no_colon};
use crate::node::{DynNode, NodeError};
use crate::registry::{ParamRole, RegistryEntry, readable, stand_in, violations};
use crate::text::yaml::{YamlData, YamlKey, YamlValue, code};
use crate::text::{Diagnostic, did_you_mean, listed, near_file, why_unreadable};

impl<'a> Checker<'a> {
    /// Checks each node by itself.
    pub(super) fn nodes(&mut self) {
        for scope in 0..self.scopes.len() {
            for index in self.ranges[scope].clone() {
                match self.scopes[scope].graphs.get(&(index - self.ranges[scope].start)) {
                    Some(graph) => {
                        self.drafts[index].graph = *graph;
                        self.links_incomplete |= graph.is_none();
                    }
                    None => self.node(index),
                }
            }
            self.diagnostics.settle();
        }
    }

    fn node(&mut self, index: usize) {
        let Some(entry) = self.node_type(index) else {
            self.links_incomplete = true;
            if self.drafts[index].value.data == YamlData::Poison {
                self.misnamed.insert((self.drafts[index].scope, &self.drafts[index].key.name));
            }
            return;
        };
        self.drafts[index].entry = Some(entry);
        let meant = self.keys(index, entry);
        let (params, invalid) = self.params(index, entry, &meant);
        if let Some(node) = self.decode(index, entry, params, &invalid) {
            self.own_errors(index, &*node, &invalid);
            // A node that was decoded without its invalid parameters served only to check the others.
            self.drafts[index].node = invalid.is_empty().then_some(node);
        }
    }

    fn node_type(&mut self, index: usize) -> Option<&'a RegistryEntry> {
        let Draft { key, value, .. } = self.drafts[index];
        let name = &key.name;
        let advice = "`lsregen nodes` lists the types";
        let entries = match &value.data {
            YamlData::Map(entries) => entries,
            YamlData::Poison => return None,
            _ => {
                let location = if value.data == YamlData::Null { key.location } else { value.location };
                let message = match value.data {
                    YamlData::Null => format!("`{name}` must be a node, a mapping with a `type`, but nothing is given"),
                    _ => format!("`{name}` must be a node, a mapping with a `type`, but is {}", value.describe()),
                };
                self.error("wrong-type", message, location, "").help =
                    Some(format!("write `{name}: {{ type: …, … }}`; {advice}"));
                return None;
            }
        };
        let Some((_, kind)) = value.get("type") else {
            let written = |key: &YamlKey| {
                ["type ", "type:"].iter().any(|start| key.name.starts_with(start))
                    || self.names.nearest(&key.name, ["type"]).is_some()
            };
            let misspelt = entries.iter().find(|(key, _)| written(key));
            let message = format!("the node `{name}` has no `type`");
            let (location, label) = match misspelt {
                Some((key, _)) => match key.name.strip_prefix("type ").or(key.name.strip_prefix("type:")) {
                    Some(kind) => (key.location, did_you_mean(&format!("type: {kind}"))),
                    None => (key.location, did_you_mean("type")),
                },
                None => (key.location, String::new()),
            };
            let help = match misspelt {
                Some(_) => format!("write `type: NAME`, with a space after the `:`; {advice}"),
                None => format!("give it one; {advice}"),
            };
            self.error("missing-type", message, location, label).help = Some(help);
            return None;
        };
        let text = match &kind.data {
            YamlData::Text(text) => text,
            YamlData::Poison => return None,
            _ => {
                let message =
                    format!("the `type` of `{name}` must be the name of a node type, but is {}", kind.describe());
                self.error("unknown-type", message, kind.location, "").help = Some(advice.into());
                return None;
            }
        };
        let entry = self.registry.get(text);
        if entry.is_none() {
            let near = self.names.nearest(text, self.registry.iter().map(|entry| entry.node_type.name));
            let label = near.map(did_you_mean).unwrap_or_default();
            let path = if text.contains('/') { "; a graph file ends in `.yaml` or `.yml`" } else { "" };
            let help = match self.names.advice(text) {
                Some(instead) if near.is_none() => instead.to_string(),
                _ => format!("{advice}{path}"),
            };
            self.error("unknown-type", format!("there is no node type {}", code(text)), kind.location, label).help =
                Some(help);
        }
        entry
    }

    /// Reports unknown keys and missing parameters. Returns the keys that misspelt ones resemble.
    fn keys(&mut self, index: usize, entry: &'a RegistryEntry) -> HashSet<&'a str> {
        let Draft { key: node, value, .. } = self.drafts[index];
        let YamlData::Map(keys) = &value.data else { return HashSet::new() };
        let kind = entry.node_type.name;
        let names = || {
            let sockets = entry.node_type.inputs.iter().map(|socket| socket.name);
            sockets.chain(entry.params().iter().map(|param| param.name.as_str()))
        };
        // A node may have very many keys: avoid searching all of them for each.
        let given: HashSet<&str> = keys.iter().map(|(key, _)| key.name.as_str()).collect();
        let mut meant = HashSet::new();
        for (key, value_of_key) in keys {
            if key.name == "type" || names().any(|name| name == key.name) {
                continue;
            }
            let free = || names().filter(|name| !given.contains(name));
            let glued = key.name.split_once(':').filter(|(name, _)| free().any(|free| free == *name));
            let near = match glued {
                Some((name, _)) => free().find(|free| *free == name),
                None => self.names.nearest(&key.name, free()),
            };
            meant.extend(near);
            let message = format!("{kind} has no input or parameter {}", code(&key.name));
            let is_output = entry.node_type.outputs.iter().any(|output| output.name == key.name);
            let (label, help) = if let Some((name, value)) = glued {
                (did_you_mean(&format!("{name}: {value}")), "write a space after the `:`".to_string())
            } else if is_output && near.is_none() {
                let help = format!("remove it here; another node links to it as `{}.{}`", node.name, key.name);
                (format!("this is an output of {kind}"), help)
            } else if let (None, Some(instead)) = (near, self.names.advice(&key.name)) {
                (String::new(), instead.to_string())
            } else if near.is_none() && has_no_colon(&self.sources, key, value_of_key) {
                NO_COLON.map(str::to_string).into()
            } else if names().next().is_none() {
                (String::new(), format!("{kind} takes only its `type`"))
            } else if let Some(near) = near {
                (did_you_mean(near), format!("write `{near}`, or remove the key"))
            } else {
                (String::new(), format!("{kind} takes {}", listed(names())))
            };
            self.error("unknown-key", message, key.location, label).help = Some(help);
        }
        let absent = |name: &str| !given.contains(name) && !meant.contains(name);
        for param in entry.params().iter().filter(|param| param.required && absent(&param.name)) {
            let message = format!("`{}` has no `{}`, which {kind} requires", node.name, param.name);
            let range = if param.range.is_empty() { String::new() } else { format!(", {}", param.range) };
            let doc = first_sentence(&param.doc).map(|doc| format!(": {doc}")).unwrap_or_default();
            let help = format!("add `{}: …` ({}{range}){doc}", param.name, param.type_text);
            self.error("missing-param", message, node.location, "").help = Some(help);
        }
        meant
    }

    /// Returns the valid parameters, and the paths of what is invalid or missing: parameters, or items of their lists.
    fn params(
        &mut self,
        index: usize,
        entry: &'a RegistryEntry,
        meant: &HashSet<&'a str>,
    ) -> (Map<String, Json>, HashSet<String>) {
        let value = self.drafts[index].value;
        let YamlData::Map(keys) = &value.data else { return (Map::new(), HashSet::new()) };
        let mut params = Map::new();
        let mut locations = LocationIndex::default();
        let missing = entry.params().iter().filter(|param| param.required && value.get(&param.name).is_none());
        let mut invalid: HashSet<String> =
            meant.iter().copied().chain(missing.map(|param| param.name.as_str())).map(str::to_string).collect();
        for (key, item) in keys {
            let Some(param) = entry.params().iter().find(|param| param.name == key.name) else { continue };
            let mut json = item.to_json();
            let mut poisoned = vec![];
            poison(item, key.name.clone(), &mut poisoned);
            let mut wrong = poisoned.clone();
            if let (ParamRole::Output, YamlData::Text(path)) = (param.role, &item.data) {
                let document = &self.scopes[self.drafts[index].scope].document;
                let own = &entry.schema().as_value()["properties"][&param.name]["x-own-names"];
                let own: Vec<_> = own.as_array().into_iter().flatten().filter_map(Json::as_str).collect();
                match output_path::filled(path, document, &own, self.names) {
                    Ok(path) => json = path.into(),
                    Err(UnknownName { message, label, help }) => {
                        self.error("unknown-param", message, item.location, label).help = Some(help);
                        wrong.push(key.name.clone());
                    }
                }
            }
            let poisoned = Poisoned::new(&poisoned);
            for violation in violations(entry.schema(), &key.name, &json, self.names) {
                // An error above, at or below an invalid value may follow from it.
                if poisoned.touch(&violation.path) {
                    continue;
                }
                wrong.push(violation.path.clone());
                let (found_key, found) = locations.find(value, &violation.path);
                let location = match found_key {
                    Some(key) if violation.on_key || found.data == YamlData::Null => key.location,
                    _ => found.location,
                };
                let link = match &found.data {
                    YamlData::Text(text) if violation.code == "wrong-type" && violation.path == key.name => {
                        self.link_advice(index, text, &key.name, entry)
                    }
                    _ => None,
                };
                self.error(violation.code, violation.message, location, violation.label).help = link.or(violation.help);
            }
            if wrong.is_empty() {
                params.insert(key.name.clone(), json);
            } else if let Some((patched, items)) = patched(&param.name, json, &wrong) {
                params.insert(key.name.clone(), patched);
                invalid.extend(items);
            } else {
                invalid.insert(param.name.clone());
            }
        }
        (params, invalid)
    }

    /// Creates the node. If some parameters are invalid, they get their defaults, or any value of their type, so that the
    /// others can be checked.
    fn decode(
        &mut self,
        index: usize,
        entry: &'a RegistryEntry,
        mut params: Map<String, Json>,
        invalid: &HashSet<String>,
    ) -> Option<Arc<dyn DynNode>> {
        for param in entry.params().iter().filter(|param| param.required && invalid.contains(&param.name)) {
            params.insert(param.name.clone(), stand_in(entry.schema(), &param.name)?);
        }
        match (entry.node_type.decode)(&Json::Object(params)) {
            Ok(node) => Some(node),
            Err(error) => {
                if invalid.is_empty() {
                    self.node_error(index, "wrong-value", error);
                }
                None
            }
        }
    }

    /// Advice if a parameter has the name of a node as its value.
    fn link_advice(&self, index: usize, text: &str, param: &str, entry: &RegistryEntry) -> Option<String> {
        let name = text.split('.').next().unwrap_or_default();
        self.by_name[self.drafts[index].scope].get(name)?;
        let inputs = entry.node_type.inputs;
        let instead = match inputs.is_empty() {
            true => String::new(),
            false => format!("; the inputs of {} are {}", entry.node_type.name, listed(inputs.iter().map(|s| s.name))),
        };
        Some(format!("`{name}` is a node, but `{param}` is a parameter and takes a value{instead}"))
    }

    /// Reports what a node finds: an error with this code, or a warning.
    pub(super) fn node_error(&mut self, index: usize, code: &'static str, error: NodeError) {
        let Draft { key, value, .. } = self.drafts[index];
        let (found_key, found) = value.find(&error.path);
        let location = if found_key.is_some() { found.location } else { key.location };
        let message = match (error.path.is_empty(), error.message) {
            (true, message) => format!("`{}`: {message}", key.name),
            // A message with a name in backticks already says where.
            (false, message) if message.contains('`') => message,
            (false, message) => format!("`{}`: {message}", readable(&error.path)),
        };
        let diagnostic = match error.warning {
            None => self.sources.error(code, message, location, ""),
            Some(code) => self.sources.warning(code, message, location),
        };
        self.diagnostics.push(Diagnostic { help: error.help, ..diagnostic });
    }

    /// Reports the errors that the node itself finds, and files that cannot be read. Ignores errors in parameters that
    /// are already known to be invalid.
    fn own_errors(&mut self, index: usize, node: &dyn DynNode, invalid: &HashSet<String>) {
        let counts =
            |path: &str| invalid.is_empty() || !(path.is_empty() || outward(path).any(|outer| invalid.contains(outer)));
        for error in node.check(&self.cx(index)).into_iter().filter(|error| counts(&error.path)) {
            self.node_error(index, "invalid", error);
        }
        for file in node.files(&self.cx(index)).into_iter().filter(|file| counts(&file.param)) {
            let problem = match self.files.get(&file.path) {
                Some(problem) => problem.clone(),
                None => {
                    let problem = if file.is_readable { None } else { why_unreadable(&file.path) };
                    self.files.insert(file.path.clone(), problem.clone());
                    problem
                }
            };
            let Some(message) = problem else { continue };
            let (found_key, found) = self.drafts[index].value.find(&file.param);
            let location = if found_key.is_some() { found.location } else { self.drafts[index].key.location };
            let near = near_file(&file.path, self.names);
            let beside =
                if self.drafts[index].scope == 0 { "the graph" } else { "the graph file whose node reads them" };
            self.error("file", message, location, near.as_deref().map(did_you_mean).unwrap_or_default()).help =
                Some(format!("paths are relative to the folder of {beside}; an absolute path is used as it is"));
        }
    }
}

/// A list of which only some items are `wrong`, with a valid item in place of each of these, and the paths of the wrong
/// items. So the node can judge the others. `None` if no item is valid, or the list itself is wrong.
fn patched(param: &str, list: Json, wrong: &[String]) -> Option<(Json, HashSet<String>)> {
    let Json::Array(mut items) = list else { return None };
    let index = |path: &String| path.strip_prefix(param)?.strip_prefix('/')?.split('/').next()?.parse::<usize>().ok();
    let wrong: HashSet<usize> = wrong.iter().map(index).collect::<Option<_>>()?;
    let valid = (0..items.len()).find(|index| !wrong.contains(index)).map(|index| items[index].clone())?;
    for &index in &wrong {
        *items.get_mut(index)? = valid.clone();
    }
    Some((Json::Array(items), wrong.iter().map(|index| format!("{param}/{index}")).collect()))
}

/// Finds values as [`YamlValue::find`] does. Indexes the keys of large mappings, because there may be as many errors as keys.
#[derive(Default)]
struct LocationIndex<'a> {
    large: HashMap<*const YamlValue, HashMap<&'a str, usize>>,
}

impl<'a> LocationIndex<'a> {
    fn find(&mut self, node: &'a YamlValue, path: &str) -> (Option<&'a YamlKey>, &'a YamlValue) {
        const LARGE: usize = 32;
        let (mut found_key, mut found) = (None, node);
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let (key, next) = match &found.data {
                YamlData::Map(entries) if entries.len() > LARGE => {
                    let index = self.large.entry(found).or_insert_with(|| {
                        entries.iter().enumerate().map(|(index, (key, _))| (key.name.as_str(), index)).collect()
                    });
                    let Some((key, next)) = index.get(part).and_then(|&index| entries.get(index)) else { break };
                    (Some(key), next)
                }
                YamlData::List(_) => (found_key, found.find(part).1),
                _ => match found.find(part) {
                    (Some(key), next) => (Some(key), next),
                    (None, _) => break,
                },
            };
            if std::ptr::eq(next, found) {
                break;
            }
            (found_key, found) = (key, next);
        }
        (found_key, found)
    }
}

/// The paths of invalid values, and of the values that contain them.
struct Poisoned<'p> {
    paths: HashSet<&'p str>,
    around: HashSet<&'p str>,
}

impl<'p> Poisoned<'p> {
    fn new(paths: &'p [String]) -> Poisoned<'p> {
        let around = paths.iter().flat_map(|path| outward(path));
        Poisoned { paths: paths.iter().map(String::as_str).collect(), around: around.collect() }
    }

    /// Whether a path leads to an invalid value, to a part of one, or to a value that contains one.
    fn touch(&self, path: &str) -> bool {
        self.around.contains(path) || outward(path).any(|outer| self.paths.contains(outer))
    }
}

/// A path and those of the values that contain it: `a/b/c`, `a/b`, `a`.
fn outward(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(outer, _)| outer))
}

/// Finds the paths of invalid values in a parameter.
fn poison(item: &YamlValue, path: String, found: &mut Vec<String>) {
    match &item.data {
        YamlData::Poison => found.push(path),
        YamlData::List(items) => {
            items.iter().enumerate().for_each(|(index, item)| poison(item, format!("{path}/{index}"), found));
        }
        YamlData::Map(entries) => {
            entries.iter().for_each(|(key, item)| poison(item, format!("{path}/{}", key.name), found));
        }
        _ => {}
    }
}

fn first_sentence(doc: &str) -> Option<&str> {
    let paragraph = doc.split("\n\n").next()?.trim();
    let sentence = paragraph.split(". ").next().unwrap_or(paragraph);
    (!sentence.is_empty()).then(|| sentence.trim_end_matches('.'))
}
