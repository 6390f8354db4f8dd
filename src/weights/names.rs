//! Translates the tensor names of other layouts to diffusers' names.
//!
//! Supports the original layouts of Stable Diffusion 1.x, SDXL and GLIGEN (of the CompVis and Stability repositories, which
//! ComfyUI and A1111 share), OpenCLIP's text encoder in SDXL, and diffusers' own names, old and new.

use std::fmt::Write as _;

/// The network that a tensor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetworkKind {
    /// The denoiser, or GLIGEN's fusers for it.
    UNet,
    /// The autoencoder.
    Vae,
    /// CLIP ViT-L, of SD1 and SDXL; OpenCLIP ViT-H, of SD2.
    TextEncoder,
    /// OpenCLIP ViT-bigG, of SDXL and its refiner.
    TextEncoder2,
}

/// Which part of a tensor in a file is read, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorSlice {
    Whole,
    /// The n-th of `of` equal blocks of rows, of a fused projection.
    Rows {
        n: usize,
        of: usize,
    },
    /// (a, b) as (b, a).
    Transposed,
    /// (a, b, 1, 1) as (a, b): a linear map that may be stored as a 1×1 convolution.
    Matrix,
}

/// Where a tensor belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TensorPlace {
    /// It belongs to a network, as one tensor or several, with diffusers' names.
    In(NetworkKind, Vec<(String, TensorSlice)>),
    /// It belongs to no network: a constant, a counter, or a copy from training.
    Spare,
    /// No supported network has such a tensor.
    Unknown,
}

/// Where the tensor with this `name` in a file belongs. `layers` is the number of residual blocks of each level of the U-Net
/// ([`layers`]), on which the numbers of the original layout depend.
pub fn place(name: &str, layers: usize) -> TensorPlace {
    // A prefix that some tools add to every name.
    let name = name.strip_prefix("module.").unwrap_or(name);
    if spare(name) {
        return TensorPlace::Spare;
    }
    for (prefix, part) in PREFIXES {
        if let Some(rest) = name.strip_prefix(prefix) {
            return inside(*part, rest, layers);
        }
    }
    // Names without a prefix: a file of one network.
    let first = name.split('.').next().unwrap_or("");
    match first {
        "encoder" | "decoder" | "quant_conv" | "post_quant_conv" => inside(NetworkKind::Vae, name, layers),
        "text_model" | "text_projection" => inside(NetworkKind::TextEncoder, name, layers),
        _ => inside(NetworkKind::UNet, name, layers),
    }
}

const PREFIXES: &[(&str, NetworkKind)] = &[
    ("model.diffusion_model.", NetworkKind::UNet),
    ("first_stage_model.", NetworkKind::Vae),
    ("cond_stage_model.transformer.", NetworkKind::TextEncoder),
    ("conditioner.embedders.0.transformer.", NetworkKind::TextEncoder),
    ("conditioner.embedders.1.model.", NetworkKind::TextEncoder2),
    // Of SD2 and of SDXL's refiner, which have OpenCLIP's encoder alone.
    ("cond_stage_model.model.", NetworkKind::TextEncoder),
    ("conditioner.embedders.0.model.", NetworkKind::TextEncoder2),
    // The file of GLIGEN's authors: a dictionary for each network.
    ("model.", NetworkKind::UNet),
    ("autoencoder.", NetworkKind::Vae),
    ("text_encoder.transformer.", NetworkKind::TextEncoder),
];

/// Whether a tensor is a constant of the sampler, a counter or average of training, a part of CLIP that is not used, or a
/// hint for computing in fp8.
fn spare(name: &str) -> bool {
    const CONSTANTS: &[&str] = &[
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "betas",
        "log_one_minus_alphas_cumprod",
        "logvar",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "posterior_variance",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "scale_factor",
        "denoiser.sigmas",
        "ucg_default",
    ];
    let last = name.rsplit('.').next().unwrap_or("");
    CONSTANTS.contains(&name)
        || MARKERS.contains(&name)
        || name.strip_prefix("diffusion.").is_some_and(|rest| CONSTANTS.contains(&rest))
        || name.starts_with("model_ema.")
        || name.starts_with("first_stage_model.loss.")
        || name.starts_with("config_dict.")
        || matches!(last, "position_ids" | "attn_mask" | "logit_scale" | "scale_input" | "scaled_fp8")
}

