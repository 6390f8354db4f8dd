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

use super::{Guidance, Image, Latent, Layout, SavedFile};

pub(crate) const IMAGE: Codec<Image> =
    Codec { format: "safetensors", version: 2, encode: encode_image, decode: decode_image };

/// The text that says how many images a batch has.
const COUNT: &str = "count";
const SEEDS: &str = "seeds";

fn encode_image(image: &Image) -> anyhow::Result<Option<Vec<u8>>> {
    let mut file = Tensors::default();
    let name = |name: &str, i: usize| if image.count() == 1 { name.to_string() } else { format!("{name}.{i}") };
    for (i, one) in image.images().iter().enumerate() {
        file = match one {
            Image::Float(x) => file.tensor(name("image", i), x),
            Image::Rgb(image) => {
                let (width, height) = (image.width() as usize, image.height() as usize);
                file.tensor(name("rgb", i), &Tensor::from_slice(image.as_raw(), (height, width, 3), &Device::Cpu)?)
            }
            Image::Batch(_) => anyhow::bail!("an image of a batch cannot be a batch"),
        };
    }
    if image.count() > 1 {
        file = with_seeds(file.text(COUNT, image.count().to_string()), image.seeds());
    }
    Ok(Some(file.encode()?))
}

fn decode_image(bytes: &[u8]) -> anyhow::Result<Image> {
    let mut file = Tensors::decode(bytes)?;
    let one = |file: &mut Tensors, float: &str, rgb: &str| {
        let Ok(rgb) = file.take(rgb) else { return anyhow::Ok(Image::Float(file.take(float)?)) };
        let (height, width, _) = rgb.dims3()?;
        let pixels = rgb.flatten_all()?.to_vec1()?;
        let image = RgbImage::from_raw(u32::try_from(width)?, u32::try_from(height)?, pixels);
        Ok(Image::Rgb(image.context("the pixels do not fit the size")?))
    };
    if !file.texts.contains_key(COUNT) {
        return one(&mut file, "image", "rgb");
    }
    let numbers = 0..file.parse::<usize>(COUNT)?;
    let images = numbers.map(|i| one(&mut file, &format!("image.{i}"), &format!("rgb.{i}")));
    let images = images.collect::<anyhow::Result<_>>()?;
    Image::batch(images, seeds_of(&file)?)
}

/// Adds the seeds of a batch, if they are known.
fn with_seeds(file: Tensors, seeds: &[u64]) -> Tensors {
    if seeds.is_empty() {
        return file;
    }
    file.text(SEEDS, seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(" "))
}

