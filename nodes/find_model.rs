//! Where a model is: a path, a name in a folder of models, a repository of the hub.
//!
//! Knows how models are called. Knows not what they are made of.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsregen_diffusion::Error;
use lsregen_diffusion::weights::hub::{self, Hub, HubRef};
use lsregen_diffusion::weights::search::{ModelKind, ModelsPath};
use lsregen_engine::{FetchProgress, NodeError};

/// Where something is that a parameter names.
pub(crate) enum Found {
    Here(PathBuf),
    /// In a repository of the hub, of which nothing usable is on this machine.
    Elsewhere,
    Nowhere(NodeError),
}

/// Where models are looked for.
pub(crate) struct Look<'a> {
    pub resolve: &'a dyn Fn(&Path) -> PathBuf,
    pub models: Option<Arc<ModelsPath>>,
}

impl Look<'_> {
    pub fn find(&self, param: &'static str, kind: ModelKind, name: &str) -> Found {
        match hub_of(name) {
            Err(fault) => return Found::Nowhere(at(param, fault)),
            Ok(Some((hub, reference))) => {
                return hub.cached(&reference).map_or(Found::Elsewhere, Found::Here);
            }
            Ok(None) => {}
        }
        let path = (self.resolve)(Path::new(name));
        if path.exists() {
            return Found::Here(path);
        }
        if let Some(path) = self.models.as_ref().and_then(|models| models.find(kind, name)) {
            return Found::Here(path);
        }
        let builtin = match kind {
            ModelKind::Model => "built in are shapes/gligen and shapes/xl; ",
            ModelKind::Clip => "built in is shapes/clip, which knows coloured shapes alone; ",
            ModelKind::Vae | ModelKind::Gligen => "",
        };
        let searched = self.models.as_ref().map(|models| format!("; {}", models.missing(kind, name)));
        Found::Nowhere(NodeError::new(param, format!("there is no {} `{name}`", kind.name())).help(format!(
            "{builtin}there is no {}{}",
            path.display(),
            searched.unwrap_or_default()
        )))
    }
}

/// The place of a model that is called `name`, relative to the working directory; what is on the hub is fetched.
///
/// # Errors
/// There is no such thing, or it could not be fetched.
pub fn bring(name: &str, models: ModelsPath, progress: &mut dyn FnMut(FetchProgress)) -> Result<PathBuf, NodeError> {
    let here = |path: &Path| path.to_path_buf();
    let look = Look { resolve: &here, models: Some(Arc::new(models)) };
    let found = ModelKind::ALL.into_iter().map(|kind| look.find("model", kind, name));
    // Of several misses the first is told: that of a whole model.
    let found = found.reduce(|first, next| match (&first, &next) {
        (Found::Nowhere(_), Found::Here(_)) => next,
        _ => first,
    });
    match found {
        Some(Found::Here(path)) => Ok(path),
        Some(Found::Nowhere(fault)) => Err(fault),
        _ => fetch_model("model", name, true, progress),
    }
}

/// Fetches what the parameter `param` refers to on the hub, and gives its place; of variants the one of half the size if
/// `half`.
///
/// # Errors
/// It is no such reference, or cannot be fetched.
pub fn fetch_model(
    param: &'static str,
    name: &str,
    half: bool,
    progress: &mut dyn FnMut(FetchProgress),
) -> Result<PathBuf, NodeError> {
    let Some((hub, reference)) = hub_of(name).map_err(|error| at(param, error))? else {
        return Err(NodeError::new(param, format!("`{name}` is not on the hub: write hf:owner/name")));
    };
    let wanted = |paths: &[String]| hub::model_files(paths, half);
    let mut tell = |p: hub::Progress| {
        progress(FetchProgress { file: p.file, done: p.all_done, of: p.all_size });
        Ok(())
    };
    hub.fetch(&reference, &wanted, &mut tell).map_err(|error| at(param, error))
}

/// The reference to the hub that a text is, and the hub as the environment has it.
fn hub_of(name: &str) -> Result<Option<(Hub, HubRef)>, Error> {
    match HubRef::parse(name)? {
        Some(reference) => Ok(Some((Hub::from_env()?, reference))),
        None => Ok(None),
    }
}

/// A fault of a parameter.
pub(crate) fn at(param: &'static str, error: Error) -> NodeError {
    NodeError::new(param, error.to_string())
}
