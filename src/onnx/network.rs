//! A network: its nodes in order, checked; constants folded; run on one tensor.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use candle_core::{DType, Device, Tensor};
use memmap2::Mmap;
use prost::Message;

use super::attributes::Attributes;
use super::load::{self, Declared};
use super::operators::{self, Inputs, Run};
use super::proto;
use crate::{Error, Result};
use lsregen_tensor::nearest;

/// Versions of the standard operators whose meanings we know.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=23;

/// Complaints that a message lists.
const LISTED: usize = 12;

/// One dimension of a declared shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Always this size.
    Fixed(usize),
    /// Any size, by a name that other dimensions may share.
    Named(String),
    /// Any size.
    Any,
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Dim::Fixed(n) => write!(f, "{n}"),
            Dim::Named(name) => f.write_str(name),
            Dim::Any => f.write_str("?"),
        }
    }
}

/// An input or output of a network, as the file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueInfo {
    /// Its name.
    pub name: String,
    /// ONNX's name of the element type.
    pub dtype: String,
    /// `None` where the file tells nothing.
    pub shape: Option<Vec<Dim>>,
}

impl fmt::Display for ValueInfo {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "`{}` {}", self.name, self.dtype)?;
        match &self.shape {
            None => Ok(()),
            Some(dims) => {
                let dims: Vec<_> = dims.iter().map(Dim::to_string).collect();
                write!(f, " ({})", dims.join(", "))
            }
        }
    }
}

/// What a file says about its network.
#[derive(Clone, Debug)]
pub struct OnnxInfo {
    /// The file, as messages name it.
    pub label: String,
    /// Inputs that have to be given.
    pub inputs: Vec<ValueInfo>,
    /// Results that are declared as such.
    pub outputs: Vec<ValueInfo>,
    /// Names of all that its nodes give, outputs among them.
    pub values: Vec<String>,
    /// Files beside it that hold numbers of its weights.
    pub files: Vec<PathBuf>,
    /// Names of the operators and how often each occurs.
    pub operators: BTreeMap<String, usize>,
    /// Version of the standard operators.
    pub opset: i64,
    /// Numbers of all weights.
    pub parameters: usize,
    /// The program that wrote the file.
    pub producer: String,
}

impl OnnxInfo {
    pub(super) fn error(&self, message: impl fmt::Display) -> Error {
        Error::input(format!("{}: {message}", self.label))
    }

    /// What the network is a function of.
    pub(super) fn only_input(&self) -> Result<&ValueInfo> {
        let [input] = &self.inputs[..] else {
            let list: Vec<_> = self.inputs.iter().map(ToString::to_string).collect();
            return Err(self.error(format!("needs one input, a picture; it has {}: {}", list.len(), list.join(", "))));
        };
        Ok(input)
    }

    /// The name of an output, or of any other value, checked; of the only output, if `None`.
    pub fn output<'n>(&'n self, wanted: Option<&'n str>) -> Result<&'n str> {
        let Some(wanted) = wanted else {
            let names = self.outputs.iter().map(|o| o.name.as_str());
            return match &self.outputs[..] {
                [only] => Ok(&only.name),
                _ => Err(self.error(format!("has several outputs, name one of them: {}", nearest("", names)))),
            };
        };
        let all: BTreeSet<&str> =
            self.values.iter().map(String::as_str).chain(self.outputs.iter().map(|o| o.name.as_str())).collect();
        if all.contains(wanted) {
            return Ok(wanted);
        }
        Err(self.error(format!("gives no `{wanted}`; outputs and inner values are {}", nearest(wanted, all))))
    }
}

/// An ONNX network that gradients flow through.
pub struct OnnxNetwork {
    info: OnnxInfo,
    device: Device,
    constants: HashMap<String, Tensor>,
    pub(super) steps: Vec<Step>,
}

/// A node that is run each time.
pub(super) struct Step {
    /// As messages name it.
    pub(super) label: String,
    run: Run,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
}

/// A decoded file whose names and operators have been checked.
struct Checked {
    folder: PathBuf,
    graph: proto::Graph,
    declared: Vec<Declared>,
    runs: Vec<Run>,
    info: OnnxInfo,
}

/// Is told a node, all values so far by their names, and the node's results.
type Seen<'a, 'n> = &'a mut dyn FnMut(&Step, &HashMap<&'n str, Tensor>, &[Tensor]) -> Result<()>;

