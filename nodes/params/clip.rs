//! The parameter `clip`: a CLIP model by its name.

use std::sync::{Arc, LazyLock};

use anyhow::Context as _;
use lsregen_diffusion::models::clip::{Clip, ClipBlueprint};
use lsregen_engine::{CheckContext, Context, FetchProgress, FileRef, NodeError};
use lsregen_tensor::candle_core::DType;
use lsregen_weights::search::ModelKind;
use lsregen_weights::{BUILTIN_CLIP, ModelFiles, Precision};

use super::model_path::{FetchMode, Found, ModelSearch, at, digest, not_downloaded};
use crate::host::numerics::ComputeOptions;

/// The name of the parameter.
const PARAM: &str = "clip";

/// The value of the parameter `clip`.
pub struct ClipPath<'a>(pub &'a str);

impl ClipPath<'_> {
    fn is_builtin(&self) -> bool {
        matches!(&BUILTIN_CLIP, ModelFiles::Embedded { name, .. } if *name == self.0)
    }

    fn is_of_hub(&self) -> bool {
        self.0.starts_with("hf:")
    }

    /// Opens the model's files. `None` if they have to be downloaded first.
    fn blueprint(&self, search: &ModelSearch) -> Result<Option<Arc<ClipBlueprint>>, NodeError> {
        let folder = match self.is_builtin() {
            true => BUILTIN_CLIP.clone(),
            false => match search.find(PARAM, ModelKind::Clip, self.0) {
                Found::Here(path) if path.is_dir() => ModelFiles::Folder(path),
                Found::Here(path) => {
                    return Err(NodeError::new(PARAM, format!("{}: a CLIP is a folder, not a file", path.display()))
                        .help(
                            "name the folder in transformers' layout: config.json, model.safetensors, tokenizer and \
                         preprocessor_config.json",
                        ));
                }
                Found::Elsewhere => return Ok(None),
                Found::Nowhere(error) => return Err(error),
            },
        };
        match search.blueprints.clip(&folder) {
            Ok(blueprint) => Ok(Some(blueprint)),
            // A repository may be downloaded only in part: `fetch` reports what is missing.
            Err(_) if self.is_of_hub() => Ok(None),
            Err(error) => Err(at(PARAM, error)),
        }
    }

    fn checked(&self, cx: &CheckContext) -> Result<Option<Arc<ClipBlueprint>>, NodeError> {
        self.blueprint(&ModelSearch::in_check(cx))
    }

    /// Returns why the model cannot be loaded, if it cannot, or a warning if it has to be downloaded first.
    pub fn error(&self, cx: &CheckContext) -> Option<NodeError> {
        match self.checked(cx) {
            Ok(found) => found.is_none().then(|| not_downloaded(PARAM, self.0)),
            Err(error) => Some(error),
        }
    }

    /// Returns the number of layers of its image encoder, if the model is on this machine.
    pub fn vision_layers(&self, cx: &CheckContext) -> Option<usize> {
        Some(self.checked(cx).ok()??.config.vision.num_hidden_layers)
    }

    /// Returns every file that loading reads.
    pub fn files(&self, cx: &CheckContext) -> Vec<FileRef> {
        // `check` reports files that cannot be opened.
        let blueprint = self.checked(cx).ok().flatten();
        blueprint
            .iter()
            .flat_map(|blueprint| blueprint.files())
            .map(|path| FileRef::new(PARAM, path).readable())
            .collect()
    }

    /// Downloads the model, if it is on the hub and not yet on this machine.
    pub fn fetch(&self, cx: &CheckContext, progress: &mut dyn FnMut(FetchProgress)) -> Result<bool, NodeError> {
        let search = ModelSearch::in_check(cx);
        if !self.is_of_hub() || self.blueprint(&search)?.is_some() {
            return Ok(false);
        }
        let Some(folder) = FetchMode::of(cx).fetch(PARAM, self.0, false, progress)? else { return Ok(false) };
        search.blueprints.clip(&ModelFiles::Folder(folder)).map_err(|error| at(PARAM, error))?;
        Ok(true)
    }

    /// Returns the digest of the built-in model; others are identified by their files.
    pub fn fingerprint(&self) -> Option<String> {
        static DIGEST: LazyLock<String> = LazyLock::new(|| digest(&BUILTIN_CLIP));
        self.is_builtin().then(|| DIGEST.clone())
    }

    /// Loads the model in f32, because its gradients are small, and because it is small in comparison with the models
    /// that it guides.
    pub fn load(&self, cx: &Context) -> anyhow::Result<Arc<Clip>> {
        cx.cancel().check()?;
        let numerics = cx.service::<ComputeOptions>()?;
        let blueprint = self.blueprint(&ModelSearch::in_run(cx));
        let blueprint = blueprint.map_err(|error| anyhow::anyhow!(error.message))?;
        let blueprint = blueprint.with_context(|| format!("{}: is no longer on this machine", self.0))?;
        Ok(Arc::new(blueprint.load(&Precision { compute: DType::F32, ..numerics.precision.clone() })?))
    }
}
