//! Prints the results of each network of a checkpoint for given inputs, to compare with another implementation.
//!
//!     cargo run --release --example probe -p lsregen-diffusion -- --model PATH [--vae PATH] [--gligen PATH]
//!         [--dtype auto|f32|bf16|f16] --inputs FILE --outputs FILE
//!
//! Reads the inputs that a safetensors file has, of these: `unet.latent`, `unet.t`, `unet.context`, `unet.pooled`,
//! `unet.time_ids`, `gligen.boxes`, `gligen.masks`, `gligen.embeddings`, `vae.latent`, `vae.picture`, `text.ids`,
//! `text_2.ids`. Outputs: `unet.output`, `vae.decoded`, `vae.encoded`, `text.last`, `text.penultimate`, `text.pooled`,
//! `text_2.…`, `text_2.projected`. tools/weights/full_size.py drives it.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use lsregen_diffusion::models::clip::ClipText;
use lsregen_diffusion::models::gligen::Grounding;
use lsregen_diffusion::models::unet::{Added, Conditioning};
use lsregen_diffusion::models::{Blueprint, Family, Model, ModelLocation, ModelSource, ScheduleOverride};
use lsregen_diffusion::{Error, Result};
use lsregen_weights::{ModelFiles, Precision};

fn main() -> Result<()> {
    lsregen_tensor::ops::keep_memory();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |name: &str| {
        let at = arguments.iter().position(|a| a == name)?;
        arguments.get(at + 1).map(PathBuf::from)
    };
    let needed = |name: &str| argument(name).ok_or_else(|| Error::input(format!("{name} is missing")));
    let path = needed("--model")?;
    let source = ModelSource {
        model: if path.is_dir() { ModelLocation::Files(ModelFiles::Folder(path)) } else { ModelLocation::File(path) },
        vae: argument("--vae"),
        gligen: argument("--gligen"),
        prediction: None,
        schedule: ScheduleOverride::default(),
    };
    let weights = match argument("--dtype").and_then(|d| d.to_str().map(str::to_string)).as_deref() {
        None | Some("auto") => None,
        Some("f32") => Some(DType::F32),
        Some("bf16") => Some(DType::BF16),
        Some("f16") => Some(DType::F16),
        Some(other) => return Err(Error::input(format!("unknown dtype {other}"))),
    };
    let numbers = Precision { device: Device::Cpu, compute: DType::F32, weights };
    let blueprint = Blueprint::open(&source).map_err(|problems| {
        let all: Vec<_> = problems.iter().map(|p| format!("{}: {}", p.part, p.error)).collect();
        Error::input(all.join("\n"))
    })?;
    println!("{}, {}", blueprint.info.family.name(), blueprint.form);
    blueprint.notes.iter().for_each(|note| println!("note: {note}"));
    if !blueprint.unknown.is_empty() {
        println!("unknown: {:?}", blueprint.unknown);
    }
    let model = Model::new(blueprint, numbers.clone(), true);

    let inputs = candle_core::safetensors::load(needed("--inputs")?, &Device::Cpu)?;
    let input = |name: &str| inputs.get(name).map(|x| x.to_dtype(DType::F32)).transpose();
    let mut outputs: HashMap<String, Tensor> = HashMap::new();
    for (i, name) in ["text", "text_2"].into_iter().enumerate() {
        // The refiner's only encoder is SDXL's second.
        let i = if model.info.family == Family::SdxlRefiner { 0 } else { i };
        let (Some(ids), Some(encoder)) = (inputs.get(&format!("{name}.ids")), model.blueprint().encoders.get(i)) else {
            continue;
        };
        let ids = ids.to_dtype(DType::U32)?.to_vec2::<u32>()?;
        let ClipText { last_hidden_state, penultimate, pooled, text_embeds } = encoder.load(&numbers)?.forward(&ids)?;
        outputs.insert(format!("{name}.last"), last_hidden_state);
        outputs.insert(format!("{name}.penultimate"), penultimate);
        outputs.insert(format!("{name}.pooled"), pooled);
        outputs.extend(text_embeds.map(|t| (format!("{name}.projected"), t)));
    }
    if let (Some(z), Some(t), Some(context)) = (input("unet.latent")?, input("unet.t")?, input("unet.context")?) {
        let unet = model.unet()?;
        let added = input("unet.pooled")?.zip(input("unet.time_ids")?);
        let added = added.map(|(text_embeds, time_ids)| Added { text_embeds, time_ids });
        let mut objs = None;
        if let (Some(boxes), Some(masks), Some(embeddings)) =
            (input("gligen.boxes")?, input("gligen.masks")?, input("gligen.embeddings")?)
        {
            objs = Some(unet.grounding_tokens(&Grounding { boxes, masks, embeddings })?);
        }
        let t = t.flatten_all()?.get(0)?.to_scalar::<f32>()?;
        let output =
            unet.forward(&z, t.into(), &Conditioning { context, added, objs, guidance: None, channels: None })?;
        outputs.insert("unet.output".into(), output);
    }
    if let Some(z) = input("vae.latent")? {
        outputs.insert("vae.decoded".into(), model.vae()?.decode(&z)?);
    }
    if let Some(picture) = input("vae.picture")? {
        outputs.insert("vae.encoded".into(), model.vae()?.encode(&picture)?);
    }
    candle_core::safetensors::save(&outputs, needed("--outputs")?)?;
    Ok(())
}
