//! Document + registry → graph, or every fault of the document at once.
//!
//! A cause is told once: what is faulty is left out of the later steps, so that nothing follows from it. Graphs that are
//! nodes of this one are [unfolded](unfold) first; from then on there is one set of nodes, each in the scope of its file.

mod sink;
mod file;
mod link;
mod node;
mod unfold;
mod whole;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use petgraph::graph::NodeIndex;

use self::file::Disk;
pub use self::file::read_source;
use self::link::{Declarations, Draft, DraftLink};
use self::sink::CheckDiagnostics;
pub use self::unfold::GraphReader;
use self::unfold::{Scope, Unfolded, unfold};
use crate::context::{CheckContext, Host};
use crate::diagnostic::Diagnostic;
use crate::document::Document;
use crate::graph::{Graph, GraphNode, Written};
use crate::nearest::NameFinder;
use crate::overrides::Override;
use crate::registry::Registry;
use crate::source::Source;
use crate::source_map::SourceMap;
use crate::yaml::Location;

/// What a check found.
pub struct Checked {
    /// There is one exactly when no diagnostic is an error.
    pub graph: Option<Graph>,
    pub document: Option<Document>,
    /// In the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// The locations of all graph files that nodes of this graph name, also of those that are faulty or missing.
    pub includes: Vec<PathBuf>,
    /// The files that its nodes name, those too that are missing or make the graph faulty.
    pub files: Vec<PathBuf>,
}

/// Checks a whole workflow, with the graphs in it, which are read from the host's graph folder. Nothing of it runs; other
/// files that it names are looked for, but not read.
pub fn check(source: Arc<Source>, overrides: &[Override], registry: &Registry, host: &Host) -> Checked {
    let disk = Disk::new(source.clone(), host);
    check_with(source, overrides, registry, host, &|path| disk.read(path))
}

/// Checks a workflow whose other graph files come from `read`.
pub fn check_with(
    source: Arc<Source>,
    overrides: &[Override],
    registry: &Registry,
    host: &Host,
    read: &GraphReader,
) -> Checked {
    let names = NameFinder::new();
    let Unfolded { scopes, mut sources, mut diagnostics, included, paths: includes, whole } =
        unfold(source.clone(), overrides, host, &names, read);
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
        checker.needed();
        if !checker.diagnostics.any_error() {
            assembled = checker.assemble(&source);
        }
        files = checker.files.into_keys().collect();
        Checker { sources, diagnostics, .. } = checker;
    }
    let graph = assembled.map(|(graph, nodes)| {
        graph.with_written(Written { sources: Some(sources), nodes, included }).with_overrides(overrides)
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
    /// Those of one scope stand together, in the order of the scopes.
    drafts: Vec<Draft<'a>>,
    /// Where the drafts of each scope stand.
    ranges: Vec<Range<usize>>,
    /// The drafts of each scope.
    by_name: Vec<HashMap<&'a str, usize>>,
    /// What each scope declares as its outputs.
    declared: Vec<Rc<Declarations<'a>>>,
    /// The nodes that give each type, for advice.
    givers: HashMap<&'static str, Vec<usize>>,
    /// What is known of files, so that each is looked at once.
    files: HashMap<PathBuf, Option<String>>,
    /// Nodes whose names are faulty: scope and name.
    misnamed: HashSet<(usize, &'a str)>,
    /// Something may be missing from the links, so that no one knows what is needed.
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
            givers: HashMap::new(),
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

    /// What the checks of a node may know.
    fn cx(&self, index: usize) -> CheckContext<'a> {
        CheckContext::within(self.host, self.scopes[self.drafts[index].scope].folder.as_deref())
    }

    /// The nodes that are kept as one graph, those of a graph in the location of the node that it is.
    fn assemble(&self, source: &Arc<Source>) -> Option<(Graph, Vec<(Location, crate::yaml::YamlValue)>)> {
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
