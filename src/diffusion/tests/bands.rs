//! The autoencoder processes large images in bands: the result equals that of the whole image at once.

#[path = "../../tensor/tests/common/mod.rs"]
mod common;

use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Device, Tensor, Var};
use common::{assert_close, relative, shapes, tensors};
use lsregen_diffusion::Error;
use lsregen_diffusion::models::Blueprint;
use lsregen_diffusion::models::bands::BandOptions;
use lsregen_diffusion::models::vae::AutoencoderKl;
use lsregen_tensor::noise::Generator;
use lsregen_weights::{ModelFiles, Precision};

fn vae(dtype: DType) -> AutoencoderKl {
    let blueprint = Blueprint::open(&ModelFiles::Folder(shapes("xl")).into()).unwrap();
    blueprint.load_vae(&Precision::new(dtype, &Device::Cpu)).unwrap()
}

fn bands(numbers: usize) -> BandOptions<'static> {
    BandOptions { elements: numbers, ..BandOptions::default() }
}

/// Images of shapes side by side on the right, and a flat colour on the left and at the top, so that no two parts are
/// alike.
fn collage(vae: &AutoencoderKl, width: usize, height: usize) -> Tensor {
    let io = tensors("runs.safetensors");
    let names = ["xl", "lsregen", "xl.euler", "xl.eta", "inverted", "xl.negative"];
    let pictures = names.map(|name| vae.decode(&io[name]).unwrap().clamp(-1f32, 1f32).unwrap());
    let row = |shift: usize| {
        let row: Vec<_> = (0..width.div_ceil(256)).map(|i| pictures[(i + shift) % pictures.len()].clone()).collect();
        Tensor::cat(&row, 3).unwrap()
    };
    let rows: Vec<_> = (0..height.div_ceil(256)).map(row).collect();
    let busy = Tensor::cat(&rows, 2).unwrap().narrow(2, 0, height).unwrap().narrow(3, 0, width).unwrap();
    let (left, top) = (width / 2, height / 5);
    let busy = busy.narrow(2, top, height - top).unwrap().narrow(3, left, width - left).unwrap();
    let flat = |h, w| Tensor::full(0.4f32, (1, 3, h, w), &Device::Cpu).unwrap();
    let below = Tensor::cat(&[flat(height - top, left), busy], 3).unwrap();
    Tensor::cat(&[flat(top, width), below], 2).unwrap()
}

/// Returns the largest and the mean absolute difference, in steps of an 8-bit image.
fn differences(a: &Tensor, b: &Tensor) -> (f32, f32) {
    let d = ((a - b).unwrap().abs().unwrap() * 127.5).unwrap();
    (d.max_all().unwrap().to_scalar().unwrap(), d.mean_all().unwrap().to_scalar().unwrap())
}

#[test]
fn bands_leave_no_trace() {
    let vae = vae(DType::F32);
    // Latents with 93 and 125 rows and columns: bands do not divide them evenly.
    for (width, height) in [(1024, 768), (744, 1000)] {
        let picture = collage(&vae, width, height);
        let z = vae.encode_with(&picture, &BandOptions::WHOLE).unwrap();
        let whole = vae.decode_with(&z, &BandOptions::WHOLE).unwrap();
        for numbers in [1 << 22, 1 << 19, 70_000] {
            let what = format!("{width}×{height} by {numbers}");
            assert_close(&format!("encode {what}"), &vae.encode_with(&picture, &bands(numbers)).unwrap(), &z, 1e-5);
            let (max, mean) = differences(&vae.decode_with(&z, &bands(numbers)).unwrap(), &whole);
            println!("decode {what}: at most {max:.5}/255, {mean:.6}/255 in the mean");
            // No difference is visible, at the edges of bands or elsewhere.
            assert!(max < 0.02 && mean < 0.001, "{what}: at most {max}/255, {mean}/255 in the mean");
        }
    }
}

#[test]
fn bands_of_one_row() {
    let vae = vae(DType::F32);
    let picture = collage(&vae, 88, 72);
    let z = vae.encode_with(&picture, &BandOptions::WHOLE).unwrap();
    assert_close("encode", &vae.encode_with(&picture, &bands(1)).unwrap(), &z, 1e-5);
    let two = Tensor::cat(&[&z, &z.flip(&[2]).unwrap()], 0).unwrap();
    let whole = vae.decode_with(&two, &BandOptions::WHOLE).unwrap();
    assert_close("decode", &vae.decode_with(&two, &bands(1)).unwrap(), &whole, 1e-5);
}

#[test]
fn gradients_flow_through_bands() {
    let vae = vae(DType::F64);
    let mut noise = Generator::new(5);
    let z = Var::from_tensor(&noise.randn(&[1, 4, 6, 5], &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap()).unwrap();
    let direction = noise.randn(&[1, 3, 48, 40], &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
    let gradient = |work: &BandOptions| {
        let sum = (vae.decode_with(&z, work).unwrap() * &direction).unwrap().sum_all().unwrap();
        sum.backward().unwrap().get(&z).unwrap().clone()
    };
    assert_close("gradient", &gradient(&bands(10_000)), &gradient(&BandOptions::WHOLE), 1e-9);
    // The encoder runs in bands under autodiff too.
    let picture = noise.randn(&[1, 3, 48, 40], &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
    let (picture, direction) = (Var::from_tensor(&picture).unwrap(), z.detach());
    let gradient = |work: &BandOptions| {
        let sum = (vae.encode_with(&picture, work).unwrap() * &direction).unwrap().sum_all().unwrap();
        sum.backward().unwrap().get(&picture).unwrap().clone()
    };
    assert_close("gradient of a picture", &gradient(&bands(10_000)), &gradient(&BandOptions::WHOLE), 1e-9);
}

#[test]
fn layers_are_counted_and_can_be_stopped() {
    let vae = vae(DType::F32);
    let z = Generator::new(6).randn(&[1, 4, 12, 10], &Device::Cpu).unwrap();
    let (calls, last) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let on_step = |done: usize, of: usize| {
        assert!(done <= of && done >= last.load(Ordering::Relaxed));
        last.store(done, Ordering::Relaxed);
        calls.fetch_add(1, Ordering::Relaxed);
        if done == of { Err(Error::Cancelled) } else { Ok(()) }
    };
    // A map that needs no bands reports no steps.
    vae.decode_with(&z, &BandOptions { on_step: &on_step, ..BandOptions::default() }).unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    let result = vae.decode_with(&z, &BandOptions { on_step: &on_step, elements: 2000 });
    assert!(matches!(result, Err(Error::Cancelled)));
    // First and last convolution (2), middle block (4), upsamplings (3), and 2 for each of 8 residual blocks.
    assert_eq!(last.load(Ordering::Relaxed), 25);
    assert!(calls.load(Ordering::Relaxed) > 25);
}

#[test]
fn half_precision_takes_and_returns_f32() {
    let (half, full) = (vae(DType::F16), vae(DType::F32));
    let z = tensors("runs.safetensors")["xl"].narrow(2, 0, 8).unwrap().narrow(3, 0, 8).unwrap().contiguous().unwrap();
    let exact = full.decode(&z).unwrap();
    for numbers in [usize::MAX, 20_000] {
        let picture = half.decode_with(&z, &bands(numbers)).unwrap();
        assert_eq!(picture.dtype(), DType::F32);
        assert_close("f16", &picture, &exact, 2e-2);
        let latent = half.encode_with(&exact, &bands(numbers)).unwrap();
        assert_eq!(latent.dtype(), DType::F32);
        let error = relative(&latent, &full.encode(&exact).unwrap());
        assert!(error < 2e-2, "{error}");
    }
}