impl OnnxNetwork {
    /// Reads a network (and its external data, which lies in its folder); weights become f32 on `device`. What does not
    /// depend on the input is worked out here.
    ///
    /// Errors, all at once: operators, settings and element types that are not supported, by node; names that nothing
    /// gives; weights that are not there; damage.
    pub fn open(path: &Path, device: &Device) -> Result<Self> {
        let Checked { folder, graph, declared, runs, info } = Checked::read(path)?;
        let label = &info.label;
        let mut constants = HashMap::new();
        for (t, declared) in graph.initializers.iter().zip(&declared) {
            let tensor = declared.read(t, &folder, device);
            let tensor = tensor.map_err(|e| Error::input(format!("{label}: weight `{}`: {e}", t.name)))?;
            constants.insert(t.name.clone(), tensor);
        }
        let mut steps = Vec::new();
        for (node, run) in graph.nodes.iter().zip(runs) {
            let known = node.inputs.iter().all(|name| name.is_empty() || constants.contains_key(name));
            let step = Step {
                label: called(node, info.opset),
                run,
                inputs: node.inputs.clone(),
                outputs: node.outputs.clone(),
            };
            if !known {
                steps.push(step);
                continue;
            }
            let results = step.run(label, device, |name| constants.get(name))?;
            constants.extend(step.outputs.iter().cloned().zip(results));
        }
        // What only folding needed.
        let read: HashSet<&String> =
            steps.iter().flat_map(|s| &s.inputs).chain(info.outputs.iter().map(|o| &o.name)).collect();
        constants.retain(|name, _| read.contains(name));
        Ok(OnnxNetwork { info, device: device.clone(), constants, steps })
    }

    /// What [`OnnxNetwork::open`] finds without the weights' numbers.
    pub fn inspect(path: &Path) -> Result<OnnxInfo> {
        Ok(Checked::read(path)?.info)
    }

    /// What the file says about it.
    pub fn info(&self) -> &OnnxInfo {
        &self.info
    }

    /// Inputs that have to be given.
    pub fn inputs(&self) -> &[ValueInfo] {
        &self.info.inputs
    }

    /// Results that are declared as such. [`OnnxNetwork::forward`] gives any other named value too.
    pub fn outputs(&self) -> &[ValueInfo] {
        &self.info.outputs
    }

    /// Memory that its weights take.
    pub fn bytes(&self) -> usize {
        self.constants.values().map(|t| t.elem_count() * t.dtype().size_in_bytes()).sum()
    }

    /// The device of weights and features.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The value `output` (the only output, if `None`; inner values may be asked for too) for `x`, in f32.
    ///
    /// Gradients flow to `x`, whatever its dtype. Weights are constants. Only what `output` needs is run.
    pub fn forward(&self, x: &Tensor, output: Option<&str>) -> Result<Tensor> {
        let output = self.info.output(output)?;
        let mut seen = |_: &Step, _: &HashMap<&str, Tensor>, _: &[Tensor]| Ok(());
        let y = self.walk(x, output, false, &mut seen)?;
        if y.dtype() != DType::F32 {
            return Err(self.info.error(format!("`{output}` is {}, through which no gradient flows", super::kind(&y))));
        }
        Ok(y)
    }

