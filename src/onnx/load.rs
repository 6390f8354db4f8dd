//! The numbers of an ONNX file, in the file itself or in others beside it.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use candle_core::{Device, Tensor};
use half::{bf16, f16};

use super::{proto, room, size};
use crate::{Error, Result};

/// What an element type becomes here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// f32.
    Real,
    /// i64.
    Whole,
    /// u8, 0 or 1.
    Truth,
}

/// ONNX's name, bytes of an element, and what it becomes, of a type that is taken.
fn taken(dtype: i32) -> Option<(&'static str, usize, Class)> {
    Some(match dtype {
        1 => ("float", 4, Class::Real),
        2 => ("uint8", 1, Class::Whole),
        3 => ("int8", 1, Class::Whole),
        4 => ("uint16", 2, Class::Whole),
        5 => ("int16", 2, Class::Whole),
        6 => ("int32", 4, Class::Whole),
        7 => ("int64", 8, Class::Whole),
        9 => ("bool", 1, Class::Truth),
        10 => ("float16", 2, Class::Real),
        11 => ("double", 8, Class::Real),
        12 => ("uint32", 4, Class::Whole),
        13 => ("uint64", 8, Class::Whole),
        16 => ("bfloat16", 2, Class::Real),
        _ => return None,
    })
}

/// ONNX's name, bytes of an element, and what it becomes; an error for types that are not taken.
pub fn class(dtype: i32) -> Result<(&'static str, usize, Class)> {
    taken(dtype).ok_or_else(|| Error::input(format!("element type {} is not supported", name(dtype))))
}

/// ONNX's name of an element type.
pub fn name(dtype: i32) -> String {
    match dtype {
        0 => "undefined".into(),
        8 => "string".into(),
        14 => "complex64".into(),
        15 => "complex128".into(),
        17..=20 => "float8".into(),
        n => taken(n).map_or_else(|| format!("number {n}"), |(name, ..)| name.into()),
    }
}

/// Shape, elements and type of a tensor, checked against what the file holds. External files are looked at, not read.
pub struct Declared {
    pub dims: Vec<usize>,
    pub count: usize,
    width: usize,
    class: Class,
}

impl Declared {
    pub fn of(t: &proto::Tensor, folder: &Path) -> Result<Self> {
        let (name, width, class) = class(t.dtype)?;
        let dims = t.dims.iter().map(|d| size(*d, "dimension")).collect::<Result<Vec<_>>>()?;
        let count = room(&dims)?;
        let declared = Declared { dims, count, width, class };
        let held = if t.location == 1 {
            External::of(t, folder)?.length / width
        } else if !t.raw.is_empty() {
            if !t.raw.len().is_multiple_of(width) {
                return Err(Error::input(format!("{} bytes are no whole number of {name}", t.raw.len())));
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

    /// The numbers: f32 on `device`; whole numbers and truth values on the CPU.
    pub fn read(&self, t: &proto::Tensor, folder: &Path, device: &Device) -> Result<Tensor> {
        let raw = if t.location == 1 { External::of(t, folder)?.read()? } else { t.raw.clone() };
        let cells = raw.chunks_exact(self.width);
        let small = t.int32s.iter().map(|i| *i as u16);
        match self.class {
            Class::Real => {
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
            Class::Whole => {
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
            Class::Truth => {
                let truths: Vec<u8> = match raw.is_empty() {
                    true => t.int32s.iter().map(|n| u8::from(*n != 0)).collect(),
                    false => raw.iter().map(|n| u8::from(*n != 0)).collect(),
                };
                Ok(Tensor::from_vec(truths, self.dims.as_slice(), &Device::Cpu)?)
            }
        }
    }
}

/// A tensor that an attribute holds, on the CPU.
pub fn constant(t: &proto::Tensor) -> Result<Tensor> {
    if t.location == 1 {
        return Err(Error::input("an attribute's numbers have to be in the model's file"));
    }
    let folder = Path::new("");
    Declared::of(t, folder)?.read(t, folder, &Device::Cpu)
}

/// `chunks_exact` gives chunks of just this length.
fn array<const N: usize>(chunk: &[u8]) -> [u8; N] {
    std::array::from_fn(|i| chunk.get(i).copied().unwrap_or_default())
}

/// A stretch of a file beside the model's.
struct External {
    path: PathBuf,
    offset: u64,
    length: usize,
}

/// The file beside the model's that holds a tensor's numbers, if one does.
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
                "its numbers are in {location:?}: external data has to be in the model's folder or below it"
            )));
        }
        let path = folder.join(location);
        let held = std::fs::metadata(&path).map_err(Error::io(&path))?.len();
        let offset = number("offset")?.unwrap_or(0);
        let length = number("length")?.unwrap_or(held.saturating_sub(offset));
        if offset.checked_add(length).is_none_or(|end| end > held) {
            return Err(Error::input(format!(
                "its numbers are bytes {offset} to {} of {}, which has {held}: fetch or copy that file again",
                offset.saturating_add(length),
                path.display()
            )));
        }
        Ok(External { path, offset, length: length as usize })
    }

    fn read(&self) -> Result<Bytes> {
        let mut bytes = vec![0; self.length];
        let mut file = File::open(&self.path).map_err(Error::io(&self.path))?;
        file.seek(SeekFrom::Start(self.offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(Error::io(&self.path))?;
        Ok(bytes.into())
    }
}
