//! Texts: their names and lines, the YAML in them, and diagnostics that point into them.
//!
//! Independent of workflows and nodes.

mod diagnostic;
mod files;
mod lines;
mod names;
mod sink;
mod source;
mod source_map;
mod visible;
pub(crate) mod yaml;

pub use diagnostic::{Diagnostic, Label, Severity, render, render_within, to_json};
pub(crate) use files::{GraphFolder, is_graph_file, near_file, oversize, why_unreadable};
pub use files::{GraphReader, decoded, read_source};
pub use lines::filled;
pub use names::{ForeignName, nearest};
pub(crate) use names::{NameFinder, SHOWN, did_you_mean, either, either_of, is_name, listed};
pub(crate) use sink::{DiagnosticSink, MAX_DIAGNOSTICS};
pub use source::{Position, Source, Span};
pub(crate) use source_map::SourceMap;
pub use visible::visible;
