//! The tensors of one network, loaded by diffusers' name and by shape.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Shape, Tensor};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::Dtype;

use super::checkpoint::Checkpoint;
use super::entry::TensorEntry;
use super::names::{self, NetworkKind, TensorPlace, TensorSlice};
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
    },
    /// A shape without numbers, and the dtype of the file, if there is one: the tensor is a broadcast zero.
    Declared(Vec<usize>, Option<Dtype>),
}

impl Located {
    fn shape(&self) -> Cow<'_, [usize]> {
        let Located::In { entry: TensorEntry { shape, .. }, view, .. } = self else {
            let Located::Declared(shape, _) = self else { unreachable!("one of two") };
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
            Located::Declared(_, dtype) => *dtype,
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
    /// Whether a name says that the U-Net predicts v.
    pub predicts_v: bool,
}

impl SortedTensors {
    /// Sorts the tensors of a checkpoint in any layout.
    pub fn of(checkpoint: &Arc<Checkpoint>) -> SortedTensors {
        let mut sorted = SortedTensors::default();
        let layers = names::layers(checkpoint.tensors().map(|(_, name, _)| name));
        for (part, name, entry) in checkpoint.tensors() {
            sorted.predicts_v |= names::predicts_v(name);
            match names::place(name, layers) {
                TensorPlace::In(network, places) => {
                    let map = sorted.networks.entry(network).or_default();
                    for (place, view) in places {
                        let (checkpoint, entry) = (checkpoint.clone(), entry.clone());
                        map.tensors.insert(place, Located::In { checkpoint, part, entry, view });
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

impl TensorMap {
    /// The tensors of a checkpoint of one network, by their names in the file, without those that `spare` selects.
    pub fn of(checkpoint: &Arc<Checkpoint>, spare: impl Fn(&str) -> bool) -> TensorMap {
        let kept = checkpoint.tensors().filter(|(_, name, _)| !spare(name));
        let located = |(part, name, entry): (usize, &str, &TensorEntry)| {
            let (checkpoint, entry) = (checkpoint.clone(), entry.clone());
            (name.to_string(), Located::In { checkpoint, part, entry, view: TensorSlice::Whole })
        };
        TensorMap { label: checkpoint.label().into(), tensors: kept.map(located).collect() }
    }

    /// Names and shapes without numbers. A network that is built on them shows which tensors it would load.
    pub fn declared(label: &str, shapes: BTreeMap<String, Vec<usize>>) -> TensorMap {
        let tensors = shapes.into_iter().map(|(name, shape)| (name, Located::Declared(shape, None))).collect();
        TensorMap { label: label.into(), tensors }
    }

    /// The same names, shapes and dtypes without numbers.
    pub fn shapes_only(&self) -> TensorMap {
        let declare = |(name, located): (&String, &Located)| {
            (name.clone(), Located::Declared(located.shape().into(), located.stored()))
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
        let tensor = match located {
            Located::Declared(..) => {
                Tensor::zeros((), self.precision.compute, &self.precision.device)?.broadcast_as(shape)?
            }
            Located::In { checkpoint, part, entry, view } => {
                let bytes = checkpoint.bytes(*part, entry)?;
                let x = read(&bytes, entry, *view, dtype(entry.dtype)).map_err(|e| match e {
                    Error::Weights(what) => Error::Weights(format!("{label}: tensor `{name}`: {what}")),
                    other => other,
                })?;
                x.to_device(&self.precision.device)?
            }
        };
        self.used.lock().unwrap_or_else(|e| e.into_inner()).insert(name);
        Ok(tensor)
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

/// Reads a tensor, contiguous, on the CPU.
fn read(bytes: &[u8], entry: &TensorEntry, view: TensorSlice, dtype: DType) -> Result<Tensor> {
    let bytes = match &entry.strides {
        Some(strides) => Cow::Owned(gather(bytes, &entry.shape, strides, entry.dtype.bitsize() / 8)),
        None => Cow::Borrowed(bytes),
    };
    match (view, entry.shape.as_slice()) {
        (TensorSlice::Rows { of, .. }, [rows, ..]) if !rows.is_multiple_of(of) => {
            Err(Error::Weights(format!("its {rows} rows do not split into {of} equal parts")))
        }
        (TensorSlice::Rows { n, of }, [rows, rest @ ..]) => {
            let size = bytes.len() / of;
            convert(&bytes[n * size..(n + 1) * size], entry.dtype, &[&[rows / of], rest].concat(), dtype)
        }
        (TensorSlice::Transposed, [_, _]) => {
            Ok(convert(&bytes, entry.dtype, &entry.shape, dtype)?.t()?.contiguous()?)
        }
        (TensorSlice::Matrix, [a, b, 1, 1]) => convert(&bytes, entry.dtype, &[*a, *b], dtype),
        (_, shape) => convert(&bytes, entry.dtype, shape, dtype),
    }
}

/// Copies the elements of a strided tensor in the order of its shape.
fn gather(bytes: &[u8], shape: &[usize], strides: &[usize], size: usize) -> Vec<u8> {
    let count = shape.iter().product();
    let mut to = Vec::with_capacity(count * size);
    let mut index = vec![0; shape.len()];
    for _ in 0..count {
        let at: usize = index.iter().zip(strides).map(|(i, stride)| i * stride).sum();
        to.extend_from_slice(&bytes[at * size..(at + 1) * size]);
        for (i, n) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < *n {
                break;
            }
            *i = 0;
        }
    }
    to
}

/// Whether weights in this dtype are read: all floats of eight bits and more that have infinities or NaN in the usual places.
fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F8_E4M3 | Dtype::F8_E5M2)
}

/// Converts little-endian numbers to a tensor of another dtype. Conversions that occur in real checkpoints take one
/// pass; candle does the others.
fn convert(bytes: &[u8], from: Dtype, shape: &[usize], to: DType) -> Result<Tensor> {
    const BLOCK: usize = 4096;
    let cpu = &Device::Cpu;
    // candle copies past its buffer if the bytes are unaligned and not a multiple of the element size.
    if bytes.len() * 8 != shape.iter().product::<usize>() * from.bitsize() {
        return Err(Error::Weights(format!("its {} bytes do not match the shape {shape:?}", bytes.len())));
    }
    let n = bytes.len() * 8 / from.bitsize().max(1);
    let halves = bytes.chunks(2 * BLOCK).map(|c| c.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])));
    Ok(match (from, to) {
        (Dtype::F16, DType::F32) => {
            let mut values = vec![0f32; n];
            let mut block = [f16::ZERO; BLOCK];
            for (to, from) in values.chunks_mut(BLOCK).zip(halves) {
                block.iter_mut().zip(from).for_each(|(to, bits)| *to = f16::from_bits(bits));
                block[..to.len()].convert_to_f32_slice(to);
            }
            Tensor::from_vec(values, shape, cpu)?
        }
        (Dtype::BF16, DType::F32) => {
            let values: Vec<f32> = halves.flatten().map(|bits| f32::from_bits(u32::from(bits) << 16)).collect();
            Tensor::from_vec(values, shape, cpu)?
        }
        (Dtype::F32, DType::F16 | DType::BF16) => {
            let floats = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            match to {
                DType::F16 => Tensor::from_vec(floats.map(f16::from_f32).collect::<Vec<_>>(), shape, cpu)?,
                _ => Tensor::from_vec(floats.map(bf16::from_f32).collect::<Vec<_>>(), shape, cpu)?,
            }
        }
        // The upper half of an f16.
        (Dtype::F8_E5M2, _) => {
            let values: Vec<f16> = bytes.iter().map(|byte| f16::from_bits(u16::from(*byte) << 8)).collect();
            Tensor::from_vec(values, shape, cpu)?.to_dtype(to)?
        }
        _ => {
            let dtype = DType::try_from(from).ok().filter(|dtype| dtype.is_float() || dtype.is_int());
            let dtype = dtype.ok_or_else(|| Error::Weights(format!("holds {from:?}, which is not supported")))?;
            Tensor::from_raw_buffer(bytes, dtype, shape, cpu)?.to_dtype(to)?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_are_followed() {
        // (2, 3) stored as (3, 2).
        let values: Vec<u8> = [0f32, 3., 1., 4., 2., 5.].iter().flat_map(|v| v.to_le_bytes()).collect();
        let entry = TensorEntry { dtype: Dtype::F32, shape: vec![2, 3], strides: Some(vec![1, 2]), bytes: 0..24 };
        let x = read(&values, &entry, TensorSlice::Whole, DType::F32).unwrap();
        assert_eq!(x.to_vec2::<f32>().unwrap(), [[0., 1., 2.], [3., 4., 5.]]);
        let x = read(&values, &entry, TensorSlice::Rows { n: 1, of: 2 }, DType::F16).unwrap();
        assert_eq!(x.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap(), [[3., 4., 5.]]);
        let x = read(&values, &entry, TensorSlice::Transposed, DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
        assert_eq!(x.to_vec2::<f32>().unwrap(), [[0., 3.], [1., 4.], [2., 5.]]);
    }

    /// Found by `examples/fuzz_weights`: a fused query, key and value of seven rows.
    #[test]
    fn rows_that_cannot_be_shared_out_are_refused() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::I64, Dtype::F64] {
            let entry = TensorEntry { dtype, shape: vec![7], strides: None, bytes: 0..7 * dtype.bitsize() / 8 };
            for shift in 0..8 {
                let bytes = vec![0; shift + entry.bytes.len()];
                assert!(
                    read(&bytes[shift..], &entry, TensorSlice::Rows { n: 1, of: 3 }, DType::F32).is_err(),
                    "{dtype:?}"
                );
            }
        }
    }

    #[test]
    fn half_precision_is_read_to_the_bit() {
        let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let wide = |dtype| convert(&all, dtype, &[1 << 16], DType::F32).unwrap().to_vec1::<f32>().unwrap();
        let same = |a: f32, b: f32| a == b || (a.is_nan() && b.is_nan());
        for (i, (h, b)) in wide(Dtype::F16).into_iter().zip(wide(Dtype::BF16)).enumerate() {
            assert!(same(h, f16::from_bits(i as u16).to_f32()), "f16 {i:x}");
            assert!(same(b, bf16::from_bits(i as u16).to_f32()), "bf16 {i:x}");
        }
    }

    /// Values of PyTorch's `torch.tensor(bytes, dtype=uint8).view(torch.float8_e5m2).float()`.
    #[test]
    fn fp8_with_two_bits_of_mantissa_is_read() {
        let bytes = [0x00, 0x01, 0x3c, 0x3d, 0xbe, 0x7b, 0xfc, 0x04];
        let x = convert(&bytes, Dtype::F8_E5M2, &[8], DType::F32).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(x, [0.0, 1.52587890625e-05, 1.0, 1.25, -1.5, 57344.0, f32::NEG_INFINITY, 6.103515625e-05]);
    }
}
