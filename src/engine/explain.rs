//! Why a node's result is not known: which ingredient of its key differs from what was run before.
//!
//! Compares materials, and follows an input that differs to the node that makes it, down to the first cause. Runs
//! nothing and reads no value.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Write;
use std::time::SystemTime;

use petgraph::graph::NodeIndex;
use serde_json::Value as Json;

use crate::graph::{Graph, Link};
use crate::key::{InputMaterial, Key, Material};
use crate::plan::{Plan, Step};
use crate::store::{DiskStore, Manifest};

/// What is known of a node's result, and, where it is not, what sets it apart from the nearest that is.
#[derive(Clone, Debug)]
pub struct Explanation {
    pub node: NodeIndex,
    pub key: Key,
    /// Of this very key: its result, or the record that there was one.
    pub known: Option<Manifest>,
    /// Where the key is unknown: the result of that node type that has most in common with it.
    pub nearest: Option<NearestResult>,
}

/// A known result of the same node type, and how it differs.
#[derive(Clone, Debug)]
pub struct NearestResult {
    pub key: Key,
    pub created: SystemTime,
    pub differences: Vec<Difference>,
}

/// One ingredient that differs: what it was then, and what it is now.
#[derive(Clone, Debug, PartialEq)]
pub enum Difference {
    /// A parameter, or a part of one. `None` where it was, or is, not there.
    Param { path: String, was: Option<Json>, is: Option<Json> },
    /// The content of a file that the node reads; the parameter that names it.
    File { param: String },
    /// The node type's version.
    Version { was: u32, is: u32 },
    /// What the node adds by itself, such as built-in weights.
    Node,
    /// Device, dtype, versions of the code that computes.
    Host { was: String, is: String },
    /// A link that was not there, or is there no more.
    Link { socket: String, added: bool },
    /// Another output of the node that feeds it.
    Output { socket: String },
    /// The node that feeds it has another key, too.
    Input { socket: String, producer: NodeIndex, cause: Cause },
}

/// Why the node that feeds an input has another key.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// What differs there.
    Differences(Vec<Difference>),
    /// It was told before.
    Reported,
    /// A node of another type fed it then.
    OtherType { was: String },
    /// Of what fed it then, no record is left.
    NoRecord,
    /// It lies further up than is told.
    TooFar,
}

/// How many nodes lie at most between a node and a cause that is told.
const FAR: usize = 200;

impl Explanation {
    /// Explains a node of a planned graph by what `disk` knows.
    ///
    /// `None` if the plan has no such node.
    pub fn new(graph: &Graph, plan: &Plan, node: NodeIndex, disk: &DiskStore) -> Option<Explanation> {
        let mut search = Search { graph, plan, disk, told: HashSet::new(), depth: 0 };
        let Step { key, material, .. } = search.step(node)?;
        let known = disk.manifest(key);
        let nearest = if known.is_some() { None } else { search.nearest(node, material) };
        Some(Explanation { node, key: *key, known, nearest })
    }

    /// For a person, some lines.
    pub fn describe(&self, graph: &Graph) -> String {
        let node = graph.node(self.node);
        let mut text = format!("{} ({}) {}: ", node.name, node.node_type.name, self.key);
        match (&self.known, &self.nearest) {
            (Some(Manifest { outputs: Some(_), .. }), _) => text.push_str("its result is known\n"),
            (Some(_), _) => {
                let forms = node.node_type.outputs.iter().filter(|socket| socket.codec.is_none());
                let memory: BTreeSet<_> = forms.map(|socket| socket.type_name).collect();
                text.push_str("it was run before, with all the same; its result is not kept on disk: ");
                if memory.is_empty() {
                    text.push_str("it has no form there, or is larger than the cache\n");
                } else {
                    let names = memory.into_iter().collect::<Vec<_>>().join(", ");
                    let _ = writeln!(text, "values of type {names} live in memory only");
                }
            }
            (None, None) => {
                let _ = writeln!(text, "no result is known, nor any of a {}", node.node_type.name);
            }
            (None, Some(nearest)) => {
                text.push_str("no result is known\n");
                let ago = nearest.created.elapsed().map_or("now".into(), |ago| format!("{} ago", rough(ago.as_secs())));
                let _ = writeln!(text, "nearest is {:.8}, made {ago}; what differs:", nearest.key.to_string());
                write_differences(&mut text, graph, &nearest.differences, 1);
            }
        }
        text
    }
}

