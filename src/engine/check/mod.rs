//! Document + registry → graph, or every fault of the document at once.
//!
//! A cause is told once: what is faulty is left out of the later steps, so that nothing follows from it.

mod file;
mod link;
mod node;
mod whole;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use petgraph::graph::NodeIndex;

pub use self::file::read_source;
use crate::context::{CheckContext, Host};
use crate::diagnostic::Diagnostic;
use crate::document::Document;
use crate::graph::{Graph, GraphNode, Link};
use crate::nearest::Nearest;
use crate::node::DynNode;
use crate::overrides::Override;
use crate::registry::{Entry, Registry};
use crate::socket::SocketSpec;
use crate::source::Source;
use crate::yaml::{Item, Key, Place, quoted};

/// What a check found.
pub struct Checked {
    /// There is one exactly when no diagnostic is an error.
    pub graph: Option<Graph>,
    pub document: Option<Document>,
    /// In the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// The files that its nodes name, those too that are missing or make the graph faulty.
    pub files: Vec<PathBuf>,
}

/// Checks a whole workflow. Nothing of it runs; files that it names are looked for, but not read.
pub fn check(source: Arc<Source>, overrides: &[Override], registry: &Registry, host: &Host) -> Checked {
    let (document, diagnostics) = Document::parse(source.clone(), overrides);
    let Some(document) = document else { return Checked { graph: None, document, diagnostics, files: vec![] } };
    let mut checker = Checker::new(&document, registry, host, diagnostics);
    checker.nodes();
    checker.links();
    checker.cycles();
    checker.variants();
    checker.written();
    checker.needed();
    let Checker { drafts, mut diagnostics, files, .. } = checker;
    in_order(&mut diagnostics, &source);
    let graph = if diagnostics.iter().any(Diagnostic::is_error) { None } else { assemble(&source, &drafts) };
    let files = files.into_keys().collect();
    Checked { graph, diagnostics, files, document: Some(document) }
}

fn assemble(source: &Arc<Source>, drafts: &[Draft]) -> Option<Graph> {
    let nodes = drafts.iter().map(|draft| {
        Some(GraphNode {
            name: draft.key.name.as_str().into(),
            span: draft.key.place.span,
            node_type: draft.entry?.node_type,
            node: draft.node.clone()?,
            folder: None,
            inputs: draft.links.iter().map(|links| links.iter().filter_map(DraftLink::finished).collect()).collect(),
        })
    });
    let graph = Graph::assemble(source.clone(), nodes.collect::<Option<_>>()?).ok()?;
    Some(graph.with_values(drafts.iter().map(|draft| draft.value.clone()).collect()))
}

/// Sorts by place in the file; a fault that two steps found stays once.
fn in_order(diagnostics: &mut Vec<Diagnostic>, source: &Arc<Source>) {
    let mut told = HashSet::new();
    diagnostics.retain(|diagnostic| {
        let primary = &diagnostic.primary;
        told.insert((diagnostic.code, Arc::as_ptr(&primary.source), primary.span, diagnostic.message.clone()))
    });
    diagnostics.sort_by_key(|diagnostic| {
        let mut labels = std::iter::once(&diagnostic.primary).chain(&diagnostic.secondary);
        labels.find(|label| Arc::ptr_eq(&label.source, source)).map_or(0, |label| label.span.start)
    });
}

/// A node as far as it is known.
struct Draft<'a> {
    key: &'a Key,
    value: &'a Item,
    /// Its type; `None` where that is faulty.
    entry: Option<&'a Entry>,
    /// `None` where its parameters are faulty.
    node: Option<Arc<dyn DynNode>>,
    /// Of each input socket.
    links: Vec<Vec<DraftLink>>,
}

/// An input socket of a node.
#[derive(Clone, Copy)]
struct Port {
    consumer: usize,
    socket: &'static SocketSpec,
}

/// A link to a node that is there.
struct DraftLink {
    place: Place,
    producer: usize,
    /// `None` where the output is faulty.
    output: Option<usize>,
}

impl DraftLink {
    fn sound(&self) -> bool {
        self.output.is_some()
    }

    fn finished(&self) -> Option<Link> {
        Some(Link { producer: NodeIndex::new(self.producer), output: self.output? })
    }
}

struct Checker<'a> {
    document: &'a Document,
    registry: &'a Registry,
    cx: CheckContext<'a>,
    nearest: Nearest,
    drafts: Vec<Draft<'a>>,
    by_name: HashMap<&'a str, usize>,
    /// The nodes that give each type, for advice.
    givers: HashMap<&'static str, Vec<usize>>,
    /// What is known of files, so that each is looked at once.
    files: HashMap<PathBuf, Option<String>>,
    /// Nodes whose names are faulty.
    misnamed: Vec<usize>,
    /// Something may be missing from the links, so that no one knows what is needed.
    links_incomplete: bool,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Checker<'a> {
    fn new(
        document: &'a Document,
        registry: &'a Registry,
        host: &'a Host,
        diagnostics: Vec<Diagnostic>,
    ) -> Checker<'a> {
        let drafts = document.nodes.iter();
        let drafts: Vec<_> =
            drafts.map(|(key, value)| Draft { key, value, entry: None, node: None, links: vec![] }).collect();
        let by_name = drafts.iter().enumerate().map(|(index, draft)| (draft.key.name.as_str(), index)).collect();
        Checker {
            document,
            registry,
            cx: CheckContext::new(host),
            nearest: Nearest::new(),
            drafts,
            by_name,
            givers: HashMap::new(),
            files: HashMap::new(),
            misnamed: vec![],
            links_incomplete: false,
            diagnostics,
        }
    }

    fn error(
        &mut self,
        code: &'static str,
        message: impl Into<String>,
        place: Place,
        label: impl Into<String>,
    ) -> &mut Diagnostic {
        let diagnostic = self.document.texts.error(code, message, place, label);
        self.diagnostics.push(diagnostic);
        self.diagnostics.last_mut().expect("just pushed")
    }
}

/// A name as code, shortened where it is long.
fn code(name: &str) -> String {
    let quoted = quoted(name);
    format!("`{}`", &quoted[1..quoted.len() - 1])
}

fn an(type_name: &str) -> String {
    let vowel = type_name.starts_with(['A', 'E', 'I', 'O', 'U']);
    format!("{} {type_name}", if vowel { "an" } else { "a" })
}
