//! One gradient through a network, its time and the most memory that it took. For measurements: see
//! `tests/speed/gradient.py`.
//!
//!     cargo run -p lsregen-diffusion --example gradient_memory -- unet|decoder PIXELS kept|again|BYTES [key=value …]
//!
//! The gradient of the sum of the result with respect to the latent of a square picture, in f32 on the CPU, with
//! everything kept, with every block computed again, or with so many bytes to keep. Keys: `model=FOLDER`, by default the
//! built-in SDXL-like model; `rounds=N`, of which the fastest counts, by default 1.

use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{DType, Device, Tensor, Var};
use lsregen_diffusion::models::unet::{Added, Conditioning};
use lsregen_diffusion::models::{Blueprint, Family, Model};
use lsregen_diffusion::noise::Generator;
use lsregen_diffusion::weights::{ModelFiles, Numbers};

type Anyhow<T> = Result<T, Box<dyn std::error::Error>>;

/// A size of this process in MiB, where the system tells.
fn memory(key: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok().map(|kb| kb / 1024.0)
}

/// Seconds that this process's threads have computed, where the system tells.
fn computed() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may hold anything, in hundredths: 14 and 15 of the fields, for the program and the system.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?) / 100.0)
}

fn main() -> Anyhow<()> {
    lsregen_diffusion::ops::keep_memory();
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
    let blueprint = Blueprint::open(&ModelFiles::Folder(folder).into()).map_err(|p| format!("{p:?}"))?;
    let model = Model::new(blueprint, Numbers::new(DType::F32, &Device::Cpu), false).with_gradient_memory(bytes);

    let mut noise = Generator::new(1);
    let mut normal = |shape: &[usize]| noise.randn(shape, &Device::Cpu);
    let side = pixels.parse::<usize>()? / model.info.size_step;
    let z = Var::from_tensor(&normal(&[1, 4, side, side])?)?;
    let gradient: Box<dyn Fn() -> Anyhow<Tensor>> = match part.as_str() {
        "unet" => {
            let (net, info) = (model.unet()?, model.info);
            let config = net.config();
            let time_ids = Tensor::new(&[[side as f32 * 8.0; 6]], &Device::Cpu)?;
            let width = config.text_time.map_or(0, |(size, width)| width - 6 * size);
            let added = match info.family {
                Family::Sdxl => Some(Added { text_embeds: normal(&[1, width])?, time_ids }),
                _ => None,
            };
            let c = Conditioning { context: normal(&[1, 77, config.cross_attention_dim])?, added, objs: None };
            let z = z.clone();
            Box::new(move || Ok(net.forward(&z, 501.0, &c)?.sum_all()?))
        }
        "decoder" => {
            let (vae, z) = (model.vae()?, z.clone());
            Box::new(move || Ok(vae.decode(&z)?.sum_all()?))
        }
        part => return Err(format!("no part `{part}`: unet or decoder").into()),
    };

    let before = memory("VmRSS:").unwrap_or(f64::NAN);
    let (mut best, mut least) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..key("rounds").map_or(Ok(1), str::parse::<usize>)? {
        let (start, cpu) = (Instant::now(), computed());
        gradient()?.backward()?.remove(&z).ok_or("no gradient")?;
        best = best.min(start.elapsed().as_secs_f64());
        least = least.min(computed().zip(cpu).map_or(f64::NAN, |(now, before)| now - before));
    }
    let peak = memory("VmHWM:").unwrap_or(f64::NAN) - before;
    println!("{part} {pixels} {mode} seconds {best:.3} cpu_seconds {least:.2} peak_mib {peak:.1}");
    Ok(())
}
