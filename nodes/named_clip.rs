//! A CLIP as a parameter names it: what the nodes that look at pictures by one have in common.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use anyhow::Context as _;
use lsregen_diffusion::candle_core::DType;
use lsregen_diffusion::models::clip::{Clip, ClipBlueprint};
use lsregen_diffusion::weights::search::{ModelKind, ModelsPath};
use lsregen_diffusion::weights::{BUILTIN_CLIP, ModelFiles, Precision};
use lsregen_engine::{CheckContext, Context, FetchProgress, FileRef, NodeError};

use crate::ComputeOptions;
use crate::find_model::{Found, Look, at, fetch_model};
use crate::load_model::digest;

/// The parameter.
const PARAM: &str = "clip";

/// What a parameter `clip` says.
pub(crate) struct NamedClip<'a>(pub &'a str);

impl NamedClip<'_> {
    fn is_builtin(&self) -> bool {
        matches!(&BUILTIN_CLIP, ModelFiles::Embedded { name, .. } if *name == self.0)
    }

    fn is_of_hub(&self) -> bool {
        self.0.starts_with("hf:")
    }

    /// What it is made of; nothing where it has to be fetched first, or may be.
    fn blueprint(&self, look: &Look) -> Result<Option<ClipBlueprint>, NodeError> {
        let folder = match self.is_builtin() {
            true => BUILTIN_CLIP.clone(),
            false => match look.find(PARAM, ModelKind::Clip, self.0) {
                Found::Here(path) if path.is_dir() => ModelFiles::Folder(path),
                Found::Here(path) => {
                    return Err(NodeError::new(PARAM, format!("{}: a CLIP is a folder, not a file", path.display()))
                        .help(
                            "name the folder in transformers' layout: config.json, model.safetensors, tokenizer and \
                         preprocessor_config.json",
                        ));
                }
                Found::Elsewhere => return Ok(None),
                Found::Nowhere(fault) => return Err(fault),
            },
        };
        match ClipBlueprint::open(&folder) {
            Ok(blueprint) => Ok(Some(blueprint)),
            // Of a repository only some files may have come so far: `fetch` will tell.
            Err(_) if self.is_of_hub() => Ok(None),
            Err(error) => Err(at(PARAM, error)),
        }
    }

    fn checked(&self, cx: &CheckContext) -> Result<Option<ClipBlueprint>, NodeError> {
        self.blueprint(&Look { resolve: &|path| cx.resolve(path), models: cx.service() })
    }

    /// What keeps it from being loaded; or, where it can be looked into, what `f` finds wrong with it.
    pub fn faults(&self, cx: &CheckContext, f: impl FnOnce(&ClipBlueprint) -> Vec<NodeError>) -> Vec<NodeError> {
        match self.checked(cx) {
            Ok(blueprint) => blueprint.as_ref().map(f).unwrap_or_default(),
            Err(fault) => vec![fault],
        }
    }

    /// Every file that loading reads.
    pub fn files(&self, cx: &CheckContext) -> Vec<FileRef> {
        // What cannot be opened is told by `check`.
        let blueprint = self.checked(cx).ok().flatten();
        blueprint.iter().flat_map(ClipBlueprint::files).map(|path| FileRef::new(PARAM, path)).collect()
    }

    /// Fetches what is on the hub.
    pub fn fetch(&self, cx: &CheckContext, progress: &mut dyn FnMut(FetchProgress)) -> Result<bool, NodeError> {
        let resolve = |path: &Path| cx.resolve(path);
        let look = Look { resolve: &resolve, models: cx.service() };
        if !self.is_of_hub() || self.blueprint(&look)?.is_some() {
            return Ok(false);
        }
        let folder = fetch_model(PARAM, self.0, false, progress)?;
        ClipBlueprint::open(&ModelFiles::Folder(folder)).map_err(|error| at(PARAM, error))?;
        Ok(true)
    }

    /// Of the built-in one; others are known by their files.
    pub fn fingerprint(&self) -> Option<String> {
        static DIGEST: LazyLock<String> = LazyLock::new(|| digest(&BUILTIN_CLIP));
        self.is_builtin().then(|| DIGEST.clone())
    }

    /// Loads it, computed in f32 at least: its gradients are small, and it is small beside what it guides.
    pub fn load(&self, cx: &Context) -> anyhow::Result<Arc<Clip>> {
        cx.cancel().check()?;
        let numerics = cx.service::<ComputeOptions>()?;
        let models = cx.service::<ModelsPath>().ok();
        let blueprint = self.blueprint(&Look { resolve: &|path| cx.resolve(path), models });
        let blueprint = blueprint.map_err(|fault| anyhow::anyhow!(fault.message))?;
        let blueprint = blueprint.with_context(|| format!("{}: is not on this machine (any more)", self.0))?;
        Ok(Arc::new(blueprint.load(&Precision { compute: DType::F32, ..numerics.precision.clone() })?))
    }
}