/// The search for causes in one graph.
struct Search<'a> {
    graph: &'a Graph,
    plan: &'a Plan,
    disk: &'a DiskStore,
    /// The nodes whose difference from a key was told.
    told: HashSet<(NodeIndex, Key)>,
    /// Nodes between the one that is explained and the one that is looked at.
    depth: usize,
}

impl<'a> Search<'a> {
    fn step(&self, node: NodeIndex) -> Option<&'a Step> {
        self.plan.steps().iter().find(|step| step.node == node)
    }

    fn nearest(&mut self, node: NodeIndex, material: &Material) -> Option<NearestResult> {
        let alike = self.disk.manifests().filter(|manifest| manifest.material.node_type == material.node_type);
        let distance = |manifest: &Manifest| {
            let differences = own_differences(material, &manifest.material).len()
                + changed_inputs(material, &manifest.material).len();
            (differences, std::cmp::Reverse(manifest.created()), manifest.key)
        };
        let nearest = alike.min_by_key(distance)?;
        let differences = self.differences(node, material, &nearest.material);
        Some(NearestResult { key: nearest.key, created: nearest.created(), differences })
    }

    /// What differs, its own before its inputs'.
    fn differences(&mut self, node: NodeIndex, is: &Material, was: &Material) -> Vec<Difference> {
        let mut differences = own_differences(is, was);
        for Changed { socket, index, is, was } in changed_inputs(is, was) {
            let link = self.link(node, &socket, index);
            let many = link.is_some_and(|(_, many)| many) || index > 0;
            let name = if many { format!("{socket}[{index}]") } else { socket };
            differences.push(match (is, was, link) {
                (Some(is), Some(was), _) if is.producer == was.producer => Difference::Output { socket: name },
                (Some(_), Some(was), Some((link, _))) => {
                    let cause = self.cause(link.producer, was.producer);
                    Difference::Input { socket: name, producer: link.producer, cause }
                }
                (is, _, _) => Difference::Link { socket: name, added: is.is_some() },
            });
        }
        differences
    }

    /// Why `producer` has another key than it had.
    fn cause(&mut self, producer: NodeIndex, was: Key) -> Cause {
        if !self.told.insert((producer, was)) {
            return Cause::Reported;
        }
        let (Some(step), Some(record)) = (self.step(producer), self.disk.manifest(&was)) else {
            return Cause::NoRecord;
        };
        if step.material.node_type != record.material.node_type {
            return Cause::OtherType { was: record.material.node_type.to_string() };
        }
        if self.depth == FAR {
            return Cause::TooFar;
        }
        self.depth += 1;
        let differences = self.differences(producer, &step.material, &record.material);
        self.depth -= 1;
        Cause::Differences(differences)
    }

    /// A link of the graph, and whether its socket has several.
    fn link(&self, node: NodeIndex, socket: &str, index: usize) -> Option<(Link, bool)> {
        let node = self.graph.node(node);
        let at = node.node_type.inputs.iter().position(|spec| spec.name == socket)?;
        let links = node.inputs.get(at)?;
        Some((*links.get(index)?, links.len() > 1))
    }
}

/// What differs beside the inputs.
fn own_differences(is: &Material, was: &Material) -> Vec<Difference> {
    let mut differences = vec![];
    if is.params != was.params {
        let json = |text: &str| serde_json::from_str(text).unwrap_or(Json::Null);
        compare(Some(json(&is.params)), Some(json(&was.params)), String::new(), &mut differences);
    }
    let params: BTreeSet<_> = is.files.iter().chain(&was.files).map(|(param, _)| param).collect();
    for param in params {
        let contents = |material: &Material| {
            material.files.iter().filter(|(name, _)| name == param).map(|(_, digest)| *digest).collect::<Vec<_>>()
        };
        if contents(is) != contents(was) {
            differences.push(Difference::File { param: param.clone() });
        }
    }
    if is.version != was.version {
        differences.push(Difference::Version { was: was.version, is: is.version });
    }
    if is.node_fingerprint != was.node_fingerprint {
        differences.push(Difference::Node);
    }
    if is.host_fingerprint != was.host_fingerprint {
        let (was, is) = (was.host_fingerprint.to_string(), is.host_fingerprint.to_string());
        differences.push(Difference::Host { was, is });
    }
    differences
}

