//! Computes one gradient through a network, and prints its time and peak memory. For measurements: see
//! `tools/speed/gradient.py`.
//!
//!     cargo run -p lsregen-diffusion --example gradient_memory -- unet|decoder PIXELS kept|again|BYTES [key=value …]
//!
//! It is the gradient of the sum of the result with respect to the latent of a square image, in f32 on the CPU: with
//! all activations kept (`kept`), with every block recomputed (`again`), or with this limit of kept bytes (`BYTES`).
//! Keys: `model=FOLDER`, by default the built-in SDXL-like model, or `model=sdxl`, SDXL at full size with random
//! weights in f16, for which 5 GB are written to a temporary folder; `rounds=N`, by default 1, reports the fastest of N
//! rounds.

use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Device, Tensor, Var, safetensors};
use lsregen_diffusion::models::config::{UNetConfig, VaeConfig};
use lsregen_diffusion::models::unet::{Added, Conditioning, UNet};
use lsregen_diffusion::models::vae::AutoencoderKl;
use lsregen_diffusion::models::{Blueprint, Model};
use lsregen_tensor::noise::Generator;
use lsregen_weights::{ModelFiles, Precision, Weights};

type Anyhow<T> = Result<T, Box<dyn std::error::Error>>;

/// A function from a latent to the sum of a network's result.
type Sum = dyn Fn(&Tensor) -> Anyhow<Tensor>;

const SDXL_UNET: &str = r#"{"sample_size": 128, "attention_head_dim": [5, 10, 20], "cross_attention_dim": 2048,
    "block_out_channels": [320, 640, 1280], "use_linear_projection": true, "transformer_layers_per_block": [1, 2, 10],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816}"#;

const SDXL_VAE: &str = r#"{"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4,
    "norm_num_groups": 32, "scaling_factor": 0.13025,
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]}"#;

/// Writes weights of these names and shapes that preserve the variance of activations: the same noise, repeated.
fn random(keys: &str, folder: &Path) -> Anyhow<Weights> {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("../weights/tests/fixtures/keys").join(keys);
    let shapes: BTreeMap<String, Vec<usize>> = serde_json::from_slice(&std::fs::read(keys)?)?;
    let most = shapes.values().map(|shape| shape.iter().product::<usize>()).max().unwrap_or(0);
    let noise = Generator::new(1).randn(&[1 << 20], &Device::Cpu)?.repeat(most.div_ceil(1 << 20))?;
    // One tensor of noise for each number of inputs.
    let mut scaled: HashMap<usize, Tensor> = HashMap::new();
    let mut tensors = HashMap::new();
    for (name, shape) in shapes {
        let (count, inputs) = (shape.iter().product(), shape.iter().skip(1).product::<usize>());
        let tensor = match (name.ends_with(".bias"), shape.len()) {
            (true, _) => Tensor::zeros(&shape[..], DType::F16, &Device::Cpu)?,
            (false, 1) => Tensor::ones(&shape[..], DType::F16, &Device::Cpu)?,
            _ => {
                let block = match scaled.entry(inputs) {
                    Entry::Occupied(block) => block.into_mut(),
                    Entry::Vacant(place) => place.insert((&noise / (inputs as f64).sqrt())?.to_dtype(DType::F16)?),
                };
                block.narrow(0, 0, count)?.reshape(&shape[..])?
            }
        };
        tensors.insert(name, tensor);
    }
    safetensors::save(&tensors, folder.join("random.safetensors"))?;
    let numbers = Precision { weights: None, ..Precision::new(DType::F32, &Device::Cpu) };
    Ok(Weights::open(&ModelFiles::Folder(folder.into()), "random.safetensors", &numbers)?)
}

/// Returns a memory size of this process in MiB, if the system reports it.
fn memory(key: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok().map(|kb| kb / 1024.0)
}

