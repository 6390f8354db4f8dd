//! Opens a model and computes something with each part that a configuration describes.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use lsregen_diffusion::Result;
use lsregen_diffusion::models::clip::Clip;
use lsregen_diffusion::models::prompt::{Prompt, Sizes};
use lsregen_diffusion::models::{Blueprint, Model, ModelSource};
use lsregen_diffusion::sampler::{Sampler, SamplerKind, SamplerSettings};
use lsregen_tensor::noise::Generator;
use lsregen_weights::{ModelFiles, Precision};

/// What came of a model that could be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every number is finite.
    Finite,
    /// Some number is not.
    NotFinite,
}

/// Opens the model in `folder` and uses the part that the file at `path` configures. The errors are those that a user sees:
/// of opening, or of using a model that could be opened.
pub fn open_and_use(folder: &Path, path: &str) -> Result<Result<Outcome, String>, Vec<String>> {
    let files = ModelFiles::Folder(folder.into());
    let precision = Precision { device: Device::Cpu, compute: DType::F32, weights: None };
    let told = |e: lsregen_diffusion::Error| e.to_string();
    if folder.ends_with("clip") {
        let clip = Clip::open(&files, &precision).map_err(|e| vec![told(e)])?;
        let embeds = || Ok(vec![clip.text_embeds("a red circle!")?, clip.image_embeds(&ramp(&[1, 3, 24, 40])?)?]);
        return Ok(embeds().and_then(outcome).map_err(told));
    }
    let blueprint = Blueprint::open(&ModelSource::from(files));
    let blueprint = blueprint.map_err(|problems| problems.into_iter().map(|p| told(p.error)).collect::<Vec<_>>())?;
    Ok(compute(&Model::new(blueprint, precision, false), path).and_then(outcome).map_err(told))
}

fn ramp(shape: &[usize]) -> Result<Tensor> {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

fn compute(model: &Model, path: &str) -> Result<Vec<Tensor>> {
    if path.starts_with("scheduler") {
        return sampled(model);
    }
    if path.starts_with("vae") {
        let vae = model.vae()?;
        let side = model.info.size_step;
        return Ok(vec![vae.decode(&ramp(&[1, 4, 3, 2])?)?, vae.encode(&ramp(&[1, 3, 2 * side, side])?)?]);
    }
    let text = model.encode_prompt(&Prompt { text: "a red circle! <|ENDOFTEXT|>".into(), text_2: None })?;
    if path.starts_with("unet") {
        let mut conditioning = model.condition(&text, 64, 64, Sizes::default())?;
        if model.blueprint().unet.0.attention_type != lsregen_diffusion::models::config::AttentionType::Default {
            conditioning.objs = Some(model.ground(&[], 3)?);
        }
        return Ok(vec![model.unet()?.forward(&ramp(&[1, 4, 8, 8])?, 501.0, &conditioning)?]);
    }
    Ok(vec![text.context].into_iter().chain(text.pooled).collect())
}

/// Runs every sampler on a network that predicts zeros. Numbers of steps that a sampler refuses are errors of the user.
fn sampled(model: &Model) -> Result<Vec<Tensor>> {
    let zeros = |z: &Tensor, _: f64| -> Result<Tensor> { Ok(z.zeros_like()?) };
    let mut ends = vec![];
    for kind in [SamplerKind::Ddim, SamplerKind::Euler, SamplerKind::Dpmpp2M] {
        for steps in [1, 3, 20, 999] {
            if let Ok(sampler) = Sampler::new(&model.info.scheduler, &SamplerSettings::new(kind, steps)) {
                ends.push(sampler.run(&ramp(&[1, 4, 2, 2])?, &zeros, &[], &mut Generator::new(0).into(), &|_| Ok(()))?);
            }
        }
    }
    Ok(ends)
}

fn outcome(numbers: Vec<Tensor>) -> Result<Outcome> {
    for x in numbers {
        let values = x.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        if values.iter().any(|value| !value.is_finite()) {
            return Ok(Outcome::NotFinite);
        }
    }
    Ok(Outcome::Finite)
}
