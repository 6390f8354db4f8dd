//! Checks a document: returns a graph, or all errors at once.
//!
//! Each error is reported once: later steps skip whatever is invalid, so that no further errors follow from it. Included
//! graphs are [unfolded](unfold) first. After that there is one list of nodes, each in the scope of its file.

mod advice;
mod draft;
mod link;
mod node;
mod output_path;
mod random;
mod sink;
mod unfold;
mod whole;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use petgraph::graph::NodeIndex;

use self::draft::{DeclaredOutputs, Draft, DraftLink};
pub use self::random::DrawnSeed;
use self::sink::CheckDiagnostics;
use self::unfold::{Scope, Unfolded, unfold};
use super::{Graph, GraphNode, Written};
use crate::document::{Document, Override};
use crate::node::{CheckContext, Host};
use crate::registry::Registry;
use crate::text::yaml::{Location, YamlValue};
use crate::text::{Diagnostic, GraphFolder, GraphReader, NameFinder, Source, SourceMap};

/// The result of a check.
pub struct Checked {
    /// The graph, if no diagnostic is an error.
    pub graph: Option<Graph>,
    /// The document, unless it has too many errors to be read.
    pub document: Option<Document>,
    /// All errors and warnings, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// The paths of all graph files that nodes of this graph name, including those that are missing or invalid.
    pub includes: Vec<PathBuf>,
    /// The paths of the files that its nodes read, including those that are missing or invalid.
    pub files: Vec<PathBuf>,
}

/// Checks a workflow and the graphs that it includes, which are read from the host's graph folder. Runs no node. Other
/// files must exist, but are not read.
pub fn check(source: Arc<Source>, overrides: &[Override], registry: &Registry, host: &Host) -> Checked {
    let folder = GraphFolder::new(host.graph_folder(), source.clone());
    check_with(source, overrides, registry, host, &|path| folder.read(path))
}

/// Checks a workflow. `read` returns the text of the graphs that it includes.
pub fn check_with(
    source: Arc<Source>,
    overrides: &[Override],
    registry: &Registry,
    host: &Host,
    read: &GraphReader,
) -> Checked {
    let _span = tracing::info_span!("check", graph = source.name()).entered();
    let names = registry.names();
    let mut unfolded = unfold(source.clone(), overrides, host, &names, read);
    let drawn = random::draw(&unfolded, registry, host);
    let texts = random::Written::new(&drawn);
    let (source, overrides) = (texts.source(&source), &*texts.overrides(overrides));
    if !drawn.is_empty() {
        unfolded = unfold(source.clone(), overrides, host, &names, &|path| Ok(texts.source(&read(path)?)));
    }
    let Unfolded { scopes, mut sources, mut diagnostics, included, paths: includes, whole } = unfolded;
    let (mut assembled, mut files) = (None, vec![]);
    if whole {
        let mut checker = Checker::new(&scopes, sources, registry, host, &names, diagnostics);
        checker.nodes();
        checker.outputs();
        checker.links();
        checker.cycles();
        checker.variants();
        checker.keep();
        checker.written();
        checker.overwritten();
        checker.needed();
        if !checker.diagnostics.any_error() {
            assembled = checker.assemble(&source);
        }
        files = checker.files.into_keys().collect();
        Checker { sources, diagnostics, .. } = checker;
    }
    let graph = assembled.map(|(graph, nodes)| {
        let written = Written { sources: Some(sources), nodes, included, drawn };
        graph.with_written(written).with_overrides(overrides)
    });
    let document = scopes.into_iter().next().map(|scope| scope.document);
    Checked { graph, diagnostics: diagnostics.in_order(&source), document, includes, files }
}

