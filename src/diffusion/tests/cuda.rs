//! Networks and their gradients on a CUDA device, in every dtype, beside the CPU in f32. Needs a device, or the software
//! device: `tools/cuda/check` runs it there.
#![cfg(feature = "cuda")]

#[path = "../../tensor/tests/common/mod.rs"]
mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::{relative, shapes};
use lsregen_diffusion::Result;
use lsregen_diffusion::models::clip::Clip;
use lsregen_diffusion::models::unet::{Added, Conditioning, UNet};
use lsregen_diffusion::models::{Blueprint, Model};
use lsregen_diffusion::reduce::all_finite;
use lsregen_tensor::noise::Generator;
use lsregen_weights::{ModelFiles, Precision};

/// The largest relative error of a value and of a gradient, in each dtype.
const BOUNDS: [(DType, f64, f64); 3] =
    [(DType::F32, 1e-5, 1e-4), (DType::F16, 5e-3, 2e-2), (DType::BF16, 4e-2, 1.5e-1)];

fn noise(shape: &[usize]) -> Tensor {
    Generator::new(3).randn(shape, &Device::Cpu).unwrap()
}

/// A network as a function of a latent or an image, on some device in some dtype.
struct Network {
    name: &'static str,
    input: Tensor,
    load: fn(&Precision) -> Function,
}

type Function = Box<dyn Fn(&Tensor) -> Result<Tensor>>;

fn model(name: &str, precision: &Precision, gradient_memory: u64) -> Model {
    let blueprint = Blueprint::open(&ModelFiles::Folder(shapes(name)).into()).unwrap();
    Model::new(blueprint, precision.clone(), false).with_gradient_memory(gradient_memory)
}

fn unet(name: &str, precision: &Precision, gradient_memory: u64) -> Function {
    let net = model(name, precision, gradient_memory).unet().unwrap();
    let c = conditioning(name, &net, precision);
    Box::new(move |z| net.forward(z, 501.0, &c))
}

fn conditioning(name: &str, net: &UNet, precision: &Precision) -> Conditioning {
    let there = |t: Tensor| t.to_device(&precision.device).unwrap().to_dtype(precision.compute).unwrap();
    let time_ids = Tensor::new(&[[256f32, 256.0, 0.0, 0.0, 256.0, 256.0]], &Device::Cpu).unwrap();
    let time_ids = time_ids.repeat((2, 1)).unwrap().to_device(&precision.device).unwrap();
    let added = (name == "xl").then(|| Added { text_embeds: there(noise(&[2, 64])), time_ids });
    Conditioning {
        objs: (name == "gligen").then(|| there(noise(&[2, 30, 64]))),
        context: there(noise(&[2, 32, net.config().cross_attention_dim])),
        added,
        guidance: None,
        channels: None,
    }
}

fn networks() -> Vec<Network> {
    let latent = noise(&[2, 4, 16, 24]);
    // Halved to odd sides, so that it is enlarged to sides that are not twice as long.
    let odd = noise(&[2, 4, 9, 13]);
    let network = |name, input: &Tensor, load| Network { name, input: input.clone(), load };
    let image = (noise(&[1, 3, 64, 64]) * 0.3).unwrap();
    vec![
        network("SDXL's U-Net", &latent, |p| unet("xl", p, u64::MAX)),
        network("SDXL's U-Net, recomputed", &latent, |p| unet("xl", p, 0)),
        network("SDXL's U-Net, odd sides", &odd, |p| unet("xl", p, u64::MAX)),
        network("GLIGEN's U-Net", &latent, |p| unet("gligen", p, u64::MAX)),
        network("GLIGEN's U-Net, recomputed", &latent, |p| unet("gligen", p, 0)),
        network("the decoder", &latent, |p| {
            let (vae, dtype) = (model("xl", p, u64::MAX).vae().unwrap(), p.compute);
            Box::new(move |z| vae.decode(&z.to_dtype(dtype)?))
        }),
        network("the decoder, recomputed", &latent, |p| {
            let (vae, dtype) = (model("xl", p, 0).vae().unwrap(), p.compute);
            Box::new(move |z| vae.decode(&z.to_dtype(dtype)?))
        }),
        network("CLIP of an image", &image, |p| {
            let (clip, dtype) = (Clip::open(&ModelFiles::Folder(shapes("clip")), p).unwrap(), p.compute);
            Box::new(move |x| clip.image_embeds(&clip.prepare(x)?.to_dtype(dtype)?))
        }),
    ]
}

