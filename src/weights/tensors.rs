//! The tensors of one network, asked for by diffusers' name and by shape; what is missing, wrong or left over is named.

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
use super::names::{self, Part, Place, View};
use crate::ModelFiles;
use crate::{Error, Result};

/// Where a model's numbers are, and in which dtypes.
#[derive(Clone, Debug)]
pub struct Numbers {
    pub device: Device,
    /// Of everything that is computed.
    pub compute: DType,
    /// Of large weights on the CPU, which are widened where they are used; `None`: half where the file has them in
    /// half, which gives the same numbers in half the memory.
    pub weights: Option<DType>,
}

impl Numbers {
    /// Everything in one dtype.
    pub fn new(dtype: DType, device: &Device) -> Numbers {
        Numbers { device: device.clone(), compute: dtype, weights: Some(dtype) }
    }

    /// The dtype in which a large weight is kept that a file has as `stored`.
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

/// Elements from which a weight is large: what is smaller is not worth widening anew at each use.
const LARGE: usize = 1 << 20;

/// Tensors by diffusers' names, each somewhere in a checkpoint.
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
        view: View,
    },
    /// A shape alone: the tensor is one zero, broadcast.
    Declared(Vec<usize>),
}

impl Located {
    fn shape(&self) -> Cow<'_, [usize]> {
        let Located::In { entry: TensorEntry { shape, .. }, view, .. } = self else {
            let Located::Declared(shape) = self else { unreachable!("one of two") };
            return Cow::Borrowed(shape);
        };
        match (view, shape.as_slice()) {
            (View::Rows { of, .. }, [rows, rest @ ..]) => Cow::Owned([&[rows / of], rest].concat()),
            (View::Transposed, [a, b]) => Cow::Owned(vec![*b, *a]),
            (View::Matrix, [a, b, 1, 1]) => Cow::Owned(vec![*a, *b]),
            _ => Cow::Borrowed(shape),
        }
    }

    fn stored(&self) -> Option<Dtype> {
        match self {
            Located::In { entry, .. } => Some(entry.dtype),
            Located::Declared(_) => None,
        }
    }
}

/// The tensors of a checkpoint, sorted into networks.
#[derive(Default)]
pub struct Sorted {
    pub parts: BTreeMap<Part, TensorMap>,
    /// Names for which there is no place.
    pub unknown: Vec<String>,
    /// Whether the names say that the U-Net predicts v.
    pub predicts_v: bool,
}

impl Sorted {
    /// Sorts a checkpoint of any layout.
    pub fn of(checkpoint: &Arc<Checkpoint>) -> Sorted {
        let mut sorted = Sorted::default();
        let layers = names::layers(checkpoint.tensors().map(|(_, name, _)| name));
        for (part, name, entry) in checkpoint.tensors() {
            sorted.predicts_v |= names::predicts_v(name);
            match names::place(name, layers) {
                Place::In(network, places) => {
                    let map = sorted.parts.entry(network).or_default();
                    for (place, view) in places {
                        let (checkpoint, entry) = (checkpoint.clone(), entry.clone());
                        map.tensors.insert(place, Located::In { checkpoint, part, entry, view });
                    }
                }
                Place::Spare => {}
                Place::Unknown => sorted.unknown.push(name.to_string()),
            }
        }
        for map in sorted.parts.values_mut() {
            map.label = checkpoint.label().into();
        }
        if let Some(vae) = sorted.parts.get_mut(&Part::Vae) {
            vae.turn();
        }
        sorted
    }
}

impl TensorMap {
    /// The tensors of a checkpoint that holds one network, by their own names; those that `spare` names are left out.
    pub fn of(checkpoint: &Arc<Checkpoint>, spare: impl Fn(&str) -> bool) -> TensorMap {
        let kept = checkpoint.tensors().filter(|(_, name, _)| !spare(name));
        let located = |(part, name, entry): (usize, &str, &TensorEntry)| {
            let (checkpoint, entry) = (checkpoint.clone(), entry.clone());
            (name.to_string(), Located::In { checkpoint, part, entry, view: View::Whole })
        };
        TensorMap { label: checkpoint.label().into(), tensors: kept.map(located).collect() }
    }

    /// Names and shapes alone; nothing is allocated for the tensors. Shows what a network would load.
    pub fn declared(label: &str, shapes: BTreeMap<String, Vec<usize>>) -> TensorMap {
        let tensors = shapes.into_iter().map(|(name, shape)| (name, Located::Declared(shape))).collect();
        TensorMap { label: label.into(), tensors }
    }

    /// The same names and shapes without the content.
    pub fn shapes_only(&self) -> TensorMap {
        let declare = |(name, located): (&String, &Located)| (name.clone(), Located::Declared(located.shape().into()));
        TensorMap { label: self.label.clone(), tensors: self.tensors.iter().map(declare).collect() }
    }

