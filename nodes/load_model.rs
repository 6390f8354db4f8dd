//! LoadModel.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use lsregen_diffusion::models::{self, ModelInfo};
use lsregen_diffusion::weights::{BUILTIN, ModelFiles};
use lsregen_engine::{CheckContext, Context, Fault, FileRef, Lane, Node, outputs};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Numerics;
use crate::bridge::raise;
use crate::values::Model;

/// Loads a diffusion model: text encoders, U-Net, autoencoder and the sampler's settings.
///
/// The model's configuration says its family (`sd1`, `gligen` or `sdxl`), and other nodes take only the families that
/// they can work with. A run loads each model once, however many nodes use it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadModel {
    /// `shapes/gligen` or `shapes/xl`, the small models of coloured shapes that are built in; or a folder in diffusers'
    /// layout (`unet/`, `vae/`, `text_encoder/`, …, weights as safetensors), relative to the graph file. A folder that
    /// is itself called as a built-in model is written `./shapes/xl`.
    #[schemars(length(min = 1))]
    pub model: String,
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

    fn source(&self, resolve: impl Fn(&Path) -> PathBuf) -> ModelFiles {
        match self.builtin() {
            Some(index) => BUILTIN[index].clone(),
            None => ModelFiles::Folder(resolve(Path::new(&self.model))),
        }
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
        if self.builtin().is_some() {
            return vec![];
        }
        let files = self.source(|path| cx.resolve(path));
        if let ModelFiles::Folder(folder) = &files
            && !folder.is_dir()
        {
            let place = folder.display();
            return if folder.is_file() {
                vec![
                    Fault::new("model", format!("`{}` is a file, and a model is a folder", self.model))
                        .help("a checkpoint in one file has to be converted to diffusers' folder layout first"),
                ]
            } else {
                vec![Fault::new("model", format!("there is no model `{}`", self.model)).help(format!(
                    "built in are shapes/gligen and shapes/xl; anything else is a folder, and {place} is none"
                ))]
            };
        }
        models::faults(&files).into_iter().map(|error| Fault::new("model", error.to_string())).collect()
    }

    fn files(&self, cx: &CheckContext) -> Vec<FileRef> {
        let files = self.source(|path| cx.resolve(path));
        match &files {
            ModelFiles::Embedded { .. } => vec![],
            ModelFiles::Folder(root) => {
                models::files(&files).into_iter().map(|path| FileRef::new("model", root.join(path))).collect()
            }
        }
    }

    fn fingerprint(&self) -> Option<String> {
        static DIGESTS: LazyLock<Vec<String>> = LazyLock::new(|| BUILTIN.iter().map(digest).collect());
        self.builtin().map(|index| DIGESTS[index].clone())
    }

    fn variants(&self, cx: &CheckContext) -> Vec<(&'static str, String)> {
        static FAMILIES: LazyLock<Vec<Option<String>>> = LazyLock::new(|| BUILTIN.iter().map(family).collect());
        let family = match self.builtin() {
            Some(index) => FAMILIES[index].clone(),
            None => family(&self.source(|path| cx.resolve(path))),
        };
        family.map(|family| ("model", family)).into_iter().collect()
    }

    fn run(&self, (): (), cx: &Context) -> anyhow::Result<LoadModelOutputs> {
        cx.cancel().check()?;
        let numerics = cx.service::<Numerics>()?;
        let files = self.source(|path| cx.resolve(path));
        let model = models::Model::load(&files, numerics.dtype, &numerics.device).map_err(raise)?;
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
