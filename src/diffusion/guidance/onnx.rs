//! Guides a feature of the predicted image, computed by the user's own ONNX network, towards that of another image, a
//! given feature, or a class.
//!
//! The image is resized and normalised for the network, differentiably. The gradient of the network is tested by finite
//! differences at that size before it guides.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Tensor};

use super::{
    BoundGuidance, Extractor, GuidanceSettings, GuidanceSpec, Metric, Normalise, SamplingRun, StepContext, Window,
};
use crate::onnx::{ImageInput, Normalisation, OnnxNetwork};
use crate::{Error, Result};

/// Keeps what tests of a network's gradient found, so that a network is not tested again for each sampling.
pub trait Verdicts: Send + Sync {
    /// The deviation of a gradient that was found right: that of `output` by an input of this shape.
    fn recall(&self, output: &str, shape: &[usize]) -> Option<f64>;

    /// Keeps the deviation of a gradient that is right.
    fn keep(&self, output: &str, shape: &[usize], deviation: f64);
}

/// A network applied to images, and the feature that it computes.
pub struct Look {
    network: Arc<OnnxNetwork>,
    input: ImageInput,
    output: String,
    size: Option<(usize, usize)>,
    normalisation: Normalisation,
    tested: OnceLock<f64>,
    verdicts: Option<Box<dyn Verdicts>>,
}

impl fmt::Debug for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Look")
            .field("network", &self.network.info().label)
            .field("output", &self.output)
            .field("size", &self.size)
            .field("normalisation", &self.normalisation)
            .finish()
    }
}

impl Look {
    /// Uses the value `output` of the network, or its only output, at height and width `size`: by default the network's fixed
    /// size, or else that of the image.
    ///
    /// # Errors
    /// If the network does not take an image of that size, or has no such value, or (if the size is known) if
    /// its gradient fails the test.
    pub fn new(
        network: Arc<OnnxNetwork>,
        output: Option<&str>,
        size: Option<(usize, usize)>,
        normalisation: Normalisation,
        verdicts: Option<Box<dyn Verdicts>>,
    ) -> Result<Self> {
        let input = network.info().image_input()?;
        let output = network.info().output(output)?.to_string();
        let size = size.or(input.height.zip(input.width));
        let look = Look { network, input, output, size, normalisation, tested: OnceLock::new(), verdicts };
        if let Some((height, width)) = look.size {
            look.test(height, width)?;
        }
        Ok(look)
    }

    /// Computes the feature of an image (1, 3, H, W) in [-1, 1], in f32; differentiable.
    pub fn feature(&self, picture: &Tensor) -> Result<Tensor> {
        self.network.forward(&self.input.prepare(picture, self.size, &self.normalisation)?, Some(&self.output))
    }

    /// Tests the gradient by finite differences, once, unless a verdict is known. Returns the deviation.
    pub fn test(&self, height: usize, width: usize) -> Result<f64> {
        if let Some(deviation) = self.tested.get() {
            return Ok(*deviation);
        }
        let (height, width) = self.size.unwrap_or((height, width));
        let channels = self.input.channels;
        let shape = if self.input.channels_last { [1, height, width, channels] } else { [1, channels, height, width] };
        let known = self.verdicts.as_ref().and_then(|verdicts| verdicts.recall(&self.output, &shape));
        let deviation = match known {
            Some(deviation) => deviation,
            None => {
                let deviation = self.network.self_test_of(&shape, Some(&self.output))?;
                if let Some(verdicts) = &self.verdicts {
                    verdicts.keep(&self.output, &shape, deviation);
                }
                deviation
            }
        };
        Ok(*self.tested.get_or_init(|| deviation))
    }
}

/// feat(image) = the network's feature; for [`Metric::Gram`] its positions are one dimension.
pub struct OnnxFeature {
    look: Arc<Look>,
    flat: bool,
    target: Tensor,
}

impl OnnxFeature {
    /// Extracts from images of the size of `picture`, with the target that `goal` gives.
    pub fn new(look: Arc<Look>, goal: &OnnxGoal, metric: Metric, picture: &Tensor) -> Result<Self> {
        let flat = metric == Metric::Gram;
        let own = look.feature(if let OnnxGoal::Picture(reference) = goal { reference } else { picture })?;
        let dims: Vec<_> = own.dims().iter().copied().map(Some).collect();
        if let Some(problem) = distance_problem(&dims, metric).or_else(|| goal.problem(&look.output, &dims)) {
            return Err(Error::input(problem));
        }
        let target = match goal {
            OnnxGoal::Picture(_) if metric == Metric::CrossEntropy => candle_nn::ops::softmax(&own, 1)?,
            OnnxGoal::Picture(_) => shaped(own, flat)?,
            OnnxGoal::Feature(target) => {
                let target = target.to_dtype(DType::F32)?.to_device(own.device())?;
                let target = if target.rank() + 1 == own.rank() { target.unsqueeze(0)? } else { target };
                shaped(target, flat)?
            }
            OnnxGoal::Class(class) => {
                let (classes, mut dims) = (own.dim(1)?, own.dims().to_vec());
                let hot: Vec<f32> = (0..classes).map(|c| f32::from(u8::from(c == *class))).collect();
                let mut row = vec![1; dims.len()];
                (dims[0], row[1]) = (1, classes);
                Tensor::from_vec(hot, row, own.device())?.broadcast_as(dims)?.contiguous()?
            }
        };
        Ok(OnnxFeature { look, flat, target: target.detach() })
    }
}

