//! The path of an output file, in which `{name}` stands for the value of a parameter of the graph's file.

use std::collections::HashMap;

use lsregen_files::file_name_from;
use serde_json::Value as Json;

use crate::document::Document;
use crate::text::{NameFinder, did_you_mean, listed};

/// What the node fills in when it writes the file.
const LATER: [&str; 2] = ["counter", "date"];

/// A `{…}` that stands for nothing.
pub(super) struct UnknownName {
    pub message: String,
    pub label: String,
    pub help: String,
}

/// Replaces every `{name}` by the value of that parameter, as a part of a file name. `{counter}` and `{date}` remain, unless
/// the file has such parameters. A number with one of the names `own` becomes `{name=7}`: the node has its own value of
/// that name for some of its files.
///
/// # Errors
/// Returns the first brace that encloses no name.
pub(super) fn filled(path: &str, document: &Document, own: &[&str], names: &NameFinder) -> Result<String, UnknownName> {
    let params: HashMap<_, _> = document.params().into_iter().collect();
    let mut written = String::new();
    let mut rest = path;
    while let Some(at) = rest.find('{') {
        written.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some((name, after)) = rest.split_once('}') else {
            return Err(unknown("a `{` is never closed".into(), String::new(), &params));
        };
        match params.get(name) {
            Some(Json::String(text)) => written.push_str(&file_name_from(text)),
            Some(Json::Number(number)) if own.contains(&name) => written.push_str(&format!("{{{name}={number}}}")),
            Some(Json::Number(number)) => written.push_str(&number.to_string()),
            Some(Json::Bool(flag)) => written.push_str(&flag.to_string()),
            Some(_) => {
                let message = format!("`{name}` is neither a text nor a number, and cannot be part of a file name");
                return Err(unknown(message, String::new(), &params));
            }
            None if LATER.contains(&name) => written.push_str(&format!("{{{name}}}")),
            None => {
                let near = names.nearest(name, params.keys().copied().chain(LATER)).map(did_you_mean);
                let message = format!("there is no parameter `{name}` for the name of the file");
                return Err(unknown(message, near.unwrap_or_default(), &params));
            }
        }
        rest = after;
    }
    written.push_str(rest);
    Ok(written)
}

fn unknown(message: String, label: String, params: &HashMap<&str, Json>) -> UnknownName {
    let mut names: Vec<_> = params.keys().copied().collect();
    names.sort_unstable();
    let params = if names.is_empty() { String::new() } else { format!(", or one of its `params`: {}", listed(names)) };
    let help = format!("write `{{counter}}` for a number, `{{date}}` for the day{params}");
    UnknownName { message, label, help }
}
