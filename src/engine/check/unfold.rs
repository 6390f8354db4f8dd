//! Graphs that are nodes of a graph: a node whose `type` is a graph file stands for the nodes of that file.
//!
//! Reads these files, and theirs, each once, and makes a scope of each use. Knows no node type: what the nodes are, and
//! what they are linked to, comes after.

use std::collections::HashMap;
use std::mem::take;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::sink::CheckDiagnostics;
use crate::context::Host;
use crate::diagnostic::Diagnostic;
use crate::document::{self, Document, Given, Read, mark, oversize};
use crate::graph::Included;
use crate::nearest::{NameFinder, listed};
use crate::overrides::Override;
use crate::sink::DiagnosticSink;
use crate::source::Source;
use crate::source_map::SourceMap;
use crate::yaml::{Location, YamlData, YamlKey, YamlValue, code};

/// Gives the text of a graph file by its path, as the documents write it, from the folder of the outermost graph on. Two
/// paths to one file give the same source, by which graphs are found that contain themselves.
///
/// # Errors
/// Why there is no such text: code, message and help of the diagnostic are told, at the node that names the file.
pub type GraphReader<'a> = dyn Fn(&Path) -> Result<Arc<Source>, Box<Diagnostic>> + 'a;

/// Graphs inside each other.
const MAX_DEPTH: usize = 16;

/// Files that one check reads beside the graph's own.
const MAX_FILES: usize = 1000;

/// What one check reads of these files and writes out of them, in values and 32 bytes of text.
const MAX_VALUES: usize = 1_000_000;

/// To read so many bytes of a file counts for one of [`MAX_VALUES`].
const READ: usize = 8;

/// What one error counts for of [`MAX_VALUES`].
const FAULT: usize = 20;

/// A graph file as one node uses it; the first is the graph's own.
pub(super) struct Scope {
    pub document: Document,
    /// What the names of its nodes have before them in the whole graph: `a/b/`.
    pub prefix: String,
    /// The folder of the file; `None` where that is the graph's own.
    pub folder: Option<Arc<Path>>,
    /// Its nodes that are graphs, by their number: the scope of each, `None` where that is faulty.
    pub graphs: HashMap<usize, Option<usize>>,
    /// The scope in which it is a node.
    outer: Option<usize>,
    /// The folder of the file as documents write it, from that of the outermost graph on.
    within: Arc<Path>,
}

/// A graph and all graphs in it.
pub(super) struct Unfolded {
    /// Outer before inner. Empty where the graph's own file cannot be read.
    pub scopes: Vec<Scope>,
    pub sources: SourceMap,
    pub diagnostics: CheckDiagnostics,
    pub included: Vec<Included>,
    /// The locations of all files that were asked for.
    pub paths: Vec<PathBuf>,
    /// Enough is known to go on.
    pub whole: bool,
}

/// Reads a graph and the graphs in it.
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

/// Whether a `type` names a graph file, not a node type.
pub(super) fn is_graph_file(kind: &str) -> bool {
    kind.ends_with(".yaml") || kind.ends_with(".yml")
}

struct Unfolder<'a> {
    host: &'a Host,
    names: &'a NameFinder,
    read: &'a GraphReader<'a>,
    sources: SourceMap,
    scopes: Vec<Scope>,
    diagnostics: CheckDiagnostics,
    files: Vec<File>,
    by_path: HashMap<PathBuf, Result<usize, Unread>>,
    included: Vec<Included>,
    paths: Vec<PathBuf>,
    /// Of [`MAX_VALUES`].
    spent: usize,
    /// A limit was passed, which was told.
    overfull: bool,
}

/// A graph file that was read.
struct File {
    source: Arc<Source>,
    /// `None` where it is no YAML.
    root: Option<YamlValue>,
    weight: usize,
    /// Of the YAML; none once they were told.
    diagnostics: DiagnosticSink,
}

/// Why a file was not read.
#[derive(Clone)]
struct Unread {
    code: &'static str,
    message: String,
    help: Option<String>,
}

/// A node that is a graph.
struct GraphNode {
    scope: usize,
    name: String,
    /// Its type, a path.
    kind: String,
    location: Location,
    keys: Vec<(YamlKey, YamlValue)>,
}