/// Returns the CPU seconds of all threads of this process, if the system reports them.
fn computed() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Fields 14 and 15 are the user and system time in hundredths of a second. Fields are counted after the name,
    // because it may contain any character.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?) / 100.0)
}

fn main() -> Anyhow<()> {
    lsregen_tensor::ops::keep_memory();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (keys, words): (Vec<_>, Vec<_>) = args.iter().partition(|arg| arg.contains('='));
    let key = |name: &str| keys.iter().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='));
    let [part, pixels, mode] = words[..] else {
        return Err("usage: gradient_memory unet|decoder PIXELS kept|again|BYTES [key=value …]".into());
    };
    let bytes = match mode.as_str() {
        "kept" => u64::MAX,
        "again" => 0,
        bytes => bytes.parse()?,
    };
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/shapes/xl");
    let folder = key("model").map_or(built_in, PathBuf::from);
    let sdxl = key("model") == Some("sdxl");
    let model = || -> Anyhow<Model> {
        let blueprint = Blueprint::open(&ModelFiles::Folder(folder).into()).map_err(|p| format!("{p:?}"))?;
        Ok(Model::new(blueprint, Precision::new(DType::F32, &Device::Cpu), false).with_gradient_memory(bytes))
    };
    let temporary = tempfile::tempdir()?;

    let mut noise = Generator::new(1);
    let mut normal = |shape: &[usize]| noise.randn(shape, &Device::Cpu);
    let side = pixels.parse::<usize>()? / 8;
    let z = Var::from_tensor(&normal(&[1, 4, side, side])?)?;
    let sum: Box<Sum> = match part.as_str() {
        "unet" => {
            let net: Arc<UNet> = if sdxl {
                let weights = random("sdxl-unet.json", temporary.path())?;
                let net = UNet::new(UNetConfig::parse(SDXL_UNET.as_bytes(), "SDXL")?, &weights)?;
                Arc::new(net.with_gradient_memory(bytes))
            } else {
                model()?.unet()?
            };
            let config = net.config();
            let time_ids = Tensor::new(&[[side as f32 * 8.0; 6]], &Device::Cpu)?;
            let added = match config.text_time {
                Some((size, width)) => Some(Added { text_embeds: normal(&[1, width - 6 * size])?, time_ids }),
                None => None,
            };
            let c = Conditioning {
                context: normal(&[1, 77, config.cross_attention_dim])?,
                added,
                objs: None,
                guidance: None,
                channels: None,
            };
            Box::new(move |z| Ok(net.forward(z, 501.0, &c)?.sum_all()?))
        }
        "decoder" => {
            let vae: Arc<AutoencoderKl> = if sdxl {
                let weights = random("sd-vae.json", temporary.path())?;
                let vae = AutoencoderKl::new(VaeConfig::parse(SDXL_VAE.as_bytes(), "SDXL")?, &weights)?;
                Arc::new(vae.with_gradient_memory(bytes))
            } else {
                model()?.vae()?
            };
            Box::new(move |z| Ok(vae.decode(z)?.sum_all()?))
        }
        part => return Err(format!("no part `{part}`: unet or decoder").into()),
    };

    // Resets the peak, if the system allows it, so that the memory for loading does not count.
    std::fs::write("/proc/self/clear_refs", "5").ok();
    let before = memory("VmRSS:").unwrap_or(f64::NAN);
    let (mut best, mut least) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..key("rounds").map_or(Ok(1), str::parse::<usize>)? {
        let (start, cpu) = (Instant::now(), computed());
        sum(&z)?.backward()?.remove(&z).ok_or("no gradient")?;
        best = best.min(start.elapsed().as_secs_f64());
        least = least.min(computed().zip(cpu).map_or(f64::NAN, |(now, before)| now - before));
    }
    let peak = memory("VmHWM:").unwrap_or(f64::NAN) - before;
    println!("{part} {pixels} {mode} seconds {best:.3} cpu_seconds {least:.2} peak_mib {peak:.1}");
    Ok(())
}
