//! The documentation of node types, from their doc comments and schemas: as text for a terminal, and as Markdown.

use std::fmt::Write;

use super::schema::{ParamDoc, shown};
use super::{Registry, RegistryEntry};
use crate::node::{Arity, SocketSpec};
use crate::text::filled;

/// The documentation of one type, for a terminal of this many columns.
pub fn text(entry: &RegistryEntry, columns: usize) -> String {
    let kind = &entry.node_type;
    let mut text = format!("{}\n\n{}\n", kind.name, indented(entry.doc(), "  ", columns));
    let sockets = |sockets: &[SocketSpec], facts: fn(&SocketSpec) -> String| {
        sockets.iter().map(|socket| (socket.name.to_string(), facts(socket), socket.doc(), vec![])).collect()
    };
    section(&mut text, columns, "Inputs", sockets(kind.inputs, input_facts));
    let params = entry.params().iter();
    let params = params.map(|param| (param.name.clone(), param_facts(param), param.doc.clone(), param.details.clone()));
    section(&mut text, columns, "Parameters", params.collect());
    section(&mut text, columns, "Outputs", sockets(kind.outputs, |socket| socket.type_name.into()));
    if kind.output {
        text.push_str("\nA run executes nodes of this type, and the nodes that they need.\n");
    }
    text
}

type Row = (String, String, String, Vec<(String, String)>);

fn section(text: &mut String, columns: usize, title: &str, rows: Vec<Row>) {
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}");
    let width = rows.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0);
    let margin = " ".repeat(width + 4);
    for (name, facts, doc, details) in rows {
        let _ = writeln!(text, "  {name:width$}  {facts}");
        if !doc.is_empty() {
            let _ = writeln!(text, "{}", indented(&doc, &margin, columns));
        }
        for (name, doc) in details {
            let _ = writeln!(text, "{}", indented(&format!("{name}  {doc}"), &format!("{margin}  "), columns));
        }
    }
}

fn indented(text: &str, margin: &str, columns: usize) -> String {
    let line = |line: &str| if line.is_empty() { String::new() } else { filled(line, margin, margin, columns) };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The documentation of all types as Markdown, in the order of the registry.
pub fn markdown(registry: &Registry) -> String {
    let mut text = String::from("# Nodes\n\n<!-- Written by `lsregen nodes --markdown`; do not edit. -->\n\n");
    for entry in registry.iter() {
        let name = entry.node_type.name;
        let _ = writeln!(text, "- [{name}](#{}): {}", name.to_lowercase(), entry.purpose());
    }
    for entry in registry.iter() {
        text.push_str(&markdown_of(entry));
    }
    text
}

fn markdown_of(entry: &RegistryEntry) -> String {
    let kind = &entry.node_type;
    let mut text = format!("\n## {}\n\n{}\n", kind.name, entry.doc());
    if kind.output {
        text.push_str("\nA run executes nodes of this type, and the nodes that they need.\n");
    }
    let mut table = |title: &str, columns: &[&str], rows: Vec<Vec<String>>| {
        if rows.is_empty() {
            return;
        }
        let _ = writeln!(text, "\n| {title} | {} |", columns.join(" | "));
        let _ = writeln!(text, "|{}", " --- |".repeat(columns.len() + 1));
        for row in rows {
            let cells: Vec<_> = row.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
    };
    let input = |socket: &SocketSpec| vec![format!("`{}`", socket.name), input_facts(socket), socket.doc()];
    table("Input", &["Takes", ""], kind.inputs.iter().map(input).collect());
    let rows = entry.params().iter().map(|param| {
        let details = param.details.iter().map(|(name, doc)| format!("`{name}`: {doc}"));
        let doc: Vec<_> = [param.doc.clone()].into_iter().chain(details).filter(|doc| !doc.is_empty()).collect();
        vec![
            format!("`{}`", param.name),
            param.type_text.clone(),
            match default(param) {
                None => "(required)".into(),
                Some(none) if none.is_empty() => "(none)".into(),
                Some(default) => format!("`{default}`"),
            },
            param.range.clone(),
            doc.join("<br>"),
        ]
    });
    table("Parameter", &["Type", "Default", "Range", ""], rows.collect());
    let output = |socket: &SocketSpec| vec![format!("`{}`", socket.name), socket.type_name.into(), socket.doc()];
    table("Output", &["Type", ""], kind.outputs.iter().map(output).collect());
    text
}

/// `Model of the family sdxl`, `list of Guidance`, `Image (optional)`.
pub(crate) fn input_facts(socket: &SocketSpec) -> String {
    let family = match socket.variants {
        [] => String::new(),
        variants => format!(" of the family {}", variants.join(" or ")),
    };
    let kind = socket.type_name;
    match socket.arity {
        Arity::One => format!("{kind}{family}"),
        Arity::Optional => format!("{kind}{family} (optional)"),
        Arity::Many => format!("list of {kind}{family}"),
    }
}

/// `integer, 1 … 1000, default 20`.
pub(crate) fn param_facts(param: &ParamDoc) -> String {
    let default = match default(param) {
        None => "required".into(),
        Some(none) if none.is_empty() => "optional".into(),
        Some(default) => format!("default {default}"),
    };
    let parts = [param.type_text.clone(), param.range.clone(), default];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

/// The value that a missing key stands for, empty if it stands for nothing; `None` if the key is required.
fn default(param: &ParamDoc) -> Option<String> {
    match &param.default {
        _ if param.required => None,
        None | Some(serde_json::Value::Null) => Some(String::new()),
        Some(value) => Some(shown(value)),
    }
}
