//! The tensors of one network, loaded by diffusers' name and by shape.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Shape, Tensor};
use safetensors::Dtype;

use super::checkpoint::Checkpoint;
use super::entry::TensorEntry;
use super::names::{self, NetworkKind, TensorPlace, TensorSlice};
use super::numbers::{is_float, read};
use crate::ModelFiles;
use crate::{Error, Result, elements};

/// The device of a model, and its dtypes.
#[derive(Clone, Debug)]
pub struct Precision {
    /// The device of weights and activations.
    pub device: Device,
    /// The dtype of activations, in which everything is computed.
    pub compute: DType,
    /// The dtype of large weights on the CPU, which are widened where they are used. `None` keeps weights in half precision
    /// if they are so in the file, which gives the same results with half the memory.
    pub weights: Option<DType>,
}

impl Precision {
    /// Weights and activations in one dtype.
    pub fn new(dtype: DType, device: &Device) -> Precision {
        Precision { device: device.clone(), compute: dtype, weights: Some(dtype) }
    }

    /// The dtype of a large weight that has the dtype `stored` in its file.
    fn kept(&self, stored: Dtype) -> DType {
        match (self.weights, stored) {
            _ if !self.device.is_cpu() || self.compute != DType::F32 => self.compute,
            (Some(dtype), _) => dtype,
            (None, Dtype::F16) => DType::F16,
            (None, Dtype::BF16) => DType::BF16,
            (None, _) => self.compute,
        }
    }
}

/// The least elements of a large weight. Smaller ones are not worth widening at each use.
const LARGE: usize = 1 << 20;

/// Tensors by diffusers' names, and where each lies in a checkpoint.
#[derive(Clone, Default)]
pub struct TensorMap {
    label: String,
    tensors: BTreeMap<String, Located>,
}

#[derive(Clone)]
enum Located {
    In {
        checkpoint: Arc<Checkpoint>,
        part: usize,
        entry: TensorEntry,
        view: TensorSlice,
        /// A number that the tensor is multiplied by.
        scale: Option<f64>,
    },
    /// A shape without numbers, and the dtype and scale of the file, if there are any: the tensor is a broadcast zero.
    Declared(Vec<usize>, Option<Dtype>, Option<f64>),
}

impl Located {
    fn shape(&self) -> Cow<'_, [usize]> {
        let Located::In { entry: TensorEntry { shape, .. }, view, .. } = self else {
            let Located::Declared(shape, ..) = self else { unreachable!("one of two") };
            return Cow::Borrowed(shape);
        };
        match (view, shape.as_slice()) {
            (TensorSlice::Rows { of, .. }, [rows, rest @ ..]) if rows.is_multiple_of(*of) => {
                Cow::Owned([&[rows / of], rest].concat())
            }
            (TensorSlice::Transposed, [a, b]) => Cow::Owned(vec![*b, *a]),
            (TensorSlice::Matrix, [a, b, 1, 1]) => Cow::Owned(vec![*a, *b]),
            _ => Cow::Borrowed(shape),
        }
    }

    fn stored(&self) -> Option<Dtype> {
        match self {
            Located::In { entry, .. } => Some(entry.dtype),
            Located::Declared(_, dtype, _) => *dtype,
        }
    }

    fn scale(&self) -> Option<f64> {
        match self {
            Located::In { scale, .. } | Located::Declared(_, _, scale) => *scale,
        }
    }
}

/// The tensors of a checkpoint, sorted by network.
#[derive(Default)]
pub struct SortedTensors {
    /// The tensors of each network.
    pub networks: BTreeMap<NetworkKind, TensorMap>,
    /// Names that belong to no network.
    pub unknown: Vec<String>,
    /// Names by which the file states how it is sampled, such as `v_pred`, with the numbers that they hold, if any.
    pub markers: BTreeMap<String, Vec<f32>>,
}