    /// Runs what `output` needs; `seen` is told each node's arguments and results. Values that nobody needs any more
    /// are let go of, unless `keep`.
    pub(super) fn walk<'n>(&'n self, x: &Tensor, output: &str, keep: bool, seen: Seen<'_, 'n>) -> Result<Tensor> {
        let input = self.info.only_input()?;
        self.suits(x, input)?;
        let mut last: HashMap<&str, usize> = HashMap::from([(output, usize::MAX)]);
        let mut needed = vec![false; self.steps.len()];
        for (i, step) in self.steps.iter().enumerate().rev() {
            if step.outputs.iter().any(|name| !name.is_empty() && last.contains_key(name.as_str())) {
                needed[i] = true;
                for name in &step.inputs {
                    last.entry(name).or_insert(i);
                }
            }
        }
        let mut values: HashMap<&str, Tensor> = HashMap::new();
        values.insert(&input.name, x.to_dtype(DType::F32)?.to_device(&self.device)?);
        for (i, step) in self.steps.iter().enumerate().filter(|(i, _)| needed[*i]) {
            let results =
                step.run(&self.info.label, &self.device, |name| values.get(name).or_else(|| self.constants.get(name)))?;
            seen(step, &values, &results)?;
            if !keep {
                values.retain(|name, _| last.get(name).is_some_and(|l| *l > i));
            }
            values.extend(step.outputs.iter().map(String::as_str).zip(results));
        }
        let y = values.get(output).or_else(|| self.constants.get(output)).cloned();
        y.ok_or_else(|| self.info.error(format!("`{output}` was not computed")))
    }

    /// Whether the declared input takes `x`.
    fn suits(&self, x: &Tensor, input: &ValueInfo) -> Result<()> {
        let float = ["float", "float16", "bfloat16", "double"].contains(&input.dtype.as_str());
        let shape = input.shape.as_ref().is_none_or(|dims| {
            dims.len() == x.rank() && dims.iter().zip(x.dims()).all(|(d, n)| !matches!(d, Dim::Fixed(m) if m != n))
        });
        match (float && x.dtype().is_float(), shape) {
            (true, true) if x.elem_count() > 0 => Ok(()),
            (false, _) => {
                Err(self.info.error(format!("its input {input} is not of floats: no gradient flows into it")))
            }
            _ => Err(self.info.error(format!("its input is {input}, {:?} does not fit", x.dims()))),
        }
    }

    /// What a node reads.
    pub(super) fn argument<'v>(&'v self, name: &str, values: &'v HashMap<&str, Tensor>) -> Option<&'v Tensor> {
        values.get(name).or_else(|| self.constants.get(name))
    }
}

impl Step {
    /// Results of the node; errors name it.
    pub(super) fn run<'v>(
        &self,
        label: &str,
        device: &Device,
        value: impl Fn(&str) -> Option<&'v Tensor>,
    ) -> Result<Vec<Tensor>> {
        let values = self.inputs.iter().map(|name| value(name)).collect();
        (self.run)(&Inputs { values, device }).map_err(|e| Error::input(format!("{label}: {}: {e}", self.label)))
    }
}

/// How messages name a node.
fn called(node: &proto::Node, opset: i64) -> String {
    let name = if node.name.is_empty() { node.outputs.first() } else { Some(&node.name) };
    format!("node `{}` ({}, opset {opset})", name.map_or("", String::as_str), operator(node))
}

/// An operator's name; with its domain, where that is not the standard's.
fn operator(node: &proto::Node) -> String {
    match node.domain.as_str() {
        "" | "ai.onnx" => node.operator.clone(),
        domain => format!("{domain}.{}", node.operator),
    }
}

