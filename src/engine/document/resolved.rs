//! Writes the overrides of a run into the text of its workflow, so that the text alone gives the same run.
//!
//! New values replace the old ones in the text, so that comments and order stay. They are written as JSON, which is
//! YAML on one line. The result is read again to verify it. If it differs, because the old value had an anchor for
//! example, the whole workflow is written anew, without its comments. Independent of node types.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::{Document, Override, ParamValues, ParsedDocument, is_stray, read};
use crate::text::yaml::{self, YamlData, YamlKey, YamlValue};
use crate::text::{NameFinder, Source, SourceMap, Span};

/// Returns the text of `source` with the values of `overrides`; `None` if no such text can be written.
pub(crate) fn resolved(source: &Arc<Source>, overrides: &[Override]) -> Option<Arc<str>> {
    if overrides.is_empty() {
        return Some(source.text().into());
    }
    let target = content(source, overrides)?;
    let is_equal = |text: &String| content(&Source::new("", text.as_str()), &[]).as_ref() == Some(&target);
    let (root, _) = yaml::read(source, 0);
    let mut root = root?;
    let changes = change(source, &mut root, overrides);
    let text = spliced(source, changes).filter(is_equal).or_else(|| rewritten(&root).filter(is_equal))?;
    Some(text.into())
}

/// The content of a workflow as JSON: its description, parameters, nodes and outputs; `None` if it has an error.
fn content(source: &Arc<Source>, overrides: &[Override]) -> Option<Json> {
    let (root, errors) = read(source, 0);
    let mut sources = SourceMap::new(source.clone());
    let ParsedDocument { document, diagnostics, .. } =
        Document::of(root?, 0, ParamValues::Overrides(overrides), &mut sources, &NameFinder::new());
    let document = document.filter(|_| !errors.any_error() && !diagnostics.any_error())?;
    let list = |items: &[(YamlKey, YamlValue)]| -> Json {
        items.iter().map(|(key, item)| json!([key.name, item.to_json()])).collect()
    };
    let outputs = document.outputs.as_deref().map(list);
    Some(json!([document.about(), document.params(), list(&document.nodes), outputs]))
}

/// A parameter's new value.
struct Change {
    key: YamlKey,
    /// Where the old value is.
    span: Span,
    value: YamlValue,
}

/// Sets the `params` in `root` to their new values.
fn change(source: &Source, root: &mut YamlValue, overrides: &[Override]) -> Vec<Change> {
    let YamlData::Map(parts) = &mut root.data else { return vec![] };
    let params = parts.iter_mut().find(|(key, _)| key.name == "params").map(|(_, params)| &mut params.data);
    let Some(YamlData::Map(params)) = params else { return vec![] };
    let given = |name: &str| overrides.iter().any(|given| given.name() == name);
    let changed = params.iter_mut().filter(|(key, _)| given(&key.name)).map(|(key, value)| {
        let span = own_span(source, value);
        for given in overrides.iter().filter(|given| given.name() == key.name) {
            // A graph whose overrides have errors is never written.
            if let Ok(given) = given.value_for(value) {
                *value = given;
            }
        }
        Change { key: key.clone(), span, value: value.clone() }
    });
    changed.collect()
}

/// The span of a value without the comments behind it, which the parser includes for a value in quotes or brackets.
pub(crate) fn own_span(source: &Source, value: &YamlValue) -> Span {
    let span = value.location.span;
    let written = source.slice(span);
    let close = match written.chars().next() {
        Some(quote @ ('"' | '\'')) => quote,
        Some('[') => ']',
        Some('{') => '}',
        _ => return span,
    };
    let json = value.to_json();
    let is_equal = |end: &usize| {
        let (read, errors) = yaml::read(&Source::new("", &written[..*end]), 0);
        errors.list().is_empty() && read.is_some_and(|read| read.to_json() == json)
    };
    let ends = written.rmatch_indices(close).map(|(at, _)| at + 1);
    let end = ends.take_while(is_equal).last().unwrap_or(written.len());
    Span::new(span.start, span.start + end)
}

/// The text with the new values in place of the old ones. It may be invalid: values that come from an alias or `<<` are
/// written elsewhere.
fn spliced(source: &Source, mut changes: Vec<Change>) -> Option<String> {
    changes.sort_by_key(|change| change.key.location.span);
    let text = source.text();
    let mut written = String::new();
    let mut done = 0;
    for Change { key, span, value } in changes {
        // Between the key and its value are a colon and perhaps a comment, an anchor, the `|` of a text or the `-` of a
        // list. If they are on one line, only an anchor is possible.
        let colon = key.location.span.end + text.get(key.location.span.end..)?.find(':')? + 1;
        let value = one_line(&value);
        if span.start == span.end {
            written.push_str(text.get(done..colon)?);
            written.push_str(&format!(" {value}"));
            done = colon;
            continue;
        }
        let between = text.get(colon..span.start)?;
        if between.contains('\n') {
            written.push_str(text.get(done..colon)?);
            written.push_str(&format!(" {value}"));
            for (line, glue) in between.lines().zip(std::iter::once(" ").chain(std::iter::repeat("\n    "))) {
                if let Some(comment) = line.find('#') {
                    written.push_str(&format!("{glue}{}", &line[comment..]));
                }
            }
        } else {
            written.push_str(text.get(done..span.start)?);
            written.push_str(&value);
        }
        done = span.end;
    }
    written.push_str(text.get(done..)?);
    Some(written)
}

/// A value as JSON on one line, without characters that a workflow may not contain.
fn one_line(value: &YamlValue) -> String {
    let escaped = |c: char| if is_stray(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    value.to_json().to_string().chars().map(escaped).collect()
}

/// The workflow written anew, without its comments, anchors and layout.
fn rewritten(root: &YamlValue) -> Option<String> {
    serde_yaml::to_string(&root.to_json()).ok()
}
