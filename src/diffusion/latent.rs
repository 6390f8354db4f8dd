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

/// The key of the seeds of a batch.
const SEEDS: &str = "seeds";

/// The most latents of a batch.
const MOST: usize = 100;

/// The content of a file.
#[derive(Clone, Debug)]
pub struct LatentFile {
    /// The latents of n images, (n, C, h, w), in f32.
    pub z: Tensor,
    /// The family of their model, if the file has it.
    pub family: Option<Family>,
    /// The seed of each image of a batch, if the file has them.
    pub seeds: Vec<u64>,
}

/// Encodes latents (n, C, h, w) as a safetensors file in f32, with their family and the seeds of a batch, if they are known, in
/// the header.
pub fn encode(z: &Tensor, family: Option<Family>, seeds: &[u64]) -> Result<Vec<u8>> {
    let values = z.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut texts = Map::from_iter([(SOFTWARE.to_string(), Json::from(PROGRAM))]);
    texts.extend(family.map(|family| (FAMILY.to_string(), Json::from(family.name()))));
    let words = seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
    texts.extend((!seeds.is_empty()).then(|| (SEEDS.to_string(), Json::from(words))));
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

/// Reads latents, the tensor called `latent` or the only one of the file, as f32 on the CPU.
///
/// # Errors
/// If the file is not valid safetensors, or has no latents (n, C, h, w) of floating-point numbers, or too many of them.
pub fn read(path: &Path) -> Result<LatentFile> {
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
    let (Some(dtype), [1..=MOST, 1..=usize::MAX, 1..=usize::MAX, 1..=usize::MAX]) = (dtype, view.shape()) else {
        let (shape, dtype) = (view.shape(), view.dtype());
        return Err(fail(format!(
            "a latent has shape [1, channels, h, w] in floats, and a batch [2 to {MOST}, channels, h, w], not {shape:?} in \
             {dtype:?}"
        )));
    };
    // Only SaveLatent's are seeds: those of a batch are consecutive.
    let seeds = header.metadata().as_ref().and_then(|m| m.get(SEEDS)).map_or("", String::as_str);
    let seeds: Vec<u64> = seeds.split_whitespace().filter_map(|seed| seed.parse().ok()).collect();
    let are_consecutive = seeds.windows(2).all(|pair| pair[0].wrapping_add(1) == pair[1]);
    let seeds = if seeds.len() == view.shape()[0] && are_consecutive { seeds } else { vec![] };
    let z = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)?.to_dtype(DType::F32)?;
    Ok(LatentFile { z, family, seeds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latent_comes_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("z.safetensors");
        let z = Tensor::from_vec(vec![0.1f32, -0.0, f32::MIN_POSITIVE, 1e30], (1, 4, 1, 1), &Device::Cpu).unwrap();
        std::fs::write(&path, encode(&z, Some(Family::Sdxl), &[]).unwrap()).unwrap();
        let LatentFile { z: back, family, .. } = read(&path).unwrap();
        let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits);
        assert!(bits(&z).eq(bits(&back)));
        assert_eq!((back.dims(), family), (z.dims(), Some(Family::Sdxl)));
        let batch = Tensor::cat(&[&z, &(&z + 1.0).unwrap()], 0).unwrap();
        // Seeds that are not consecutive are none of SaveLatent's.
        for (seeds, kept) in [(vec![], vec![]), (vec![u64::MAX, 0], vec![u64::MAX, 0]), (vec![5, 5], vec![])] {
            std::fs::write(&path, encode(&batch, None, &seeds).unwrap()).unwrap();
            let back = read(&path).unwrap();
            assert!(bits(&batch).eq(bits(&back.z)));
            assert_eq!((back.z.dims(), back.seeds), (batch.dims(), kept));
        }
    }

    #[test]
    fn files_without_a_latent_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("z.safetensors");
        let z = Tensor::zeros((1, 4, 2, 2), DType::F32, &Device::Cpu).unwrap();
        let whole = encode(&z, None, &[]).unwrap();
        let flat = encode(&z.flatten_all().unwrap(), None, &[]).unwrap();
        let many = encode(&z.repeat((101, 1, 1, 1)).unwrap(), None, &[]).unwrap();
        let none = encode(&z.narrow(0, 0, 0).unwrap(), None, &[]).unwrap();
        let flat_side = encode(&z.narrow(3, 0, 0).unwrap(), None, &[]).unwrap();
        for (bytes, words) in [
            (&whole[..whole.len() - 1], "not a whole safetensors file"),
            (&b"PNG"[..], "not a whole safetensors file"),
            (&flat[..], "a latent has shape [1, channels, h, w] in floats, and a batch"),
            (&many[..], "[2 to 100, channels, h, w], not [101, 4, 2, 2]"),
            (&none[..], "not [0, 4, 2, 2]"),
            (&flat_side[..], "not [1, 4, 2, 0]"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("z.safetensors"), "{error}");
        }
        assert!(read(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