impl SortedTensors {
    /// Sorts the tensors of a checkpoint in any layout.
    pub fn of(checkpoint: &Arc<Checkpoint>) -> SortedTensors {
        let mut sorted = SortedTensors::default();
        let layers = names::layers(checkpoint.tensors().map(|(_, name, _)| name));
        let scales = scales(checkpoint);
        for (part, name, entry) in checkpoint.tensors().filter(|(_, name, _)| !name.ends_with(SCALE)) {
            if names::MARKERS.contains(&name) {
                sorted.markers.insert(name.to_string(), few_numbers(checkpoint, part, entry));
            }
            match names::place(name, layers) {
                TensorPlace::In(network, places) => {
                    let scale = name.strip_suffix(".weight").and_then(|base| scales.get(base).copied());
                    let map = sorted.networks.entry(network).or_default();
                    for (place, view) in places {
                        let (checkpoint, entry) = (checkpoint.clone(), entry.clone());
                        map.tensors.insert(place, Located::In { checkpoint, part, entry, view, scale });
                    }
                }
                TensorPlace::Spare => {}
                TensorPlace::Unknown => sorted.unknown.push(name.to_string()),
            }
        }
        for map in sorted.networks.values_mut() {
            map.label = checkpoint.label().into();
        }
        if let Some(vae) = sorted.networks.get_mut(&NetworkKind::Vae) {
            vae.reverse_levels();
        }
        sorted
    }
}

/// The end of the name of a scale: ComfyUI keeps weights in fp8 as numbers that fill its range, and beside each the factor
/// that it was divided by.
const SCALE: &str = ".scale_weight";

/// The scales of a checkpoint, by the names of their weights without `.weight`. One that is no number makes its weight NaN.
fn scales(checkpoint: &Checkpoint) -> BTreeMap<&str, f64> {
    let found = checkpoint.tensors().filter_map(|(part, name, entry)| Some((name.strip_suffix(SCALE)?, part, entry)));
    let scales = found.map(|(name, part, entry)| match few_numbers(checkpoint, part, entry)[..] {
        [scale] => (name, f64::from(scale)),
        _ => (name, f64::NAN),
    });
    scales.collect()
}

/// The most elements of a tensor that is read when a checkpoint is opened.
const FEW: usize = 1 << 10;

/// The numbers of a tensor of at most [`FEW`] elements; none if there are more, or if they are no floats or cannot be read.
fn few_numbers(checkpoint: &Checkpoint, part: usize, entry: &TensorEntry) -> Vec<f32> {
    let numbers = || {
        elements(&entry.shape).filter(|n| (1..=FEW).contains(n))?;
        let bytes = checkpoint.bytes(part, entry).ok()?;
        let numbers = read(&bytes, entry, TensorSlice::Whole, DType::F32).ok()?;
        numbers.flatten_all().ok()?.to_vec1::<f32>().ok()
    };
    numbers().unwrap_or_default()
}

impl TensorMap {
    /// The tensors of a checkpoint of one network, by their names in the file, without those that `spare` selects.
    pub fn of(checkpoint: &Arc<Checkpoint>, spare: impl Fn(&str) -> bool) -> TensorMap {
        let kept = checkpoint.tensors().filter(|(_, name, _)| !spare(name));
        let located = |(part, name, entry): (usize, &str, &TensorEntry)| {
            let (checkpoint, entry) = (checkpoint.clone(), entry.clone());
            (name.to_string(), Located::In { checkpoint, part, entry, view: TensorSlice::Whole, scale: None })
        };
        TensorMap { label: checkpoint.label().into(), tensors: kept.map(located).collect() }
    }

    /// Names and shapes without numbers. A network that is built on them shows which tensors it would load.
    pub fn declared(label: &str, shapes: BTreeMap<String, Vec<usize>>) -> TensorMap {
        let tensors = shapes.into_iter().map(|(name, shape)| (name, Located::Declared(shape, None, None))).collect();
        TensorMap { label: label.into(), tensors }
    }

    /// The same names, shapes, dtypes and scales without numbers.
    pub fn shapes_only(&self) -> TensorMap {
        let declare = |(name, located): (&String, &Located)| {
            (name.clone(), Located::Declared(located.shape().into(), located.stored(), located.scale()))
        };
        TensorMap { label: self.label.clone(), tensors: self.tensors.iter().map(declare).collect() }
    }