fn seeds_of(file: &Tensors) -> anyhow::Result<Vec<u64>> {
    let seeds = file.texts.get(SEEDS).map_or("", String::as_str);
    Ok(seeds.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
}

pub(crate) const LATENT: Codec<Latent> = Codec {
    format: "safetensors",
    version: 1,
    encode: |latent| {
        let family = latent.family.map_or("", Family::name);
        let file = Tensors::default().tensor("latent", &latent.z).text("family", family);
        Ok(Some(with_seeds(file, &latent.seeds).encode()?))
    },
    decode: |bytes| {
        let mut file = Tensors::decode(bytes)?;
        let family: String = file.parse("family")?;
        let known = || Family::from_name(&family).with_context(|| format!("no family is called `{family}`"));
        let family = if family.is_empty() { None } else { Some(known()?) };
        Ok(Latent { z: file.take("latent")?, family, seeds: seeds_of(&file)? })
    },
};

/// The bytes of the file. Those of several files follow a header, which no format of these files begins with.
pub(crate) const SAVED_FILE: Codec<SavedFile> =
    Codec { format: "file", version: 1, encode: encode_files, decode: decode_files };

const FILES: &[u8] = b"lsregen files\n";

/// The lengths of several files, and their seeds.
#[derive(Serialize, Deserialize)]
struct FilesHeader {
    lengths: Vec<usize>,
    seeds: Vec<u64>,
}

fn encode_files(saved: &SavedFile) -> anyhow::Result<Option<Vec<u8>>> {
    if let [file] = &*saved.files {
        return Ok(Some(file.to_vec()));
    }
    let lengths = saved.files.iter().map(|file| file.len()).collect();
    let header = serde_json::to_string(&FilesHeader { lengths, seeds: saved.seeds.clone() })? + "\n";
    let files = saved.files.iter().map(|file| &**file);
    Ok(Some([FILES, header.as_bytes()].into_iter().chain(files).collect::<Vec<_>>().concat()))
}

fn decode_files(bytes: &[u8]) -> anyhow::Result<SavedFile> {
    let Some(rest) = bytes.strip_prefix(FILES) else { return Ok(SavedFile::one(bytes.into())) };
    let end = rest.iter().position(|byte| *byte == b'\n').context("the header of the files is not whole")?;
    let FilesHeader { lengths, seeds } = serde_json::from_slice(&rest[..end])?;
    let mut rest = &rest[end + 1..];
    let mut files = vec![];
    for length in lengths {
        let (file, after) = rest.split_at_checked(length).context("the files are not whole")?;
        files.push(file.into());
        rest = after;
    }
    ensure!(rest.is_empty() && files.len() > 1, "the files are not whole");
    Ok(SavedFile { files, seeds })
}

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
pub(super) mod tests {
    use lsregen_diffusion::guidance::{Auto, Region, Schedule, Until, Window};
    use lsregen_engine::Payload;
    use lsregen_tensor::candle_core::{Device, Tensor};

    use super::*;

    /// Encodes and decodes a value.
    pub(in super::super) fn round_trip<P: Payload>(value: &P) -> P {
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
            let back = round_trip(&Latent { z: odd(0), family, seeds: vec![] });
            assert_eq!((bits(&back.z), back.family), (bits(&odd(0)), family));
        }
    }

    #[test]
    fn batches_come_back_to_the_bit() {
        let z = Tensor::cat(&[odd(0), odd(1), odd(2)], 0).unwrap();
        for seeds in [vec![], vec![7, u64::MAX, 0]] {
            let latent = Latent { z: z.clone(), family: Some(Family::Sdxl), seeds: seeds.clone() };
            let back = round_trip(&latent);
            assert_eq!((bits(&back.z), &back.seeds, back.count()), (bits(&z), &seeds, 3));
            let floats = (0..3).map(|shift| Image::Float(odd(shift))).collect();
            let back = round_trip(&Image::batch(floats, seeds.clone()).unwrap());
            let images: Vec<_> = back.images().iter().map(|image| bits(&image.tensor().unwrap())).collect();
            assert_eq!((images, back.seeds()), ((0..3).map(|shift| bits(&odd(shift))).collect(), &*seeds));
            let pixels = |i: u8| RgbImage::from_pixel(2, 1, [i, 2, 3].into());
            let back =
                round_trip(&Image::batch((0..3).map(|i| Image::Rgb(pixels(i))).collect(), seeds.clone()).unwrap());
            assert!(back.images().iter().zip(0..).all(|(image, i)| *image.to_rgb().unwrap() == pixels(i)));
            assert_eq!(back.seeds(), &*seeds);
        }
    }

    #[test]
    fn files_come_back_with_their_seeds() {
        let saved =
            SavedFile { files: vec![(*b"one").into(), (*b"").into(), (*b"three").into()], seeds: vec![7, 8, 9] };
        let bytes = encode_files(&saved).unwrap().unwrap();
        assert_eq!(decode_files(&bytes).unwrap(), saved);
        assert!((FILES.len()..bytes.len()).all(|cut| decode_files(&bytes[..cut]).is_err()));
        let bytes = encode_files(&SavedFile::one(b"one".into())).unwrap().unwrap();
        assert_eq!(bytes, b"one");
        assert_eq!(decode_files(&bytes).unwrap(), SavedFile::one(b"one".into()));
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
