//! Blueprints of models, a service of the host. A command opens each one once, and nodes share it.

use std::path::Path;
use std::sync::Arc;

use lsregen_diffusion::models::clip::ClipBlueprint;
use lsregen_diffusion::models::{Blueprint, ModelSource, Problem};
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
    /// # Errors Returns every problem that prevents loading the model.
    pub(crate) fn model(&self, source: &ModelSource) -> Result<Arc<Blueprint>, Vec<Problem>> {
        let files = |blueprint: &Blueprint| blueprint.files().map(Path::to_path_buf).collect();
        self.models.get(source, || Blueprint::open(source), files)
    }

    /// The blueprint of a CLIP.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub(crate) fn clip(&self, folder: &ModelFiles) -> Result<Arc<ClipBlueprint>> {
        self.clips.get(folder, || ClipBlueprint::open(folder), |blueprint| blueprint.files().into_iter().collect())
    }
}
