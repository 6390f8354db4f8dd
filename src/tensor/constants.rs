//! Tensors that depend on sizes alone, kept between calls.

use std::sync::Mutex;

use candle_core::{DType, Device, Tensor};

use crate::Result;

/// Tensors by a key such as their sizes. What needs the same tensor in every step of a sampling copies it to the device once. Nothing
/// is removed before the owner is dropped: recordings of a network read the tensors at their addresses. The keys are few, because
/// a process has images of few sizes.
#[derive(Debug)]
pub struct Constants<K>(Mutex<Vec<(K, Tensor)>>);

impl<K> Default for Constants<K> {
    fn default() -> Self {
        Constants(Mutex::default())
    }
}

impl<K: PartialEq> Constants<K> {
    /// Returns the tensor of this key in this dtype and on this device, and makes it if it is not kept.
    ///
    /// # Errors
    /// That of `make`.
    pub fn get<E: From<candle_core::Error>>(
        &self,
        key: K,
        dtype: DType,
        device: &Device,
        make: impl FnOnce() -> Result<Tensor, E>,
    ) -> Result<Tensor, E> {
        let is_kept = |(other, x): &&(K, Tensor)| *other == key && x.dtype() == dtype && x.device().same_device(device);
        if let Some((_, x)) = self.0.lock().unwrap_or_else(|e| e.into_inner()).iter().find(is_kept) {
            return Ok(x.clone());
        }
        let x = make()?.to_dtype(dtype)?.to_device(device)?;
        let mut kept = self.0.lock().unwrap_or_else(|e| e.into_inner());
        kept.push((key, x.clone()));
        Ok(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_made_once() {
        let constants = Constants::default();
        let mut made = 0;
        let mut get = |key: usize, dtype| {
            let make = || {
                made += 1;
                Tensor::full(key as f32, 1, &Device::Cpu)
            };
            let x = constants.get(key, dtype, &Device::Cpu, make).unwrap();
            assert_eq!(x.to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap(), [key as f64]);
            assert_eq!(x.dtype(), dtype);
            made
        };
        assert_eq!((get(1, DType::F32), get(1, DType::F32), get(2, DType::F32), get(1, DType::F64)), (1, 1, 2, 3));
    }
}
