//! The folders in which models are searched by name.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;
use lsregen_files::Kind;
use lsregen_nodes::search::{ModelKind, ModelsPath};
use serde_yaml::Value as Yaml;

use crate::cli::{Exit, usage};

/// Folders of models.
#[derive(Args)]
pub struct ModelArgs {
    /// Search models in this folder first: a folder of models, ComfyUI's `models`, or an installation of ComfyUI or of
    /// A1111's web UI. May be repeated. LSREGEN_MODELS_DIR names more folders, separated as in PATH
    #[arg(long, value_name = "DIR")]
    models_dir: Vec<PathBuf>,
}

impl ModelArgs {
    /// The search path: the folders of `--models-dir`, those of LSREGEN_MODELS_DIR, `models` beside the graph, and
    /// `models` in the working directory.
    ///
    /// # Errors
    /// When a named folder does not exist, or an `extra_model_paths.yaml` is malformed.
    pub fn path(&self, graph_folder: &Path) -> Result<ModelsPath, Exit> {
        if let Some(none) = self.models_dir.iter().find(|folder| !folder.is_dir()) {
            return Err(usage(format!("--models-dir: `{}` is not a folder", none.display())));
        }
        let variable = std::env::var_os("LSREGEN_MODELS_DIR").unwrap_or_default();
        let variable = std::env::split_paths(&variable).filter(|path| !path.as_os_str().is_empty());
        let defaults = [graph_folder.join("models"), "models".into()];
        let mut seen = HashSet::new();
        let new = |root: &PathBuf| seen.insert(fs::canonicalize(root).unwrap_or(root.clone()));
        let named = self.models_dir.iter().cloned().chain(variable);
        let mut path = ModelsPath::new(named.chain(defaults).filter(new));
        for root in &path.roots {
            path.folders.extend(extra(root)?);
        }
        Ok(path)
    }
}

/// Reads the folders that ComfyUI's `extra_model_paths.yaml` adds, each relative to the `base_path` of its section.
fn extra(root: &Path) -> Result<Vec<(ModelKind, PathBuf)>, Exit> {
    let path = root.join("extra_model_paths.yaml");
    let text = match lsregen_files::read_text(&path, Kind::SETTINGS) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(usage(format!("{}: {error}", path.display()))),
    };
    let sections: BTreeMap<String, Option<BTreeMap<String, Yaml>>> =
        serde_yaml::from_str(&text).map_err(|error| usage(format!("{}: {error}", path.display())))?;
    let mut folders = Vec::new();
    for section in sections.into_values().flatten() {
        let text = |key: &str| section.get(key).and_then(Yaml::as_str);
        let base = text("base_path").map_or(root.to_path_buf(), |base| match base.strip_prefix("~/") {
            Some(rest) => std::env::home_dir().unwrap_or_default().join(rest),
            None => root.join(base),
        });
        for (key, value) in &section {
            let Some(kind) = ModelKind::kept_in(key) else { continue };
            // One folder a line.
            let lines = value.as_str().unwrap_or_default().lines().map(str::trim).filter(|line| !line.is_empty());
            folders.extend(lines.map(|line| (kind, base.join(line))));
        }
    }
    Ok(folders)
}
