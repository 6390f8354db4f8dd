//! Compares gradients through whole networks, and attention maps, with diffusers and torch's autograd on the same
//! weights and with finite differences. `fixtures/gradients.py` writes the fixtures.

#[path = "../../tensor/tests/common/mod.rs"]
mod common;

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use common::{assert_close, fixture, shapes, tensors};
use lsregen_diffusion::Result;
use lsregen_diffusion::models::Blueprint;
use lsregen_diffusion::models::bands::BandOptions;
use lsregen_diffusion::models::config::{UNetConfig, VaeConfig};
use lsregen_diffusion::models::gligen::Grounding;
use lsregen_diffusion::models::unet::{Added, Conditioning, PassOptions, UNet};
use lsregen_diffusion::models::unet::{AttentionKind, AttentionLayer, AttentionMap, UNetBlock};
use lsregen_diffusion::models::vae::AutoencoderKl;
use lsregen_tensor::noise::Generator;
use lsregen_weights::{ModelFiles, Precision, Weights};

/// Largest relative error. The fixtures were computed by torch in f64.
const MAPS: f64 = 1e-4;
const GRADIENTS: f64 = 1e-5;

/// A built-in model's U-Net with the fixture's inputs, in a dtype.
struct Case {
    name: &'static str,
    net: UNet,
    t: f64,
    z: Tensor,
    c: Conditioning,
    io: HashMap<String, Tensor>,
}

impl Case {
    fn new(name: &'static str, dtype: DType) -> Self {
        let net = built_in(name).load_unet(&numbers(dtype)).unwrap();
        let io = tensors("gradients.safetensors");
        let get = |key: &str| io.get(&format!("{name}.{key}")).map(|t| t.to_dtype(dtype).unwrap());
        let added = get("text_embeds").map(|text_embeds| Added { text_embeds, time_ids: get("time_ids").unwrap() });
        let grounding =
            |boxes| Grounding { boxes, embeddings: get("embeddings").unwrap(), masks: get("masks").unwrap() };
        let objs = get("boxes").map(|boxes| net.grounding_tokens(&grounding(boxes)).unwrap());
        let c = Conditioning { context: get("context").unwrap(), added, objs, guidance: None, channels: None };
        let (z, t) = (get("z").unwrap(), if name == "xl" { 901.0 } else { 501.0 });
        Case { name, net, t, z, c, io }
    }

    fn maps(&self, z: &Tensor, kind: AttentionKind, wanted: &dyn Fn(&AttentionLayer) -> bool) -> Vec<AttentionMap> {
        self.net.attention_maps(z, self.t, &self.c, kind, wanted, &PassOptions::default()).unwrap()
    }
}

fn numbers(dtype: DType) -> Precision {
    Precision::new(dtype, &Device::Cpu)
}

fn built_in(name: &str) -> Blueprint {
    Blueprint::open(&ModelFiles::Folder(shapes(name)).into()).unwrap()
}

/// Reads a configuration that `fixtures/networks.py` has written.
fn config(name: &str) -> Vec<u8> {
    std::fs::read(fixture(&format!("networks/{name}.json"))).unwrap()
}

fn weights(name: &str, dtype: DType) -> Weights {
    let files = ModelFiles::Folder(fixture("networks"));
    Weights::open(&files, &format!("{name}.safetensors"), &numbers(dtype)).unwrap()
}

/// Returns a U-Net with its latent, timesteps and conditioning: of a built-in model, or of one that
/// `fixtures/networks.py` has written.
fn network(name: &'static str) -> (UNet, Tensor, Tensor, Conditioning) {
    if !name.starts_with("unet") {
        let Case { net, t, z, c, .. } = Case::new(name, DType::F32);
        let t = Tensor::full(t as f32, z.dim(0).unwrap(), &Device::Cpu).unwrap();
        return (net, z, t, c);
    }
    let io = tensors(&format!("networks/{name}.io.safetensors"));
    let net = UNet::new(UNetConfig::parse(&config(name), name).unwrap(), &weights(name, DType::F32)).unwrap();
    let added = io.get("text_embeds").map(|t| Added { text_embeds: t.clone(), time_ids: io["time_ids"].clone() });
    let c = Conditioning {
        context: io["context"].clone(),
        added,
        objs: io.get("objs").cloned(),
        guidance: None,
        channels: None,
    };
    (net, io["z"].clone(), io["t"].clone(), c)
}

/// Returns cos(1.7 i) for the element i: the weights of the sums whose gradients are compared.
fn wave(like: &Tensor) -> Tensor {
    let wave: Vec<f64> = (0..like.elem_count()).map(|i| (i as f64 * 1.7).cos()).collect();
    Tensor::from_vec(wave, like.shape(), &Device::Cpu).unwrap().to_dtype(like.dtype()).unwrap()
}

fn waved(x: &Tensor) -> Tensor {
    (x * wave(x)).unwrap().sum_all().unwrap()
}

