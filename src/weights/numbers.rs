//! Reads the numbers of a tensor in a file, in another dtype and form.

use std::borrow::Cow;

use candle_core::{DType, Device, Tensor};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::Dtype;

use super::entry::TensorEntry;
use super::names::TensorSlice;
use crate::{Error, Result};

/// Reads a tensor, contiguous, on the CPU.
pub fn read(bytes: &[u8], entry: &TensorEntry, view: TensorSlice, dtype: DType) -> Result<Tensor> {
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
pub fn is_float(dtype: Dtype) -> bool {
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
        assert_eq!(x, [0.0, 1.525_878_9e-5, 1.0, 1.25, -1.5, 57344.0, f32::NEG_INFINITY, 6.103_515_6e-5]);
    }
}
