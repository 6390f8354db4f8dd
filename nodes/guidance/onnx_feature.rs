//! OnnxFeature.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsregen_diffusion::guidance::onnx::{Look, Verdicts, distance_problem};
use lsregen_diffusion::guidance::{Metric, OnnxGoal, OnnxGuidance};
use lsregen_engine::{CheckContext, Context, FileDigests, FileRef, Findings, Lane, Links, NodeError, sockets};
use lsregen_onnx::{Normalisation, OnnxInfo, OnnxNetwork};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::as_node::GuidanceNode;
use crate::host::bridge::raise;
use crate::host::numerics::ComputeOptions;
use crate::params::guidance::{GuidanceParams, Strength};
use crate::values::{Guidance, Image, Layout};

/// Guides a feature of the image, computed by your own network, towards that of another image, a feature in a file, or
/// a class.
///
/// The network is an ONNX file with one input, an image, such as `torch.onnx.export` writes. It may use the operators of
/// common feature extractors; `check` reports any others. Its gradient is tested by finite differences before it guides.
/// The target is one of the socket `image`, `target_file` and `class`. By default the guidance acts in the first 60 % of
/// the steps, normalised as in FreeDoM.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct OnnxFeature {
    /// The ONNX file, relative to the graph file.
    pub path: PathBuf,
    /// The output or inner value of the network that is the feature. By default the only output.
    #[serde(default)]
    pub output: Option<String>,
    /// Width and height in pixels to which images are resized for the network. By default the size that the network
    /// requires, or that of the sampling if the network accepts any.
    #[serde(default)]
    #[schemars(inner(range(min = 1, max = 16384)))]
    pub size: Option<[u32; 2]>,
    /// Mean of red, green and blue in [0, 1] that the network was trained with. With [0.5, 0.5, 0.5] here and in `std`, it
    /// gets images in [-1, 1].
    #[serde(default = "mean")]
    pub mean: [f64; 3],
    /// Standard deviation of red, green and blue in [0, 1] that the network was trained with.
    #[serde(default = "std")]
    pub std: [f64; 3],
    /// A safetensors file with one tensor, the target feature, relative to the graph file.
    #[serde(default)]
    pub target_file: Option<PathBuf>,
    /// The target class, from 0, if the feature is the logits of classes.
    #[serde(default)]
    pub class: Option<u32>,
    /// The distance between the two features: by default `l2_mean`, or `cross_entropy` with a class.
    #[serde(default)]
    pub distance: Option<Metric>,
    /// γ, the strength. With `normalise: freedom` it is a share of classifier-free guidance's correction. `auto` follows the size
    /// of each box.
    #[serde(default = "scale")]
    #[schemars(extend("minimum" = 0.0))]
    pub scale: Strength,
    /// How the guidance acts.
    #[serde(flatten)]
    pub params: GuidanceParams,
}

fn mean() -> [f64; 3] {
    Normalisation::default().mean
}

fn std() -> [f64; 3] {
    Normalisation::default().std
}

fn scale() -> Strength {
    Strength::Number(OnnxGuidance::defaults().scale)
}

sockets! {
    pub struct OnnxFeatureInputs {
        /// The image whose feature is the target.
        pub image: Option<Arc<Image>>,
        /// Where the guidance acts: in the boxes of this layout. Without `layout` and `mask` it acts everywhere.
        pub layout: Option<Arc<Layout>>,
    }
}

impl OnnxFeature {
    fn metric(&self) -> Metric {
        match self.distance {
            Some(distance) => distance,
            None if self.class.is_some() => Metric::CrossEntropy,
            None => Metric::L2Mean,
        }
    }

    /// Reports a size or an output that the network does not have, and a target that the output cannot have.
    fn network_errors(&self, info: &OnnxInfo, cx: &CheckContext) -> Vec<NodeError> {
        let mut errors = vec![];
        match info.image_input() {
            Err(error) => errors.push(NodeError::new("path", error.to_string())),
            Ok(input) => {
                for (name, i, own) in [("width", 0, input.width), ("height", 1, input.height)] {
                    if let (Some(own), Some(given)) = (own, self.size.map(|size| size[i] as usize))
                        && own != given
                    {
                        let message = format!("the network requires images of {name} {own}, but `size` has {given}");
                        let help = "leave `size` out, or export the network for any size";
                        errors.push(NodeError::new("size", message).help(help));
                    }
                }
            }
        }
        match info.output(self.output.as_deref()) {
            Err(error) => errors.push(NodeError::new("output", error.to_string())),
            Ok(output) => errors.extend(self.target_error(output, info, cx)),
        }
        errors
    }

    /// Reports a target that `output` cannot have, as far as the file declares its shape.
    fn target_error(&self, output: &str, info: &OnnxInfo, cx: &CheckContext) -> Option<NodeError> {
        let file = self.target_file.as_ref().map(|path| cx.resolve(path)).filter(|path| path.is_file());
        let (param, goal) = match (file, self.class) {
            (Some(path), _) => match OnnxGoal::read(&path) {
                Ok(goal) => ("target_file", Some(goal)),
                Err(error) => return Some(NodeError::new("target_file", error.to_string())),
            },
            (None, Some(class)) => ("class", Some(OnnxGoal::Class(class as usize))),
            (None, None) => ("image", None),
        };
        let dims = info.declared_shape(output)?;
        let distance = distance_problem(&dims, self.metric()).map(|problem| NodeError::new("distance", problem));
        distance.or_else(|| Some(NodeError::new(param, goal?.problem(output, &dims)?)))
    }
}

