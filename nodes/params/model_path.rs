//! The names of models: a path, a name in a folder of models, or a repository on the hub.
//!
//! Deals with the names of models, not with their contents.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsregen_diffusion::models::ModelLocation;
use lsregen_engine::{CheckContext, Context, FetchProgress, NodeError};
use lsregen_tensor::Error;
use lsregen_weights::hub::{self, Hub, HubRef};
use lsregen_weights::search::{ModelKind, ModelsPath};
use lsregen_weights::{ModelFiles, builtin_models};

use crate::host::blueprints::Blueprints;

/// Whether a fetch downloads what is missing, or only reports it. A service of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FetchMode {
    #[default]
    Download,
    /// Every file that would be downloaded is reported once, as a reference to the hub and with its size.
    List,
}

impl FetchMode {
    pub(crate) fn of(cx: &CheckContext) -> FetchMode {
        cx.service().map_or(FetchMode::Download, |mode| *mode)
    }

    /// Downloads a model as `fetch_model` does and returns its path, or reports what is missing of it.
    ///
    /// # Errors
    /// As for `fetch_model`.
    pub fn fetch(
        self,
        param: &'static str,
        name: &str,
        half: bool,
        progress: &mut dyn FnMut(FetchProgress),
    ) -> Result<Option<PathBuf>, NodeError> {
        match self {
            FetchMode::Download => fetch_model(param, name, half, progress).map(Some),
            FetchMode::List => list_missing(param, name, half, progress).map(|()| None),
        }
    }
}

/// The place of a model that a parameter names.
pub(crate) enum Found {
    Here(PathBuf),
    /// In a repository on the hub that is not downloaded yet.
    Elsewhere,
    Nowhere(NodeError),
}

/// The places where models are searched, and the blueprints that a command shares.
pub(crate) struct ModelSearch<'a> {
    resolve: Box<dyn Fn(&Path) -> PathBuf + 'a>,
    models: Option<Arc<ModelsPath>>,
    pub blueprints: Arc<Blueprints>,
}

impl<'a> ModelSearch<'a> {
    pub fn in_check(cx: &'a CheckContext) -> Self {
        let blueprints = cx.service().unwrap_or_default();
        ModelSearch { resolve: Box::new(|path| cx.resolve(path)), models: cx.service(), blueprints }
    }

    pub fn in_run(cx: &'a Context) -> Self {
        let blueprints = cx.service().unwrap_or_default();
        ModelSearch { resolve: Box::new(|path| cx.resolve(path)), models: cx.service().ok(), blueprints }
    }

    /// In the working directory and in `models`, outside any graph.
    fn outside(models: ModelsPath) -> Self {
        let models = Some(Arc::new(models));
        ModelSearch { resolve: Box::new(Path::to_path_buf), models, blueprints: Arc::default() }
    }

