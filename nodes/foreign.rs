//! The names that users of ComfyUI, diffusers and A1111's web UI bring, and what they are called here.

use lsregen_engine::ForeignName;

/// A name with its counterparts.
const fn called(name: &'static str, ours: &'static [&'static str]) -> ForeignName {
    ForeignName { name, ours, help: "" }
}

/// A name without a counterpart, and what to do instead.
const fn instead(name: &'static str, help: &'static str) -> ForeignName {
    ForeignName { name, ours: &[], help }
}

const PROMPT: &str = "leave the node out: a sampling node encodes its own `prompt` and `negative`";
const SIZE: &str = "leave the node out: a sampling node has `width` and `height`, and generates the noise itself";
const INPAINT: &str = "leave the node out: with an inpainting model, a sampling node takes `image` and `mask`";
const LORA: &str = "LoRA is not supported: merge it into the checkpoint with another program";
const CONTROL: &str = "ControlNet and IP-Adapter are not supported; `lsregen nodes` lists the guidances, such as Edges";
const SAMPLER: &str = "this sampler is not supported; `lsregen nodes SDXLSample` lists those that are";
const FREEU: &str = "leave the node out: a sampling node has `freeu: { b1: 1.3, b2: 1.4, s1: 0.9, s2: 0.2 }`";
const PAG: &str = "leave the node out: a sampling node has `pag: { scale: 3 }`";

/// Every such name, of node types, keys and values.
pub const FOREIGN_NAMES: &[ForeignName] = &[
    // Node types of ComfyUI.
    called("CheckpointLoaderSimple", &["LoadModel"]),
    called("CheckpointLoader", &["LoadModel"]),
    called("DiffusersLoader", &["LoadModel"]),
    called("UNETLoader", &["LoadModel"]),
    called("VAELoader", &["LoadModel"]),
    called("GLIGENLoader", &["LoadModel"]),
    called("GLIGENTextBoxApply", &["GLIGENLayout"]),
    called("KSampler", &["SDXLSample", "GuidedSDSample"]),
    called("KSamplerAdvanced", &["SDXLSample", "GuidedSDSample"]),
    instead("CLIPSetLastLayer", "leave the node out: a sampling node has `clip_skip`"),
    instead("RescaleCFG", "leave the node out: a sampling node has `cfg_rescale`"),
    instead("ModelSamplingDiscrete", "leave the node out: LoadModel has `prediction` and `zero_snr`"),
    instead("BasicScheduler", "leave the node out: a sampling node has `scheduler`, `steps` and `denoise`"),
    instead("KSamplerSelect", "leave the node out: a sampling node has `sampler`"),
    instead("VAEEncodeForInpaint", INPAINT),
    instead("SetLatentNoiseMask", INPAINT),
    instead("InpaintModelConditioning", INPAINT),
    called("SamplerCustom", &["SDXLSample"]),
    called("VAEDecode", &["Decode"]),
    called("VAEDecodeTiled", &["Decode"]),
    called("VAEEncodeTiled", &["VAEEncode"]),
    called("ImageScale", &["Upsample"]),
    called("ImageScaleBy", &["Upsample"]),
    called("ImageUpscaleWithModel", &["Upsample"]),
    called("UpscaleImage", &["Upsample"]),
    called("PreviewImage", &["SaveImage"]),
    called("ImageBatch", &["ImageGrid"]),
    instead("CLIPTextEncode", PROMPT),
    instead("CLIPTextEncodeSDXL", PROMPT),
    instead("CLIPLoader", PROMPT),
    instead("ConditioningCombine", PROMPT),
    instead("EmptyLatentImage", SIZE),
    instead("LatentUpscale", "decode the latent, resize the image with Upsample, and encode it with VAEEncode"),
    instead("LoraLoader", LORA),
    instead("ControlNetLoader", CONTROL),
    instead("ControlNetApply", CONTROL),
    instead("IPAdapterApply", CONTROL),
    instead("FreeU", FREEU),
    instead("FreeU_V2", FREEU),
    instead("PerturbedAttentionGuidance", PAG),
    // Classes of diffusers.
    called("DiffusionPipeline", &["SDXLSample"]),
    called("StableDiffusionXLPipeline", &["SDXLSample"]),
    called("StableDiffusionPipeline", &["GuidedSDSample"]),
    called("StableDiffusionXLPAGPipeline", &["SDXLSample"]),
    called("StableDiffusionPAGPipeline", &["GuidedSDSample"]),
    called("StableDiffusionGLIGENPipeline", &["GLIGENLayout"]),
    called("UNet2DConditionModel", &["LoadModel"]),
    called("AutoencoderKL", &["LoadModel"]),
    // Keys.
    called("ckpt_name", &["model", "path"]),
    called("checkpoint", &["model", "path"]),
    called("pretrained_model_name_or_path", &["model"]),
    called("vae_name", &["vae"]),
    called("positive", &["prompt"]),
    called("text", &["prompt", "text"]),
    called("negative_prompt", &["negative"]),
    called("negative_prompt_2", &["negative_2"]),
    called("guidance_scale", &["cfg"]),
    called("cfg_scale", &["cfg"]),
    called("num_inference_steps", &["steps"]),
    called("sampling_steps", &["steps"]),
    called("sampler_name", &["sampler"]),
    called("schedule_type", &["scheduler"]),
    instead("sigmas", "a list of noise levels is a value of `scheduler`: `scheduler: { sigmas: [14.6, 2, 0] }`"),
    instead("timesteps", "a list of timesteps is a value of `scheduler`: `scheduler: { timesteps: [999, 499] }`"),
    called("noise_seed", &["seed"]),
    called("generator", &["seed"]),
    called("latent_image", &["latent"]),
    called("latents", &["latent"]),
    called("samples", &["latent"]),
    called("pixels", &["image"]),
    called("images", &["image", "images"]),
    called("scale", &["factor", "scale"]),
    called("scale_by", &["factor"]),
    called("upscale_by", &["factor"]),
    called("upscale_method", &["method"]),
    called("filename", &["path"]),
    called("filename_prefix", &["path"]),
    called("file", &["path"]),
    called("gligen_boxes", &["boxes"]),
    called("gligen_phrases", &["boxes"]),
    called("gligen_scheduled_sampling_beta", &["beta"]),
    called("crops_coords_top_left", &["crop"]),
    called("batch_size", &["count"]),
    called("batch_count", &["count"]),
    called("num_images_per_prompt", &["count"]),
    called("n_iter", &["count"]),
    called("denoising_strength", &["denoise"]),
    called("start_at_step", &["start_step"]),
    called("end_at_step", &["end_step"]),
    called("return_with_leftover_noise", &["leftover_noise"]),
    called("guidance_rescale", &["cfg_rescale"]),
    called("image_guidance_scale", &["image_cfg"]),
    called("CLIP_stop_at_last_layers", &["clip_skip"]),
    called("mask_image", &["mask"]),
    called("init_image", &["latent"]),
    instead("use_karras_sigmas", "write `scheduler: karras`"),
    instead("use_exponential_sigmas", "write `scheduler: exponential`"),
    instead("use_beta_sigmas", "write `scheduler: beta`"),
    instead("denoising_end", "write an `end_step` and `leftover_noise: true`"),
    instead("denoising_start", "write a `start_step` and `add_noise: false`"),
    called("pag_scale", &["pag"]),
    called("pag_adaptive_scale", &["pag"]),
    called("pag_applied_layers", &["pag"]),
    called("enable_freeu", &["freeu"]),
    called("stop_at_clip_layer", &["clip_skip"]),
    instead("lora", LORA),
    instead("loras", LORA),
    instead("controlnet", CONTROL),
    // Values of `sampler`.
    called("DDIMScheduler", &["ddim"]),
    called("DDPMScheduler", &["ddpm"]),
    called("PNDMScheduler", &["pndm"]),
    called("EulerDiscreteScheduler", &["euler"]),
    called("EulerAncestralDiscreteScheduler", &["euler_ancestral"]),
    called("HeunDiscreteScheduler", &["heun"]),
    called("KDPM2DiscreteScheduler", &["dpm_2"]),
    called("KDPM2AncestralDiscreteScheduler", &["dpm_2_ancestral"]),
    called("LMSDiscreteScheduler", &["lms"]),
    called("DPMSolverMultistepScheduler", &["dpmpp_2m"]),
    called("DPMSolverSinglestepScheduler", &["dpmpp_2s"]),
    called("DPMSolverSDEScheduler", &["dpmpp_sde"]),
    called("UniPCMultistepScheduler", &["uni_pc_bh2"]),
    called("DEISMultistepScheduler", &["deis"]),
    called("LCMScheduler", &["lcm"]),
    called("TCDScheduler", &["tcd"]),
    called("plms", &["pndm"]),
    called("Euler a", &["euler_ancestral"]),
    called("DPM++ 2M", &["dpmpp_2m"]),
    instead("DPM++ 2M Karras", "write `sampler: dpmpp_2m` and `scheduler: karras`"),
    instead("dpmpp_2m_karras", "write `sampler: dpmpp_2m` and `scheduler: karras`"),
    instead("DPM++ 2M SDE Karras", "write `sampler: dpmpp_2m_sde` and `scheduler: karras`"),
    instead("DPM++ 3M SDE Karras", "write `sampler: dpmpp_3m_sde` and `scheduler: karras`"),
    instead("DPM++ 3M SDE Exponential", "write `sampler: dpmpp_3m_sde` and `scheduler: exponential`"),
    instead("DPM++ SDE Karras", "write `sampler: dpmpp_sde` and `scheduler: karras`"),
    instead("DPM++ 2S a Karras", "write `sampler: dpmpp_2s_ancestral` and `scheduler: karras`"),
    instead("DPM2 Karras", "write `sampler: dpm_2` and `scheduler: karras`"),
    instead("DPM2 a Karras", "write `sampler: dpm_2_ancestral` and `scheduler: karras`"),
    instead("LMS Karras", "write `sampler: lms` and `scheduler: karras`"),
    called("DPM2 a", &["dpm_2_ancestral"]),
    called("DPM++ 2S a", &["dpmpp_2s_ancestral"]),
    called("DPM++ 3M SDE", &["dpmpp_3m_sde"]),
    called("EDMEulerScheduler", &["euler"]),
    called("EDMDPMSolverMultistepScheduler", &["dpmpp_2m"]),
    instead("euler_cfg_pp", SAMPLER),
    instead("euler_ancestral_cfg_pp", SAMPLER),
    instead("heunpp2", SAMPLER),
    instead("dpm_fast", SAMPLER),
    instead("dpm_adaptive", SAMPLER),
    instead("ipndm_v", SAMPLER),
    instead("res_multistep", SAMPLER),
    instead("gradient_estimation", SAMPLER),
    instead("er_sde", SAMPLER),
    instead("sa_solver", SAMPLER),
    instead("seeds_2", SAMPLER),
    instead("seeds_3", SAMPLER),
    instead("restart", SAMPLER),
    // Values of `scheduler`.
    called("AYS", &["align_your_steps"]),
    called("automatic", &["auto"]),
    called("DPM++ SDE", &["dpmpp_sde"]),
    called("DPM++ 2M SDE", &["dpmpp_2m_sde"]),
    called("dpmpp_sde_gpu", &["dpmpp_sde"]),
    called("dpmpp_2m_sde_gpu", &["dpmpp_2m_sde"]),
    called("dpmpp_3m_sde_gpu", &["dpmpp_3m_sde"]),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_counterpart_is_a_name_of_a_node_type_a_key_or_a_value() {
        let registry = crate::registry();
        let mut names: HashSet<String> = HashSet::new();
        for entry in registry.iter() {
            names.insert(entry.node_type.name.into());
            names.extend(entry.node_type.inputs.iter().map(|socket| socket.name.to_string()));
            names.extend(entry.params().iter().map(|param| param.name.clone()));
            // The words of an enum: `"ddim", "euler" or …`.
            let words = entry.params().iter().flat_map(|param| param.type_text.split('"').skip(1).step_by(2));
            names.extend(words.map(str::to_string));
        }
        let mut seen = HashSet::new();
        for ForeignName { name, ours, help } in FOREIGN_NAMES {
            assert!(seen.insert(name.to_lowercase().replace(['_', ' '], "")), "{name} occurs twice");
            assert!(!ours.is_empty() || !help.is_empty(), "{name}");
            for ours in *ours {
                assert!(names.contains(*ours), "{name}: there is no {ours}");
            }
        }
    }
}
