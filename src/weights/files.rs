//! The source of a model's files: a folder, or a table embedded in the program.

use std::borrow::Cow;
use std::path::PathBuf;

use lsregen_files::Kind;

use super::{Checkpoint, Json};
use crate::{Error, Result};

/// The files of one model in diffusers' folder layout (`unet/config.json`, `vae/diffusion_pytorch_model.safetensors`…).
#[derive(Clone, Debug)]
pub enum ModelFiles {
    /// A folder on disk.
    Folder(PathBuf),
    /// A table that is embedded in the program.
    Embedded {
        /// Name of the model in messages, such as `shapes/xl`.
        name: &'static str,
        /// Path inside the model, and content.
        files: &'static [(&'static str, &'static [u8])],
    },
}

/// Embedded files are equal if their names are.
impl PartialEq for ModelFiles {
    fn eq(&self, other: &ModelFiles) -> bool {
        match (self, other) {
            (ModelFiles::Folder(one), ModelFiles::Folder(other)) => one == other,
            (ModelFiles::Embedded { name: one, .. }, ModelFiles::Embedded { name: other, .. }) => one == other,
            _ => false,
        }
    }
}

impl ModelFiles {
    /// The name of a file of this model in messages.
    pub fn label(&self, path: &str) -> String {
        match self {
            ModelFiles::Folder(root) => root.join(path).display().to_string(),
            ModelFiles::Embedded { name, .. } => format!("built-in {name}/{path}"),
        }
    }

    /// Whether the model has this file.
    pub fn has(&self, path: &str) -> bool {
        match self {
            ModelFiles::Folder(root) => root.join(path).is_file(),
            ModelFiles::Embedded { files, .. } => files.iter().any(|(p, _)| *p == path),
        }
    }

    /// Reads a small file.
    ///
    /// # Errors
    /// If there is no such file, or it cannot be read.
    pub fn read(&self, path: &str) -> Result<Cow<'static, [u8]>> {
        match self {
            ModelFiles::Folder(root) => {
                let path = root.join(path);
                lsregen_files::read(&path, Kind::CONFIG).map(Cow::Owned).map_err(Error::io(path))
            }
            ModelFiles::Embedded { files, .. } => files
                .iter()
                .find(|(p, _)| *p == path)
                .map(|(_, bytes)| Cow::Borrowed(*bytes))
                .ok_or_else(|| Error::Weights(format!("{}: no such file", self.label(path)))),
        }
    }

    /// Reads a JSON file.
    ///
    /// # Errors
    /// If there is no such file, or it is malformed. Names the file and the place in it.
    pub fn json(&self, path: &str) -> Result<Json> {
        Json::parse(&self.read(path)?, &self.label(path))
    }

    /// The path of a component's weights inside the model, in the best of the formats that exist.
    ///
    /// # Errors
    /// If there are none.
    pub fn weights(&self, folder: &str, stem: &str) -> Result<String> {
        let names = candidates(folder, stem);
        names.iter().find(|n| self.has(n)).cloned().ok_or_else(|| {
            Error::Weights(format!(
                "{}: no such file, nor its fp16 variant, its shards or PyTorch's .bin; a model folder in diffusers' layout \
                 has its weights there",
                self.label(&names[0])
            ))
        })
    }

    /// Opens the weights file at `path`.
    ///
    /// # Errors
    /// If it does not exist, is corrupt, or has an unsupported format.
    pub fn checkpoint(&self, path: &str) -> Result<Checkpoint> {
        match self {
            ModelFiles::Folder(root) => Checkpoint::open(&root.join(path)),
            ModelFiles::Embedded { files, .. } => {
                let label = self.label(path);
                let bytes = files.iter().find(|(p, _)| *p == path).map(|(_, bytes)| *bytes);
                Checkpoint::embedded(&label, bytes.ok_or_else(|| Error::Weights(format!("{label}: no such file")))?)
            }
        }
    }
}

/// The file names that diffusers and transformers use for the weights of a component: whole, sharded (the index), the
/// `fp16` variant, PyTorch's `.bin`; the best one first.
fn candidates(folder: &str, stem: &str) -> Vec<String> {
    // transformers' pickles have another name.
    let pickle = if stem == "model" { "pytorch_model" } else { stem };
    let names = [
        format!("{stem}.safetensors"),
        format!("{stem}.safetensors.index.json"),
        format!("{stem}.fp16.safetensors"),
        format!("{stem}.safetensors.index.fp16.json"),
        format!("{stem}.fp16.safetensors.index.json"),
        format!("{pickle}.bin"),
        format!("{pickle}.bin.index.json"),
        format!("{pickle}.fp16.bin"),
    ];
    names.into_iter().map(|name| if folder.is_empty() { name } else { format!("{folder}/{name}") }).collect()
}
