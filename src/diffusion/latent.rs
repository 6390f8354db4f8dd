//! Latents as files: safetensors with one tensor `latent`, and the model family that it belongs to.
//!
//! Deals with the file, not with models.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use lsregen_files::Kind;
use safetensors::SafeTensors;
use serde_json::{Map, Value as Json, json};

use crate::models::Family;
use crate::{Error, Result};

const TENSOR: &str = "latent";
const FAMILY: &str = "family";

/// The key of the program that wrote the file, as in PNG files.
const SOFTWARE: &str = "Software";
const PROGRAM: &str = "lsregen";

/// Encodes the latent (1, C, h, w) as a safetensors file in f32, with its family, if known, in the header.
pub fn encode(z: &Tensor, family: Option<Family>) -> Result<Vec<u8>> {
    let values = z.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut texts = Map::from_iter([(SOFTWARE.to_string(), Json::from(PROGRAM))]);
    texts.extend(family.map(|family| (FAMILY.to_string(), Json::from(family.name()))));
    // Written here, because the crate writes the texts in the order of a hash map: a latent has one encoding.
    let header = json!({
        "__metadata__": texts,
        TENSOR: { "dtype": "F32", "shape": z.dims(), "data_offsets": [0, bytes.len()] },
    });
    let mut header = header.to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    Ok([&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes].concat())
}

/// Whether [`encode`] has written a file, by its header.
pub fn is_own(bytes: &[u8]) -> bool {
    let header = SafeTensors::read_metadata(bytes).ok().and_then(|(_, header)| header.metadata().clone());
    header.is_some_and(|header| header.get(SOFTWARE).is_some_and(|program| program == PROGRAM))
}

/// Reads a latent, the tensor called `latent` or the only one of the file, as f32 on the CPU; and its family, if the file
/// has it.
///
/// # Errors
/// If the file is not valid safetensors, or has no latent (1, C, h, w) of floating-point numbers.
pub fn read(path: &Path) -> Result<(Tensor, Option<Family>)> {
    let bytes = lsregen_files::read(path, Kind::LATENT).map_err(Error::io(path))?;
    let fail = |what: String| Error::Input(format!("{}: {what}", path.display()));
    let broken = |e: safetensors::SafeTensorError| {
        fail(format!("not a whole safetensors file ({e}); save the latent again, with SaveLatent"))
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
    let family = match header.metadata().as_ref().and_then(|m| m.get(FAMILY)) {
        Some(name) => {
            Some(Family::from_name(name).ok_or_else(|| fail(format!("its latent is of an unknown family, `{name}`")))?)
        }
        None => None,
    };
    let file = SafeTensors::deserialize(&bytes).map_err(broken)?;
    let names = file.names();
    let view = match names.as_slice() {
        [only] => file.tensor(only),
        _ => file.tensor(TENSOR),
    };
    let view = view.map_err(|_| fail(format!("contains {} tensors, but none called `{TENSOR}`", names.len())))?;
    let dtype = DType::try_from(view.dtype()).ok().filter(DType::is_float);
    let (Some(dtype), [1, _, _, _]) = (dtype, view.shape()) else {
        let (shape, dtype) = (view.shape(), view.dtype());
        return Err(fail(format!("a latent has shape [1, channels, h, w] in floats, not {shape:?} in {dtype:?}")));
    };
    let z = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)?;
    Ok((z.to_dtype(DType::F32)?, family))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latent_comes_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("z.safetensors");
        let z = Tensor::from_vec(vec![0.1f32, -0.0, f32::MIN_POSITIVE, 1e30], (1, 4, 1, 1), &Device::Cpu).unwrap();
        std::fs::write(&path, encode(&z, Some(Family::Sdxl)).unwrap()).unwrap();
        let (back, family) = read(&path).unwrap();
        let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits);
        assert!(bits(&z).eq(bits(&back)));
        assert_eq!((back.dims(), family), (z.dims(), Some(Family::Sdxl)));
    }

    #[test]
    fn files_without_a_latent_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("z.safetensors");
        let z = Tensor::zeros((1, 4, 2, 2), DType::F32, &Device::Cpu).unwrap();
        let whole = encode(&z, None).unwrap();
        let flat = encode(&z.flatten_all().unwrap(), None).unwrap();
        for (bytes, words) in [
            (&whole[..whole.len() - 1], "not a whole safetensors file"),
            (&b"PNG"[..], "not a whole safetensors file"),
            (&flat[..], "a latent has shape [1, channels, h, w] in floats, not [16]"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("z.safetensors"), "{error}");
        }
        assert!(read(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
