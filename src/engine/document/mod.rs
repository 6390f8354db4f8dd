//! Reads a workflow file into a document: its parts with their locations, and the value of every `${…}`.
//!
//! Deals with the structure of one workflow file, not with node types or other files: the graph check decides what the
//! keys of a node mean.

mod overrides;
mod params;
mod parser;
mod references;
mod resolved;

use std::sync::Arc;

use serde_json::Value as Json;

pub use self::overrides::Override;
pub(crate) use self::overrides::RANDOM;
pub(crate) use self::params::{NO_COLON, has_no_colon};
pub(crate) use self::resolved::{own_span, resolved};
use crate::text::yaml::{self, YamlKey, YamlValue};
use crate::text::{Diagnostic, DiagnosticSink, Label, NameFinder, Source, SourceMap, Span, oversize};

/// The format that this program reads: `lsregen: 1`.
const FORMAT: u64 = 1;

/// A workflow file. Invalid parts are omitted or poisoned.
pub struct Document {
    source: Arc<Source>,
    about: Option<String>,
    params: Vec<(YamlKey, YamlValue)>,
    pub(crate) nodes: Vec<(YamlKey, YamlValue)>,
    /// The links that the file declares as its outputs; `None` if it declares none.
    pub(crate) outputs: Option<Vec<(YamlKey, YamlValue)>>,
}

/// The values of a file's parameters that come from outside the file.
#[derive(Clone, Copy)]
pub(crate) enum ParamValues<'a> {
    Overrides(&'a [Override]),
    /// The keys of a node whose type is the file `file`.
    Node {
        file: &'a str,
        keys: &'a [(YamlKey, YamlValue)],
    },
}

/// The result of reading a document.
pub(crate) struct ParsedDocument {
    /// `None` if the file has too many errors to go on.
    pub document: Option<Document>,
    pub diagnostics: DiagnosticSink,
    /// How much the values of `${…}` added, in the unit of [`MAX_COPIES`](yaml::MAX_COPIES).
    pub copied: usize,
}

/// Reads the YAML of a workflow file, the text `origin` of the source map.
pub(crate) fn read(source: &Arc<Source>, origin: usize) -> (Option<YamlValue>, DiagnosticSink) {
    let mut diagnostics = DiagnosticSink::default();
    if let Some(error) = unreadable(source) {
        diagnostics.push(error);
        return (None, diagnostics);
    }
    let (root, mut diagnostics) = yaml::read(source, origin);
    if root.is_none() && diagnostics.list().is_empty() {
        diagnostics.push(empty(source));
    }
    (root, diagnostics)
}

impl Document {
    /// Reads a document from the YAML that [`read`] returned for the text `file`, with the given values of parameters.
    pub(crate) fn of(
        root: YamlValue,
        file: usize,
        values: ParamValues,
        sources: &mut SourceMap,
        names: &NameFinder,
    ) -> ParsedDocument {
        parser::Parser::new(file, sources, names).parse(root, values)
    }

    /// The description in the file: its `about`.
    pub fn about(&self) -> Option<&str> {
        self.about.as_deref()
    }

    /// The names and values of the parameters, including overrides, in the order of the file.
    pub fn params(&self) -> Vec<(&str, Json)> {
        self.params.iter().map(|(key, value)| (key.name.as_str(), value.to_json())).collect()
    }

    /// The text of the file.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }
}

/// Whether a character cannot be part of a text file.
pub(crate) fn is_stray(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
        || matches!(c, '\u{fdd0}'..='\u{fdef}' | '\u{fffe}' | '\u{ffff}')
}

/// Why a text is not parsed at all; `None` if it is.
fn unreadable(source: &Arc<Source>) -> Option<Diagnostic> {
    let text = source.text();
    if let Some(message) = oversize(source) {
        let help = "is this the right file? A long list of boxes can be a JSON file (`layout_file`)";
        return Some(
            Diagnostic::error("too-large", message, Label::new(source, Span::new(0, 0), "")).help(help.to_string()),
        );
    }
    let (at, stray) = text.char_indices().find(|&(_, c)| is_stray(c))?;
    let message = format!("the text contains the control character U+{:04X}", u32::from(stray));
    let span = Span::new(at, at + stray.len_utf8());
    let help = "remove it; is this a text file, in UTF-8?";
    Some(Diagnostic::error("control-character", message, Label::new(source, span, "")).help(help.to_string()))
}

fn empty(source: &Arc<Source>) -> Diagnostic {
    Diagnostic::error("empty", "the file is empty", Label::new(source, Span::new(0, 0), ""))
        .help("begin with `lsregen: 1` and `nodes:`; docs/authoring.md shows how".to_string())
}