/// Returns why a feature cannot be compared by this distance. `dims` are its sizes, as far as they are known.
pub fn distance_problem(dims: &[Option<usize>], metric: Metric) -> Option<String> {
    let (lacks, shape) = match metric {
        Metric::Gram if ![3, 4].contains(&dims.len()) => ("positions to compare textures over", "(B, C, H, W)"),
        Metric::CrossEntropy if dims.len() < 2 => ("classes", "(B, classes)"),
        _ => return None,
    };
    Some(format!("a feature {} has no {lacks}: use an output {shape}, or another distance", shown(dims)))
}

/// A shape for a message, with `?` for a size that is not known.
fn shown(dims: &[Option<usize>]) -> String {
    let sizes: Vec<_> = dims.iter().map(|dim| dim.map_or("?".into(), |n| n.to_string())).collect();
    format!("[{}]", sizes.join(", "))
}

/// Reshapes a feature, whose distance has no [`distance_problem`], for it.
fn shaped(feature: Tensor, flat: bool) -> Result<Tensor> {
    match (flat, feature.rank()) {
        (false, _) | (true, 3) => Ok(feature),
        _ => Ok(feature.flatten_from(2)?),
    }
}

impl Extractor for OnnxFeature {
    fn name(&self) -> &str {
        "ONNX feature"
    }

    fn feat(&self, picture: &Tensor, _: &StepContext) -> Result<Tensor> {
        shaped(self.look.feature(picture)?, self.flat)
    }

    fn target(&self, _: &StepContext) -> Result<Tensor> {
        Ok(self.target.clone())
    }
}

/// The target of a network's feature.
#[derive(Clone, Debug)]
pub enum OnnxGoal {
    /// The feature of an image (1, 3, H, W) in [-1, 1], of any size; its class probabilities with
    /// [`Metric::CrossEntropy`].
    Picture(Tensor),
    /// A feature, with or without the batch dimension.
    Feature(Tensor),
    /// A class, from 0: the feature is logits (1, classes, …).
    Class(usize),
}

impl OnnxGoal {
    /// Returns why the feature `output` cannot have this target. `dims` are the sizes of the feature, as far as they are known.
    pub fn problem(&self, output: &str, dims: &[Option<usize>]) -> Option<String> {
        match self {
            OnnxGoal::Picture(_) => None,
            OnnxGoal::Feature(target) => {
                let own = if target.rank() + 1 == dims.len() { dims.get(1..)? } else { dims };
                let equal = |(a, b): (&usize, &Option<usize>)| b.is_none_or(|b| *a == b);
                let fits = target.rank() == own.len() && target.dims().iter().zip(own).all(equal);
                let target = target.dims();
                (!fits).then(|| {
                    format!("the target has the shape {target:?}, but the network's `{output}` has {}", shown(dims))
                })
            }
            OnnxGoal::Class(class) => {
                let classes = dims.get(1).copied().unwrap_or(Some(0))?;
                (*class >= classes).then(|| {
                    format!("the network's `{output}` has {classes} classes, so that there is no class {class}")
                })
            }
        }
    }

    /// Reads a feature from a safetensors file: its only tensor, of floating-point numbers.
    ///
    /// # Errors
    /// If the file is invalid or has no such tensor.
    pub fn read(path: &Path) -> Result<Self> {
        let bad = |what: String| Error::input(format!("{}: {what}", path.display()));
        let bytes = lsregen_files::read(path, lsregen_files::Kind::LATENT).map_err(Error::io(path))?;
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
            .map_err(|e| bad(format!("not a valid safetensors file ({e})")))?;
        let mut tensors = tensors.into_values();
        match (tensors.next(), tensors.len()) {
            (Some(only), 0) if only.dtype().is_float() => Ok(OnnxGoal::Feature(only)),
            (Some(_), 0) => Err(bad("its tensor must have floating-point numbers".into())),
            (None, _) => Err(bad("contains no tensor, but a target is one tensor".into())),
            (_, more) => Err(bad(format!("contains {} tensors, but a target is one tensor", more + 1))),
        }
    }
}

/// Guidance by the user's own network.
#[derive(Debug)]
pub struct OnnxGuidance {
    /// The network.
    pub look: Arc<Look>,
    /// The target of its feature.
    pub goal: OnnxGoal,
    /// The distance between features.
    pub metric: Metric,
    /// How it acts.
    pub settings: GuidanceSettings,
}

impl OnnxGuidance {
    /// The defaults, as for CLIP.
    pub fn defaults() -> GuidanceSettings {
        GuidanceSettings {
            scale: 0.3,
            window: Window::first(0.6),
            normalise: Normalise::Freedom,
            ..GuidanceSettings::default()
        }
    }
}

impl GuidanceSpec for OnnxGuidance {
    fn bind(&self, run: &SamplingRun) -> Result<Vec<BoundGuidance>> {
        self.look.test(run.height, run.width)?;
        let goal = match &self.goal {
            OnnxGoal::Picture(picture) => OnnxGoal::Picture(run.fitted(picture)?),
            goal => goal.clone(),
        };
        let picture = Tensor::zeros((1, 3, run.height, run.width), DType::F32, run.device())?;
        let extractor = OnnxFeature::new(self.look.clone(), &goal, self.metric, &picture)?;
        Ok(vec![run.bound(extractor, self.metric.distance(), run.image_space()?, &self.settings)?])
    }

    fn bytes(&self) -> usize {
        let goal = match &self.goal {
            OnnxGoal::Picture(x) | OnnxGoal::Feature(x) => x.elem_count() * x.dtype().size_in_bytes(),
            OnnxGoal::Class(_) => 0,
        };
        self.look.network.bytes() + goal
    }
}