impl GuidanceNode for OnnxFeature {
    const TYPE: &'static str = "OnnxFeature";
    const VERSION: u32 = 1;
    /// The device that tests the network.
    const LANE: Lane = Lane::Device;

    type Inputs = OnnxFeatureInputs;

    fn strength(&self) -> Strength {
        self.scale
    }

    fn params(&self) -> &GuidanceParams {
        &self.params
    }

    fn check(&self, cx: &CheckContext) -> Vec<NodeError> {
        let mut errors = vec![];
        if let Some(i) = self.std.iter().position(|s| *s <= 0.0 || !s.is_finite()) {
            errors.push(NodeError::new(format!("std/{i}"), "a standard deviation must be above 0"));
        }
        if self.class.is_some() && self.distance.is_some_and(|d| d != Metric::CrossEntropy) {
            errors.push(
                NodeError::new("distance", "`class` requires the distance `cross_entropy`")
                    .help("leave `distance` out, or give `image` or `target_file` in place of `class`"),
            );
        }
        // The engine reports a missing file.
        let path = cx.resolve(&self.path);
        if path.is_file() {
            match OnnxNetwork::inspect(&path) {
                Ok(info) => errors.extend(self.network_errors(&info, cx)),
                Err(error) => errors.push(NodeError::new("path", error.to_string())),
            }
        }
        errors
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        let targets = [
            ("image", links.has("image")),
            ("target_file", self.target_file.is_some()),
            ("class", self.class.is_some()),
        ];
        let given: Vec<_> = targets.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        match given[..] {
            [_] => vec![],
            [] => vec![
                NodeError::new("image", "the target is missing").help("link `image`, or give `target_file` or `class`"),
            ],
            [first, second, ..] => vec![
                NodeError::new(second, format!("the target is given twice, by `{first}` and by `{second}`"))
                    .help("keep one of them"),
            ],
        }
    }

    fn files(&self, cx: &CheckContext) -> Vec<FileRef> {
        let path = cx.resolve(&self.path);
        // External data are in further files. `check` reports files that cannot be read.
        let external = OnnxNetwork::inspect(&path).map(|info| info.files).unwrap_or_default();
        let mut files = vec![FileRef::new("path", path)];
        files.extend(external.into_iter().map(|path| FileRef::new("path", path)));
        files.extend(self.target_file.iter().map(|path| FileRef::new("target_file", cx.resolve(path))));
        files
    }

    fn guidance(&self, inputs: OnnxFeatureInputs, cx: &Context) -> anyhow::Result<Guidance> {
        let numerics = cx.service::<ComputeOptions>()?;
        let goal = match (&inputs.image, &self.target_file, self.class) {
            (Some(image), ..) => OnnxGoal::Picture(image.tensor()?),
            (None, Some(path), _) => OnnxGoal::read(&cx.resolve(path)).map_err(raise)?,
            (None, None, Some(class)) => OnnxGoal::Class(class as usize),
            (None, None, None) => {
                anyhow::bail!("the target is missing: link `image`, or give `target_file` or `class`")
            }
        };
        let network = OnnxNetwork::open(&cx.resolve(&self.path), &numerics.precision.device).map_err(raise)?;
        cx.cancel().check()?;
        let size = self.size.map(|[width, height]| (height as usize, width as usize));
        let normalisation = Normalisation { mean: self.mean, std: self.std };
        let verdicts = FoundVerdicts::new(&network, &cx.resolve(&self.path), cx);
        let verdicts = verdicts.map(|verdicts| Box::new(verdicts) as Box<dyn Verdicts>);
        let look =
            Look::new(Arc::new(network), self.output.as_deref(), size, normalisation, verdicts).map_err(raise)?;
        Ok(Guidance::new(OnnxGuidance {
            look: Arc::new(look),
            goal,
            metric: self.metric(),
            settings: self.params.resolve(self.scale, OnnxGuidance::defaults(), inputs.layout.as_deref()),
        }))
    }
}

/// Verdicts about a network among the findings of the cache.
struct FoundVerdicts {
    findings: Arc<dyn Findings>,
    /// What all findings about it depend on.
    network: String,
}

impl FoundVerdicts {
    /// `None` if there is no cache on disk, or a file of the network cannot be read again.
    fn new(network: &OnnxNetwork, path: &Path, cx: &Context) -> Option<Self> {
        let (findings, digests) = (cx.findings()?, FileDigests::new());
        let files = [path].into_iter().chain(network.info().files.iter().map(PathBuf::as_path));
        let files: Option<Vec<_>> = files.map(|file| Some(digests.digest(file).ok()?.digest().to_string())).collect();
        let device = if network.device().is_cpu() { "CPU" } else { "GPU" };
        let (test, version) = (OnnxNetwork::SELF_TEST, env!("CARGO_PKG_VERSION"));
        let network = format!("self-test {test} of lsregen {version} on {device}: ONNX {}", files?.join(" "));
        Some(FoundVerdicts { findings, network })
    }

    fn about(&self, output: &str, shape: &[usize]) -> String {
        format!("{}, output {output:?}, shape {shape:?}", self.network)
    }
}

impl Verdicts for FoundVerdicts {
    fn recall(&self, output: &str, shape: &[usize]) -> Option<f64> {
        self.findings.recall(&self.about(output, shape))?.parse().ok()
    }

    fn keep(&self, output: &str, shape: &[usize], deviation: f64) {
        self.findings.keep(&self.about(output, shape), &deviation.to_string());
    }
}
