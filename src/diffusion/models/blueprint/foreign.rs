//! Models of other architectures, which are refused by name.

use crate::weights::{Checkpoint, ModelFiles};
use crate::{Error, Result};

/// The starts of diffusers' pipeline classes for models of other architectures: the name of the model, and why it is none
/// of the supported families.
const PIPELINES: &[(&str, &str, &str)] = &[
    ("Kolors", "Kolors", KOLORS),
    ("StableDiffusion3", "Stable Diffusion 3", TRANSFORMER),
    ("Flux", "Flux", TRANSFORMER),
    ("Chroma", "Chroma", TRANSFORMER),
    ("AuraFlow", "AuraFlow", TRANSFORMER),
    ("PixArt", "PixArt", TRANSFORMER),
    ("Sana", "Sana", TRANSFORMER),
    ("Lumina", "Lumina", TRANSFORMER),
    ("ZImage", "Z-Image", TRANSFORMER),
    ("HunyuanDiT", "Hunyuan-DiT", TRANSFORMER),
    ("HiDream", "HiDream", TRANSFORMER),
    ("QwenImage", "Qwen-Image", TRANSFORMER),
    ("CogView", "CogView", TRANSFORMER),
    ("OmniGen", "OmniGen", TRANSFORMER),
    ("StableCascade", "Stable Cascade", CASCADE),
    ("Wuerstchen", "Würstchen", CASCADE),
    ("Kandinsky", "Kandinsky", "its U-Net is conditioned on image embeddings of a prior"),
    ("UnCLIP", "unCLIP (Karlo)", "its U-Net is conditioned on image embeddings of a prior"),
    ("StableUnCLIP", "Stable unCLIP", "its U-Net takes an image's embedding"),
    ("IF", "DeepFloyd IF", "it generates pixels, conditioned on a T5 text encoder"),
    ("StableDiffusionUpscale", "Stable Diffusion's upscaler", "its U-Net takes a small image and its noise level"),
    ("StableDiffusionLatentUpscale", "Stable Diffusion's latent upscaler", "its U-Net has blocks of its own"),
    ("StableDiffusionDepth2Img", "Stable Diffusion 2's depth model", "its U-Net takes a depth map"),
    ("StableVideoDiffusion", "Stable Video Diffusion", "it generates videos"),
    ("AnimateDiff", "AnimateDiff", "it generates videos"),
    ("TextToVideoSD", "ModelScope's text to video", "it generates videos"),
];

const KOLORS: &str = "its text encoder is ChatGLM";
const TRANSFORMER: &str = "its denoiser is a transformer, not a U-Net";
const CASCADE: &str = "it is a cascade of networks on latents of another autoencoder";

/// Those of [`TENSORS`] that stand inside of a U-Net.
const INSIDE: [&str; 3] = ["encoder_hid_proj.", "motion_modules.", "time_stack."];

/// Parts of tensor names, from the start of a component on, that only models of other architectures have.
const TENSORS: &[(&str, &str, &str)] = &[
    ("encoder_hid_proj.", "Kolors", KOLORS),
    ("joint_blocks.", "Stable Diffusion 3", TRANSFORMER),
    ("double_stream_blocks.", "HiDream", TRANSFORMER),
    ("single_stream_modulation.", "Flux 2", TRANSFORMER),
    ("distilled_guidance_layer.", "Chroma", TRANSFORMER),
    ("individual_token_refiner.", "HunyuanVideo", TRANSFORMER),
    ("double_blocks.", "Flux", TRANSFORMER),
    ("double_layers.", "AuraFlow", TRANSFORMER),
    ("patchify_proj.", "LTX-Video", TRANSFORMER),
    ("adaln_single.", "PixArt", TRANSFORMER),
    ("cap_embedder.", "Lumina", TRANSFORMER),
    ("mlp_t5.", "Hunyuan-DiT", TRANSFORMER),
    ("x_embedder.", "an unknown transformer", TRANSFORMER),
    ("patch_embedding.", "an unknown transformer", TRANSFORMER),
    ("channelwise.", "Stable Cascade", CASCADE),
    ("clip_txt_mapper.", "Stable Cascade", CASCADE),
    ("clip_txt_pooled_mapper.", "Stable Cascade", CASCADE),
    ("motion_modules.", "AnimateDiff", "it generates videos"),
    ("time_stack.", "Stable Video Diffusion", "it generates videos"),
    ("control_model.", "ControlNet", "it is a network beside a model, not a model"),
    ("controlnet_cond_embedding.", "ControlNet", "it is a network beside a model, not a model"),
    ("input_hint_block.", "ControlNet", "it is a network beside a model, not a model"),
    ("zero_convs.", "ControlNet", "it is a network beside a model, not a model"),
];

fn refused(label: &str, name: &str, reason: &str, by: &str) -> Error {
    Error::Weights(format!(
        "{label}: a model of {name}, by {by}, which is not supported: {reason}; supported are Stable Diffusion 1.x and 2.x, \
         GLIGEN, and SDXL with its refiner"
    ))
}

/// Refuses a folder whose `model_index.json` names the pipeline of another architecture.
pub(super) fn refuse_folder(files: &ModelFiles) -> Result<()> {
    if !files.has("model_index.json") {
        return Ok(());
    }
    let index = files.json("model_index.json")?;
    let Some(class) = index.get("_class_name").and_then(|class| class.as_str()) else { return Ok(()) };
    // The longest start decides: `StableDiffusionUpscale` is no `StableDiffusion`.
    let known = PIPELINES.iter().filter(|(start, ..)| class.starts_with(start)).max_by_key(|(start, ..)| start.len());
    match known {
        // `IF` followed by a small letter is another word.
        Some(("IF", ..)) if !class[2..].starts_with(|c: char| c.is_ascii_uppercase()) => Ok(()),
        Some((_, name, reason)) => Err(refused(index.label(), name, reason, &format!("`_class_name` {class:.60}"))),
        None => Ok(()),
    }
}

/// The starts of names of a checkpoint's other networks, which may have such parts too: an image encoder has a
/// `patch_embedding`.
const BESIDE: [&str; 8] = [
    "conditioner.",
    "cond_stage_model.",
    "first_stage_model.",
    "safety_checker.",
    "embedder.",
    "text_",
    "vision_model.",
    "model_ema.",
];

/// Refuses a file whose denoiser is of another architecture. A network beside a whole U-Net is no reason: the first
/// ControlNets were published with the model that they control.
pub(super) fn refuse_file(checkpoint: &Checkpoint) -> Result<()> {
    let own = checkpoint.tensors().map(|(_, name, _)| name).filter(|name| !BESIDE.iter().any(|b| name.starts_with(b)));
    let names: Vec<&str> = own.collect();
    let inner = |name: &'static str| ["", "model.", "model.diffusion_model."].map(|prefix| format!("{prefix}{name}"));
    let heads = [inner("out.2.weight"), inner("conv_out.weight")].concat();
    let whole = names.iter().any(|name| heads.iter().any(|head| head == name));
    let found = TENSORS.iter().filter(|(part, ..)| !whole || INSIDE.contains(part)).find_map(|(part, name, reason)| {
        let has = |tensor: &str| {
            // At the start of a component: `x_embedder.` is no part of `max_embedder.`.
            tensor.match_indices(part).any(|(at, _)| at == 0 || tensor[..at].ends_with('.'))
        };
        let tensor = names.iter().find(|tensor| has(tensor))?;
        Some(refused(checkpoint.label(), name, reason, &format!("its tensor `{tensor:.100}`")))
    });
    found.map_or(Ok(()), Err)
}