fn waved_maps(maps: &[AttentionMap]) -> Tensor {
    maps.iter().map(|m| waved(&m.weights)).reduce(|a, b| (a + b).unwrap()).unwrap()
}

/// Returns the gradient of the scalar `f` at `x`.
fn gradient(x: &Tensor, f: impl Fn(&Tensor) -> Tensor) -> Tensor {
    let x = Var::from_tensor(x).unwrap();
    f(x.as_tensor()).backward().unwrap().get(x.as_tensor()).expect("no gradient").clone()
}

/// Compares the gradient of the scalar `f` at `x`, in f64, with central differences along random directions.
#[track_caller]
fn assert_differences(what: &str, x: &Tensor, f: impl Fn(&Tensor) -> Tensor) {
    let grad = gradient(x, &f);
    let length = grad.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
    let mut noise = Generator::new(7);
    for _ in 0..2 {
        let d = noise.randn(x.dims(), &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
        let h = 1e-5;
        let at = |s: f64| f(&(x + (&d * s).unwrap()).unwrap()).to_scalar::<f64>().unwrap();
        let numeric = (at(h) - at(-h)) / (2.0 * h);
        let exact = (&grad * &d).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
        assert!((numeric - exact).abs() < 1e-5 * length, "{what}: gradient {exact}, differences {numeric}");
    }
}

const KINDS: [(AttentionKind, &str); 2] = [(AttentionKind::Cross, "cross"), (AttentionKind::SelfAttention, "self")];

#[test]
fn maps_and_their_gradients_equal_diffusers() {
    for name in ["gligen", "xl"] {
        let case = Case::new(name, DType::F32);
        let places = case.net.attention_layers();
        for (kind, word) in KINDS {
            let maps = case.maps(&case.z, kind, &|_| true);
            assert_eq!(maps.iter().map(|m| m.place).collect::<Vec<_>>(), places);
            let prefix = format!("{name}.{word}.");
            assert_eq!(maps.len() + 1, case.io.keys().filter(|key| key.starts_with(&prefix)).count());
            for map in &maps {
                let key = format!("{prefix}{}", map.place);
                assert_close(&key, &map.weights, &case.io[&key], MAPS);
                let (_, _, h, w) = case.z.dims4().unwrap();
                assert_eq!(map.size, (h / map.place.downscale, w / map.place.downscale));
                assert_eq!(map.weights.dims()[2], map.size.0 * map.size.1);
            }
            let dz = gradient(&case.z, |z| waved_maps(&case.maps(z, kind, &|_| true)));
            assert_close(&format!("{prefix}dz"), &dz, &case.io[&format!("{prefix}dz")], GRADIENTS);
        }
    }
}

#[test]
fn gradients_of_some_maps_equal_finite_differences() {
    type Wanted = fn(&AttentionLayer) -> bool;
    let wanted: [(&str, Wanted); 3] = [
        ("all", |_| true),
        ("the middle", |place| place.unet_block == UNetBlock::Mid),
        ("down and up", |place| matches!(place.unet_block, UNetBlock::Down(_) | UNetBlock::Up(1))),
    ];
    for name in ["gligen", "xl"] {
        let case = Case::new(name, DType::F64);
        for (kind, word) in KINDS {
            let all = case.maps(&case.z, kind, &|_| true);
            for (what, wanted) in wanted {
                let maps = case.maps(&case.z, kind, &wanted);
                assert!(!maps.is_empty() && maps.iter().all(|m| wanted(&m.place)));
                for map in &maps {
                    let same = all.iter().find(|m| m.place == map.place).unwrap();
                    assert_close(what, &map.weights, &same.weights, 1e-12);
                }
                let what = format!("{} {word} {what}", case.name);
                assert_differences(&what, &case.z, |z| waved_maps(&case.maps(z, kind, &wanted)));
            }
        }
    }
}

#[test]
fn gradients_of_built_in_models_equal_torchs() {
    for name in ["gligen", "xl"] {
        let case = Case::new(name, DType::F32);
        let dz = gradient(&case.z, |z| waved(&case.net.forward(z, case.t, &case.c).unwrap()));
        assert_close(name, &dz, &case.io[&format!("{name}.dz")], GRADIENTS);
    }
    let (vae, io) = (built_in("xl").load_vae(&numbers(DType::F32)).unwrap(), tensors("gradients.safetensors"));
    let dz = gradient(&io["decoder.z"], |z| waved(&vae.decode(z).unwrap()));
    assert_close("decoder", &dz, &io["decoder.dz"], GRADIENTS);
    // In bands the gradient is the same.
    for rows in [1, 3, 20] {
        let work = BandOptions { elements: rows * 48 * 32, ..BandOptions::default() };
        let dz = gradient(&io["decoder.z"], |z| waved(&vae.decode_with(z, &work).unwrap()));
        assert_close(&format!("decoder in bands of {rows}"), &dz, &io["decoder.dz"], GRADIENTS);
    }
}

#[test]
fn gradients_of_other_shapes_equal_torchs() {
    let gradients = tensors("gradients.safetensors");
    for name in ["unet_sd1", "unet_odd", "unet_xl", "unet_gligen"] {
        let (net, z, t, c) = network(name);
        let dz = gradient(&z, |z| waved(&net.forward_each(z, &t, &c).unwrap()));
        assert_close(name, &dz, &gradients[&format!("{name}.dz")], GRADIENTS);
    }
    let io = tensors("networks/vae.io.safetensors");
    let config = VaeConfig::parse(&config("vae"), "vae").unwrap();
    let vae = AutoencoderKl::new(config, &weights("vae", DType::F32)).unwrap();
    let dz = gradient(&io["z"], |z| waved(&vae.decode(z).unwrap()));
    assert_close("vae", &dz, &gradients["vae.dz"], GRADIENTS);
}

/// Largest relative difference of a gradient for which blocks are recomputed.
const AGAIN: f64 = 1e-5;

#[test]
fn gradients_of_recomputed_blocks_are_the_same() {
    for name in ["unet_sd1", "unet_odd", "unet_xl", "unet_gligen", "gligen", "xl"] {
        let of = |bytes| {
            let (net, z, t, c) = network(name);
            let net = net.with_gradient_memory(bytes);
            let out = |z: &Tensor, c: &Conditioning| waved(&net.forward_each(z, &t, c).unwrap());
            let context = gradient(&c.context, |x| out(&z, &Conditioning { context: x.clone(), ..c.clone() }));
            let pooled = c.added.as_ref().map(|a| {
                let added = |x: &Tensor| Some(Added { text_embeds: x.clone(), time_ids: a.time_ids.clone() });
                gradient(&a.text_embeds, |x| out(&z, &Conditioning { added: added(x), ..c.clone() }))
            });
            let objs = c.objs.as_ref();
            let objs = objs.map(|o| gradient(o, |x| out(&z, &Conditioning { objs: Some(x.clone()), ..c.clone() })));
            [
                ("z", Some(gradient(&z, |z| out(z, &c)))),
                ("context", Some(context)),
                ("pooled text", pooled),
                ("objs", objs),
            ]
        };
        let kept = of(u64::MAX);
        for bytes in [0, 200_000, 1_000_000] {
            for ((what, again), (_, kept)) in of(bytes).iter().zip(&kept) {
                assert_eq!(again.is_some(), kept.is_some());
                if let (Some(again), Some(kept)) = (again, kept) {
                    assert_close(&format!("{name}, {bytes} bytes, {what}"), again, kept, AGAIN);
                }
            }
        }
    }
}

#[test]
fn gradients_of_a_decoder_computed_again_are_the_same() {
    let io = tensors("gradients.safetensors");
    for dtype in [DType::F32, DType::F64] {
        let z = io["decoder.z"].to_dtype(dtype).unwrap();
        let of = |bytes, work: &BandOptions| {
            let vae = built_in("xl").load_vae(&numbers(dtype)).unwrap().with_gradient_memory(bytes);
            let value = vae.decode_with(Var::from_tensor(&z).unwrap().as_tensor(), work).unwrap().detach();
            (value, gradient(&z, |z| waved(&vae.decode_with(z, work).unwrap())))
        };
        let (value, kept) = of(u64::MAX, &BandOptions::WHOLE);
        let mut layers = std::sync::atomic::AtomicUsize::new(0);
        let on_step = |_: usize, _: usize| {
            layers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(())
        };
        for (bytes, numbers) in [(0, usize::MAX), (0, 5000), (100_000, 5000)] {
            let (same, again) = of(bytes, &BandOptions { elements: numbers, on_step: &on_step });
            assert_close(&format!("{bytes} bytes in {numbers}"), &same, &value, AGAIN);
            assert_close(&format!("{bytes} bytes in {numbers}"), &again, &kept, AGAIN);
        }
        assert!(*layers.get_mut() > 0);
    }
}

#[test]
fn maps_with_blocks_computed_again_are_the_same() {
    for name in ["gligen", "xl"] {
        let case = Case::new(name, DType::F32);
        let case = Case { net: case.net.with_gradient_memory(0), ..case };
        for (kind, word) in KINDS {
            let dz = gradient(&case.z, |z| waved_maps(&case.maps(z, kind, &|_| true)));
            assert_close(name, &dz, &case.io[&format!("{name}.{word}.dz")], GRADIENTS);
        }
    }
}

#[test]
fn no_map_is_requested() {
    let case = Case::new("xl", DType::F32);
    assert!(case.maps(&case.z, AttentionKind::Cross, &|_| false).is_empty());
    // An error of a layer is returned.
    let c = Conditioning { added: None, ..case.c.clone() };
    let maps: Result<_> =
        case.net.attention_maps(&case.z, 1.0, &c, AttentionKind::Cross, &|_| true, &PassOptions::default());
    assert!(maps.unwrap_err().to_string().contains("pooled text"));
}