    /// The name in messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Adds the tensors of `other`. Messages then name both.
    pub fn extend(&mut self, other: TensorMap) {
        self.label = format!("{} with {}", self.label, other.label);
        self.tensors.extend(other.tensors);
    }

    /// Takes out the tensors that `spare` selects. Returns their names.
    pub fn take(&mut self, spare: impl Fn(&str) -> bool) -> Vec<String> {
        self.tensors.extract_if(.., |name, _| spare(name)).map(|(name, _)| name).collect()
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<Cow<'_, [usize]>> {
        self.tensors.get(name).map(Located::shape)
    }

    /// The numbers of a small tensor; `None` if it is absent, large, or without numbers.
    pub fn numbers(&self, name: &str) -> Option<Vec<f32>> {
        let Located::In { checkpoint, part, entry, view: TensorSlice::Whole, .. } = self.tensors.get(name)? else {
            return None;
        };
        Some(few_numbers(checkpoint, *part, entry)).filter(|numbers| !numbers.is_empty())
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The number of parts after this prefix, numbered without a gap: 4 for `down_blocks.` if there are `down_blocks.0.…` to
    /// `down_blocks.3.…`. A name cannot state more parts than there are.
    pub fn count(&self, prefix: &str) -> usize {
        let has = |n: &usize| {
            let part = format!("{prefix}{n}.");
            self.tensors.range(part.clone()..).next().is_some_and(|(name, _)| name.starts_with(&part))
        };
        (0..).take_while(has).count()
    }

    /// The bytes of memory that the tensors take.
    pub fn bytes(&self, precision: &Precision) -> usize {
        let bytes = |located: &Located| {
            let elements = located.shape().iter().product::<usize>();
            let dtype = match located.stored() {
                Some(stored) if elements >= LARGE => precision.kept(stored),
                _ => precision.compute,
            };
            elements * dtype.size_in_bytes()
        };
        self.tensors.values().map(bytes).sum()
    }

    /// The number of elements of all tensors.
    pub fn elements(&self) -> usize {
        self.tensors.values().map(|located| located.shape().iter().product::<usize>()).sum()
    }

    /// The dtype of most elements in the file.
    pub fn dtype(&self) -> Option<Dtype> {
        let mut counts: Vec<(Dtype, usize)> = Vec::new();
        for located in self.tensors.values() {
            let (Some(dtype), n) = (located.stored(), located.shape().iter().product()) else { continue };
            match counts.iter_mut().find(|(d, _)| *d == dtype) {
                Some((_, count)) => *count += n,
                None => counts.push((dtype, n)),
            }
        }
        counts.into_iter().max_by_key(|(_, n)| *n).map(|(dtype, _)| dtype)
    }

    /// The files that hold the tensors.
    pub fn paths(&self) -> BTreeSet<PathBuf> {
        let mut seen: Vec<*const Checkpoint> = Vec::new();
        let mut paths = BTreeSet::new();
        for located in self.tensors.values() {
            if let Located::In { checkpoint, .. } = located
                && !seen.contains(&Arc::as_ptr(checkpoint))
            {
                seen.push(Arc::as_ptr(checkpoint));
                paths.extend(checkpoint.paths().map(Path::to_path_buf));
            }
        }
        paths
    }

    /// Reverses the levels of the upsampling blocks, which the original layout counts from the last one.
    fn reverse_levels(&mut self) {
        let levels = self.count("decoder.up.");
        let up: Vec<String> = self.tensors.keys().filter(|name| name.starts_with("decoder.up.")).cloned().collect();
        for name in up {
            let Some(to) = names::reverse_level(&name, levels) else { continue };
            if let Some(located) = self.tensors.remove(&name) {
                self.tensors.insert(to, located);
            }
        }
    }
}

/// A view of a [`TensorMap`] from which a network loads its tensors: the map, a prefix of names, and a precision. Clones and
/// [`at`](Weights::at) share the record of the loaded tensors.
#[derive(Clone)]
pub struct Weights {
    map: Arc<TensorMap>,
    used: Arc<Mutex<BTreeSet<String>>>,
    prefix: String,
    precision: Precision,
}

impl Weights {
    /// A view of all tensors of `map`.
    pub fn new(map: TensorMap, precision: &Precision) -> Self {
        Weights { map: Arc::new(map), used: Arc::default(), prefix: String::new(), precision: precision.clone() }
    }

