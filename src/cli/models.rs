//! `lsregen models`: the models that a graph can name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use clap::Args;
use lsregen_nodes::builtin_models;
use lsregen_nodes::search::ModelKind;

use super::args::ModelArgs;
use super::{Exit, terminal};

/// List the models that a graph can name, with their sizes and paths
#[derive(Args)]
#[command(after_help = "Examples:
  lsregen models
  lsregen models --models-dir ~/ComfyUI/models")]
pub struct Models {
    #[command(flatten)]
    models: ModelArgs,
}

impl Models {
    pub fn main(self) -> Result<Exit, Exit> {
        let path = self.models.path(Path::new(""))?;
        let mut found: BTreeMap<(String, PathBuf), Vec<&str>> = BTreeMap::new();
        for kind in ModelKind::ALL {
            for entry in path.entries(kind) {
                found.entry(entry).or_default().push(kind.name());
            }
        }
        let builtin = builtin_models().map(|(name, files)| {
            let kind = if name == "shapes/clip" { "CLIP" } else { "model" };
            [name.into(), kind.into(), ByteSize(files.embedded_size()).to_string(), "built in".into()]
        });
        let found_here = found.iter().map(|((name, place), kinds)| {
            // A folder that is not sorted by kind may contain models of any kind.
            let kind = if kinds.len() == ModelKind::FILES.len() { "any".into() } else { kinds.join("/") };
            [name.clone(), kind, ByteSize(size(place, 0)).to_string(), place.display().to_string()]
        });
        let rows: Vec<[String; 4]> = builtin.chain(found_here).collect();
        let width = rows.iter().map(|[name, ..]| name.chars().count()).max().unwrap_or(0);
        for [name, kind, size, place] in rows {
            terminal::print(&format!("{name:width$}  {kind:6}  {size:>10}  {place}\n"));
        }
        if found.is_empty() {
            let roots: Vec<_> = path.roots.iter().map(|root| format!("  {}\n", root.display())).collect();
            terminal::say(&format!(
                "there are no other models in\n{}name a folder of models with --models-dir\n",
                roots.concat()
            ));
        }
        Ok(Exit::Done)
    }
}

/// Bytes of a file, or of all files of a model's folder, at most four levels deep. Symbolic links are followed.
fn size(path: &Path, depth: usize) -> u64 {
    match fs::metadata(path) {
        Ok(file) if file.is_file() => file.len(),
        Ok(folder) if folder.is_dir() && depth < 4 => {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| size(&entry.path(), depth + 1)).sum()
        }
        _ => 0,
    }
}
