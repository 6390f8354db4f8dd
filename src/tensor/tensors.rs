//! Tensors as bytes: safetensors of any dtype, exact to the bit.

use std::collections::HashMap;

use candle_core::safetensors::load_buffer;
use candle_core::{Device, Tensor};
use safetensors::SafeTensors;

use crate::{Error, Result};

/// Named tensors, and named texts.
#[derive(Debug, Default)]
pub struct Tensors {
    /// The tensors by name.
    pub tensors: HashMap<String, Tensor>,
    /// The texts by name.
    pub texts: HashMap<String, String>,
}

impl Tensors {
    /// Adds a tensor.
    pub fn tensor(mut self, name: impl Into<String>, x: &Tensor) -> Tensors {
        self.tensors.insert(name.into(), x.clone());
        self
    }

    /// Adds a text.
    pub fn text(mut self, name: impl Into<String>, text: impl Into<String>) -> Tensors {
        self.texts.insert(name.into(), text.into());
        self
    }

    /// Encodes as a safetensors file. Equal content gives equal bytes.
    ///
    /// # Errors
    /// If the tensors cannot be read from their device.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut tensors: Vec<_> = self.tensors.iter().collect();
        tensors.sort_by_key(|(name, _)| *name);
        // The crate writes texts in the order of a hash map, which differs from run to run: so they are one sorted text.
        let texts: std::collections::BTreeMap<_, _> = self.texts.iter().collect();
        let texts = serde_json::to_string(&texts).map_err(|e| Error::input(format!("cannot encode texts: {e}")))?;
        let header = HashMap::from([(TEXTS.to_string(), texts)]);
        let broken = |e: safetensors::SafeTensorError| Error::input(format!("cannot encode tensors: {e}"));
        safetensors::serialize(tensors, Some(header)).map_err(broken)
    }

    /// Decodes the result of [`encode`](Tensors::encode), with the tensors on the CPU.
    ///
    /// # Errors
    /// If the bytes are incomplete, or not from [`encode`](Tensors::encode).
    pub fn decode(bytes: &[u8]) -> Result<Tensors> {
        let broken = |what: &dyn std::fmt::Display| Error::input(format!("incomplete or foreign safetensors: {what}"));
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| broken(&e))?;
        let texts = header.metadata().as_ref().and_then(|m| m.get(TEXTS)).ok_or_else(|| broken(&"no texts"))?;
        let texts = serde_json::from_str(texts).map_err(|e| broken(&e))?;
        Ok(Tensors { tensors: load_buffer(bytes, &Device::Cpu)?, texts })
    }

    /// Removes and returns a tensor.
    ///
    /// # Errors
    /// If there is no tensor of that name.
    pub fn take(&mut self, name: &str) -> Result<Tensor> {
        self.tensors.remove(name).ok_or_else(|| Error::input(format!("no tensor `{name}`")))
    }

    /// Parses a text.
    ///
    /// # Errors
    /// If there is no text of that name, or it does not parse.
    pub fn parse<T: std::str::FromStr>(&self, name: &str) -> Result<T> {
        let text = self.texts.get(name).ok_or_else(|| Error::input(format!("no text `{name}`")))?;
        text.parse().map_err(|_| Error::input(format!("`{text}` is not a valid `{name}`")))
    }
}

/// The key of the metadata entry that contains all texts.
const TEXTS: &str = "texts";

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn every_bit_of_every_dtype_comes_back() {
        let odd = [0x7fc0_1234, 0xffc0_0001, 0x8000_0000, 1, 0x807f_ffff, 0x7f80_0000, 0x3f80_0000u32];
        let odd: Vec<f32> = odd.into_iter().map(f32::from_bits).collect();
        let all: Vec<u16> = (0..=u16::MAX).collect();
        let shape = (1, 7, 1, 1);
        let tensors = [
            Tensor::from_vec(odd.clone(), shape, &Device::Cpu).unwrap(),
            Tensor::from_vec(odd.iter().map(|v| f64::from(*v).next_up()).collect(), shape, &Device::Cpu).unwrap(),
            Tensor::from_vec(all.iter().map(|v| f16::from_bits(*v)).collect(), (1, 1 << 16), &Device::Cpu).unwrap(),
            Tensor::from_vec(all.iter().map(|v| bf16::from_bits(*v)).collect(), (1, 1 << 16), &Device::Cpu).unwrap(),
            Tensor::from_vec(vec![0u8, 255], (2, 1), &Device::Cpu).unwrap(),
            Tensor::from_vec(vec![i64::MIN, -1], 2, &Device::Cpu).unwrap(),
            Tensor::zeros((1, 0, 3), DType::F32, &Device::Cpu).unwrap(),
            // Not contiguous.
            Tensor::from_vec(odd, (7, 1), &Device::Cpu).unwrap().broadcast_as((7, 3)).unwrap().t().unwrap(),
        ];
        for x in tensors {
            let bytes = Tensors::default().tensor("x", &x).text("what", "odd \"\n").encode().unwrap();
            let mut back = Tensors::decode(&bytes).unwrap();
            assert_eq!(back.texts["what"], "odd \"\n");
            let y = back.take("x").unwrap();
            assert_eq!((y.dims(), y.dtype()), (x.dims(), x.dtype()));
            assert_eq!(raw(&y), raw(&x), "{:?}", x.dtype());
        }
    }

    /// The bits of each element.
    fn raw(x: &Tensor) -> Vec<u64> {
        let x = x.flatten_all().unwrap();
        match x.dtype() {
            DType::F32 => x.to_vec1::<f32>().unwrap().into_iter().map(|v| v.to_bits().into()).collect(),
            DType::F64 => x.to_vec1::<f64>().unwrap().into_iter().map(f64::to_bits).collect(),
            DType::F16 => x.to_vec1::<f16>().unwrap().into_iter().map(|v| v.to_bits().into()).collect(),
            DType::BF16 => x.to_vec1::<bf16>().unwrap().into_iter().map(|v| v.to_bits().into()).collect(),
            DType::U8 => x.to_vec1::<u8>().unwrap().into_iter().map(u64::from).collect(),
            _ => x.to_vec1::<i64>().unwrap().into_iter().map(|v| v as u64).collect(),
        }
    }

    #[test]
    fn equal_content_gives_equal_bytes() {
        let make = |names: [&str; 3]| {
            let x = |name: &str| Tensor::new(name.len() as f32, &Device::Cpu).unwrap();
            let tensors = names.iter().fold(Tensors::default(), |t, name| t.tensor(*name, &x(name)).text(*name, *name));
            tensors.encode().unwrap()
        };
        assert_eq!(make(["a", "bb", "ccc"]), make(["ccc", "a", "bb"]));
    }

    #[test]
    fn truncated_or_foreign_files_are_errors() {
        let x = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        let bytes = Tensors::default().tensor("x", &x).encode().unwrap();
        for cut in 0..bytes.len() {
            assert!(Tensors::decode(&bytes[..cut]).is_err(), "cut to {cut}");
        }
        let foreign = safetensors::serialize([("x", &x)], None).unwrap();
        assert!(Tensors::decode(&foreign).is_err());
        let mut whole = Tensors::decode(&bytes).unwrap();
        assert!(whole.take("y").unwrap_err().to_string().contains("no tensor `y`"));
        assert!(whole.parse::<f64>("w").unwrap_err().to_string().contains("no text `w`"));
    }
}