/// Names by which single files state how they are sampled, by conventions of SDXL's fine-tunes. Some hold no numbers.
pub const MARKERS: &[&str] = &["v_pred", "ztsnr", "edm_vpred.sigma_max", "edm_vpred.sigma_min", "edm_mean", "edm_std"];

fn inside(part: NetworkKind, name: &str, layers: usize) -> TensorPlace {
    let one = |name: Option<String>, view| name.map(|name| vec![(name, view)]);
    let found = match part {
        NetworkKind::UNet => one(unet(name, layers), TensorSlice::Whole),
        NetworkKind::Vae => vae(name).map(|(name, view)| vec![(name, view)]),
        NetworkKind::TextEncoder if name.starts_with("text_model.") || name.starts_with("text_projection.") => {
            one(Some(name.into()), TensorSlice::Whole)
        }
        // The oldest files lack the prefix.
        NetworkKind::TextEncoder
            if ["embeddings.", "encoder.", "final_layer_norm."].iter().any(|p| name.starts_with(p)) =>
        {
            one(Some(format!("text_model.{name}")), TensorSlice::Whole)
        }
        // OpenCLIP's names have nothing in common with them.
        NetworkKind::TextEncoder => open_clip(name),
        NetworkKind::TextEncoder2 => open_clip(name),
    };
    found.map_or(TensorPlace::Unknown, |names| TensorPlace::In(part, names))
}

/// The number of residual blocks of each level on the way down of a U-Net in the original layout, from the place of its
/// first downsampling. 2, as in every known model, if the names do not show it.
pub fn layers<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    let first = names.filter_map(|name| {
        let (before, rest) = name.split_once("input_blocks.")?;
        let (n, rest) = rest.split_once('.')?;
        (matches!(before, "" | "model.diffusion_model." | "model.") && rest.starts_with("0.op."))
            .then(|| n.parse().ok())?
    });
    first.min().map_or(2, |n: usize| n.saturating_sub(1).max(1))
}

fn unet(name: &str, layers: usize) -> Option<String> {
    let (head, rest) = name.split_once('.')?;
    match head {
        // diffusers' own names.
        "conv_in" | "conv_out" | "conv_norm_out" | "time_embedding" | "add_embedding" | "down_blocks" | "mid_block"
        | "up_blocks" | "position_net" => Some(name.into()),
        "time_embed" => embedding("time_embedding", rest),
        "label_emb" => embedding("add_embedding", rest.strip_prefix("0.")?),
        "out" => match rest.split_once('.')? {
            ("0", rest) => Some(format!("conv_norm_out.{rest}")),
            ("2", rest) => Some(format!("conv_out.{rest}")),
            _ => None,
        },
        "middle_block" => match rest.split_once('.')? {
            ("1", rest) => Some(format!("mid_block.attentions.0.{rest}")),
            ("0", rest) => Some(format!("mid_block.resnets.0.{}", resnet(rest)?)),
            ("2", rest) => Some(format!("mid_block.resnets.1.{}", resnet(rest)?)),
            _ => None,
        },
        "input_blocks" => {
            let (block, inner, rest) = numbers(rest)?;
            if block == 0 {
                return (inner == 0).then(|| format!("conv_in.{rest}"));
            }
            let (level, layer) = ((block - 1) / (layers + 1), (block - 1) % (layers + 1));
            match (layer == layers, inner) {
                (true, 0) => Some(format!("down_blocks.{level}.downsamplers.0.conv.{}", rest.strip_prefix("op.")?)),
                (false, 0) => Some(format!("down_blocks.{level}.resnets.{layer}.{}", resnet(rest)?)),
                (false, 1) => Some(format!("down_blocks.{level}.attentions.{layer}.{rest}")),
                _ => None,
            }
        }
        "output_blocks" => {
            let (block, inner, rest) = numbers(rest)?;
            let (level, layer) = (block / (layers + 1), block % (layers + 1));
            match (inner, rest.strip_prefix("conv.")) {
                (1 | 2, Some(rest)) => Some(format!("up_blocks.{level}.upsamplers.0.conv.{rest}")),
                (0, _) => Some(format!("up_blocks.{level}.resnets.{layer}.{}", resnet(rest)?)),
                (1, None) => Some(format!("up_blocks.{level}.attentions.{layer}.{rest}")),
                _ => None,
            }
        }
        _ => None,
    }
}

