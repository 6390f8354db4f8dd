//! LoadModel.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use lsregen_diffusion::models::{self, Blueprint, ModelInfo, ModelSource, Place};
use lsregen_diffusion::schedule::PredictionType;
use lsregen_diffusion::weights::{BUILTIN, ModelFiles};
use lsregen_engine::{CheckContext, Context, Fault, FileRef, Lane, Node, outputs};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Numerics;
use crate::values::Model;

/// Loads a diffusion model: text encoders, U-Net, autoencoder and the sampler's settings.
///
/// The files say which family the model is of (`sd1`, `gligen` or `sdxl`), and other nodes take only the families that
/// they can work with. Whether the files hold what the model needs is checked before a run. A run loads each model once,
/// however many nodes use it, and each of its networks when it is first wanted.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadModel {
    /// `shapes/gligen` or `shapes/xl`, the small models of coloured shapes that are built in; or a folder in diffusers'
    /// layout (`unet/`, `vae/`, `text_encoder/`, …), or a checkpoint in one file (`.safetensors`, `.ckpt`) of Stable
    /// Diffusion 1.x, GLIGEN or SDXL, relative to the graph file. A folder that is itself called as a built-in model is
    /// written `./shapes/xl`.
    #[schemars(length(min = 1))]
    pub model: String,
    /// Another autoencoder in place of the model's own: a file, its folder, or the folder of a model that has one.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub vae: Option<String>,
    /// GLIGEN's fusers to be put on a Stable Diffusion 1.4 or 1.5 model, which makes it a model of the family `gligen`:
    /// a file such as `gligen_sd14_textbox_pruned.safetensors`.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub gligen: Option<String>,
    /// What the U-Net predicts, where the files do not say it or say it wrong. By default what they say, and the noise
    /// where they say nothing.
    #[serde(default)]
    pub prediction: Option<Prediction>,
}

/// What a U-Net predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Prediction {
    /// The noise ε.
    Epsilon,
    /// v = √ᾱ ε − √(1−ᾱ) x₀.
    VPrediction,
}

impl From<Prediction> for PredictionType {
    fn from(prediction: Prediction) -> Self {
        match prediction {
            Prediction::Epsilon => PredictionType::Epsilon,
            Prediction::VPrediction => PredictionType::VPrediction,
        }
    }
}

outputs! {
    pub struct LoadModelOutputs {
        /// The model.
        pub model: Arc<Model>,
    }
}

impl LoadModel {
    /// Which of the built-in models is meant, if one is.
    fn builtin(&self) -> Option<usize> {
        BUILTIN.iter().position(|files| matches!(files, ModelFiles::Embedded { name, .. } if *name == self.model))
    }

    fn source(&self, resolve: impl Fn(&Path) -> PathBuf) -> ModelSource {
        let model = match self.builtin() {
            Some(index) => Place::Files(BUILTIN[index].clone()),
            None => {
                let path = resolve(Path::new(&self.model));
                if path.is_file() { Place::File(path) } else { Place::Files(ModelFiles::Folder(path)) }
            }
        };
        let other = |path: &Option<String>| path.as_ref().map(|path| resolve(Path::new(path)));
        ModelSource {
            model,
            vae: other(&self.vae),
            gligen: other(&self.gligen),
            prediction: self.prediction.map(PredictionType::from),
        }
    }

    /// Whether the model is one that is built in, as it is.
    fn is_builtin(&self) -> bool {
        self.builtin().is_some() && self.vae.is_none() && self.gligen.is_none()
    }
}

impl Node for LoadModel {
    const TYPE: &'static str = "LoadModel";
    const VERSION: u32 = 1;
    const LANE: Lane = Lane::Io;

    type Inputs = ();
    type Outputs = LoadModelOutputs;

    fn check(&self, cx: &CheckContext) -> Vec<Fault> {
        // What is built in is whole: tests load it.
        if self.is_builtin() {
            return vec![];
        }
        let source = self.source(|path| cx.resolve(path));
        if let Place::Files(ModelFiles::Folder(folder)) = &source.model
            && !folder.is_dir()
        {
            let place = folder.display();
            return vec![Fault::new("model", format!("there is no model `{}`", self.model)).help(format!(
                "built in are shapes/gligen and shapes/xl; anything else is a folder or a file, and there is no {place}"
            ))];
        }
        match Blueprint::open(&source) {
            Ok(_) => vec![],
            Err(problems) => problems.into_iter().map(|p| Fault::new(p.part, p.error.to_string())).collect(),
        }
    }

    fn files(&self, cx: &CheckContext) -> Vec<FileRef> {
        if self.is_builtin() {
            return vec![];
        }
        let blueprint = Blueprint::open(&self.source(|path| cx.resolve(path)));
        // What cannot be opened is told by `check`.
        blueprint.iter().flat_map(Blueprint::files).map(|path| FileRef::new("model", path)).collect()
    }

    fn fingerprint(&self) -> Option<String> {
        static DIGESTS: LazyLock<Vec<String>> = LazyLock::new(|| BUILTIN.iter().map(digest).collect());
        self.builtin().map(|index| DIGESTS[index].clone())
    }

    fn variants(&self, cx: &CheckContext) -> Vec<(&'static str, String)> {
        static FAMILIES: LazyLock<Vec<Option<String>>> = LazyLock::new(|| BUILTIN.iter().map(family).collect());
        let family = match self.builtin() {
            Some(index) if self.is_builtin() => FAMILIES[index].clone(),
            _ => {
                let blueprint = Blueprint::open(&self.source(|path| cx.resolve(path)));
                blueprint.ok().map(|blueprint| blueprint.info.family.name().to_string())
            }
        };
        family.map(|family| ("model", family)).into_iter().collect()
    }

    fn run(&self, (): (), cx: &Context) -> anyhow::Result<LoadModelOutputs> {
        cx.cancel().check()?;
        let numerics = cx.service::<Numerics>()?;
        let blueprint = Blueprint::open(&self.source(|path| cx.resolve(path))).map_err(|problems| {
            let problems: Vec<_> = problems.into_iter().map(|problem| problem.error.to_string()).collect();
            anyhow::anyhow!(problems.join("; "))
        })?;
        blueprint.notes.iter().for_each(|note| cx.note(format!("{}: {note}", self.model)));
        let model = models::Model::new(blueprint, numerics.numbers.clone(), numerics.offload);
        Ok(LoadModelOutputs { model: Arc::new(Model(model)) })
    }
}

fn family(files: &ModelFiles) -> Option<String> {
    ModelInfo::inspect(files).ok().map(|info| info.family.name().to_string())
}

/// BLAKE3 over the names and contents of a built-in model's files, each length-prefixed. About 10 ms for both models.
fn digest(files: &ModelFiles) -> String {
    let mut hasher = blake3::Hasher::new();
    if let ModelFiles::Embedded { files, .. } = files {
        for part in files.iter().flat_map(|(path, bytes)| [path.as_bytes(), bytes]) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    hasher.finalize().to_hex().to_string()
}
