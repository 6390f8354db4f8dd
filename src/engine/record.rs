//! What was run, as text: for files that carry the graph they came from.
//!
//! Written by [`Record`], read back as a [`GraphRecord`]. Knows no file format that carries it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::check::GraphReader;
use crate::diagnostic::{Diagnostic, Label};
use crate::graph::{Graph, Included};
use crate::key::Key;
use crate::resolved::file_name;
use crate::source::{Source, Span};

/// The format of records. Raise it when a reader of older ones would misunderstand.
const FORMAT: u64 = 1;

/// A graph as it was run, and the keys of its nodes. Written out only when someone asks.
pub struct Record {
    graph: Arc<Graph>,
    /// By node.
    keys: Vec<Key>,
    json: OnceLock<Option<String>>,
}

impl Record {
    /// `keys`: one a node of the graph, by its index.
    pub fn new(graph: Arc<Graph>, keys: Vec<Key>) -> Record {
        Record { graph, keys, json: OnceLock::new() }
    }

    /// As JSON: a [`GraphRecord`]. `None` where the graph as it was run could not be put into one text.
    pub fn json(&self) -> Option<&str> {
        self.json.get_or_init(|| serde_json::to_string(&self.recorded()?).ok()).as_deref()
    }

    fn recorded(&self) -> Option<GraphRecord> {
        let nodes = self.graph.order().iter();
        let keys = nodes.filter_map(|&node| {
            Some((self.graph.node(node).name.to_string(), self.keys.get(node.index())?.to_string().into()))
        });
        Some(GraphRecord {
            record: FORMAT,
            program: format!("lsregen {}", env!("CARGO_PKG_VERSION")),
            file: file_name(self.graph.source()),
            graph: self.graph.resolved()?.to_string(),
            includes: self.graph.sources().iter().map(included).collect(),
            keys: keys.collect(),
        })
    }
}

fn included(Included { path, source, .. }: &Included) -> (String, String) {
    (path.to_string_lossy().into_owned(), source.text().into())
}

/// A record, as a file carries it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GraphRecord {
    /// The format of the record.
    record: u64,
    /// What wrote it: `lsregen 0.1.0`.
    pub program: String,
    /// The name of the graph's file, without its folder.
    pub file: String,
    /// The graph's text, with the values that its `params` had.
    pub graph: String,
    /// The texts of included graphs, by their paths as the documents write them, from the graph's folder on.
    #[serde(default)]
    pub includes: BTreeMap<String, String>,
    /// Node → memo key, producers first.
    #[serde(default)]
    pub keys: serde_json::Map<String, Json>,
}

/// Why a text is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("what it carries is no record of lsregen: {0}")]
    Malformed(serde_json::Error),
    #[error("its record has format {found}, but this lsregen reads format {FORMAT}: use a newer lsregen")]
    Newer { found: u64 },
}

impl GraphRecord {
    /// Reads a record.
    ///
    /// # Errors
    /// When the text is no record, or one of a newer format.
    pub fn parse(json: &str) -> Result<GraphRecord, RecordError> {
        #[derive(Deserialize)]
        struct Format {
            record: u64,
        }
        // First the format alone: the rest may be unknown here.
        let Format { record } = serde_json::from_str(json).map_err(RecordError::Malformed)?;
        if record > FORMAT {
            return Err(RecordError::Newer { found: record });
        }
        serde_json::from_str(json).map_err(RecordError::Malformed)
    }

    /// The graph's text, and how the graphs in it are read, for [`check_with`](crate::check_with). `shown` is the file
    /// that carries the record, for messages.
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