/// `12.1.rest` → (12, 1, `rest`).
fn numbers(name: &str) -> Option<(usize, usize, &str)> {
    let (a, rest) = name.split_once('.')?;
    let (b, rest) = rest.split_once('.')?;
    Some((a.parse().ok()?, b.parse().ok()?, rest))
}

fn embedding(to: &str, rest: &str) -> Option<String> {
    match rest.split_once('.')? {
        ("0", rest) => Some(format!("{to}.linear_1.{rest}")),
        // LCM's, by analogy: no original layout has it.
        ("cond_proj", rest) => Some(format!("{to}.cond_proj.{rest}")),
        ("2", rest) => Some(format!("{to}.linear_2.{rest}")),
        _ => None,
    }
}

fn resnet(name: &str) -> Option<String> {
    const NAMES: &[(&str, &str)] = &[
        ("in_layers.0.", "norm1."),
        ("in_layers.2.", "conv1."),
        ("emb_layers.1.", "time_emb_proj."),
        ("out_layers.0.", "norm2."),
        ("out_layers.3.", "conv2."),
        ("skip_connection.", "conv_shortcut."),
    ];
    NAMES.iter().find_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from)?)))
}

fn vae(name: &str) -> Option<(String, TensorSlice)> {
    let mut parts = name.split('.');
    let mut to = String::with_capacity(name.len() + 8);
    let half = parts.next()?;
    to.push_str(half);
    if matches!(half, "quant_conv" | "post_quant_conv") {
        return Some((name.into(), TensorSlice::Whole));
    }
    if !matches!(half, "encoder" | "decoder") {
        return None;
    }
    for part in parts {
        let next = match part {
            "mid" => "mid_block",
            "block_1" => "resnets.0",
            "block_2" => "resnets.1",
            "attn_1" => "attentions.0",
            "nin_shortcut" => "conv_shortcut",
            "norm_out" => "conv_norm_out",
            "down" => "down_blocks",
            "block" => "resnets",
            "downsample" => "downsamplers.0",
            "upsample" => "upsamplers.0",
            // The original layout numbers the upsampling blocks from the last level. `reverse_level` corrects it once
            // the number of levels is known.
            "up" => "up",
            // Attention: the original names, and those of diffusers before 0.17.
            "norm" if to.ends_with("attentions.0") => "group_norm",
            "q" | "query" => "to_q",
            "k" | "key" => "to_k",
            "v" | "value" => "to_v",
            "proj_out" | "proj_attn" => "to_out.0",
            other => other,
        };
        write!(to, ".{next}").ok()?;
    }
    // The projections of the attention, which every layout may have as 1×1 convolutions.
    let projection = to.split_once("attentions.0.to_").is_some_and(|(_, rest)| rest.ends_with(".weight"));
    Some((to, if projection { TensorSlice::Matrix } else { TensorSlice::Whole }))
}

/// Translates `decoder.up.2.…` of a decoder with `levels` levels to diffusers' order of levels.
pub fn reverse_level(name: &str, levels: usize) -> Option<String> {
    let (level, rest) = name.strip_prefix("decoder.up.")?.split_once('.')?;
    let level: usize = level.parse().ok()?;
    Some(format!("decoder.up_blocks.{}.{rest}", levels.checked_sub(level.checked_add(1)?)?))
}