    /// How messages name it.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Adds the tensors of `other`, which messages then call by both.
    pub fn extend(&mut self, other: TensorMap) {
        self.label = format!("{} with {}", self.label, other.label);
        self.tensors.extend(other.tensors);
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<Cow<'_, [usize]>> {
        self.tensors.get(name).map(Located::shape)
    }

    /// Whether there is such a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// How many names begin so, counted by the number that follows: `down_blocks.` of `down_blocks.3.…` gives 4.
    pub fn count(&self, prefix: &str) -> usize {
        let from = self.tensors.range(prefix.to_string()..).map(|(name, _)| name);
        let rest = from.map_while(|name| name.strip_prefix(prefix));
        let numbers = rest.filter_map(|rest| rest.split('.').next()?.parse::<usize>().ok());
        numbers.max().map_or(0, |n| n.saturating_add(1))
    }

    /// Bytes of memory that the tensors take.
    pub fn bytes(&self, numbers: &Numbers) -> usize {
        let bytes = |located: &Located| {
            let elements = located.shape().iter().product::<usize>();
            let dtype = match located.stored() {
                Some(stored) if elements >= LARGE => numbers.kept(stored),
                _ => numbers.compute,
            };
            elements * dtype.size_in_bytes()
        };
        self.tensors.values().map(bytes).sum()
    }

    /// Elements of all tensors.
    pub fn elements(&self) -> usize {
        self.tensors.values().map(|located| located.shape().iter().product::<usize>()).sum()
    }

    /// The dtype in which a file has most of the numbers.
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

    /// The original layout counts the way up from its last level; here from its first.
    fn turn(&mut self) {
        let levels = self.count("decoder.up.");
        let up: Vec<String> = self.tensors.keys().filter(|name| name.starts_with("decoder.up.")).cloned().collect();
        for name in up {
            if let (Some(to), Some(located)) = (names::turned(&name, levels), self.tensors.remove(&name)) {
                self.tensors.insert(to, located);
            }
        }
    }
}

/// A place inside a [`TensorMap`]: the map, a prefix of names, and the form in which tensors are given.
#[derive(Clone)]
pub struct Weights {
    map: Arc<TensorMap>,
    used: Arc<Mutex<BTreeSet<String>>>,
    prefix: String,
    numbers: Numbers,
}

impl Weights {
    /// Over the tensors of `map`.
    pub fn new(map: TensorMap, numbers: &Numbers) -> Self {
        Weights { map: Arc::new(map), used: Arc::default(), prefix: String::new(), numbers: numbers.clone() }
    }

    /// All tensors of the file `path` of `files`, which holds one network.
    ///
    /// Errors if the file is not whole.
    pub fn open(files: &ModelFiles, path: &str, numbers: &Numbers) -> Result<Self> {
        let sorted = Sorted::of(&Arc::new(files.checkpoint(path)?));
        let label = files.label(path);
        let map = sorted.parts.into_values().fold(TensorMap::default(), |mut all, map| {
            all.tensors.extend(map.tensors);
            all
        });
        if let Some(name) = sorted.unknown.first() {
            return Err(Error::Weights(format!("{label}: tensor `{name}` belongs to no network that is known")));
        }
        Ok(Self::new(TensorMap { label, ..map }, numbers))
    }

    /// The same file, one name further down: `weights.at("down_blocks").at(0)`.
    pub fn at(&self, name: impl Display) -> Self {
        Weights { prefix: self.name(&name.to_string()), ..self.clone() }
    }

    fn name(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }

    /// The tensor `name`, which must have this shape, in the dtype of what is computed and on its device.
    ///
    /// Errors name the tensor, the file, and for a wrong shape both shapes.
    pub fn get(&self, shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
        self.load(shape.into(), name, |_| self.numbers.compute)
    }

    /// [`Weights::get`] of a matrix or a convolution: a large one may be kept in half precision, see [`Numbers`].
    pub fn matrix(&self, shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
        let shape = shape.into();
        let large = shape.elem_count() >= LARGE;
        self.load(shape, name, |stored| if large { self.numbers.kept(stored) } else { self.numbers.compute })
    }