    /// Opens the file `path` of `files`, which holds one network.
    ///
    /// # Errors
    /// If the file is missing or corrupt, or has tensors of no known network.
    pub fn open(files: &ModelFiles, path: &str, precision: &Precision) -> Result<Self> {
        let sorted = SortedTensors::of(&Arc::new(files.checkpoint(path)?));
        let label = files.label(path);
        let map = sorted.networks.into_values().fold(TensorMap::default(), |mut all, map| {
            all.tensors.extend(map.tensors);
            all
        });
        if let Some(name) = sorted.unknown.first() {
            return Err(Error::Weights(format!("{label}: tensor `{name}` belongs to no known network")));
        }
        Ok(Self::new(TensorMap { label, ..map }, precision))
    }

    /// The tensors below a name: `weights.at("down_blocks").at(0)`.
    pub fn at(&self, name: impl Display) -> Self {
        Weights { prefix: self.name(&name.to_string()), ..self.clone() }
    }

    fn name(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }

    /// Loads the tensor `name`, which must have this shape, in the dtype of activations.
    ///
    /// # Errors
    /// If it is missing, has another shape, or cannot be read. Names the tensor, the file, and both shapes.
    pub fn get(&self, shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
        self.load(shape.into(), name, |_| self.precision.compute)
    }

    /// [`Weights::get`] of a matrix or convolution, which may stay in half precision if it is large, see [`Precision`].
    ///
    /// # Errors
    /// As [`Weights::get`].
    pub fn matrix(&self, shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
        let shape = shape.into();
        let large = elements(shape.dims()).is_none_or(|n| n >= LARGE);
        self.load(shape, name, |stored| if large { self.precision.kept(stored) } else { self.precision.compute })
    }

    fn load(&self, shape: Shape, name: &str, dtype: impl Fn(Dtype) -> DType) -> Result<Tensor> {
        let (name, label) = (self.name(name), &self.map.label);
        let located = self.map.tensors.get(&name).ok_or_else(|| {
            Error::Weights(format!("{label}: tensor `{name}` is missing; is the file incomplete, or of another model?"))
        })?;
        let found = located.shape();
        if *found != *shape.dims() {
            return Err(Error::Weights(format!(
                "{label}: tensor `{name}` has shape {found:?}, but its configuration needs {:?}",
                shape.dims()
            )));
        }
        if let Some(dtype) = located.stored().filter(|dtype| !is_float(*dtype)) {
            return Err(Error::Weights(format!(
                "{label}: tensor `{name}` holds {dtype:?}, which is not supported: quantised weights and other integers need \
                 more than their numbers; take a file in f32, f16, bf16 or fp8"
            )));
        }
        if located.scale().is_some_and(|scale| !scale.is_finite()) {
            return Err(Error::Weights(format!("{label}: the scale of tensor `{name}` is no finite number")));
        }
        let tensor = match located {
            Located::Declared(..) => {
                Tensor::zeros((), self.precision.compute, &self.precision.device)?.broadcast_as(shape)?
            }
            Located::In { checkpoint, part, entry, view, scale } => {
                let x = match self.upload(checkpoint, *part, entry, *view)? {
                    Some(x) => x.to_dtype(dtype(entry.dtype))?,
                    None => {
                        let bytes = checkpoint.bytes(*part, entry)?;
                        read(&bytes, entry, *view, dtype(entry.dtype)).map_err(|e| match e {
                            Error::Weights(what) => Error::Weights(format!("{label}: tensor `{name}`: {what}")),
                            other => other,
                        })?
                    }
                };
                let x = scale.map_or_else(|| Ok(x.clone()), |scale| &x * scale)?;
                x.to_device(&self.precision.device)?
            }
        };
        self.used.lock().unwrap_or_else(|e| e.into_inner()).insert(name);
        Ok(tensor)
    }