fn open_clip(name: &str) -> Option<Vec<(String, TensorSlice)>> {
    let whole = |name: String| Some(vec![(name, TensorSlice::Whole)]);
    match name {
        "token_embedding.weight" => return whole("text_model.embeddings.token_embedding.weight".into()),
        "positional_embedding" => return whole("text_model.embeddings.position_embedding.weight".into()),
        "text_projection" => return Some(vec![("text_projection.weight".into(), TensorSlice::Transposed)]),
        "text_projection.weight" => return whole(name.into()),
        _ => {}
    }
    if let Some(rest) = name.strip_prefix("ln_final.") {
        return whole(format!("text_model.final_layer_norm.{rest}"));
    }
    let (layer, rest) = name.strip_prefix("transformer.resblocks.")?.split_once('.')?;
    let layer = format!("text_model.encoder.layers.{}", layer.parse::<usize>().ok()?);
    if let Some(kind) = rest.strip_prefix("attn.in_proj_") {
        let parts = ["q", "k", "v"].iter().enumerate();
        return Some(
            parts
                .map(|(n, p)| (format!("{layer}.self_attn.{p}_proj.{kind}"), TensorSlice::Rows { n, of: 3 }))
                .collect(),
        );
    }
    const NAMES: &[(&str, &str)] = &[
        ("ln_1.", "layer_norm1."),
        ("ln_2.", "layer_norm2."),
        ("attn.out_proj.", "self_attn.out_proj."),
        ("mlp.c_fc.", "mlp.fc1."),
        ("mlp.c_proj.", "mlp.fc2."),
    ];
    let (from, to) = NAMES.iter().find(|(from, _)| rest.starts_with(from))?;
    whole(format!("{layer}.{to}{}", &rest[from.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every tensor of the public single files, compared with an independent table (fixtures/original_names.py).
    #[test]
    fn every_original_name_has_its_place() {
        let table = include_str!("tests/fixtures/keys/original.tsv");
        let mut seen = 0;
        for line in table.lines() {
            let [file, name, places, _] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let TensorPlace::In(part, found) = place(name, 2) else { panic!("{file}: no place for {name}") };
            let folder = match part {
                NetworkKind::UNet => "unet",
                NetworkKind::Vae => "vae",
                NetworkKind::TextEncoder => "text_encoder",
                NetworkKind::TextEncoder2 => "text_encoder_2",
            };
            let found = found.iter().map(|(to, _)| reverse_level(to, 4).unwrap_or(to.clone()));
            let found: Vec<_> = found.map(|to| format!("{folder}/{to}")).collect();
            assert_eq!(found.join(" "), places, "{file}: {name}");
            seen += 1;
        }
        assert!(seen > 3900);
        assert_eq!(layers(table.lines().filter_map(|line| line.split('\t').nth(1))), 2);
    }

    #[test]
    fn old_and_current_names_of_diffusers() {
        let old = "decoder.mid_block.attentions.0.proj_attn.weight";
        let new = "decoder.mid_block.attentions.0.to_out.0.weight";
        assert_eq!(place(old, 2), TensorPlace::In(NetworkKind::Vae, vec![(new.into(), TensorSlice::Matrix)]));
        assert_eq!(place(new, 2), TensorPlace::In(NetworkKind::Vae, vec![(new.into(), TensorSlice::Matrix)]));
        for name in ["up_blocks.1.attentions.0.norm.weight", "add_embedding.linear_1.bias"] {
            assert_eq!(place(name, 2), TensorPlace::In(NetworkKind::UNet, vec![(name.into(), TensorSlice::Whole)]));
        }
        for name in ["betas", "model_ema.decay", "diffusion.betas", "text_model.embeddings.position_ids"] {
            assert_eq!(place(name, 2), TensorPlace::Spare, "{name}");
        }
        for name in
            ["", ".", "input_blocks", "input_blocks.x.0.op.weight", "output_blocks.99999999999999999999.0.a", "é.ü"]
        {
            assert_eq!(place(name, 2), TensorPlace::Unknown, "{name}");
        }
    }
}
