//! Values of parameters from outside the file: from the command line, or from the node of an outer graph.

use std::collections::{HashMap, HashSet};

use super::Override;
use super::parser::Parser;
use crate::text::yaml::{Location, YamlData, YamlKey, YamlValue, code};
use crate::text::{SourceMap, did_you_mean, listed};

impl Parser<'_> {
    /// Replaces the values of parameters by overrides.
    pub fn overrides(&mut self, overrides: &[Override]) {
        // There may be very many unknown names and parameters, so the list is written once.
        let names: Vec<_> = self.params.iter().map(|param| param.key.name.clone()).collect();
        let list = listed(names.iter().map(String::as_str));
        for given in overrides {
            let known = self.by_name.get(given.name()).copied();
            let declared = known.map(|index| self.params[index].key.location.span);
            let origin = self.sources.add_override(self.file, given.source.clone(), declared);
            let Some(index) = known else {
                let near = self.names.nearest(&given.name, names.iter().map(String::as_str)).map(did_you_mean);
                let location = Location { origin, span: given.name_span, via: None };
                let message = format!("the graph has no parameter `{}`", given.name);
                self.error("unknown-param", message, location, near.unwrap_or_default()).help =
                    Some(match names.len() {
                        _ if near.is_none() && self.names.advice(&given.name).is_some() => {
                            self.names.advice(&given.name).unwrap_or_default().into()
                        }
                        0 => "the file declares none; `--set` changes the parameters under `params:`".into(),
                        _ if near.is_some() => {
                            format!("its `params` are {list}")
                        }
                        _ => format!(
                            "its `params` are {list}; declare `{name}` there, and use it as `${{{name}}}`",
                            name = given.name
                        ),
                    });
                continue;
            };
            let value = match given.value_for(&self.params[index].value) {
                Ok(mut value) => {
                    value.relocate(&mut |location| location.origin = origin);
                    value
                }
                Err(mut error) => {
                    let location = Location { origin, span: error.primary.span, via: None };
                    error.secondary.extend(self.sources.provenance(location));
                    self.push(*error);
                    YamlValue { location, data: YamlData::Poison }
                }
            };
            self.params[index].value = value;
        }
    }

    /// Sets the parameters to the keys of a node whose type is this file.
    pub fn given(&mut self, file: &str, keys: &[(YamlKey, YamlValue)], outputs: Option<&(YamlKey, YamlValue)>) {
        let file = code(file);
        let help = match self.params.is_empty() {
            true => format!("it declares none; a node can set the parameters under `params:` of {file}"),
            false => {
                format!(
                    "the `params` of {file} are {}",
                    listed(self.params.iter().map(|param| param.key.name.as_str()))
                )
            }
        };
        // The names that a misspelt key may mean. There may be very many keys and names.
        let outputs: HashSet<_> =
            outputs.iter().flat_map(|(_, outputs)| outputs.entries().keys().copied().collect::<Vec<_>>()).collect();
        let present: HashSet<_> = keys.iter().map(|(key, _)| key.name.as_str()).collect();
        let names = self.params.iter().map(|param| &param.key.name);
        let absent: Vec<_> = names.filter(|name| !present.contains(name.as_str())).cloned().collect();
        for (key, value) in keys.iter().filter(|(key, _)| key.name != "type") {
            let Some(&index) = self.by_name.get(&key.name) else {
                let near = self.names.nearest(&key.name, absent.iter().map(String::as_str)).map(did_you_mean);
                let is_output = outputs.contains(key.name.as_str());
                let (label, help) = match near {
                    None if is_output => (format!("this is an output of {file}"), help.clone()),
                    None if has_no_colon(self.sources, key, value) => NO_COLON.map(str::to_string).into(),
                    near => (near.unwrap_or_default(), help.clone()),
                };
                let message = format!("{file} has no parameter {}", code(&key.name));
                self.error("unknown-key", message, key.location, label).help = Some(help);
                continue;
            };
            let declared = self.params[index].key.location.span;
            let mut value = value.clone();
            let mut origins = HashMap::new();
            value.relocate(&mut |location| {
                let Location { origin, via, .. } = *location;
                let new = || self.sources.add_given(self.file, *location, declared);
                let origin = *origins.entry((origin, via)).or_insert_with(new);
                *location = Location { origin, via: None, span: location.span };
            });
            (self.params[index].value, self.params[index].given) = (value, true);
        }
    }
}

/// Whether a key has no colon, like `blue` in `{ prompt: red, blue }`.
pub(crate) fn has_no_colon(sources: &SourceMap, key: &YamlKey, value: &YamlValue) -> bool {
    /// How many characters may stand before the colon.
    const MAX_GAP: usize = 200;
    let text = sources.source(key.location.origin).text();
    let mut after = text[key.location.span.end..].chars().take(MAX_GAP);
    value.data == YamlData::Null && after.find(|c| !c.is_whitespace()) != Some(':')
}

/// The label and help for such a key.
pub(crate) const NO_COLON: [&str; 2] =
    ["a key without a value", "if it belongs to the text before the comma, put the whole text in quotes"];
