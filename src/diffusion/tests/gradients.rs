//! Gradients through whole networks, and attention maps: against diffusers and torch's autograd on the same weights, on
//! fixtures that `fixtures/gradients.py` made, and against finite differences.

mod common;

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use common::{assert_close, fixture, shapes, tensors};
use lsregen_diffusion::Result;
use lsregen_diffusion::models::Blueprint;
use lsregen_diffusion::models::attention_maps::{AttentionKind, AttentionMap, AttentionPlace, Part};
use lsregen_diffusion::models::bands::Work;
use lsregen_diffusion::models::config::{UNetConfig, VaeConfig};
use lsregen_diffusion::models::gligen::Grounding;
use lsregen_diffusion::models::unet::{Added, Conditioning, UNet};
use lsregen_diffusion::models::vae::AutoencoderKl;
use lsregen_diffusion::noise::Generator;
use lsregen_diffusion::weights::{ModelFiles, Numbers, Weights};

/// Largest relative error beside torch, which computed in f64.
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
        let c = Conditioning { context: get("context").unwrap(), added, objs };
        let (z, t) = (get("z").unwrap(), if name == "xl" { 901.0 } else { 501.0 });
        Case { name, net, t, z, c, io }
    }

    fn maps(&self, z: &Tensor, kind: AttentionKind, wanted: &dyn Fn(&AttentionPlace) -> bool) -> Vec<AttentionMap> {
        self.net.attention_maps(z, self.t, &self.c, kind, wanted).unwrap()
    }
}

fn numbers(dtype: DType) -> Numbers {
    Numbers::new(dtype, &Device::Cpu)
}

fn built_in(name: &str) -> Blueprint {
    Blueprint::open(&ModelFiles::Folder(shapes(name)).into()).unwrap()
}

/// What lies beside `fixtures/networks.py`.
fn config(name: &str) -> Vec<u8> {
    std::fs::read(fixture(&format!("networks/{name}.json"))).unwrap()
}

fn weights(name: &str, dtype: DType) -> Weights {
    let files = ModelFiles::Folder(fixture("networks"));
    Weights::open(&files, &format!("{name}.safetensors"), &numbers(dtype)).unwrap()
}

fn unet(name: &str, dtype: DType) -> UNet {
    UNet::new(UNetConfig::parse(&config(name), name).unwrap(), &weights(name, dtype)).unwrap()
}

/// cos(1.7 i) over the numbers in their order: what sums over results are weighted by.
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

/// The gradient of the scalar `f` at `x`.
fn gradient(x: &Tensor, f: impl Fn(&Tensor) -> Tensor) -> Tensor {
    let x = Var::from_tensor(x).unwrap();
    f(x.as_tensor()).backward().unwrap().get(x.as_tensor()).expect("no gradient").clone()
}

/// The gradient of the scalar `f` at `x`, in f64, against central differences along random directions.
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
        let places = case.net.attention_places();
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
    type Wanted = fn(&AttentionPlace) -> bool;
    let wanted: [(&str, Wanted); 3] = [
        ("all", |_| true),
        ("the middle", |place| place.part == Part::Mid),
        ("down and up", |place| matches!(place.part, Part::Down(_) | Part::Up(1))),
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
    // Band by band the gradient is the same.
    for rows in [1, 3, 20] {
        let work = Work { numbers: rows * 48 * 32, ..Work::default() };
        let dz = gradient(&io["decoder.z"], |z| waved(&vae.decode_with(z, &work).unwrap()));
        assert_close(&format!("decoder in bands of {rows}"), &dz, &io["decoder.dz"], GRADIENTS);
    }
}

#[test]
fn gradients_of_other_shapes_equal_torchs() {
    let gradients = tensors("gradients.safetensors");
    for name in ["unet_sd1", "unet_odd", "unet_xl", "unet_gligen"] {
        let io = tensors(&format!("networks/{name}.io.safetensors"));
        let net = unet(name, DType::F32);
        let added = io.get("text_embeds").map(|t| Added { text_embeds: t.clone(), time_ids: io["time_ids"].clone() });
        let c = Conditioning { context: io["context"].clone(), added, objs: io.get("objs").cloned() };
        let dz = gradient(&io["z"], |z| waved(&net.forward_each(z, &io["t"], &c).unwrap()));
        assert_close(name, &dz, &gradients[&format!("{name}.dz")], GRADIENTS);
    }
    let io = tensors("networks/vae.io.safetensors");
    let config = VaeConfig::parse(&config("vae"), "vae").unwrap();
    let vae = AutoencoderKl::new(config, &weights("vae", DType::F32)).unwrap();
    let dz = gradient(&io["z"], |z| waved(&vae.decode(z).unwrap()));
    assert_close("vae", &dz, &gradients["vae.dz"], GRADIENTS);
}

#[test]
fn no_map_is_wanted() {
    let case = Case::new("xl", DType::F32);
    assert!(case.maps(&case.z, AttentionKind::Cross, &|_| false).is_empty());
    // An error on the way is an error.
    let c = Conditioning { added: None, ..case.c.clone() };
    let maps: Result<_> = case.net.attention_maps(&case.z, 1.0, &c, AttentionKind::Cross, &|_| true);
    assert!(maps.unwrap_err().to_string().contains("pooled text"));
}
