//! Two values for each type of socket.

use std::path::Path;
use std::sync::Arc;

use lsregen_diffusion::layout::GroundedPhrase;
use lsregen_engine::{Context, EdgeValue, Host, SocketSpec};
use lsregen_nodes::values::{Image, Latent, Layout};
use lsregen_nodes::{ComputeOptions, DtypeOption, registry};
use lsregen_tensor::candle_core::{Device, Tensor};
use lsregen_tensor::image::RgbImage;
use serde_json::{Value as Json, json};

pub struct Inputs {
    /// Two models that differ in every network that a node may use.
    any: [EdgeValue; 2],
    gligen: [EdgeValue; 2],
    pub xl: [EdgeValue; 2],
    image: [EdgeValue; 2],
    pub latent: [EdgeValue; 2],
    pub layout: [EdgeValue; 2],
    guidance: [EdgeValue; 2],
}

impl Inputs {
    /// Creates the inputs, with files from a folder.
    pub fn new(folder: &Path) -> Inputs {
        let model = |params| run("LoadModel", params, vec![]);
        let models = |name| {
            ["epsilon", "v_prediction"].map(|prediction| model(json!({ "model": name, "prediction": prediction })))
        };
        let guidance = |strength| {
            let image = vec![EdgeValue::new(image(16, 16))];
            run("ReferenceImage", json!({ "strength": strength }), vec![image, vec![]])
        };
        let object = |phrase: &str, bounds| GroundedPhrase { phrase: phrase.into(), bounds };
        let layouts = [
            [object("a red circle", [0.0, 0.25, 0.5, 0.75]), object("a blue square", [0.5, 0.5, 1.0, 1.0])],
            [object("a blue square", [0.0, 0.0, 0.25, 0.5]), object("a red circle", [0.5, 0.25, 0.75, 0.75])],
        ];
        Inputs {
            any: [
                model(json!({ "model": "shapes/xl" })),
                model(json!({ "model": "shapes/gligen", "vae": folder.join("vae") })),
            ],
            gligen: models("shapes/gligen"),
            xl: models("shapes/xl"),
            image: [(32, 24), (24, 32)].map(|(width, height)| EdgeValue::new(image(width, height))),
            latent: [(8, 8), (8, 12)].map(|(height, width)| EdgeValue::new(latent(height, width))),
            layout: layouts.map(|layout| EdgeValue::new(Arc::new(Layout(layout.into())))),
            guidance: [0.5, 0.25].map(guidance),
        }
    }

    /// Returns two values that a socket accepts.
    pub fn of(&self, socket: &SocketSpec) -> [EdgeValue; 2] {
        match (socket.type_name, socket.variants) {
            ("Model", []) => self.any.clone(),
            ("Model", families) if families.contains(&"sdxl") => self.xl.clone(),
            ("Model", _) => self.gligen.clone(),
            ("Image", _) => self.image.clone(),
            ("Latent", _) => self.latent.clone(),
            ("Layout", _) => self.layout.clone(),
            ("Guidance", _) => self.guidance.clone(),
            (other, _) => panic!("there are no values of the type {other} to link"),
        }
    }
}

/// Runs a node of this type and returns its first output.
pub fn run(name: &str, params: Json, inputs: Vec<Vec<EdgeValue>>) -> EdgeValue {
    let host = Host::new(Path::new("."), Path::new("."));
    let cx = Context::detached(Arc::new(host.with_service(ComputeOptions::new(Device::Cpu, DtypeOption::Auto, false))));
    let node = (registry().get(name).unwrap().node_type.decode)(&params).unwrap();
    node.run(inputs, &cx).unwrap().remove(0)
}

/// Returns an image of a colour gradient.
pub fn image(width: u32, height: u32) -> Arc<Image> {
    let pixel = |x: u32, y: u32| [x * 255 / width, y * 255 / height, 128].map(|v| v as u8);
    Arc::new(Image::Rgb(RgbImage::from_fn(width, height, |x, y| pixel(x, y).into())))
}

/// Returns a latent that any model accepts.
fn latent(height: usize, width: usize) -> Arc<Latent> {
    let z = (0..4 * height * width).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<_>>();
    Arc::new(Latent {
        z: Tensor::from_vec(z, (1, 4, height, width), &Device::Cpu).unwrap(),
        family: None,
        seeds: vec![],
    })
}
