//! Time of one call of each built-in network: what a sampler repeats.

use std::path::Path;
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use criterion::Criterion;
use lsregen_diffusion::models::gligen::Grounding;
use lsregen_diffusion::models::unet::{Added, Conditioning};
use lsregen_diffusion::models::{Blueprint, Model};
use lsregen_weights::{ModelFiles, Precision};

fn main() {
    lsregen_tensor::ops::keep_memory();
    let mut c = Criterion::default()
        .configure_from_args()
        .without_plots()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    let cpu = Device::Cpu;
    let numbers = Precision::new(DType::F32, &cpu);
    let model = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/shapes").join(name);
        let blueprint = Blueprint::open(&ModelFiles::Folder(folder).into()).expect("a model");
        Model::new(blueprint, numbers.clone(), false)
    };
    let normal = |shape: &[usize]| Tensor::randn(0f32, 1.0, shape, &cpu).expect("noise");

    let gligen = model("gligen").unet().expect("gligen");
    let grounding = Grounding {
        boxes: normal(&[2, 30, 4]),
        embeddings: normal(&[2, 30, 64]),
        masks: Tensor::ones((2, 30), DType::F32, &cpu).expect("masks"),
    };
    let objs = gligen.grounding_tokens(&grounding).expect("tokens");
    let z = normal(&[2, 4, 16, 16]);
    let mut conditioning =
        Conditioning { context: normal(&[2, 32, 64]), added: None, objs: Some(objs), guidance: None, channels: None };
    c.bench_function("gligen 2x16", |b| b.iter(|| gligen.forward(&z, 501.0, &conditioning).expect("a prediction")));
    conditioning.objs = None;
    c.bench_function("gligen 2x16 off", |b| b.iter(|| gligen.forward(&z, 501.0, &conditioning).expect("a prediction")));

    let xl = model("xl").unet().expect("xl");
    for batch in [1, 2] {
        let added = Added { text_embeds: normal(&[batch, 64]), time_ids: normal(&[batch, 6]) };
        let conditioning = Conditioning {
            context: normal(&[batch, 32, 128]),
            added: Some(added),
            objs: None,
            guidance: None,
            channels: None,
        };
        let z = normal(&[batch, 4, 32, 32]);
        c.bench_function(&format!("xl {batch}x32"), |b| {
            b.iter(|| xl.forward(&z, 501.0, &conditioning).expect("a prediction"))
        });
    }

    let vae = model("xl").vae().expect("vae");
    for size in [128, 256] {
        let (picture, z) = (normal(&[1, 3, size, size]), normal(&[1, 4, size / 8, size / 8]));
        c.bench_function(&format!("encode {size}"), |b| b.iter(|| vae.encode(&picture).expect("latents")));
        c.bench_function(&format!("decode {size}"), |b| b.iter(|| vae.decode(&z).expect("a picture")));
    }
    let clip = model("xl").blueprint().encoders[1].load(&numbers).expect("a text encoder");
    let ids = vec![vec![1u32; 32]; 2];
    c.bench_function("text 2x32", |b| b.iter(|| clip.forward(&ids).expect("hidden states")));
    c.final_summary();
}
