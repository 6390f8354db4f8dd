//! The record of a run as text, for files that carry the graph that they come from.
//!
//! Written by [`Record`], read back as a [`GraphRecord`]. Independent of the file format that contains it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::graph::{Graph, Included};
use crate::key::Key;
use crate::node::{RecordPart, RunRecord};
use crate::text::{Diagnostic, GraphReader, Label, Source, Span};

/// The format of records. Raise it when older versions would misread the new records.
const FORMAT: u64 = 1;

/// A graph as it was run, and the keys of its nodes. The [`RunRecord`] of a run; written as JSON on the first call.
pub struct Record {
    graph: Arc<Graph>,
    /// By node index.
    keys: Vec<Key>,
    json: OnceLock<Option<String>>,
}

impl Record {
    /// The record of a run of `graph`. `keys` are the keys of its nodes, by index.
    pub fn new(graph: Arc<Graph>, keys: Vec<Key>) -> Record {
        Record { graph, keys, json: OnceLock::new() }
    }

    fn graph_record(&self) -> Option<GraphRecord> {
        let nodes = self.graph.order().iter();
        let keys = nodes.filter_map(|&node| {
            Some((self.graph.node(node).name.to_string(), self.keys.get(node.index())?.to_string().into()))
        });
        Some(GraphRecord {
            record: FORMAT,
            program: format!("lsregen {}", env!("CARGO_PKG_VERSION")),
            file: self.graph.source().file_name(),
            graph: self.graph.resolved()?.to_string(),
            includes: self.graph.sources().iter().map(included).collect(),
            keys: keys.collect(),
            part: None,
        })
    }
}

impl RunRecord for Record {
    fn json(&self) -> Option<&str> {
        self.json.get_or_init(|| serde_json::to_string(&self.graph_record()?).ok()).as_deref()
    }

    fn json_of_part(&self, part: RecordPart) -> Option<String> {
        serde_json::to_string(&GraphRecord { part: Some(part), ..self.graph_record()? }).ok()
    }
}

fn included(Included { path, source, .. }: &Included) -> (String, String) {
    (path.to_string_lossy().into_owned(), source.text().into())
}

/// The record of a run, as a file carries it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GraphRecord {
    /// The format of the record.
    record: u64,
    /// The program that wrote it: `lsregen 0.1.0`.
    pub program: String,
    /// The name of the graph's file, without its folder.
    pub file: String,
    /// The text of the graph, with the values that its `params` had.
    pub graph: String,
    /// The texts of included graphs, by their paths relative to the folder of the graph.
    #[serde(default)]
    pub includes: BTreeMap<String, String>,
    /// The memo key of each node, producers first.
    #[serde(default)]
    pub keys: serde_json::Map<String, Json>,
    /// Which image of a batch the file contains; `None` if the graph gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<RecordPart>,
}

/// Why a text is not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is not JSON, or not a record.
    #[error("it does not carry a record of lsregen: {0}")]
    Malformed(serde_json::Error),
    /// A newer program wrote it.
    #[error("its record has format {found}, but this lsregen reads format {FORMAT}: use a newer lsregen")]
    Newer {
        /// The format of the record.
        found: u64,
    },
}

impl GraphRecord {
    /// Reads a record.
    ///
    /// # Errors
    /// Returns an error if the text is not a record, or has a newer format.
    pub fn parse(json: &str) -> Result<GraphRecord, RecordError> {
        #[derive(Deserialize)]
        struct Format {
            record: u64,
        }
        // Reads only the format at first, because the rest of a newer record may differ.
        let Format { record } = serde_json::from_str(json).map_err(RecordError::Malformed)?;
        if record > FORMAT {
            return Err(RecordError::Newer { found: record });
        }
        serde_json::from_str(json).map_err(RecordError::Malformed)
    }

    /// Returns the text of the graph, and a reader for the graphs that it includes, for
    /// [`check_with`](crate::check_with()). `shown` names the file that carries the record in messages.
    pub fn sources(&self, shown: &str) -> (Arc<Source>, Box<GraphReader<'static>>) {
        let graph = Source::new(shown, &*self.graph);
        let source = |(path, text): (&String, &String)| (path.clone(), Source::new(format!("{shown}:{path}"), &**text));
        let included: BTreeMap<_, _> = self.includes.iter().map(source).collect();
        let nowhere = Source::new(shown, "");
        let read = move |path: &Path| {
            let path = path.to_string_lossy();
            included.get(&*path).cloned().ok_or_else(|| {
                let message = format!("the graph `{path}` is not in the record");
                Box::new(Diagnostic::error("file", message, Label::new(&nowhere, Span::default(), "")))
            })
        };
        (graph, Box::new(read))
    }
}