impl Checked {
    fn read(path: &Path) -> Result<Self> {
        let label = path.display().to_string();
        let bad = |what: String| Error::input(format!("{label}: {what}"));
        let file = File::open(path).map_err(Error::io(path))?;
        if file.metadata().map_err(Error::io(path))?.len() == 0 {
            return Err(bad("an empty file; fetch or copy it again".into()));
        }
        // SAFETY: the mapping is read-only; as with every memory-mapped model, another process that truncates the file
        // while it is mapped can fault this one.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        let model = proto::Model::decode(Bytes::from_owner(map))
            .map_err(|e| bad(format!("not an ONNX file, or a damaged one ({e})")))?;
        let Some(graph) = model.graph else {
            return Err(bad("no ONNX file: it has no graph".into()));
        };
        let standard = |domain: &str| domain.is_empty() || domain == "ai.onnx";
        let opset = model.opsets.iter().find(|o| standard(&o.domain)).map(|o| o.version);
        let opset = match opset {
            Some(version) if OPSETS.contains(&version) => version,
            Some(version) => {
                let (first, last) = (OPSETS.start(), OPSETS.end());
                return Err(bad(format!(
                    "opset {version} is not supported: export with one from {first} to {last} (`opset_version=17`)"
                )));
            }
            None => return Err(bad("does not say which opset it is written in".into())),
        };
        let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        let mut complaints = Complaints::default();
        if !graph.sparse_initializers.is_empty() {
            complaints.add("sparse weights are not supported".into());
        }
        let mut declared = Vec::with_capacity(graph.initializers.len());
        for t in &graph.initializers {
            match Declared::of(t, &folder) {
                Ok(d) => declared.push(d),
                Err(e) => complaints.add(format!("weight `{}`: {e}", t.name)),
            }
        }
        let weights: HashSet<&str> = graph.initializers.iter().map(|t| t.name.as_str()).collect();
        // Files before IR version 4 list weights among the inputs.
        let given = graph.inputs.iter().filter(|v| !weights.contains(v.name.as_str()));
        let inputs: Vec<_> = given.map(value_info).collect();
        let mut names: HashSet<&str> = weights.clone();
        names.extend(graph.inputs.iter().map(|v| v.name.as_str()));
        let mut runs = Vec::with_capacity(graph.nodes.len());
        let mut operators = BTreeMap::new();
        let mut unknown: BTreeMap<String, Vec<&proto::Node>> = BTreeMap::new();
        let mut left_out: HashMap<&str, &proto::Node> = HashMap::new();
        for node in &graph.nodes {
            let name = operator(node);
            *operators.entry(name.clone()).or_insert(0) += 1;
            for input in node.inputs.iter().filter(|n| !n.is_empty() && !names.contains(n.as_str())) {
                complaints.add(match left_out.get(input.as_str()) {
                    Some(other) => format!(
                        "{} uses `{input}`, a further result of {}, which is not supported",
                        called(node, opset),
                        called(other, opset)
                    ),
                    None => format!("{} uses `{input}`, which nothing before it gives", called(node, opset)),
                });
            }
            let attributes = Attributes::new(node, opset);
            let built = operators::build(&name, &attributes);
            let all = built.is_none() || operators::gives_all(&name);
            match built {
                None => unknown.entry(name.clone()).or_default().push(node),
                Some(run) => match run.and_then(|run| attributes.finish().map(|()| run)) {
                    Ok(run) => runs.push(run),
                    Err(e) => complaints.add(format!("{}: {e}", called(node, opset))),
                },
            }
            for (i, output) in node.outputs.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                if i > 0 && !all {
                    left_out.insert(output.as_str(), node);
                } else if !names.insert(output) {
                    complaints.add(format!("{} gives `{output}`, which there is already", called(node, opset)));
                }
            }
        }
        for (name, nodes) in unknown {
            let more = if nodes.len() > 1 { format!(" and {} more", nodes.len() - 1) } else { String::new() };
            complaints.add(format!("operator {name} is not supported: {}{more}", called(nodes[0], opset)));
        }
        for output in graph.outputs.iter().filter(|o| !names.contains(o.name.as_str())) {
            complaints.add(format!("its output `{}` is given by nothing", output.name));
        }
        if graph.outputs.is_empty() {
            complaints.add("it has no outputs".into());
        }
        complaints.finish(&label)?;
        let parameters = declared.iter().map(|d| d.count).fold(0, usize::saturating_add);
        let producer = format!("{} {}", model.producer, model.producer_version).trim().to_string();
        let outputs = graph.outputs.iter().map(value_info).collect();
        let values =
            graph.nodes.iter().flat_map(|node| &node.outputs).filter(|name| !left_out.contains_key(name.as_str()));
        let values = values.filter(|name| !name.is_empty()).cloned().collect();
        let files: BTreeSet<_> = graph.initializers.iter().filter_map(|t| load::external(t, &folder)).collect();
        let files = files.into_iter().collect();
        let info = OnnxInfo { label, inputs, outputs, values, files, operators, opset, parameters, producer };
        Ok(Checked { folder, graph, declared, runs, info })
    }
}

/// Everything that is wrong with a file.
#[derive(Default)]
struct Complaints(Vec<String>);

impl Complaints {
    fn add(&mut self, complaint: String) {
        self.0.push(complaint);
    }

    fn finish(self, label: &str) -> Result<()> {
        let more = self.0.len().saturating_sub(LISTED);
        match &self.0[..] {
            [] => Ok(()),
            [only] => Err(Error::input(format!("{label}: {only}"))),
            all => {
                let listed: Vec<_> = all.iter().take(LISTED).map(|c| format!("\n  {c}")).collect();
                let rest = if more > 0 { format!("\n  and {more} more") } else { String::new() };
                Err(Error::input(format!("{label}:{}{rest}", listed.concat())))
            }
        }
    }
}

fn value_info(v: &proto::Value) -> ValueInfo {
    let tensor = v.kind.as_ref().and_then(|k| k.tensor.as_ref());
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