/// Compares parameters field by field.
fn compare(is: Option<Json>, was: Option<Json>, path: String, differences: &mut Vec<Difference>) {
    match (is, was) {
        (is, was) if is == was => {}
        (Some(Json::Object(mut is)), Some(Json::Object(mut was))) => {
            let names: BTreeSet<String> = is.keys().chain(was.keys()).cloned().collect();
            for name in names {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                compare(is.remove(&name), was.remove(&name), path, differences);
            }
        }
        (Some(Json::Array(is)), Some(Json::Array(was))) if is.len() == was.len() => {
            for (i, (is, was)) in is.into_iter().zip(was).enumerate() {
                compare(Some(is), Some(was), format!("{path}[{i}]"), differences);
            }
        }
        (is, was) => differences.push(Difference::Param { path, was, is }),
    }
}

/// A link that is not as it was.
struct Changed<'a> {
    socket: String,
    /// Number among the links of the socket.
    index: usize,
    is: Option<&'a InputMaterial>,
    was: Option<&'a InputMaterial>,
}

fn changed_inputs<'a>(is: &'a Material, was: &'a Material) -> Vec<Changed<'a>> {
    let mut changed = vec![];
    let mut seen = HashSet::new();
    for socket in is.inputs.iter().chain(&was.inputs).map(|input| &*input.socket).filter(|socket| seen.insert(*socket))
    {
        let of = |material: &'a Material| {
            material.inputs.iter().filter(|input| input.socket == socket).collect::<Vec<&InputMaterial>>()
        };
        let (is, was) = (of(is), of(was));
        for index in 0..is.len().max(was.len()) {
            let (is, was) = (is.get(index).copied(), was.get(index).copied());
            if is != was {
                changed.push(Changed { socket: socket.to_string(), index, is, was });
            }
        }
    }
    changed
}

fn write_differences(text: &mut String, graph: &Graph, differences: &[Difference], depth: usize) {
    let indent = "  ".repeat(depth);
    for difference in differences {
        text.push_str(&indent);
        let _ = match difference {
            Difference::Param { path, was, is } => {
                let show = |json: &Option<Json>| json.as_ref().map_or("not there".to_string(), Json::to_string);
                writeln!(text, "`{path}` was {}, is {}", show(was), show(is))
            }
            Difference::File { param } => writeln!(text, "the content of the file that `{param}` names"),
            Difference::Version { was, is } => writeln!(text, "the version of the node type was {was}, is {is}"),
            Difference::Node => writeln!(text, "what the node itself brings, such as built-in weights"),
            Difference::Host { was, is } => writeln!(text, "where it is computed: was {was}; is {is}"),
            Difference::Link { socket, added: true } => writeln!(text, "`{socket}` is linked, and was not"),
            Difference::Link { socket, added: false } => writeln!(text, "`{socket}` was linked, and is not"),
            Difference::Output { socket } => writeln!(text, "`{socket}` is linked to another output of the same node"),
            Difference::Input { socket, producer, cause } => {
                let node = graph.node(*producer);
                let _ = write!(text, "`{socket}`, by {} ({})", node.name, node.node_type.name);
                match cause {
                    Cause::Differences(differences) => {
                        text.push_str(":\n");
                        write_differences(text, graph, differences, depth + 1);
                        Ok(())
                    }
                    Cause::Reported => writeln!(text, ": see above"),
                    Cause::OtherType { was } => writeln!(text, ": was by a {was}"),
                    Cause::TooFar => writeln!(text, ": the cause lies further up; explain that node"),
                    Cause::NoRecord => writeln!(text, ": what it was is no longer on record"),
                }
            }
        };
    }
}

/// A time in its largest unit.
fn rough(seconds: u64) -> String {
    let (number, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86400 => (seconds / 3600, "hour"),
        _ => (seconds / 86400, "day"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}
