//! Unfolds included graphs: a node whose `type` is a graph file stands for the nodes of that file.
//!
//! Reads each included file once, also those that included files include, and creates a scope for each use. Does not
//! use node types: nodes and links are checked later.

use std::collections::HashMap;
use std::mem::take;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::sink::CheckDiagnostics;
use crate::document::{self, Document, Override, ParamValues, ParsedDocument};
use crate::graph::Included;
use crate::node::Host;
use crate::text::yaml::{Location, YamlData, YamlKey, YamlValue, code};
use crate::text::{
    Diagnostic, DiagnosticSink, GraphReader, NameFinder, Source, SourceMap, is_graph_file, listed, oversize,
};

/// How deep graphs may be nested.
const MAX_DEPTH: usize = 16;

/// How many included files one check reads.
const MAX_FILES: usize = 1000;

/// How much one check reads from included files and copies for their uses. Each value counts 1, and each 32 bytes of text
/// count 1.
const MAX_VALUES: usize = 1_000_000;

/// Reading this many bytes counts 1 towards [`MAX_VALUES`].
const BYTES_PER_VALUE: usize = 8;

/// How much an error counts towards [`MAX_VALUES`].
const VALUES_PER_ERROR: usize = 20;

/// A graph file as one node uses it. The first scope is the graph's own file.
pub(super) struct Scope {
    pub document: Document,
    /// The prefix of the names of its nodes in the whole graph: `a/b/`.
    pub prefix: String,
    /// The folder of the file; `None` if it is the graph's own folder.
    pub folder: Option<Arc<Path>>,
    /// Its nodes that are graphs, by index, with the scope of each; `None` if that is invalid.
    pub graphs: HashMap<usize, Option<usize>>,
    /// The scope of the node that uses it.
    outer: Option<usize>,
    /// The folder of the file, relative to the folder of the outermost graph.
    within: Arc<Path>,
}

/// A graph and all graphs that it includes.
pub(super) struct Unfolded {
    /// Outer before inner scopes. Empty if the graph's own file cannot be parsed.
    pub scopes: Vec<Scope>,
    pub sources: SourceMap,
    pub diagnostics: CheckDiagnostics,
    pub included: Vec<Included>,
    /// The paths of all included files, including those that cannot be read.
    pub paths: Vec<PathBuf>,
    /// Whether the check can go on.
    pub whole: bool,
}

/// Reads a graph and the graphs that it includes.
pub(super) fn unfold(
    source: Arc<Source>,
    overrides: &[Override],
    host: &Host,
    names: &NameFinder,
    read: &GraphReader,
) -> Unfolded {
    let mut unfolder = Unfolder {
        host,
        names,
        read,
        sources: SourceMap::new(source.clone()),
        scopes: vec![],
        diagnostics: CheckDiagnostics::default(),
        files: vec![],
        by_path: HashMap::new(),
        included: vec![],
        paths: vec![],
        spent: 0,
        overfull: false,
    };
    unfolder.outermost(&source, overrides);
    let Unfolder { sources, scopes, diagnostics, included, paths, overfull, .. } = unfolder;
    let whole = !scopes.is_empty() && !overfull;
    Unfolded { scopes, sources, diagnostics, included, paths, whole }
}

struct Unfolder<'a> {
    host: &'a Host,
    names: &'a NameFinder,
    read: &'a GraphReader<'a>,
    sources: SourceMap,
    scopes: Vec<Scope>,
    diagnostics: CheckDiagnostics,
    files: Vec<IncludedFile>,
    by_path: HashMap<PathBuf, Result<usize, IncludeError>>,
    included: Vec<Included>,
    paths: Vec<PathBuf>,
    /// How much was read and copied: see [`MAX_VALUES`].
    spent: usize,
    /// A limit has been exceeded, and this has been reported.
    overfull: bool,
}

/// An included file.
struct IncludedFile {
    source: Arc<Source>,
    /// `None` if it is not YAML.
    root: Option<YamlValue>,
    weight: usize,
    /// The errors in its YAML; empty once they have been reported.
    diagnostics: DiagnosticSink,
}

/// Why a file cannot be included.
#[derive(Clone)]
struct IncludeError {
    code: &'static str,
    message: String,
    help: Option<String>,
}

