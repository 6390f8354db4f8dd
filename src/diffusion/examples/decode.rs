//! Decodes a latent, and prints the time and the peak memory of the process. For measurements: see
//! `tools/speed/decode.py`.
//!
//!     cargo run --release -p lsregen-diffusion --example decode -- 1920 1440 [key=value …]
//!
//! Keys: `model=FOLDER` with `vae/`, by default SDXL's autoencoder at full size with random weights; `latent=FILE`
//! reads the tensor `latent` from a safetensors file instead of generating noise; `save=FILE` writes the tensor
//! `picture` to one; `numbers=N` sets how many elements of a feature map are processed at a time (`whole` for all);
//! `encode=yes` also encodes the decoded image.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{DType, Device, Tensor, safetensors};
use lsregen_diffusion::models::Blueprint;
use lsregen_diffusion::models::bands::BandOptions;
use lsregen_diffusion::models::config::VaeConfig;
use lsregen_diffusion::models::vae::AutoencoderKl;
use lsregen_tensor::noise::Generator;
use lsregen_weights::{ModelFiles, Precision, Weights};

type Anyhow<T> = Result<T, Box<dyn std::error::Error>>;

const SDXL: &str = r#"{"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4,
    "norm_num_groups": 32, "scaling_factor": 0.13025,
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]}"#;

/// Creates SDXL's autoencoder with random weights that preserve the variance of activations.
fn random(folder: &Path) -> Anyhow<AutoencoderKl> {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("../weights/tests/fixtures/keys/sd-vae.json");
    let shapes: BTreeMap<String, Vec<usize>> = serde_json::from_slice(&std::fs::read(keys)?)?;
    let mut noise = Generator::new(1);
    let mut tensors = HashMap::new();
    for (name, shape) in shapes {
        let tensor = match (name.ends_with(".bias"), shape.len()) {
            (true, _) => Tensor::zeros(&shape[..], DType::F32, &Device::Cpu)?,
            (false, 1) => Tensor::ones(&shape[..], DType::F32, &Device::Cpu)?,
            _ => (noise.randn(&shape, &Device::Cpu)? / (shape[1..].iter().product::<usize>() as f64).sqrt())?,
        };
        tensors.insert(name, tensor);
    }
    safetensors::save(&tensors, folder.join("random.safetensors"))?;
    drop(tensors);
    let files = ModelFiles::Folder(folder.to_path_buf());
    let weights = Weights::open(&files, "random.safetensors", &Precision::new(DType::F32, &Device::Cpu))?;
    Ok(AutoencoderKl::new(VaeConfig::parse(SDXL.as_bytes(), "SDXL")?, &weights)?)
}

/// Returns the peak memory so far in MiB, if the system reports it.
fn peak() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<usize>().ok().map(|kb| kb / 1024)
}

fn main() -> Anyhow<()> {
    lsregen_tensor::ops::keep_memory();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (keys, sides): (Vec<_>, Vec<_>) = args.iter().partition(|arg| arg.contains('='));
    let key = |name: &str| keys.iter().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='));
    let side = |i: usize| sides.get(i).and_then(|side| side.parse::<usize>().ok());

    let folder = tempfile::tempdir()?;
    let vae = match key("model") {
        Some(model) => {
            let blueprint = Blueprint::open(&ModelFiles::Folder(PathBuf::from(model)).into());
            let blueprint = blueprint.map_err(|problems| format!("{problems:?}"))?;
            blueprint.load_vae(&Precision::new(DType::F32, &Device::Cpu))?
        }
        None => random(folder.path())?,
    };
    let z = match (key("latent"), side(0), side(1)) {
        (Some(file), ..) => safetensors::load(file, &Device::Cpu)?.remove("latent").ok_or("no tensor `latent`")?,
        (None, Some(w), Some(h)) => Generator::new(2).randn(&[1, 4, h / 8, w / 8], &Device::Cpu)?,
        _ => return Err("usage: decode WIDTH HEIGHT [key=value …]".into()),
    };
    let on_step = |done: usize, of: usize| {
        eprint!("\r{done}/{of} layers");
        Ok(())
    };
    let mut work = BandOptions { on_step: &on_step, ..BandOptions::default() };
    match key("numbers") {
        Some("whole") => work.elements = usize::MAX,
        Some(numbers) => work.elements = numbers.parse()?,
        None => {}
    }
    let start = Instant::now();
    let picture = vae.decode_with(&z, &work)?;
    let (_, _, h, w) = picture.dims4()?;
    let report = |what: &str, start: Instant| {
        let peak = peak().map_or("unknown".to_string(), |peak| peak.to_string());
        println!("{what} {w}x{h} seconds {:.1} peak_mib {peak}", start.elapsed().as_secs_f64());
    };
    report("decode", start);
    if key("encode").is_some() {
        let start = Instant::now();
        vae.encode_with(&picture, &work)?;
        report("encode", start);
    }
    if let Some(file) = key("save") {
        safetensors::save(&HashMap::from([("picture", picture)]), file)?;
    }
    Ok(())
}