/// The value at the input, twice, and the gradient of a weighted sum of it.
/// The value, that of another input, the value under autodiff, and the gradient.
fn values_and_gradient(network: &Network, precision: &Precision) -> Result<[Tensor; 4]> {
    let f = (network.load)(precision);
    let input = network.input.to_device(&precision.device)?;
    // Three calls: a network may be recorded, and replayed.
    let (first, _) = (f(&input)?, f(&input)?);
    let again = f(&(&input + 0.0)?)?;
    let other = f(&(&input * 0.5)?)?;
    let x = Var::from_tensor(&input)?;
    let y = f(&x)?.to_dtype(DType::F32)?;
    let weights = noise(y.dims()).to_device(&precision.device)?;
    let mut gradients = (&y * weights)?.sum_all()?.backward()?;
    let gradient = gradients.remove(&x).expect("a gradient");
    let here = |t: Tensor| t.to_device(&Device::Cpu)?.to_dtype(DType::F32);
    assert_eq!(here(first.clone())?.to_vec_of_all()?, here(again)?.to_vec_of_all()?, "{}: another value", network.name);
    Ok([here(first)?, here(other)?, here(y.detach())?, here(gradient)?])
}

trait All {
    fn to_vec_of_all(&self) -> candle_core::Result<Vec<f32>>;
}

impl All for Tensor {
    fn to_vec_of_all(&self) -> candle_core::Result<Vec<f32>> {
        self.flatten_all()?.to_vec1()
    }
}

#[test]
fn networks_and_gradients_equal_the_cpus() {
    lsregen_tensor::cuda::devices()
        .expect("this test needs a CUDA device, or the software device: see tools/cuda/check");
    let device = Device::new_cuda_with_stream(0).unwrap();
    // SAFETY: all work is on this one stream.
    unsafe { device.as_cuda_device().unwrap().disable_event_tracking() };
    let mut faults = Vec::new();
    println!("| network | dtype | value | gradient |\n|---|---|---|---|");
    for network in networks() {
        let exact = values_and_gradient(&network, &Precision::new(DType::F32, &Device::Cpu)).unwrap();
        for (dtype, of_value, of_gradient) in BOUNDS {
            let found = values_and_gradient(&network, &Precision::new(dtype, &device)).unwrap();
            let errors: Vec<f64> = found.iter().zip(&exact).map(|(found, exact)| relative(found, exact)).collect();
            println!(
                "| {} | {dtype:?} | {:.1e} | {:.1e} |",
                network.name,
                errors[0].max(errors[1]).max(errors[2]),
                errors[3]
            );
            for (error, bound) in errors.iter().zip([of_value, of_value, of_value, of_gradient]) {
                if error.is_nan() || *error >= bound {
                    faults.push(format!("{} in {dtype:?}: {error:.1e}, at most {bound:.0e}", network.name));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// One number that is not finite is enough.
#[test]
fn networks_that_fail_are_noticed() {
    lsregen_tensor::cuda::devices()
        .expect("this test needs a CUDA device, or the software device: see tools/cuda/check");
    let device = lsregen_tensor::cuda::open(0).unwrap();
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        for (odd, expected) in [(1e4, true), (f32::NAN, false), (f32::INFINITY, false), (f32::NEG_INFINITY, false)] {
            let z = Tensor::new(&[0.5, odd, -2.0, 0.0], &device).unwrap().to_dtype(dtype).unwrap();
            assert_eq!(all_finite(&z).unwrap(), expected, "{odd} in {dtype:?}");
        }
    }
}
