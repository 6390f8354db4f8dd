//! The tensors of one weights file, asked for by name and shape; what is missing, wrong or left over is named.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::{Arc, Mutex};

use candle_core::safetensors::{Load, MmapedSafetensors, SliceSafetensors};
use candle_core::{DType, Device, Shape, Tensor};
use half::f16;
use half::slice::HalfFloatSliceExt;
use safetensors::tensor::{Dtype, TensorView};

use crate::weights::ModelFiles;
use crate::{Error, Result};

enum Source {
    Mapped(MmapedSafetensors),
    Embedded(SliceSafetensors<'static>),
    /// Names and shapes alone: every tensor is one zero, broadcast. Shows what a network would load.
    Declared(BTreeMap<String, Vec<usize>>),
}

struct File {
    label: String,
    source: Source,
    used: Mutex<BTreeSet<String>>,
}

/// A place inside a weights file: the file, a prefix of names, and the dtype and device that tensors are given in.
#[derive(Clone)]
pub struct Weights {
    file: Arc<File>,
    prefix: String,
    dtype: DType,
    device: Device,
}

impl Weights {
    /// Opens `path` of `files`; a file on disk is memory-mapped. Errors if it is not whole safetensors.
    pub fn open(files: &ModelFiles, path: &str, dtype: DType, device: &Device) -> Result<Self> {
        let label = files.label(path);
        let broken = |e: candle_core::Error| {
            Error::Weights(format!("{label}: not a whole safetensors file ({e}); fetch or copy it again"))
        };
        let source = match files {
            ModelFiles::Folder(root) => {
                let path = root.join(path);
                std::fs::File::open(&path).map_err(Error::io(&path))?;
                // SAFETY: the mapping is read-only; as with every memory-mapped checkpoint, another process that
                // truncates the file while it is mapped can fault this one.
                Source::Mapped(unsafe { MmapedSafetensors::new(&path) }.map_err(broken)?)
            }
            ModelFiles::Embedded { files: table, .. } => {
                let bytes = table.iter().find(|(p, _)| *p == path).map(|(_, bytes)| *bytes);
                let bytes = bytes.ok_or_else(|| Error::Weights(format!("{label}: no such file")))?;
                Source::Embedded(SliceSafetensors::new(bytes).map_err(broken)?)
            }
        };
        Ok(Self::over(label, source, dtype, device))
    }

    /// A file that has only names and shapes; nothing is allocated for its tensors.
    pub fn declared(label: &str, shapes: BTreeMap<String, Vec<usize>>, dtype: DType) -> Self {
        Self::over(label.to_string(), Source::Declared(shapes), dtype, &Device::Cpu)
    }

    fn over(label: String, source: Source, dtype: DType, device: &Device) -> Self {
        let file = Arc::new(File { label, source, used: Mutex::default() });
        Weights { file, prefix: String::new(), dtype, device: device.clone() }
    }

    /// The same file, one name further down: `weights.at("down_blocks").at(0)`.
    pub fn at(&self, name: impl Display) -> Self {
        Weights { prefix: self.name(&name.to_string()), ..self.clone() }
    }

    fn name(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }

    fn shape_of(&self, name: &str) -> Option<Vec<usize>> {
        match &self.file.source {
            Source::Mapped(m) => m.get(name).ok().map(|v| v.shape().to_vec()),
            Source::Embedded(s) => s.get(name).ok().map(|v| v.shape().to_vec()),
            Source::Declared(d) => d.get(name).cloned(),
        }
    }

    /// Whether the file has this tensor.
    pub fn has(&self, name: &str) -> bool {
        self.shape_of(&self.name(name)).is_some()
    }

    /// The tensor `name`, which must have this shape, in this place's dtype and on its device.
    ///
    /// Errors name the tensor, the file, and for a wrong shape both shapes.
    pub fn get(&self, shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
        let (shape, name) = (shape.into(), self.name(name));
        let label = &self.file.label;
        let found = self.shape_of(&name).ok_or_else(|| {
            Error::Weights(format!("{label}: tensor `{name}` is missing; is this the checkpoint of its config.json?"))
        })?;
        if found != shape.dims() {
            return Err(Error::Weights(format!(
                "{label}: tensor `{name}` has shape {found:?} where config.json asks for {:?}",
                shape.dims()
            )));
        }
        let tensor = match &self.file.source {
            Source::Mapped(m) => self.load(&m.get(&name)?)?,
            Source::Embedded(s) => self.load(&s.get(&name)?)?,
            Source::Declared(_) => Tensor::zeros((), self.dtype, &self.device)?.broadcast_as(shape)?,
        };
        self.file.used.lock().unwrap_or_else(|e| e.into_inner()).insert(name);
        Ok(tensor)
    }

    /// The content of a tensor. f16 becomes f32 in one pass; everything else is candle's affair.
    fn load(&self, view: &TensorView) -> Result<Tensor> {
        if (view.dtype(), self.dtype) != (Dtype::F16, DType::F32) {
            return Ok(view.load(&self.device)?.to_dtype(self.dtype)?);
        }
        const BLOCK: usize = 4096;
        let mut values = vec![0f32; view.data().len() / 2];
        let mut block = [f16::ZERO; BLOCK];
        for (to, from) in values.chunks_mut(BLOCK).zip(view.data().chunks(2 * BLOCK)) {
            for (half, bytes) in block.iter_mut().zip(from.chunks_exact(2)) {
                *half = f16::from_le_bytes([bytes[0], bytes[1]]);
            }
            block[..to.len()].convert_to_f32_slice(to);
        }
        Ok(Tensor::from_vec(values, view.shape(), &self.device)?)
    }

    /// To be called when a network is built: an error if the file holds tensors that nothing asked for.
    ///
    /// `position_ids`, a constant that older checkpoints carry, is not counted.
    pub fn finish(&self) -> Result<()> {
        let used = self.file.used.lock().unwrap_or_else(|e| e.into_inner());
        let all: Vec<String> = match &self.file.source {
            Source::Mapped(m) => m.tensors().into_iter().map(|(n, _)| n).collect(),
            Source::Embedded(s) => s.tensors().into_iter().map(|(n, _)| n).collect(),
            Source::Declared(d) => d.keys().cloned().collect(),
        };
        let mut left: Vec<_> = all.into_iter().filter(|n| !used.contains(n) && !n.ends_with("position_ids")).collect();
        if left.is_empty() {
            return Ok(());
        }
        left.sort();
        let shown = left.iter().take(3).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
        let more = if left.len() > 3 { format!(" and {} more", left.len() - 3) } else { String::new() };
        Err(Error::Weights(format!(
            "{}: holds tensors that its config.json has no place for: {shown}{more}; is the config that of another model?",
            self.file.label
        )))
    }

    /// Bytes of all tensors of the file in this place's dtype.
    pub fn bytes(&self) -> usize {
        let count = |shape: &[usize]| shape.iter().product::<usize>();
        let elements: usize = match &self.file.source {
            Source::Mapped(m) => m.tensors().iter().map(|(_, v)| count(v.shape())).sum(),
            Source::Embedded(s) => s.tensors().iter().map(|(_, v)| count(v.shape())).sum(),
            Source::Declared(d) => d.values().map(|shape| count(shape)).sum(),
        };
        elements * self.dtype.size_in_bytes()
    }

    /// The dtype in which tensors are given.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The device on which tensors are given.
    pub fn device(&self) -> &Device {
        &self.device
    }
}
