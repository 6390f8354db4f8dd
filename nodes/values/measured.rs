//! What a graph measures of its images: scores and features, with their formats on disk.

use anyhow::{Context as _, ensure};
use lsregen_engine::{Codec, Payload};
use lsregen_tensor::candle_core::{DType, Device, Tensor};
use lsregen_tensor::tensors::Tensors;

/// A number for each image of a batch, such as its similarity to a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// What is measured, such as `clip_score`.
    pub name: String,
    /// One number for a single image, or one for each image of a batch.
    pub values: Vec<f64>,
}

/// A vector for each image of a batch: its features by a network, from which distances between sets of images are
/// computed.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// The network, such as `inception`. Only features of one network can be compared.
    pub network: String,
    /// One vector for a single image, or one for each image of a batch; all of the same length.
    pub vectors: Vec<Vec<f32>>,
}

impl Features {
    /// Splits a tensor (B, d) into the features of B images.
    ///
    /// # Errors
    /// If the tensor has another rank, or cannot be read from its device.
    pub fn of(network: impl Into<String>, x: &Tensor) -> lsregen_tensor::Result<Features> {
        let vectors = x.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.to_vec2()?;
        Ok(Features { network: network.into(), vectors })
    }
}

impl Payload for Score {
    const TYPE: &'static str = "Score";
    const CODEC: Option<Codec<Score>> = Some(SCORE);

    fn bytes(&self) -> usize {
        self.name.len() + size_of_val(&*self.values)
    }
}

impl Payload for Features {
    const TYPE: &'static str = "Features";
    const CODEC: Option<Codec<Features>> = Some(FEATURES);

    fn bytes(&self) -> usize {
        self.network.len() + self.vectors.iter().map(|vector| size_of_val(&**vector)).sum::<usize>()
    }
}

/// Safetensors and not JSON, which has no NaN.
const SCORE: Codec<Score> = Codec {
    format: "safetensors",
    version: 1,
    encode: |score| {
        let values = Tensor::from_slice(&score.values, score.values.len(), &Device::Cpu)?;
        Ok(Some(Tensors::default().tensor("values", &values).text("name", &*score.name).encode()?))
    },
    decode: |bytes| {
        let mut file = Tensors::decode(bytes)?;
        Ok(Score { name: file.parse("name")?, values: file.take("values")?.to_vec1()? })
    },
};

const FEATURES: Codec<Features> = Codec {
    format: "safetensors",
    version: 1,
    encode: |features| {
        let d = features.vectors.first().context("features are of one image or more")?.len();
        ensure!(features.vectors.iter().all(|vector| vector.len() == d), "the features of all images have one length");
        let vectors = Tensor::from_vec(features.vectors.concat(), (features.vectors.len(), d), &Device::Cpu)?;
        Ok(Some(Tensors::default().tensor("vectors", &vectors).text("network", &*features.network).encode()?))
    },
    decode: |bytes| {
        let mut file = Tensors::decode(bytes)?;
        Ok(Features { network: file.parse("network")?, vectors: file.take("vectors")?.to_vec2()? })
    },
};

#[cfg(test)]
mod tests {
    use super::super::codecs::tests::round_trip;
    use super::*;

    #[test]
    fn scores_come_back_to_the_bit() {
        let odd = [f64::NAN, f64::NEG_INFINITY, -0.0, f64::from_bits(1), 0.1 + 0.2, f64::MAX.next_down()];
        for values in [odd.to_vec(), vec![30.5], vec![]] {
            let score = Score { name: "clip \"score\"".into(), values };
            let back = round_trip(&score);
            let bits = |score: &Score| score.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!((&back.name, bits(&back)), (&score.name, bits(&score)));
        }
    }

    #[test]
    fn features_come_back_to_the_bit() {
        let odd = vec![f32::NAN, f32::INFINITY, -0.0, f32::from_bits(1), 0.1];
        let features = Features { network: "inception".into(), vectors: vec![odd.clone(), vec![7.0; 5], odd] };
        let back = round_trip(&features);
        let bits = |features: &Features| -> Vec<Vec<u32>> {
            features.vectors.iter().map(|vector| vector.iter().map(|v| v.to_bits()).collect()).collect()
        };
        assert_eq!((&back.network, bits(&back)), (&features.network, bits(&features)));
    }

    #[test]
    fn features_of_unequal_length_are_not_stored() {
        let features = |vectors| Features { network: String::new(), vectors };
        assert!((FEATURES.encode)(&features(vec![vec![0.0; 2], vec![0.0; 3]])).is_err());
        assert!((FEATURES.encode)(&features(vec![])).is_err());
    }
}
