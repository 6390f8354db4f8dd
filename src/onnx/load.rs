//! Reads the values of an ONNX file's weights, from the file itself or from external data files.

use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use lsregen_files::{Kind, RangeFile};

use crate::dims::{checked_count, checked_size};
use crate::{Error, Result, proto};

/// The type that elements become when they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementClass {
    /// f32.
    Float,
    /// i64.
    Int,
    /// u8, 0 or 1.
    Bool,
}

/// ONNX's name of a supported element type, its size in bytes, and what its elements become.
fn supported(dtype: i32) -> Option<(&'static str, usize, ElementClass)> {
    Some(match dtype {
        1 => ("float", 4, ElementClass::Float),
        2 => ("uint8", 1, ElementClass::Int),
        3 => ("int8", 1, ElementClass::Int),
        4 => ("uint16", 2, ElementClass::Int),
        5 => ("int16", 2, ElementClass::Int),
        6 => ("int32", 4, ElementClass::Int),
        7 => ("int64", 8, ElementClass::Int),
        9 => ("bool", 1, ElementClass::Bool),
        10 => ("float16", 2, ElementClass::Float),
        11 => ("double", 8, ElementClass::Float),
        12 => ("uint32", 4, ElementClass::Int),
        13 => ("uint64", 8, ElementClass::Int),
        16 => ("bfloat16", 2, ElementClass::Float),
        _ => return None,
    })
}

/// [`supported`], with an error for other types.
pub fn element_type(dtype: i32) -> Result<(&'static str, usize, ElementClass)> {
    supported(dtype).ok_or_else(|| Error::input(format!("element type {} is not supported", name(dtype))))
}

/// ONNX's name of an element type.
pub fn name(dtype: i32) -> String {
    match dtype {
        0 => "undefined".into(),
        8 => "string".into(),
        14 => "complex64".into(),
        15 => "complex128".into(),
        17..=20 => "float8".into(),
        n => supported(n).map_or_else(|| format!("number {n}"), |(name, ..)| name.into()),
    }
}

/// Shape and type of a tensor, checked against the numbers that the file holds. Only the size of external files is
/// read.
pub struct DeclaredTensor {
    pub dims: Vec<usize>,
    pub count: usize,
    width: usize,
    class: ElementClass,
}

impl DeclaredTensor {
    pub fn of(t: &proto::Tensor, folder: &Path) -> Result<Self> {
        let (name, width, class) = element_type(t.dtype)?;
        let dims = t.dims.iter().map(|d| checked_size(*d, "dimension")).collect::<Result<Vec<_>>>()?;
        let count = checked_count(&dims)?;
        let declared = DeclaredTensor { dims, count, width, class };
        let held = if t.location == 1 {
            External::of(t, folder)?.length / width
        } else if !t.raw.is_empty() {
            if !t.raw.len().is_multiple_of(width) {
                return Err(Error::input(format!("{} bytes are not a multiple of the size of {name}", t.raw.len())));
            }
            t.raw.len() / width
        } else {
            match t.dtype {
                1 => t.floats.len(),
                7 => t.int64s.len(),
                11 => t.doubles.len(),
                12 | 13 => t.uint64s.len(),
                _ => t.int32s.len(),
            }
        };
        if held != count {
            let dims = &declared.dims;
            return Err(Error::input(format!("shape {dims:?} is {count} numbers, the file holds {held}")));
        }
        Ok(declared)
    }

