//! A workflow's text with the values that a run gave to its `params`, to stand for that run by itself.
//!
//! The new values are written into the text as it is, so that comments and order stay; JSON, for it is YAML on one
//! line. Whether the text means what it should is not argued but read: where it does not (an anchor stood at the value,
//! and an alias elsewhere), the workflow is written anew, without its comments. Knows no node type.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::document::{self, Document, Given, Read, is_stray};
use crate::nearest::NameFinder;
use crate::overrides::Override;
use crate::source::{Source, Span};
use crate::source_map::SourceMap;
use crate::yaml::{self, YamlData, YamlKey, YamlValue};

/// The text of `source` with the values of `overrides`; `None` where none was found that stands for the same.
pub(crate) fn resolved(source: &Arc<Source>, overrides: &[Override]) -> Option<Arc<str>> {
    if overrides.is_empty() {
        return Some(source.text().into());
    }
    let wanted = meaning(source, overrides)?;
    let stands = |text: &String| meaning(&Source::new("", text.as_str()), &[]).as_ref() == Some(&wanted);
    let (root, _) = yaml::read(source, 0);
    let mut root = root?;
    let changes = change(source, &mut root, overrides);
    let text = spliced(source, changes).filter(stands).or_else(|| rewritten(&root).filter(stands))?;
    Some(text.into())
}

/// The name of the file alone: folders are the affair of the machine that it lay on.
pub(crate) fn file_name(source: &Source) -> String {
    Path::new(source.name()).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// All that a text says: what the workflow tells of itself, its parameters, its nodes, its outputs; `None` where it has a
/// fault.
fn meaning(source: &Arc<Source>, overrides: &[Override]) -> Option<Json> {
    let (root, errors) = document::read(source, 0);
    let mut sources = SourceMap::new(source.clone());
    let Read { document, diagnostics, .. } =
        Document::of(root?, 0, Given::Overrides(overrides), &mut sources, &NameFinder::new());
    let document = document.filter(|_| !errors.any_error() && !diagnostics.any_error())?;
    let list = |items: &[(YamlKey, YamlValue)]| -> Json {
        items.iter().map(|(key, item)| json!([key.name, document::json(item)])).collect()
    };
    let outputs = document.outputs.as_deref().map(list);
    Some(json!([document.about(), document.params(), list(&document.nodes), outputs]))
}

/// A parameter's new value.
struct Change {
    key: YamlKey,
    /// Where the old value stands.
    span: Span,
    value: YamlValue,
}

/// Gives the `params` in `root` their new values.
fn change(source: &Source, root: &mut YamlValue, overrides: &[Override]) -> Vec<Change> {
    let YamlData::Map(parts) = &mut root.data else { return vec![] };
    let params = parts.iter_mut().find(|(key, _)| key.name == "params").map(|(_, params)| &mut params.data);
    let Some(YamlData::Map(params)) = params else { return vec![] };
    let given = |name: &str| overrides.iter().any(|given| given.name() == name);
    let changed = params.iter_mut().filter(|(key, _)| given(&key.name)).map(|(key, value)| {
        let span = own_span(source, value);
        for given in overrides.iter().filter(|given| given.name() == key.name) {
            *value = given.value_for(value);
        }
        Change { key: key.clone(), span, value: value.clone() }
    });
    changed.collect()
}

/// Where a value stands, without the comments behind it, which the parser counts to a value in quotes or brackets.
fn own_span(source: &Source, value: &YamlValue) -> Span {
    let span = value.location.span;
    let written = source.slice(span);
    let close = match written.chars().next() {
        Some(quote @ ('"' | '\'')) => quote,
        Some('[') => ']',
        Some('{') => '}',
        _ => return span,
    };
    let meaning = document::json(value);
    let means_the_same = |end: &usize| {
        let (read, errors) = yaml::read(&Source::new("", &written[..*end]), 0);
        errors.list().is_empty() && read.is_some_and(|read| document::json(&read) == meaning)
    };
    let ends = written.rmatch_indices(close).map(|(at, _)| at + 1);
    let end = ends.take_while(means_the_same).last().unwrap_or(written.len());
    Span::new(span.start, span.start + end)
}

/// The text with the new values in location of the old ones. It may mean anything: values that an alias or `<<` brought
/// stand elsewhere.
fn spliced(source: &Source, mut changes: Vec<Change>) -> Option<String> {
    changes.sort_by_key(|change| change.key.location.span);
    let text = source.text();
    let mut written = String::new();
    let mut done = 0;
    for Change { key, span, value } in changes {
        // Between the key and its value stand a colon and perhaps a comment, an anchor, the `|` of a text, the `-` of
        // a list: on one line an anchor at most.
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

/// A value as JSON on one line, which is YAML too, without characters that a workflow may not hold.
fn one_line(value: &YamlValue) -> String {
    let escaped = |c: char| if is_stray(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    document::json(value).to_string().chars().map(escaped).collect()
}

/// The workflow written anew: its comments, anchors and layout are lost.
fn rewritten(root: &YamlValue) -> Option<String> {
    serde_yaml::to_string(&document::json(root)).ok()
}
