//! The formats of values on disk, exact to the bit: safetensors for tensors, JSON for layouts.
//!
//! Decoded tensors are on the CPU; nodes move them to their model's device.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use lsregen_diffusion::guidance::{GuidanceSettings, InversionGuidance};
use lsregen_diffusion::inversion::Trajectory;
use lsregen_diffusion::layout::GroundedPhrase;
use lsregen_diffusion::models::Family;
use lsregen_engine::Codec;
use lsregen_tensor::candle_core::{Device, Tensor};
use lsregen_tensor::image::RgbImage;
use lsregen_tensor::tensors::Tensors;
use serde::{Deserialize, Serialize};

use super::{Guidance, Image, Latent, Layout};

pub(crate) const IMAGE: Codec<Image> = Codec {
    format: "safetensors",
    version: 2,
    encode: |image| {
        let file = Tensors::default();
        let file = match image {
            Image::Float(x) => file.tensor("image", x),
            Image::Rgb(image) => {
                let (width, height) = (image.width() as usize, image.height() as usize);
                file.tensor("rgb", &Tensor::from_slice(image.as_raw(), (height, width, 3), &Device::Cpu)?)
            }
        };
        Ok(Some(file.encode()?))
    },
    decode: |bytes| {
        let mut file = Tensors::decode(bytes)?;
        let Ok(rgb) = file.take("rgb") else { return Ok(Image::Float(file.take("image")?)) };
        let (height, width, _) = rgb.dims3()?;
        let pixels = rgb.flatten_all()?.to_vec1()?;
        let image = RgbImage::from_raw(u32::try_from(width)?, u32::try_from(height)?, pixels);
        Ok(Image::Rgb(image.context("the pixels do not fit the size")?))
    },
};

pub(crate) const LATENT: Codec<Latent> = Codec {
    format: "safetensors",
    version: 1,
    encode: |latent| {
        let family = latent.family.map_or("", Family::name);
        Ok(Some(Tensors::default().tensor("latent", &latent.z).text("family", family).encode()?))
    },
    decode: |bytes| {
        let mut file = Tensors::decode(bytes)?;
        let family: String = file.parse("family")?;
        let known = || Family::from_name(&family).with_context(|| format!("no family is called `{family}`"));
        let family = if family.is_empty() { None } else { Some(known()?) };
        Ok(Latent { z: file.take("latent")?, family })
    },
};

/// Encodes LSReGen's guidance; other guidances are created again in each process.
pub(crate) const GUIDANCE: Codec<Guidance> =
    Codec { format: "safetensors", version: 3, encode: encode_guidance, decode: decode_guidance };

/// The part of a guidance that is not tensors. Numbers are written and read exactly.
#[derive(Serialize, Deserialize)]
struct GuidanceHeader {
    settings: GuidanceSettings,
    size: (usize, usize),
    timesteps: Vec<f64>,
}

fn encode_guidance(guidance: &Guidance) -> anyhow::Result<Option<Vec<u8>>> {
    let (Some(inverted), Some(size)) = (&guidance.inverted, guidance.size) else { return Ok(None) };
    let InversionGuidance { trajectory, settings } = &**inverted;
    let header = GuidanceHeader { settings: settings.clone(), size, timesteps: trajectory.timesteps().collect() };
    let mut file = Tensors::default().text("guidance", serde_yaml::to_string(&header)?);
    for (i, (_, z)) in trajectory.points().iter().enumerate() {
        file = file.tensor(format!("latent.{i}"), z);
    }
    Ok(Some(file.encode()?))
}

fn decode_guidance(bytes: &[u8]) -> anyhow::Result<Guidance> {
    let mut file = Tensors::decode(bytes)?;
    let GuidanceHeader { settings, size, timesteps } = serde_yaml::from_str(&file.parse::<String>("guidance")?)?;
    let points = timesteps.into_iter().enumerate();
    let points = points.map(|(i, t)| anyhow::Ok((t, file.take(&format!("latent.{i}"))?)));
    let trajectory = Arc::new(Trajectory::new(points.collect::<anyhow::Result<_>>()?));
    Ok(Guidance::inverted(InversionGuidance { trajectory, settings }, size))
}

pub(crate) const LAYOUT: Codec<Layout> =
    Codec { format: "json", version: 1, encode: encode_layout, decode: decode_layout };

/// One object of a layout. Its numbers are f32, written as the f64 of the same value: they come back exactly.
#[derive(Serialize, Deserialize)]
struct Object {
    phrase: String,
    bounds: [f64; 4],
}

fn encode_layout(layout: &Layout) -> anyhow::Result<Option<Vec<u8>>> {
    let finite = layout.0.iter().flat_map(|object| object.bounds).all(f32::is_finite);
    ensure!(finite, "a layout has numbers that are not finite, and JSON has none");
    let objects = layout
        .0
        .iter()
        .map(|GroundedPhrase { phrase, bounds }| Object { phrase: phrase.clone(), bounds: bounds.map(f64::from) });
    Ok(Some(serde_json::to_vec(&objects.collect::<Vec<_>>())?))
}