/// A node that is a graph.
struct IncludingNode {
    scope: usize,
    name: String,
    /// Its type: the path of the graph file.
    file: String,
    location: Location,
    keys: Vec<(YamlKey, YamlValue)>,
}

impl Unfolder<'_> {
    fn outermost(&mut self, source: &Arc<Source>, overrides: &[Override]) {
        let (root, diagnostics) = document::read(source, 0);
        self.diagnostics.append(diagnostics);
        let Some(root) = root else { return };
        let ParsedDocument { document, diagnostics, .. } =
            Document::of(root, 0, ParamValues::Overrides(overrides), &mut self.sources, self.names);
        self.diagnostics.append(diagnostics);
        let Some(document) = document else { return };
        let (prefix, within) = (String::new(), Path::new("").into());
        self.scopes.push(Scope { document, prefix, folder: None, graphs: HashMap::new(), outer: None, within });
        self.graphs(0);
    }

    fn error(&mut self, code: &'static str, message: String, node: &IncludingNode) -> &mut Diagnostic {
        self.diagnostics.push(self.sources.error(code, message, node.location, ""))
    }

    /// Unfolds the graphs in a scope.
    fn graphs(&mut self, scope: usize) {
        for index in 0..self.scopes[scope].document.nodes.len() {
            let (key, value) = &self.scopes[scope].document.nodes[index];
            let YamlData::Map(keys) = &value.data else { continue };
            let Some((_, YamlValue { location, data: YamlData::Text(file) })) = value.get("type") else { continue };
            if !is_graph_file(file) {
                continue;
            }
            let (name, file, keys) = (key.name.clone(), file.clone(), keys.clone());
            let inner = self.graph(&IncludingNode { scope, name, file, location: *location, keys });
            self.scopes[scope].graphs.insert(index, inner);
        }
    }

    /// Unfolds one graph. Returns its scope; `None` if it is invalid.
    fn graph(&mut self, node: &IncludingNode) -> Option<usize> {
        if self.overfull {
            return None;
        }
        let path = self.path(node.scope);
        if path.len() > MAX_DEPTH {
            self.error("too-deep", format!("graphs are nested more than {MAX_DEPTH} deep"), node).help =
                Some("no workflow needs that: put some of them side by side".into());
            return None;
        }
        let file = plain(&self.scopes[node.scope].within.join(&node.file));
        let index = self.file(&file, node)?;
        let source = self.files[index].source.clone();
        let same = |scope: &usize| Arc::ptr_eq(self.scopes[*scope].document.source(), &source);
        if let Some(at) = path.iter().position(same) {
            let between: Vec<_> = path[at + 1..].iter().map(|&scope| self.scopes[scope].document.source()).collect();
            let through = match between.is_empty() {
                true => String::new(),
                false => format!(", through {}", listed(between.iter().map(|source| source.name()))),
            };
            let message = format!("the graph {} would contain itself{through}", code(source.name()));
            self.error("include-cycle", message, node).help =
                Some("remove one of these nodes: a graph cannot be a part of itself".into());
            return None;
        }
        let origin = self.sources.add_file(source, node.name.clone(), node.location);
        let at = Location { origin, ..Location::default() };
        let mut diagnostics = take(&mut self.files[index].diagnostics);
        diagnostics.iter_mut().for_each(|diagnostic| diagnostic.secondary.extend(self.sources.provenance(at)));
        self.diagnostics.append(diagnostics);
        if !self.spend(self.files[index].weight, node) {
            return None;
        }
        let mut root = self.files[index].root.clone()?;
        root.relocate(&mut |location| location.origin = origin);
        let before = self.diagnostics.count();
        let values = ParamValues::Node { file: &node.file, keys: &node.keys };
        let ParsedDocument { document, diagnostics, copied } =
            Document::of(root, origin, values, &mut self.sources, self.names);
        self.diagnostics.append(diagnostics);
        let found = self.diagnostics.count() - before;
        self.diagnostics.settle();
        if !self.spend(copied + VALUES_PER_ERROR * found, node) {
            return None;
        }
        let document = document?;
        if document.outputs.is_none() {
            let message = format!("{} declares no outputs, so it cannot be used as a node", code(&node.file));
            self.error("no-outputs", message, node).help =
                Some("declare them in that file: `outputs: { image: … }`, each a link to one of its nodes".into());
            return None;
        }
        let within: Arc<Path> = file.parent().unwrap_or(Path::new("")).into();
        let outer = &self.scopes[node.scope];
        let folder = match () {
            _ if within == outer.within => outer.folder.clone(),
            _ if within.as_os_str().is_empty() => None,
            _ => Some(self.host.graph_folder().join(&within).into()),
        };
        let prefix = format!("{}{}/", outer.prefix, node.name);
        let scope = self.scopes.len();
        let outer = Some(node.scope);
        self.scopes.push(Scope { document, prefix, folder, graphs: HashMap::new(), outer, within });
        self.graphs(scope);
        Some(scope)
    }

    /// The scopes from the outermost one to this one.
    fn path(&self, scope: usize) -> Vec<usize> {
        let mut path: Vec<_> = std::iter::successors(Some(scope), |&scope| self.scopes[scope].outer).collect();
        path.reverse();
        path
    }

    /// The index of the file at a path. If it cannot be included, reports why.
    fn file(&mut self, path: &Path, node: &IncludingNode) -> Option<usize> {
        if !self.by_path.contains_key(path) {
            if self.by_path.len() == MAX_FILES || self.spent > MAX_VALUES {
                self.too_much(node);
                return None;
            }
            let file = self.read(path, &node.file);
            self.by_path.insert(path.into(), file);
        }
        match self.by_path.get(path)?.clone() {
            Ok(index) => Some(index),
            Err(IncludeError { code, message, help }) => {
                let (label, help) = match help {
                    Some(near) if code == "file" => (near, None),
                    help => (String::new(), help),
                };
                let error = self.error(code, message, node);
                error.primary.text = label;
                error.help = help
                    .or_else(|| Some("the path of a graph is relative to the folder of the file that names it".into()));
                None
            }
        }
    }

    fn read(&mut self, path: &Path, written: &str) -> Result<usize, IncludeError> {
        let resolved = self.host.graph_folder().join(path);
        self.paths.push(resolved.clone());
        let source = (self.read)(path).map_err(|error| {
            let Diagnostic { code, message, help, .. } = *error;
            IncludeError { code, message, help }
        })?;
        if let Some(message) = oversize(&source) {
            let message = format!("{}: {message}", code(written));
            return Err(IncludeError { code: "too-large", message, help: Some("is this the right file?".into()) });
        }
        if source.text().trim().is_empty() {
            let help = "begin it with `lsregen: 1` and `nodes:`; docs/authoring.md shows how".into();
            return Err(IncludeError {
                code: "empty",
                message: format!("the file {} is empty", code(written)),
                help: Some(help),
            });
        }
        self.included.push(Included { path: path.into(), resolved, source: source.clone() });
        if let Some(known) = self.files.iter().position(|file| Arc::ptr_eq(&file.source, &source)) {
            return Ok(known);
        }
        let (root, diagnostics) = document::read(&source, 0);
        self.spent += source.text().len() / BYTES_PER_VALUE;
        let weight = root.as_ref().map_or(0, YamlValue::weight).max(source.text().len() / 32);
        self.files.push(IncludedFile { source, root, weight, diagnostics });
        Ok(self.files.len() - 1)
    }

    /// Counts values. Returns whether the limit is kept; if not, reports it.
    fn spend(&mut self, values: usize, node: &IncludingNode) -> bool {
        self.spent += values;
        if self.spent > MAX_VALUES {
            self.too_much(node);
        }
        self.spent <= MAX_VALUES
    }

    /// Reports once that a limit is exceeded. From then on nothing is unfolded.
    fn too_much(&mut self, node: &IncludingNode) {
        if !std::mem::replace(&mut self.overfull, true) {
            let message = "the graphs that this graph includes are too large".into();
            let limits = format!(
                "a check reads at most {MAX_FILES} graph files, and expands them to at most {MAX_VALUES} values"
            );
            self.error("too-large", message, node).help = Some(limits);
        }
    }
}

/// A path without its `.` components.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}