struct Checker<'a> {
    scopes: &'a [Scope],
    sources: SourceMap,
    registry: &'a Registry,
    host: &'a Host,
    names: &'a NameFinder,
    /// The nodes, grouped by scope.
    drafts: Vec<Draft<'a>>,
    /// The nodes of each scope, as a range of `drafts`.
    ranges: Vec<Range<usize>>,
    /// The nodes of each scope, by name.
    by_name: Vec<HashMap<&'a str, usize>>,
    /// The outputs that each scope declares.
    declared: Vec<Rc<DeclaredOutputs<'a>>>,
    /// The nodes that have an output of each type, for advice.
    producers: HashMap<&'static str, Vec<usize>>,
    /// Why each file cannot be read, so that each is examined only once.
    files: HashMap<PathBuf, Option<String>>,
    /// The nodes with invalid names: scope and name.
    misnamed: HashSet<(usize, &'a str)>,
    /// Links may be missing because of errors, so it is not known which nodes are needed.
    links_incomplete: bool,
    diagnostics: CheckDiagnostics,
}

impl<'a> Checker<'a> {
    fn new(
        scopes: &'a [Scope],
        sources: SourceMap,
        registry: &'a Registry,
        host: &'a Host,
        names: &'a NameFinder,
        diagnostics: CheckDiagnostics,
    ) -> Checker<'a> {
        let (mut drafts, mut ranges, mut by_name) = (vec![], vec![], vec![]);
        for (scope, Scope { document, .. }) in scopes.iter().enumerate() {
            let start = drafts.len();
            drafts.extend(document.nodes.iter().map(|(key, value)| Draft::new(scope, key, value)));
            ranges.push(start..drafts.len());
            let names = drafts[start..].iter().zip(start..);
            by_name.push(names.map(|(draft, index)| (draft.key.name.as_str(), index)).collect());
        }
        Checker {
            scopes,
            sources,
            registry,
            host,
            names,
            drafts,
            ranges,
            by_name,
            declared: scopes.iter().map(|_| Rc::default()).collect(),
            producers: HashMap::new(),
            files: HashMap::new(),
            misnamed: HashSet::new(),
            links_incomplete: false,
            diagnostics,
        }
    }

    fn error(
        &mut self,
        code: &'static str,
        message: impl Into<String>,
        location: Location,
        label: impl Into<String>,
    ) -> &mut Diagnostic {
        self.diagnostics.push(self.sources.error(code, message, location, label))
    }

    /// The context of a node's checks.
    fn cx(&self, index: usize) -> CheckContext<'a> {
        CheckContext::within(self.host, self.scopes[self.drafts[index].scope].folder.as_deref())
    }

    /// Builds the graph from the nodes that are kept. The nodes of an included graph take the place of its node.
    fn assemble(&self, source: &Arc<Source>) -> Option<(Graph, Vec<(Location, YamlValue)>)> {
        let mut kept = vec![];
        self.collect(0, &mut kept);
        let mut index_of = vec![NodeIndex::end(); self.drafts.len()];
        kept.iter().enumerate().for_each(|(index, &draft)| index_of[draft] = NodeIndex::new(index));
        let finished = |links: &Vec<DraftLink>| links.iter().filter_map(|link| link.finished(&index_of)).collect();
        let nodes = kept.iter().map(|&index| {
            let draft = &self.drafts[index];
            let scope = &self.scopes[draft.scope];
            Some(GraphNode {
                name: format!("{}{}", scope.prefix, draft.key.name).into(),
                span: draft.key.location.span,
                node_type: draft.entry?.node_type,
                node: draft.node.clone()?,
                folder: scope.folder.clone(),
                inputs: draft.links.iter().map(finished).collect(),
            })
        });
        let graph = Graph::assemble(source.clone(), nodes.collect::<Option<_>>()?).ok()?;
        let written = kept.iter().map(|&index| (self.drafts[index].key.location, self.drafts[index].value.clone()));
        Some((graph, written.collect()))
    }

    fn collect(&self, scope: usize, kept: &mut Vec<usize>) {
        for index in self.ranges[scope].clone() {
            match self.drafts[index].graph {
                Some(graph) => self.collect(graph, kept),
                None if self.drafts[index].kept => kept.push(index),
                None => {}
            }
        }
    }
}

fn an(type_name: &str) -> String {
    let vowel = type_name.starts_with(['A', 'E', 'I', 'O', 'U']);
    format!("{} {type_name}", if vowel { "an" } else { "a" })
}
