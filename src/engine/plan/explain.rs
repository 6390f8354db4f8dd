//! Explains why a node's result is not cached: which part of its key differs from earlier runs.
//!
//! Compares the materials of keys, and follows inputs that differ to their producers, back to the first cause. Runs nothing
//! and reads no value.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Write;
use std::time::SystemTime;

use petgraph::graph::NodeIndex;
use serde_json::Value as Json;

use super::{Plan, Step};
use crate::graph::{Graph, Link};
use crate::key::{InputMaterial, Key, Material};
use crate::store::{DiskStore, Manifest};

/// Whether a node's result is cached; if not, how its key differs from the most similar one that is.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The node.
    pub node: NodeIndex,
    /// Its memo key.
    pub key: Key,
    /// The manifest of this key: its result, or the record that it has been run.
    pub cached: Option<Manifest>,
    /// If there is no manifest of this key: the most similar result of this node type.
    pub nearest: Option<NearestResult>,
}

/// A cached result of the same node type, and how its key differs.
#[derive(Clone, Debug)]
pub struct NearestResult {
    /// Its memo key.
    pub key: Key,
    /// When it was stored.
    pub created: SystemTime,
    /// How its key differs.
    pub differences: Vec<Difference>,
}

/// A part of the key that differs: what it was in the cached result, and what it is now.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // `was` and `is` are the values then and now; `socket` is the input.
pub enum Difference {
    /// A parameter or a part of one; `None` if it is missing.
    Param { path: String, was: Option<Json>, is: Option<Json> },
    /// The content of the file that the parameter `param` names.
    File { param: String },
    /// The node type's version.
    Version { was: u32, is: u32 },
    /// What the node itself adds to the key, such as built-in weights.
    Node,
    /// The fingerprint of the host: device, dtype, version of the backend.
    Host { was: String, is: String },
    /// A link was added or removed.
    Link { socket: String, added: bool },
    /// The input is linked to another output of the same node.
    Output { socket: String },
    /// The node that the input is linked to has another key.
    Input { socket: String, producer: NodeIndex, cause: Cause },
}

/// Why the producer of an input has another key.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// Its key differs in these parts.
    Differences(Vec<Difference>),
    /// Its differences have already been reported.
    Reported,
    /// The producer was of another type.
    OtherType {
        /// The former type.
        was: String,
    },
    /// There is no record of the former producer.
    NoRecord,
    /// The cause is too many nodes away.
    TooFar,
}

/// How many nodes are followed back to find a cause.
const MAX_DEPTH: usize = 200;

impl Explanation {
    /// Explains a node of a planned graph with the results that `disk` has. `None` if the plan has no such node.
    pub fn new(graph: &Graph, plan: &Plan, node: NodeIndex, disk: &DiskStore) -> Option<Explanation> {
        let mut search = Search { graph, plan, disk, reported: HashSet::new(), depth: 0 };
        let Step { key, material, .. } = search.step(node)?;
        let cached = disk.manifest(key);
        let nearest = if cached.is_some() { None } else { search.nearest(node, material) };
        Some(Explanation { node, key: *key, cached, nearest })
    }

    /// The explanation in words, one or more lines.
    pub fn describe(&self, graph: &Graph) -> String {
        let node = graph.node(self.node);
        let mut text = format!("{} ({}) {}: ", node.name, node.node_type.name, self.key);
        match (&self.cached, &self.nearest) {
            (Some(Manifest { outputs: Some(_), .. }), _) => text.push_str("its result is cached\n"),
            (Some(_), _) => {
                let forms = node.node_type.outputs.iter().filter(|socket| socket.codec.is_none());
                let memory: BTreeSet<_> = forms.map(|socket| socket.type_name).collect();
                text.push_str("it has been run with the same key, but its result is not on disk: ");
                if memory.is_empty() {
                    text.push_str("it has no format on disk, or is larger than the cache\n");
                } else {
                    let names = memory.into_iter().collect::<Vec<_>>().join(", ");
                    let _ = writeln!(text, "values of type {names} are kept only in memory");
                }
            }
            (None, None) => {
                let _ = writeln!(text, "no result is cached, nor any other result of {}", node.node_type.name);
            }
            (None, Some(nearest)) => {
                text.push_str("no result is cached\n");
                let ago = nearest.created.elapsed().map_or("now".into(), |ago| format!("{} ago", rough(ago.as_secs())));
                let _ = writeln!(
                    text,
                    "the most similar result is {:.8}, stored {ago}; it differs in:",
                    nearest.key.to_string()
                );
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
    /// The nodes whose difference from a key has been reported.
    reported: HashSet<(NodeIndex, Key)>,
    /// How many nodes are between the explained node and the current one.
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

    /// The differences of a node: its own, then those of its inputs.
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
        if !self.reported.insert((producer, was)) {
            return Cause::Reported;
        }
        let (Some(step), Some(record)) = (self.step(producer), self.disk.manifest(&was)) else {
            return Cause::NoRecord;
        };
        if step.material.node_type != record.material.node_type {
            return Cause::OtherType { was: record.material.node_type.to_string() };
        }
        if self.depth == MAX_DEPTH {
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

/// The differences except for those of inputs.
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

/// A link that has changed.
struct Changed<'a> {
    socket: String,
    /// The position among the links of the socket.
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
                let show = |json: &Option<Json>| json.as_ref().map_or("missing".to_string(), Json::to_string);
                writeln!(text, "`{path}` was {}, is {}", show(was), show(is))
            }
            Difference::File { param } => writeln!(text, "the content of the file in `{param}`"),
            Difference::Version { was, is } => writeln!(text, "the version of the node type was {was}, is {is}"),
            Difference::Node => writeln!(text, "the node's built-in data, such as weights"),
            Difference::Host { was, is } => writeln!(text, "the host was {was}; is {is}"),
            Difference::Link { socket, added: true } => writeln!(text, "`{socket}` is linked, but was not"),
            Difference::Link { socket, added: false } => writeln!(text, "`{socket}` was linked, but is not"),
            Difference::Output { socket } => writeln!(text, "`{socket}` is linked to another output of the same node"),
            Difference::Input { socket, producer, cause } => {
                let node = graph.node(*producer);
                let _ = write!(text, "`{socket}`, from {} ({})", node.name, node.node_type.name);
                match cause {
                    Cause::Differences(differences) => {
                        text.push_str(":\n");
                        write_differences(text, graph, differences, depth + 1);
                        Ok(())
                    }
                    Cause::Reported => writeln!(text, ": see above"),
                    Cause::OtherType { was } => writeln!(text, ": was from a {was}"),
                    Cause::TooFar => writeln!(text, ": the cause is further up; explain that node"),
                    Cause::NoRecord => writeln!(text, ": there is no record of its former key"),
                }
            }
        };
    }
}

/// A duration in its largest unit.
fn rough(seconds: u64) -> String {
    let (number, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86400 => (seconds / 3600, "hour"),
        _ => (seconds / 86400, "day"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}