    /// Reads the numbers: floats become f32 on `device`, integers i64 and truth values u8 on the CPU.
    pub fn read(&self, t: &proto::Tensor, folder: &Path, device: &Device) -> Result<Tensor> {
        let raw = if t.location == 1 { External::of(t, folder)?.read()? } else { t.raw.clone() };
        let cells = raw.chunks_exact(self.width);
        let small = t.int32s.iter().map(|i| *i as u16);
        match self.class {
            ElementClass::Float => {
                let numbers: Vec<f32> = match t.dtype {
                    1 if raw.is_empty() => t.floats.clone(),
                    10 if raw.is_empty() => small.map(|b| f16::from_bits(b).to_f32()).collect(),
                    16 if raw.is_empty() => small.map(|b| bf16::from_bits(b).to_f32()).collect(),
                    11 if raw.is_empty() => t.doubles.iter().map(|x| *x as f32).collect(),
                    10 => cells.map(|c| f16::from_le_bytes(array(c)).to_f32()).collect(),
                    11 => cells.map(|c| f64::from_le_bytes(array(c)) as f32).collect(),
                    16 => cells.map(|c| bf16::from_le_bytes(array(c)).to_f32()).collect(),
                    _ => cells.map(|c| f32::from_le_bytes(array(c))).collect(),
                };
                Ok(Tensor::from_vec(numbers, self.dims.as_slice(), device)?)
            }
            ElementClass::Int => {
                let numbers: Vec<i64> = match t.dtype {
                    7 if raw.is_empty() => t.int64s.clone(),
                    12 | 13 if raw.is_empty() => t.uint64s.iter().map(|n| *n as i64).collect(),
                    _ if raw.is_empty() => t.int32s.iter().map(|n| i64::from(*n)).collect(),
                    2 => cells.map(|c| i64::from(c[0])).collect(),
                    3 => cells.map(|c| i64::from(c[0] as i8)).collect(),
                    4 => cells.map(|c| i64::from(u16::from_le_bytes(array(c)))).collect(),
                    5 => cells.map(|c| i64::from(i16::from_le_bytes(array(c)))).collect(),
                    6 => cells.map(|c| i64::from(i32::from_le_bytes(array(c)))).collect(),
                    12 => cells.map(|c| i64::from(u32::from_le_bytes(array(c)))).collect(),
                    _ => cells.map(|c| i64::from_le_bytes(array(c))).collect(),
                };
                Ok(Tensor::from_vec(numbers, self.dims.as_slice(), &Device::Cpu)?)
            }
            ElementClass::Bool => {
                let truths: Vec<u8> = match raw.is_empty() {
                    true => t.int32s.iter().map(|n| u8::from(*n != 0)).collect(),
                    false => raw.iter().map(|n| u8::from(*n != 0)).collect(),
                };
                Ok(Tensor::from_vec(truths, self.dims.as_slice(), &Device::Cpu)?)
            }
        }
    }
}

/// The tensor of an attribute, on the CPU.
pub fn constant(t: &proto::Tensor) -> Result<Tensor> {
    if t.location == 1 {
        return Err(Error::input("the numbers of an attribute must be in the model's file"));
    }
    let folder = Path::new("");
    DeclaredTensor::of(t, folder)?.read(t, folder, &Device::Cpu)
}

/// The bytes of a chunk, whose length `chunks_exact` guarantees.
fn array<const N: usize>(chunk: &[u8]) -> [u8; N] {
    std::array::from_fn(|i| chunk.get(i).copied().unwrap_or_default())
}

/// A range of bytes of an external data file.
struct External {
    path: PathBuf,
    offset: u64,
    length: usize,
}

/// The external data file of a tensor, if it has one.
pub fn external(t: &proto::Tensor, folder: &Path) -> Option<PathBuf> {
    if t.location == 1 { External::of(t, folder).ok().map(|e| e.path) } else { None }
}

impl External {
    fn of(t: &proto::Tensor, folder: &Path) -> Result<Self> {
        let entry = |key: &str| t.external.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let number = |key: &str| {
            let parsed = entry(key).map(|n| n.parse::<u64>());
            parsed.transpose().map_err(|e| Error::input(format!("{key} of its external data: {e}")))
        };
        let location = entry("location").unwrap_or_default();
        let inside = Path::new(location).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if location.is_empty() || !inside {
            return Err(Error::input(format!(
                "its numbers are in {location:?}; external data must be in the model's folder or below it"
            )));
        }
        let path = folder.join(location);
        let held = RangeFile::open(&path, Kind::WEIGHTS).map_err(Error::io(&path))?.len() as u64;
        let offset = number("offset")?.unwrap_or(0);
        let length = number("length")?.unwrap_or(held.saturating_sub(offset));
        if offset.checked_add(length).is_none_or(|end| end > held) {
            return Err(Error::input(format!(
                "its numbers are bytes {offset} to {} of {}, which has {held}; download or copy that file again",
                offset.saturating_add(length),
                path.display()
            )));
        }
        Ok(External { path, offset, length: length as usize })
    }

    fn read(&self) -> Result<Bytes> {
        let start = self.offset as usize;
        let bytes = RangeFile::open(&self.path, Kind::WEIGHTS).and_then(|file| file.read(start..start + self.length));
        bytes.map(Bytes::from).map_err(Error::io(&self.path))
    }
}
