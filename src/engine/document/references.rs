//! Replaces every `${name}` by the value of the parameter.

use super::parser::Parser;
use crate::text::yaml::{Location, MAX_COPIES, MAX_DEPTH, YamlData, YamlValue};
use crate::text::{Span, did_you_mean, listed};

/// How many values of one text are named in its errors.
const MAX_PARTS: usize = 8;

/// How many invalid `${…}` of one text are reported.
const MAX_ERRORS: usize = 100;

impl Parser<'_> {
    /// Replaces every `${…}` in a value. Only the first `visible` parameters may be named.
    pub fn fill(&mut self, item: YamlValue, visible: usize) -> YamlValue {
        let YamlValue { location, data } = item;
        let data = match data {
            YamlData::List(items) => YamlData::List(items.into_iter().map(|item| self.fill(item, visible)).collect()),
            YamlData::Map(entries) => {
                YamlData::Map(entries.into_iter().map(|(key, value)| (key, self.fill(value, visible))).collect())
            }
            YamlData::Text(text) => {
                self.mention(&text);
                if text.contains("${") {
                    return self.fill_text(&text, location, visible);
                }
                YamlData::Text(text)
            }
            other => other,
        };
        YamlValue { location, data }
    }

    /// Counts a parameter as used if a text has `{name}`: in the path of an output file, that stands for its value.
    fn mention(&mut self, text: &str) {
        let names = text.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
        for (name, _) in names {
            if let Some(&index) = self.by_name.get(name) {
                self.params[index].used = true;
            }
        }
    }

    fn fill_text(&mut self, text: &str, location: Location, visible: usize) -> YamlValue {
        let whole = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).filter(|name| !name.contains('}'));
        if let Some(name) = whole {
            return self.value_of(name, text, location, visible);
        }
        let poison = YamlValue { location, data: YamlData::Poison };
        let mut written = String::new();
        let mut rest = text;
        let mut errors = 0;
        // The values from outside the file, such as a row of a table.
        let mut parts: Vec<(String, Location)> = vec![];
        while let Some(at) = rest.find("${") {
            // Locating an error takes time proportional to the length of the text, so only some are reported.
            if errors >= MAX_ERRORS {
                self.invalid_reference = true;
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
                self.invalid_reference = true;
                self.error("reference", "a `${` is never closed", span, "").help =
                    Some("write `${name}`; write `$${` for a plain `${`".into());
                return poison;
            };
            let reference = &rest[at..=at + end];
            rest = &rest[at + end + 1..];
            let Some(index) = self.reference(&reference[2..reference.len() - 1], reference, location, visible) else {
                errors += 1;
                continue;
            };
            let value = self.params[index].value.location;
            if value.origin != self.file && parts.len() < MAX_PARTS && parts.iter().all(|(_, part)| *part != value) {
                parts.push((self.params[index].key.name.clone(), value));
            }
            match self.as_text(index, reference, location) {
                Some(text) => written.push_str(&text),
                None => errors += 1,
            }
            self.copied += 1 + written.len() / 32;
            if self.copied > MAX_COPIES {
                return self.too_large(poison);
            }
        }
        written.push_str(rest);
        if errors > 0 {
            return poison;
        }
        let origin = match location.origin == self.file && !parts.is_empty() {
            true => self.sources.add_composed(self.file, parts),
            false => location.origin,
        };
        YamlValue { location: Location { origin, ..location }, data: YamlData::Text(written) }
    }

    /// The value of the parameter `name`, for the text `reference`, which consists of this reference alone.
    fn value_of(&mut self, name: &str, reference: &str, location: Location, visible: usize) -> YamlValue {
        let poison = YamlValue { location, data: YamlData::Poison };
        let Some(index) = self.reference(name, reference, location, visible) else { return poison };
        let param = &self.params[index];
        self.copied += param.weight;
        if self.copied > MAX_COPIES {
            return self.too_large(poison);
        }
        if param.depth > MAX_DEPTH / 2 {
            let message = format!("`{name}` is nested too deep to be used here");
            self.error("too-deep", message, location, "").help = Some("no workflow needs that: flatten it".into());
            return poison;
        }
        let mut value = param.value.clone();
        if location.origin == self.file {
            value.relocate(&mut |inner| inner.via = Some(location.span));
        }
        value
    }

    /// The value of a parameter as a part of a text. `None` if it cannot be one, which is reported.
    fn as_text(&mut self, index: usize, reference: &str, location: Location) -> Option<String> {
        let param = &self.params[index];
        match &param.value.data {
            YamlData::Text(text) => Some(text.clone()),
            YamlData::Number(number) => Some(number.to_string()),
            YamlData::Bool(flag) => Some(flag.to_string()),
            YamlData::Poison => None,
            _ => {
                let message = format!("`{reference}` is {}, which cannot be part of a text", param.value.describe());
                let declared = self.sources.label(param.key.location, "declared here");
                let span = self.within(location, reference, reference);
                let error = self.error("reference", message, span, "");
                error.secondary.push(declared);
                error.help = Some(format!("use `{reference}` alone, or name a text or number"));
                None
            }
        }
    }

    /// The index of the parameter that a reference names. If there is none, reports it.
    fn reference(&mut self, name: &str, reference: &str, location: Location, visible: usize) -> Option<usize> {
        let known = self.by_name.get(name).copied();
        if let Some(index) = known {
            self.params[index].used = true;
            if index < visible {
                return known;
            }
        }
        let span = self.within(location, reference, reference);
        self.invalid_reference = true;
        if let Some(index) = known {
            let declared = self.sources.label(self.params[index].key.location, "declared here");
            let error = self.error("reference", format!("`{name}` is declared below"), span, "");
            error.secondary.push(declared);
            error.help = Some("a parameter can use only those above it: change their order".into());
            return None;
        }
        let names = || self.params.iter().take(visible).map(|param| param.key.name.as_str());
        let near = self.names.nearest(name, names()).map(did_you_mean);
        let node = name.split('.').next().unwrap_or_default().trim();
        let (message, help) = match visible.min(self.params.len()) {
            _ if name.trim().is_empty() => {
                ("`${}` names no parameter".into(), "write `${name}`; write `$${` for a plain `${`".into())
            }
            _ if self.nodes.contains(node) => (
                format!("`{node}` is a node, but `${{…}}` stands for a parameter"),
                format!("to link to the node, write its name alone: `{}`", name.trim()),
            ),
            0 => (
                format!("there is no parameter `{name}`"),
                format!("declare it: `params: {{ {name}: … }}`; write `$${{` for a plain `${{`"),
            ),
            _ => (format!("there is no parameter `{name}`"), format!("`params` has {}", listed(names()))),
        };
        self.error("unknown-param", message, span, near.unwrap_or_default()).help = Some(help);
        None
    }

    /// The location of a part of a text. If the source has the text in another form, the location of the whole text.
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

    /// Reports once that `${…}` add too much. From then on, their values are poisoned.
    fn too_large(&mut self, poison: YamlValue) -> YamlValue {
        if !std::mem::replace(&mut self.overfull, true) {
            let message = format!("the `${{…}}` of this file expand to more than {MAX_COPIES} values");
            self.error("too-large", message, poison.location, "").help =
                Some("use large parameters in fewer places; a list of boxes can be a JSON file (`layout_file`)".into());
        }
        poison
    }
}
