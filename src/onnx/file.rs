//! Reads a file and checks everything that can be checked without running it: format, opset, operators, names, weights.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lsregen_files::Kind;
use prost::Message;

use crate::attributes::Attributes;
use crate::info::{Dim, OnnxInfo, ValueInfo};
use crate::load::{self, DeclaredTensor};
use crate::operators::{self, Run};
use crate::{Error, Result, proto};

/// The supported versions of the standard operators.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=28;

/// The most problems that a message lists.
const LISTED: usize = 12;

/// A decoded file whose names, operators and weights have been checked.
pub struct CheckedFile {
    pub folder: PathBuf,
    pub graph: proto::Graph,
    /// Shape and type of each weight, in the order of the graph's initializers.
    pub weights: Vec<DeclaredTensor>,
    /// The operator of each node.
    pub runs: Vec<Run>,
    pub info: OnnxInfo,
}

impl CheckedFile {
    pub fn read(path: &Path) -> Result<Self> {
        let label = path.display().to_string();
        let bad = |what: &str| Error::input(format!("{label}: {what}"));
        let model = decode(path, &label)?;
        let Some(graph) = model.graph else { return Err(bad("not an ONNX file: it has no graph")) };
        let opset = model.opsets.iter().find(|o| is_standard(&o.domain)).map(|o| o.version);
        let opset = opset.ok_or_else(|| bad("it does not say which opset it uses"))?;
        if !OPSETS.contains(&opset) {
            let (first, last) = (OPSETS.start(), OPSETS.end());
            return Err(bad(&format!(
                "opset {opset} is not supported; export with an opset from {first} to {last} (`opset_version=17`)"
            )));
        }

        let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        let mut problems = Problems::default();
        if !graph.sparse_initializers.is_empty() {
            problems.add("sparse weights are not supported".into());
        }
        let weights = check_weights(&graph, &folder, &mut problems);
        let CheckedNodes { runs, operators, unsupported_results } = check_nodes(&graph, opset, &mut problems);
        problems.finish(&label)?;

        let names = graph.nodes.iter().flat_map(|node| &node.outputs);
        let names = names.filter(|name| !name.is_empty() && !unsupported_results.contains_key(name.as_str()));
        let files: BTreeSet<_> = graph.initializers.iter().filter_map(|t| load::external(t, &folder)).collect();
        let info = OnnxInfo {
            inputs: true_inputs(&graph).map(value_info).collect(),
            outputs: graph.outputs.iter().map(value_info).collect(),
            values: names.cloned().collect(),
            files: files.into_iter().collect(),
            operators,
            opset,
            parameters: weights.iter().map(|w| w.count).fold(0, usize::saturating_add),
            producer: format!("{} {}", model.producer, model.producer_version).trim().to_string(),
            label,
        };
        Ok(CheckedFile { folder, graph, weights, runs, info })
    }
}

fn decode(path: &Path, label: &str) -> Result<proto::Model> {
    let bad = |what: String| Error::input(format!("{label}: {what}"));
    let bytes = lsregen_files::read(path, Kind::ONNX).map_err(Error::io(path))?;
    if bytes.is_empty() {
        return Err(bad("the file is empty; download or copy it again".into()));
    }
    proto::Model::decode(Bytes::from(bytes)).map_err(|e| bad(format!("not an ONNX file, or a corrupt one ({e})")))
}

fn is_standard(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

/// Inputs that have to be given. Files before IR version 4 list weights among the inputs.
fn true_inputs(graph: &proto::Graph) -> impl Iterator<Item = &proto::ValueInfo> {
    let weights: HashSet<&str> = graph.initializers.iter().map(|t| t.name.as_str()).collect();
    graph.inputs.iter().filter(move |v| !weights.contains(v.name.as_str()))
}

fn check_weights(graph: &proto::Graph, folder: &Path, problems: &mut Problems) -> Vec<DeclaredTensor> {
    let mut weights = Vec::with_capacity(graph.initializers.len());
    for t in &graph.initializers {
        match DeclaredTensor::of(t, folder) {
            Ok(declared) => weights.push(declared),
            Err(e) => problems.add(format!("weight `{}`: {e}", t.name)),
        }
    }
    weights
}

struct CheckedNodes<'g> {
    runs: Vec<Run>,
    /// How often each operator occurs.
    operators: BTreeMap<String, usize>,
    /// Results after the first, of operators that only return their first, with their node.
    unsupported_results: HashMap<&'g str, &'g proto::Node>,
}