fn decode_layout(bytes: &[u8]) -> anyhow::Result<Layout> {
    let objects: Vec<Object> = serde_json::from_slice(bytes)?;
    let phrase = |Object { phrase, bounds }| GroundedPhrase { phrase, bounds: bounds.map(|v| v as f32) };
    Ok(Layout(objects.into_iter().map(phrase).collect()))
}

#[cfg(test)]
mod tests {
    use lsregen_diffusion::guidance::{Auto, Region, Schedule, Until, Window};
    use lsregen_engine::Payload;
    use lsregen_tensor::candle_core::{Device, Tensor};

    use super::*;

    /// Encodes and decodes a value.
    fn round_trip<P: Payload>(value: &P) -> P {
        let codec = P::CODEC.unwrap();
        let bytes = (codec.encode)(value).unwrap().unwrap();
        assert_eq!((codec.encode)(value).unwrap().unwrap(), bytes, "each value has one encoding");
        for cut in (0..bytes.len()).step_by(7) {
            assert!((codec.decode)(&bytes[..cut]).is_err(), "cut to {cut} bytes");
        }
        (codec.decode)(&bytes).unwrap()
    }

    fn odd(shift: u32) -> Tensor {
        let bits = [0x7fc0_1234, 0xff80_0000, 0x8000_0000, 1, 0x807f_ffff, 0x3f80_0001, 0x7f7f_ffff, 0];
        let values = bits.map(|bits: u32| f32::from_bits(bits.rotate_left(shift)));
        Tensor::from_slice(&values, (1, 2, 2, 2), &Device::Cpu).unwrap()
    }

    fn bits(x: &Tensor) -> (Vec<usize>, Vec<u32>) {
        let values = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        (x.dims().to_vec(), values.into_iter().map(f32::to_bits).collect())
    }

    #[test]
    fn images_come_back_to_the_bit() {
        assert_eq!(bits(&round_trip(&Image::Float(odd(0))).tensor().unwrap()), bits(&odd(0)));
    }

    #[test]
    fn latents_come_back_with_their_family() {
        for family in [None, Some(Family::Gligen), Some(Family::Sdxl), Some(Family::Sd1)] {
            let back = round_trip(&Latent { z: odd(0), family });
            assert_eq!((bits(&back.z), back.family), (bits(&odd(0)), family));
        }
    }

    #[test]
    fn guidances_come_back_whole() {
        let windows = [Window::between(0.0, 0.1 + 0.2), Window::from_timestep(900.0), Window::first(f64::MIN_POSITIVE)];
        let boxes = [None, Some(vec![[0.1, 1.0 / 3.0, f32::MIN_POSITIVE, 1.0]]), Some(vec![])];
        for (window, boxes) in windows.into_iter().zip(boxes) {
            let trajectory = Arc::new(Trajectory::new(vec![(999.0, odd(1)), (0.1 + 0.2, odd(2))]));
            let scale = 0.1f64.next_up();
            let region = Region { boxes, feather: 0.1, outside: 0.7, auto: Some(Auto::default()) };
            let settings = GuidanceSettings {
                scale,
                schedule: Schedule::Linear,
                schedule_end: 0.1 + 0.2,
                window,
                until: Until::Reached(1e-300),
                region,
                ..GuidanceSettings::default()
            };
            let guidance = Guidance::inverted(InversionGuidance { trajectory, settings: settings.clone() }, (96, 64));
            let back = round_trip(&guidance);
            assert_eq!((back.size, back.bytes()), (Some((96, 64)), guidance.bytes()));
            let (inverted, original) = (back.inverted.unwrap(), guidance.inverted.unwrap());
            assert_eq!((inverted.settings.scale.to_bits(), &inverted.settings), (scale.to_bits(), &settings));
            let points = |inverted: &InversionGuidance| {
                inverted.trajectory.points().iter().map(|(t, z)| (t.to_bits(), bits(z))).collect::<Vec<_>>()
            };
            assert_eq!(points(&inverted), points(&original));
        }
    }

    #[test]
    fn layouts_come_back_to_the_bit() {
        let bounds = [[0.1, -0.0, f32::from_bits(1), 1.0 - f32::EPSILON], [1.0 / 3.0, 0.7, f32::MIN_POSITIVE, 1e30]];
        let object = |(i, bounds)| GroundedPhrase { phrase: format!("\"{i}\" \n é"), bounds };
        let layout = Layout(bounds.into_iter().enumerate().map(object).collect());
        let back = round_trip(&layout);
        let bits = |layout: &Layout| -> Vec<_> {
            layout.0.iter().map(|object| (object.phrase.clone(), object.bounds.map(f32::to_bits))).collect()
        };
        assert_eq!(bits(&back), bits(&layout));
        assert!(round_trip(&Layout(vec![])).0.is_empty());
    }

    /// f32 numbers between 0 and 1, at steps that give many patterns of digits.
    #[test]
    fn numbers_of_layouts_are_exact() {
        for start in (0..0x3f80_0000u32).step_by(4 * 997) {
            let bounds = [0, 997, 1994, 2991].map(|step| f32::from_bits(start + step));
            let layout = Layout(vec![GroundedPhrase { phrase: String::new(), bounds }]);
            let back = decode_layout(&encode_layout(&layout).unwrap().unwrap()).unwrap();
            assert_eq!(back.0[0].bounds.map(f32::to_bits), bounds.map(f32::to_bits));
        }
    }
}
