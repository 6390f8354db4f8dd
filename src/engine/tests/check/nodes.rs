//! Fake nodes with the shapes of real ones: no test here runs them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use lsregen_engine::{CheckContext, Context, FileRef, Node, NodeError, NodeType, Payload, Registry, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! payload {
    ($($name:ident),*) => { $(
        pub struct $name;
        impl Payload for $name {
            const TYPE: &'static str = stringify!($name);
            fn bytes(&self) -> usize { 0 }
        }
    )* };
}

payload!(Model, Image, Latent, Guidance);

/// A node type without code: these tests end before anything runs.
macro_rules! node {
    ($name:ident: $inputs:ty => $outputs:ty $(, $item:item)*) => {
        impl Node for $name {
            const TYPE: &'static str = stringify!($name);
            const VERSION: u32 = 1;
            type Inputs = $inputs;
            type Outputs = $outputs;
            $($item)*
            fn run(&self, _: Self::Inputs, _: &Context) -> anyhow::Result<Self::Outputs> {
                anyhow::bail!("a fake node does not run")
            }
        }
    };
}

outputs! { pub struct GivesModel { pub model: Arc<Model> } }
outputs! { pub struct GivesImage { /** The picture. */ pub image: Arc<Image> } }
outputs! { pub struct GivesHalves { pub left: Arc<Image>, pub right: Arc<Image> } }
outputs! { pub struct GivesLatent { pub latent: Arc<Latent> } }
outputs! { pub struct GivesLayout { pub image: Arc<Image>, pub latent: Arc<Latent> } }
outputs! { pub struct GivesInversion { pub guidance: Arc<Guidance>, pub noise: Arc<Latent> } }

/// Loads a model.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadModel {
    /// Which model, such as `shapes/xl`.
    #[schemars(length(min = 1))]
    pub model: String,
}

node!(LoadModel: () => GivesModel,
fn variants(&self, _: &CheckContext) -> Vec<(&'static str, String)> {
    vec![("model", if self.model.contains("xl") { "sdxl" } else { "gligen" }.into())]
});

sockets! { pub struct TakesModel { pub model: Arc<Model> } }

/// Adds weights to a model.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Patch {}

node!(Patch: TakesModel => GivesModel);

/// Reads a picture.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadImage {
    /// The picture file.
    pub path: PathBuf,
}

node!(LoadImage: () => GivesImage,
fn files(&self, cx: &CheckContext) -> Vec<FileRef> {
    vec![FileRef::new("path", cx.resolve(&self.path))]
});

/// A box and what is in it.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grounding {
    /// What is in the box.
    #[schemars(length(min = 1))]
    pub phrase: String,
    /// `[x0, y0, x1, y1]` in fractions of the picture.
    #[serde(rename = "box")]
    pub area: [f32; 4],
    /// How much it counts.
    #[serde(default = "one")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub weight: f32,
}

fn one() -> f32 {
    1.0
}

fn twenty() -> u32 {
    20
}

sockets! { pub struct LayoutInputs { /** The model that draws. */ pub model: Arc<Model> = ["gligen"] } }

/// Draws a layout of boxes.
///
/// At the model's own size.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// What the picture shows. A sentence will do.
    pub prompt: String,
    /// What it must not show.
    pub negative: Option<String>,
    #[schemars(length(min = 1, max = 30))]
    pub boxes: Vec<Grounding>,
    /// Denoising steps.
    #[serde(default = "twenty")]
    #[schemars(range(min = 1, max = 1000))]
    pub steps: u32,
    /// The noise.
    #[serde(default)]
    pub seed: u64,
    /// Draws twice.
    #[serde(default)]
    pub twice: bool,
}

node!(Layout: LayoutInputs => GivesLayout,
fn check(&self, _: &CheckContext) -> Vec<NodeError> {
    let crooked = self.boxes.iter().enumerate().filter(|(_, b)| b.area[0] >= b.area[2]);
    crooked
        .map(|(i, _)| NodeError::new(format!("boxes/{i}/box"), "the box has no width").help("x0 is left of x1"))
        .collect()
});

sockets! { pub struct TakesImage { /** The picture. */ pub image: Arc<Image> } }

/// How values between pixels are interpolated.
#[derive(Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// A cubic curve through four.
    #[default]
    Bicubic,
}

/// Makes a picture larger.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upsample {
    /// In pixels.
    #[schemars(range(min = 8, max = 8192))]
    pub width: u32,
    /// In pixels.
    #[schemars(range(min = 8, max = 8192))]
    pub height: u32,
    #[serde(default)]
    pub filter: Filter,
    /// Strength of sharpening after resizing.
    #[serde(default)]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 2.0))]
    pub sharpen: f64,
}

node!(Upsample: TakesImage => GivesImage);

/// Cuts a picture in two.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Halve {}

node!(Halve: TakesImage => GivesHalves);

sockets! { pub struct EncodeInputs { pub model: Arc<Model>, pub image: Arc<Image> } }

/// Compresses a picture.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Encode {}

node!(Encode: EncodeInputs => GivesLatent);

sockets! { pub struct DecodeInputs { pub model: Arc<Model>, pub latent: Arc<Latent> } }

/// The picture of a latent.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Decode {}

node!(Decode: DecodeInputs => GivesImage);

/// Which way back to noise.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    Ddim,
    Noise,
}

/// Goes back to noise.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Invert {
    pub method: Option<Method>,
}

node!(Invert: DecodeInputs => GivesInversion);

sockets! {
    pub struct SampleInputs {
        pub model: Arc<Model> = ["sdxl"],
        /// Any number of extractors.
        pub guidance: Vec<Arc<Guidance>>,
        pub mask: Option<Arc<Image>>,
    }
}

/// Draws under guidance.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    #[serde(default)]
    pub prompt: String,
}

node!(Sample: SampleInputs => GivesLatent);

/// A colour, by name or by its parts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Colour {
    Name(String),
    Parts([u8; 3]),
}

/// What is drawn beside the picture.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(tag = "shape", rename_all = "lowercase", deny_unknown_fields)]
pub enum Frame {
    /// Four lines.
    Line { width: u8 },
    /// Nothing but space.
    Margin { left: i16, right: i16 },
}

/// Kinds of parameters that are rare.
#[derive(Serialize, Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Kinds {
    pub colour: Option<Colour>,
    pub frame: Option<Frame>,
    pub names: BTreeMap<String, f32>,
    pub methods: Vec<Method>,
    pub pair: (f32, String),
    pub size: Option<Box<Grounding>>,
    #[schemars(range(min = 0.1f32))]
    pub scale: f32,
}

node!(Kinds: () => GivesModel);

/// Writes a picture.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SaveImage {
    /// Below the output folder.
    #[schemars(length(min = 1))]
    pub path: String,
}

node!(SaveImage: TakesImage => (),
const OUTPUT: bool = true;,
fn writes(&self, cx: &CheckContext) -> Vec<FileRef> {
    vec![FileRef::new("path", cx.output_path(self.path.as_ref()))]
});

pub static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    Registry::new(&[
        NodeType::of::<LoadModel>(),
        NodeType::of::<Patch>(),
        NodeType::of::<LoadImage>(),
        NodeType::of::<Layout>(),
        NodeType::of::<Upsample>(),
        NodeType::of::<Halve>(),
        NodeType::of::<Encode>(),
        NodeType::of::<Decode>(),
        NodeType::of::<Invert>(),
        NodeType::of::<Sample>(),
        NodeType::of::<Kinds>(),
        NodeType::of::<SaveImage>(),
    ])
});