    fn load(&self, shape: Shape, name: &str, dtype: impl Fn(Dtype) -> DType) -> Result<Tensor> {
        let (name, label) = (self.name(name), &self.map.label);
        let located = self.map.tensors.get(&name).ok_or_else(|| {
            Error::Weights(format!(
                "{label}: tensor `{name}` is missing; is this the file of another model, or not whole?"
            ))
        })?;
        let found = located.shape();
        if *found != *shape.dims() {
            return Err(Error::Weights(format!(
                "{label}: tensor `{name}` has shape {found:?} where its configuration asks for {:?}",
                shape.dims()
            )));
        }
        let tensor = match located {
            Located::Declared(_) => {
                Tensor::zeros((), self.numbers.compute, &self.numbers.device)?.broadcast_as(shape)?
            }
            Located::In { checkpoint, part, entry, view } => {
                let bytes = checkpoint.bytes(*part, entry);
                let x = read(bytes, entry, *view, dtype(entry.dtype)).map_err(|e| match e {
                    Error::Weights(what) => Error::Weights(format!("{label}: tensor `{name}`: {what}")),
                    other => other,
                })?;
                checkpoint.release(*part, entry);
                x.to_device(&self.numbers.device)?
            }
        };
        self.used.lock().unwrap_or_else(|e| e.into_inner()).insert(name);
        Ok(tensor)
    }

    /// To be called when a network is built: an error if there are tensors that nothing asked for.
    pub fn finish(&self) -> Result<()> {
        let used = self.used.lock().unwrap_or_else(|e| e.into_inner());
        let left: Vec<_> = self.map.names().filter(|name| !used.contains(*name)).collect();
        if left.is_empty() {
            return Ok(());
        }
        let shown = left.iter().take(3).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
        let more = if left.len() > 3 { format!(" and {} more", left.len() - 3) } else { String::new() };
        Err(Error::Weights(format!(
            "{}: holds tensors that its configuration has no place for: {shown}{more}; is it that of another model?",
            self.map.label
        )))
    }

    /// The form in which tensors are given.
    pub fn numbers(&self) -> &Numbers {
        &self.numbers
    }
}

/// The tensor of an entry, in the order of its shape, on the CPU.
fn read(bytes: &[u8], entry: &TensorEntry, view: View, dtype: DType) -> Result<Tensor> {
    let bytes = match &entry.strides {
        Some(strides) => Cow::Owned(gather(bytes, &entry.shape, strides, entry.dtype.bitsize() / 8)),
        None => Cow::Borrowed(bytes),
    };
    match (view, entry.shape.as_slice()) {
        (View::Rows { of, .. }, [rows, ..]) if !rows.is_multiple_of(of) => {
            Err(Error::Weights(format!("its {rows} rows are not {of} equal parts")))
        }
        (View::Rows { n, of }, [rows, rest @ ..]) => {
            let size = bytes.len() / of;
            convert(&bytes[n * size..(n + 1) * size], entry.dtype, &[&[rows / of], rest].concat(), dtype)
        }
        (View::Transposed, [_, _]) => Ok(convert(&bytes, entry.dtype, &entry.shape, dtype)?.t()?.contiguous()?),
        (View::Matrix, [a, b, 1, 1]) => convert(&bytes, entry.dtype, &[*a, *b], dtype),
        (_, shape) => convert(&bytes, entry.dtype, shape, dtype),
    }
}

/// The elements of a strided tensor in the order of its shape.
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

/// Little-endian numbers of one dtype as a tensor of another. What real checkpoints need in one pass; the rest is
/// candle's affair.
fn convert(bytes: &[u8], from: Dtype, shape: &[usize], to: DType) -> Result<Tensor> {
    const BLOCK: usize = 4096;
    let cpu = &Device::Cpu;
    // candle copies past its buffer where bytes are no whole number of elements and lie unaligned.
    if bytes.len() * 8 != shape.iter().product::<usize>() * from.bitsize() {
        return Err(Error::Weights(format!("its {} bytes are not those of {shape:?}", bytes.len())));
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
        let x = read(&values, &entry, View::Whole, DType::F32).unwrap();
        assert_eq!(x.to_vec2::<f32>().unwrap(), [[0., 1., 2.], [3., 4., 5.]]);
        let x = read(&values, &entry, View::Rows { n: 1, of: 2 }, DType::F16).unwrap();
        assert_eq!(x.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap(), [[3., 4., 5.]]);
        let x = read(&values, &entry, View::Transposed, DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
        assert_eq!(x.to_vec2::<f32>().unwrap(), [[0., 3.], [1., 4.], [2., 5.]]);
    }

    /// Found by `examples/fuzz_weights`: a query, key and value in one of seven rows.
    #[test]
    fn rows_that_cannot_be_shared_out_are_refused() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::I64, Dtype::F64] {
            let entry = TensorEntry { dtype, shape: vec![7], strides: None, bytes: 0..7 * dtype.bitsize() / 8 };
            for shift in 0..8 {
                let bytes = vec![0; shift + entry.bytes.len()];
                assert!(read(&bytes[shift..], &entry, View::Rows { n: 1, of: 3 }, DType::F32).is_err(), "{dtype:?}");
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
}
