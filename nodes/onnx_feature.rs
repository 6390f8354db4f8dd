//! OnnxFeature.

use std::path::PathBuf;
use std::sync::Arc;

use lsregen_diffusion::guidance::onnx::Look;
use lsregen_diffusion::guidance::{Metric, OnnxGoal, OnnxGuidance};
use lsregen_diffusion::onnx::{Normalisation, OnnxInfo, OnnxNetwork};
use lsregen_engine::{CheckContext, Context, FileRef, Lane, Links, Node, NodeError, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Numerics;
use crate::bridge::raise;
use crate::guidance_params::{GuidanceOutputs, GuidanceParams, Strength};
use crate::values::{Image, Layout};

/// Draws what your own network sees in the predicted picture to what it sees in another one, to a given feature, or to a
/// class.
///
/// The network is an ONNX file with one input, a picture, such as `torch.onnx.export` writes. Of its operators those are
/// known that feature extractors have; others are named by `check`. Its gradient is tested by finite differences before it
/// guides. It says what to be drawn to: one of the socket `image`, `target_file` and `class`. Unless told otherwise the
/// guidance acts in the first 60 % of the steps, scaled as FreeDoM scales it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct OnnxFeature {
    /// The ONNX file, relative to the graph file.
    pub path: PathBuf,
    /// The output that is the feature, or any inner value by its name. The only output, unless told.
    #[serde(default)]
    pub output: Option<String>,
    /// Width and height in pixels that pictures are resized to for the network. The network's own, unless told; where it
    /// takes any, the sampling's.
    #[serde(default)]
    #[schemars(inner(range(min = 1, max = 16384)))]
    pub size: Option<[u32; 2]>,
    /// Mean of red, green and blue, of 1, that the network was trained with; of [0.5, 0.5, 0.5] and `std` the same, its
    /// pictures are in [-1, 1].
    #[serde(default = "mean")]
    pub mean: [f64; 3],
    /// Standard deviation of red, green and blue, of 1, that the network was trained with.
    #[serde(default = "std")]
    pub std: [f64; 3],
    /// A safetensors file with one tensor, the feature to be drawn to, relative to the graph file.
    #[serde(default)]
    pub target_file: Option<PathBuf>,
    /// The class to be drawn to, from 0, where the feature is the logits of classes.
    #[serde(default)]
    pub class: Option<u32>,
    /// By what features are compared: `l2_mean` unless told, `cross_entropy` with a class.
    #[serde(default)]
    pub distance: Option<Metric>,
    /// γ: how strongly. With `normalise: freedom` the share of what classifier-free guidance adds. `auto` follows the size of
    /// each box.
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
        /// The picture to be like.
        pub image: Option<Arc<Image>>,
        /// Where the guidance acts: in the boxes of this layout. Everywhere where neither this nor `mask` is given.
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

    /// What is wrong with how the network is used.
    fn network_faults(&self, info: &OnnxInfo) -> Vec<NodeError> {
        let mut faults = vec![];
        match info.image_input() {
            Err(error) => faults.push(NodeError::new("path", error.to_string())),
            Ok(input) => {
                let sides = [("width", 0, input.width), ("height", 1, input.height)];
                for (name, i, own) in sides {
                    if let (Some(own), Some(told)) = (own, self.size.map(|size| size[i] as usize))
                        && own != told
                    {
                        let what = format!("the network takes pictures of {name} {own} alone, not {told}");
                        faults.push(
                            NodeError::new("size", what).help("leave `size` out, or export the network for any size"),
                        );
                    }
                }
            }
        }
        if let Err(error) = info.output(self.output.as_deref()) {
            faults.push(NodeError::new("output", error.to_string()));
        }
        faults
    }
}

impl Node for OnnxFeature {
    const TYPE: &'static str = "OnnxFeature";
    const VERSION: u32 = 1;
    /// Where the network is tested.
    const LANE: Lane = Lane::Device;

    type Inputs = OnnxFeatureInputs;
    type Outputs = GuidanceOutputs;

    fn check(&self, cx: &CheckContext) -> Vec<NodeError> {
        let mut faults = self.params.faults();
        if let Some(i) = self.std.iter().position(|s| *s <= 0.0 || !s.is_finite()) {
            faults.push(NodeError::new(format!("std/{i}"), "a standard deviation is above 0"));
        }
        if self.class.is_some() && self.distance.is_some_and(|d| d != Metric::CrossEntropy) {
            faults.push(
                NodeError::new("distance", "a class is compared by `cross_entropy`")
                    .help("leave `distance` out, or give `image` or `target_file` in place of `class`"),
            );
        }
        // A file that is not there is told as such.
        let path = cx.resolve(&self.path);
        if path.is_file() {
            match OnnxNetwork::inspect(&path) {
                Ok(info) => faults.extend(self.network_faults(&info)),
                Err(error) => faults.push(NodeError::new("path", error.to_string())),
            }
        }
        faults
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        let mut faults: Vec<NodeError> = self.params.auto_fault("scale", self.scale, links).into_iter().collect();
        let goals = [
            ("image", links.has("image")),
            ("target_file", self.target_file.is_some()),
            ("class", self.class.is_some()),
        ];
        let given: Vec<_> = goals.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        match given[..] {
            [_] => {}
            [] => faults.push(
                NodeError::new("image", "nothing says what to be drawn to")
                    .help("link `image`, or give `target_file` or `class`"),
            ),
            [first, second, ..] => faults.push(
                NodeError::new(second, format!("`{first}` and `{second}` both say what to be drawn to"))
                    .help("keep one of them"),
            ),
        }
        faults
    }

    fn files(&self, cx: &CheckContext) -> Vec<FileRef> {
        let path = cx.resolve(&self.path);
        // External data lies beside the file. What cannot be read is told by `check`.
        let beside = OnnxNetwork::inspect(&path).map(|info| info.files).unwrap_or_default();
        let mut files = vec![FileRef::new("path", path)];
        files.extend(beside.into_iter().map(|path| FileRef::new("path", path)));
        files.extend(self.target_file.iter().map(|path| FileRef::new("target_file", cx.resolve(path))));
        files
    }

    fn run(&self, inputs: OnnxFeatureInputs, cx: &Context) -> anyhow::Result<GuidanceOutputs> {
        let numerics = cx.service::<Numerics>()?;
        let goal = match (&inputs.image, &self.target_file, self.class) {
            (Some(image), ..) => OnnxGoal::Picture(image.0.clone()),
            (None, Some(path), _) => OnnxGoal::read(&cx.resolve(path)).map_err(raise)?,
            (None, None, Some(class)) => OnnxGoal::Class(class as usize),
            (None, None, None) => anyhow::bail!("nothing says what to be drawn to"),
        };
        let network = OnnxNetwork::open(&cx.resolve(&self.path), &numerics.numbers.device).map_err(raise)?;
        cx.cancel().check()?;
        let size = self.size.map(|[width, height]| (height as usize, width as usize));
        let normalisation = Normalisation { mean: self.mean, std: self.std };
        let look = Look::new(Arc::new(network), self.output.as_deref(), size, normalisation).map_err(raise)?;
        let spec = OnnxGuidance {
            look: Arc::new(look),
            goal,
            metric: self.metric(),
            settings: self.params.resolve(self.scale, OnnxGuidance::defaults(), inputs.layout.as_deref()),
        };
        Ok(GuidanceOutputs::of(spec))
    }
}