    pub fn find(&self, param: &'static str, kind: ModelKind, name: &str) -> Found {
        match hub_of(name) {
            Err(error) => return Found::Nowhere(at(param, error)),
            Ok(Some((hub, reference))) => {
                return match hub.cached(&reference) {
                    Some(path) => Found::Here(path),
                    None if hub.offline => Found::Nowhere(at(param, hub.offline_error(&reference))),
                    None => Found::Elsewhere,
                };
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
        let missing = NodeError::new(param, format!("there is no {} `{name}`", kind.name()));
        if let Some(meant) = HubRef::meant_by(name) {
            let searched =
                if name.contains("://") { String::new() } else { format!("; there is no {}", path.display()) };
            let help = format!("for a model on the Hugging Face hub write `{meant}`{searched}");
            return Found::Nowhere(missing.help(help));
        }
        let builtin = match kind {
            ModelKind::Model => "the built-in models are shapes/gligen and shapes/xl; ",
            ModelKind::Clip => "the built-in CLIP is shapes/clip, which knows coloured shapes only; ",
            ModelKind::Vae | ModelKind::Gligen => "",
        };
        let searched = self.models.as_ref().map(|models| format!("; {}", models.missing(kind, name)));
        let searched = searched.unwrap_or_default();
        Found::Nowhere(missing.help(format!("{builtin}there is no {}{searched}", path.display())))
    }
}

/// Returns the location of the model `name`: a built-in one, or relative to the working directory; downloads it if it is on
/// the hub.
///
/// # Errors
/// If no model has this name, or if it cannot be downloaded.
pub fn bring(
    name: &str,
    models: ModelsPath,
    progress: &mut dyn FnMut(FetchProgress),
) -> Result<ModelLocation, NodeError> {
    if let Some((_, files)) = builtin_models().find(|(builtin, _)| *builtin == name) {
        return Ok(ModelLocation::Files(files.clone()));
    }
    let search = ModelSearch::outside(models);
    let found = ModelKind::ALL.into_iter().map(|kind| search.find("model", kind, name));
    // If nothing is found, report the first miss: that of a whole model.
    let found = found.reduce(|first, next| match (&first, &next) {
        (Found::Nowhere(_), Found::Here(_)) => next,
        _ => first,
    });
    let path = match found {
        Some(Found::Here(path)) => path,
        Some(Found::Nowhere(error)) => return Err(error),
        _ => fetch_model("model", name, true, progress)?,
    };
    Ok(path.into())
}

/// Downloads the model that the parameter `param` names on the hub, and returns its path. If the repository has several
/// variants of the weights, `half` selects those in half precision.
///
/// # Errors
/// If `name` does not refer to the hub, or if the download fails.
fn fetch_model(
    param: &'static str,
    name: &str,
    half: bool,
    progress: &mut dyn FnMut(FetchProgress),
) -> Result<PathBuf, NodeError> {
    let (hub, reference) = on_hub(param, name)?;
    let wanted = |paths: &[String]| hub::model_files(paths, half);
    let mut tell = |p: hub::Progress| {
        progress(FetchProgress { file: p.file, done: p.all_done, of: p.all_size });
        Ok(())
    };
    hub.fetch(&reference, &wanted, &mut tell).map_err(|error| at(param, error))
}

/// Reports the files of the model `name` on the hub that are not on this machine, with their sizes.
fn list_missing(
    param: &'static str,
    name: &str,
    half: bool,
    report: &mut dyn FnMut(FetchProgress),
) -> Result<(), NodeError> {
    let (hub, reference) = on_hub(param, name)?;
    let files = hub.missing_files(&reference, &|paths| hub::model_files(paths, half));
    for (path, size) in files.map_err(|error| at(param, error))? {
        let file = HubRef { file: Some(path), ..reference.clone() }.to_string();
        report(FetchProgress { file: &file, done: 0, of: size });
    }
    Ok(())
}

/// Returns the hub, and what `name` refers to there.
fn on_hub(param: &'static str, name: &str) -> Result<(Hub, HubRef), NodeError> {
    let found = hub_of(name).map_err(|error| at(param, error))?;
    found.ok_or_else(|| NodeError::new(param, format!("`{name}` is not on the hub: write hf:owner/name")))
}

/// Parses a name that refers to the hub, and returns the hub that the environment configures.
fn hub_of(name: &str) -> Result<Option<(Hub, HubRef)>, Error> {
    match HubRef::parse(name)? {
        Some(reference) => Ok(Some((Hub::from_env()?, reference))),
        None => Ok(None),
    }
}

/// Warns that the model `name` of the parameter `param` has to be downloaded.
pub(crate) fn not_downloaded(param: &'static str, name: &str) -> NodeError {
    NodeError::new(param, format!("some files of `{name}` are not on this machine, so they are not checked"))
        .help(format!(
            "a run downloads it first, and checks the graph again; `lsregen fetch {name}` downloads it now, and \
             `lsregen fetch --dry-run {name}` shows how large it is"
        ))
        .as_warning("not-downloaded")
}

/// Converts a library error to the error of a parameter.
pub(crate) fn at(param: &'static str, error: Error) -> NodeError {
    NodeError::new(param, error.to_string())
}

/// Returns the BLAKE3 digest of the names and contents of a built-in model's files, each length-prefixed. Takes about 10 ms
/// for both models.
pub(crate) fn digest(files: &ModelFiles) -> String {
    let mut hasher = blake3::Hasher::new();
    if let ModelFiles::Embedded { files, .. } = files {
        for part in files.iter().flat_map(|(path, bytes)| [path.as_bytes(), bytes]) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    hasher.finalize().to_hex().to_string()
}