    /// Reads a tensor straight to a CUDA device, in its dtype in the file. `None` for other devices, and for what has to be
    /// rearranged or converted first.
    #[cfg(feature = "cuda")]
    fn upload(&self, from: &Checkpoint, part: usize, entry: &TensorEntry, view: TensorSlice) -> Result<Option<Tensor>> {
        let device = &self.precision.device;
        let dtype = match entry.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            _ => return Ok(None),
        };
        let (shape, skipped) = match (view, entry.shape.as_slice()) {
            (TensorSlice::Matrix, [a, b, 1, 1]) => (vec![*a, *b], 0),
            (TensorSlice::Whole | TensorSlice::Matrix, shape) => (shape.to_vec(), 0),
            (TensorSlice::Rows { n, of }, [rows, rest @ ..]) if rows.is_multiple_of(of) => {
                ([&[rows / of], rest].concat(), n * (entry.bytes.len() / of))
            }
            _ => return Ok(None),
        };
        let whole =
            elements(&entry.shape).and_then(|n| n.checked_mul(dtype.size_in_bytes())) == Some(entry.bytes.len());
        if !device.is_cuda() || entry.strides.is_some() || !whole {
            return Ok(None);
        }
        let start = entry.bytes.start + skipped;
        let fill = |offset, to: &mut [u8]| from.fill(part, start + offset, to);
        lsregen_tensor::cuda::upload::upload(device, dtype, &shape, fill).map(Some)
    }

    #[cfg(not(feature = "cuda"))]
    fn upload(&self, _: &Checkpoint, _: usize, _: &TensorEntry, _: TensorSlice) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// Checks that every tensor was loaded. Call it when a network is built.
    ///
    /// # Errors
    /// If there are tensors that were not loaded.
    pub fn finish(&self) -> Result<()> {
        let used = self.used.lock().unwrap_or_else(|e| e.into_inner());
        let left: Vec<_> = self.map.names().filter(|name| !used.contains(*name)).collect();
        if left.is_empty() {
            return Ok(());
        }
        let shown = left.iter().take(3).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
        let more = if left.len() > 3 { format!(" and {} more", left.len() - 3) } else { String::new() };
        Err(Error::Weights(format!(
            "{}: has tensors that its configuration does not use: {shown}{more}; is the configuration that of another model?",
            self.map.label
        )))
    }

    /// The precision in which tensors are loaded.
    pub fn precision(&self) -> &Precision {
        &self.precision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As ComfyUI's `scaled_fp8` files have them: 1.5 · 0.25 and -2 · 0.25.
    #[test]
    fn scales_of_fp8_weights_are_applied() {
        let load = |scale: f32| -> Result<Vec<f32>> {
            let tensors = [
                ("model.diffusion_model.out.2.weight", Dtype::F8_E4M3, vec![2], vec![0x3c, 0xc0]),
                ("model.diffusion_model.out.2.scale_weight", Dtype::F32, vec![], scale.to_le_bytes().to_vec()),
                ("model.diffusion_model.out.2.scale_input", Dtype::F32, vec![1], vec![0; 4]),
                ("scaled_fp8", Dtype::F8_E4M3, vec![2], vec![0; 2]),
            ];
            let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
                (*name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).unwrap())
            });
            let file = safetensors::serialize(views, None).unwrap();
            let mut sorted = SortedTensors::of(&Arc::new(Checkpoint::embedded("x", file.leak()).unwrap()));
            assert!(sorted.unknown.is_empty());
            let weights = sorted.networks.remove(&NetworkKind::UNet).unwrap();
            let declared = Weights::new(weights.shapes_only(), &Precision::new(DType::F32, &Device::Cpu));
            declared.get(2, "conv_out.weight")?;
            declared.finish()?;
            let loaded = Weights::new(weights, &Precision::new(DType::F32, &Device::Cpu)).get(2, "conv_out.weight")?;
            Ok(loaded.to_vec1::<f32>()?)
        };
        assert_eq!(load(0.25).unwrap(), [0.375, -0.5]);
        assert!(load(f32::NAN).unwrap_err().to_string().contains("the scale of tensor `conv_out.weight` is no finite"));
    }
}