/// Builds the operator of each node, and checks that every name is computed once and before it is used.
fn check_nodes<'g>(graph: &'g proto::Graph, opset: i64, problems: &mut Problems) -> CheckedNodes<'g> {
    let mut checked = CheckedNodes {
        runs: Vec::with_capacity(graph.nodes.len()),
        operators: BTreeMap::new(),
        unsupported_results: HashMap::new(),
    };
    let mut names: HashSet<&str> = graph.initializers.iter().map(|t| t.name.as_str()).collect();
    names.extend(graph.inputs.iter().map(|v| v.name.as_str()));
    let mut unsupported: BTreeMap<String, Vec<&proto::Node>> = BTreeMap::new();
    for node in &graph.nodes {
        let operator = operator(node);
        *checked.operators.entry(operator.clone()).or_insert(0) += 1;
        let here = describe(node, opset);
        for input in node.inputs.iter().filter(|n| !n.is_empty() && !names.contains(n.as_str())) {
            problems.add(match checked.unsupported_results.get(input.as_str()) {
                Some(other) => format!(
                    "{here} uses `{input}`, a further result of {}, which is not supported",
                    describe(other, opset)
                ),
                None => format!("{here} uses `{input}`, which no earlier node computes"),
            });
        }
        let attributes = Attributes::new(node, opset);
        let built = operators::build(&operator, &attributes);
        let returned = if built.is_none() { usize::MAX } else { operators::results(&operator) };
        match built {
            None => unsupported.entry(operator).or_default().push(node),
            Some(run) => match run.and_then(|run| attributes.finish().map(|()| run)) {
                Ok(run) => checked.runs.push(run),
                Err(e) => problems.add(format!("{here}: {e}")),
            },
        }
        for (i, output) in node.outputs.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            if i >= returned {
                checked.unsupported_results.insert(output, node);
            } else if !names.insert(output) {
                problems.add(format!("{here} computes `{output}`, a name that is taken already"));
            }
        }
    }
    for (operator, nodes) in unsupported {
        let more = if nodes.len() > 1 { format!(" and {} more", nodes.len() - 1) } else { String::new() };
        problems.add(format!("operator {operator} is not supported: {}{more}", describe(nodes[0], opset)));
    }
    for output in graph.outputs.iter().filter(|o| !names.contains(o.name.as_str())) {
        problems.add(format!("no node computes its output `{}`", output.name));
    }
    if graph.outputs.is_empty() {
        problems.add("it has no outputs".into());
    }
    checked
}

/// How messages name a node.
pub fn describe(node: &proto::Node, opset: i64) -> String {
    let name = if node.name.is_empty() { node.outputs.first() } else { Some(&node.name) };
    format!("node `{}` ({}, opset {opset})", name.map_or("", String::as_str), operator(node))
}

/// An operator's name, after its domain if that is not the standard one.
fn operator(node: &proto::Node) -> String {
    if is_standard(&node.domain) { node.operator.clone() } else { format!("{}.{}", node.domain, node.operator) }
}

/// All problems of a file.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, problem: String) {
        self.0.push(problem);
    }

    fn finish(self, label: &str) -> Result<()> {
        let more = self.0.len().saturating_sub(LISTED);
        match &self.0[..] {
            [] => Ok(()),
            [only] => Err(Error::input(format!("{label}: {only}"))),
            all => {
                let listed: Vec<_> = all.iter().take(LISTED).map(|problem| format!("\n  {problem}")).collect();
                let rest = if more > 0 { format!("\n  and {more} more") } else { String::new() };
                Err(Error::input(format!("{label}:{}{rest}", listed.concat())))
            }
        }
    }
}

fn value_info(v: &proto::ValueInfo) -> ValueInfo {
    let tensor = v.value_type.as_ref().and_then(|t| t.tensor.as_ref());
    let dim = |d: &proto::Dim| match (d.value.map(usize::try_from), &d.name) {
        (Some(Ok(n)), _) if n > 0 => Dim::Fixed(n),
        (_, Some(name)) if !name.is_empty() => Dim::Named(name.clone()),
        _ => Dim::Any,
    };
    ValueInfo {
        name: v.name.clone(),
        dtype: tensor.map_or_else(|| "no tensor".into(), |t| load::name(t.dtype)),
        shape: tensor.and_then(|t| t.shape.as_ref()).map(|s| s.dims.iter().map(dim).collect()),
    }
}