impl Unfolder<'_> {
    fn outermost(&mut self, source: &Arc<Source>, overrides: &[Override]) {
        let (root, diagnostics) = document::read(source, 0);
        self.diagnostics.append(diagnostics);
        let Some(root) = root else { return };
        let Read { document, diagnostics, .. } =
            Document::of(root, 0, Given::Overrides(overrides), &mut self.sources, self.names);
        self.diagnostics.append(diagnostics);
        let Some(document) = document else { return };
        let (prefix, within) = (String::new(), Path::new("").into());
        self.scopes.push(Scope { document, prefix, folder: None, graphs: HashMap::new(), outer: None, within });
        self.graphs(0);
    }

    fn error(&mut self, code: &'static str, message: String, node: &GraphNode) -> &mut Diagnostic {
        self.diagnostics.push(self.sources.error(code, message, node.location, ""))
    }

    /// Unfolds the nodes of a scope that are graphs.
    fn graphs(&mut self, scope: usize) {
        for index in 0..self.scopes[scope].document.nodes.len() {
            let (key, value) = &self.scopes[scope].document.nodes[index];
            let YamlData::Map(keys) = &value.data else { continue };
            let Some((_, YamlValue { location, data: YamlData::Text(kind) })) = value.get("type") else { continue };
            if !is_graph_file(kind) {
                continue;
            }
            let (name, kind, keys) = (key.name.clone(), kind.clone(), keys.clone());
            let inner = self.graph(&GraphNode { scope, name, kind, location: *location, keys });
            self.scopes[scope].graphs.insert(index, inner);
        }
    }

    /// The scope of a node that is a graph.
    fn graph(&mut self, node: &GraphNode) -> Option<usize> {
        if self.overfull {
            return None;
        }
        let way = self.way(node.scope);
        if way.len() > MAX_DEPTH {
            self.error("too-deep", format!("graphs lie inside each other more than {MAX_DEPTH} deep"), node).help =
                Some("nothing needs that: put some of them side by side".into());
            return None;
        }
        let path = plain(&self.scopes[node.scope].within.join(&node.kind));
        let index = self.file(&path, node)?;
        let source = self.files[index].source.clone();
        let same = |scope: &usize| Arc::ptr_eq(self.scopes[*scope].document.source(), &source);
        if let Some(at) = way.iter().position(same) {
            let between: Vec<_> = way[at + 1..].iter().map(|&scope| self.scopes[scope].document.source()).collect();
            let by_way = match between.is_empty() {
                true => String::new(),
                false => format!(", by way of {}", listed(between.iter().map(|source| source.name()))),
            };
            let message = format!("the graph {} would contain itself{by_way}", code(source.name()));
            self.error("include-cycle", message, node).help =
                Some("take one of these nodes out: a graph cannot be a part of itself".into());
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
        mark(&mut root, &mut |location| location.origin = origin);
        let before = self.diagnostics.count();
        let given = Given::Node { kind: &node.kind, keys: &node.keys };
        let Read { document, diagnostics, copied } = Document::of(root, origin, given, &mut self.sources, self.names);
        self.diagnostics.append(diagnostics);
        let found = self.diagnostics.count() - before;
        self.diagnostics.settle();
        if !self.spend(copied + FAULT * found, node) {
            return None;
        }
        let document = document?;
        if document.outputs.is_none() {
            let message = format!("{} declares no outputs, so nothing of it can be used here", code(&node.kind));
            self.error("no-outputs", message, node).help =
                Some("let it say what it gives: `outputs: { image: … }`, each a link to one of its nodes".into());
            return None;
        }
        let within: Arc<Path> = path.parent().unwrap_or(Path::new("")).into();
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

    /// The scopes from the outermost to this.
    fn way(&self, scope: usize) -> Vec<usize> {
        let mut way: Vec<_> = std::iter::successors(Some(scope), |&scope| self.scopes[scope].outer).collect();
        way.reverse();
        way
    }

    /// The file at a path; if there is none, it is told.
    fn file(&mut self, path: &Path, node: &GraphNode) -> Option<usize> {
        if !self.by_path.contains_key(path) {
            if self.by_path.len() == MAX_FILES || self.spent > MAX_VALUES {
                self.too_much(node);
                return None;
            }
            let file = self.read(path, &node.kind);
            self.by_path.insert(path.into(), file);
        }
        match self.by_path.get(path)?.clone() {
            Ok(index) => Some(index),
            Err(Unread { code, message, help }) => {
                let (label, help) = match help {
                    Some(near) if code == "file" => (near, None),
                    help => (String::new(), help),
                };
                let error = self.error(code, message, node);
                error.primary.text = label;
                error.help = help.or_else(|| Some("a graph is looked for beside the file that names it".into()));
                None
            }
        }
    }

    fn read(&mut self, path: &Path, kind: &str) -> Result<usize, Unread> {
        let resolved = self.host.graph_folder().join(path);
        self.paths.push(resolved.clone());
        let source = (self.read)(path).map_err(|error| {
            let Diagnostic { code, message, help, .. } = *error;
            Unread { code, message, help }
        })?;
        if let Some(message) = oversize(&source) {
            let message = format!("{}: {message}", code(kind));
            return Err(Unread { code: "too-large", message, help: Some("is this the right file?".into()) });
        }
        if source.text().trim().is_empty() {
            let help = "begin it with `lsregen: 1` and `nodes:`; docs/authoring.md shows how".into();
            return Err(Unread {
                code: "empty",
                message: format!("the file {} is empty", code(kind)),
                help: Some(help),
            });
        }
        self.included.push(Included { path: path.into(), resolved, source: source.clone() });
        if let Some(known) = self.files.iter().position(|file| Arc::ptr_eq(&file.source, &source)) {
            return Ok(known);
        }
        let (root, diagnostics) = document::read(&source, 0);
        self.spent += source.text().len() / READ;
        let weight = root.as_ref().map_or(0, YamlValue::weight).max(source.text().len() / 32);
        self.files.push(File { source, root, weight, diagnostics });
        Ok(self.files.len() - 1)
    }

    /// Whether there is still room for so many values; if not, it is told.
    fn spend(&mut self, values: usize, node: &GraphNode) -> bool {
        self.spent += values;
        if self.spent > MAX_VALUES {
            self.too_much(node);
        }
        self.spent <= MAX_VALUES
    }

    /// Told once; what is not unfolded by then stays so.
    fn too_much(&mut self, node: &GraphNode) {
        if !std::mem::replace(&mut self.overfull, true) {
            let message = "written out, the graphs in this graph make too large a graph".into();
            let limits =
                format!("a check reads {MAX_FILES} graph files, and makes {MAX_VALUES} values of them, at most");
            self.error("too-large", message, node).help = Some(limits);
        }
    }
}

/// A path without what does not change it.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}
