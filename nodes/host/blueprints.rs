//! Blueprints of models, a service of the host. A command opens each one once, and nodes share it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsregen_diffusion::models::clip::ClipBlueprint;
use lsregen_diffusion::models::{Blueprint, ModelLocation, ModelSource, Problem};
use lsregen_tensor::Result;
use lsregen_weights::{FileCache, ModelFiles};

/// The blueprints that the nodes of a host have opened. A blueprint is opened again when one of its files changes; see
/// [`Host::with_service`](lsregen_engine::Host::with_service).
#[derive(Default)]
pub struct Blueprints {
    models: FileCache<ModelSource, Blueprint>,
    clips: FileCache<ModelFiles, ClipBlueprint>,
}

impl Blueprints {
    /// The blueprint of a diffusion model.
    ///
    /// # Errors
    /// Returns every problem that prevents loading the model.
    pub(crate) fn model(&self, source: &ModelSource) -> Result<Arc<Blueprint>, Vec<Problem>> {
        let files = |blueprint: &Blueprint| {
            let of_folder = match &source.model {
                ModelLocation::Files(files) => index(files),
                ModelLocation::File(_) => None,
            };
            let of_vae = source.vae.as_ref().map(|vae| vae.join("config.json"));
            blueprint.files().map(Path::to_path_buf).chain(of_folder).chain(of_vae).collect()
        };
        self.models.get(source, || Blueprint::open(source), files)
    }

    /// The blueprint of a CLIP.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub(crate) fn clip(&self, folder: &ModelFiles) -> Result<Arc<ClipBlueprint>> {
        let files = |blueprint: &ClipBlueprint| blueprint.files().into_iter().chain(index(folder)).collect();
        self.clips.get(folder, || ClipBlueprint::open(folder), files)
    }
}

/// Returns the index of a folder, which changes what is read if it appears.
fn index(files: &ModelFiles) -> Option<PathBuf> {
    match files {
        ModelFiles::Folder(folder) => Some(folder.join("model_index.json")),
        ModelFiles::Embedded { .. } => None,
    }
}
