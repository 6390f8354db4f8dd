//! SaveImage.

use std::path::PathBuf;
use std::sync::Arc;

use lsregen_engine::{CheckContext, Context, Effect, FileRef, Lane, Node, NodeError, outputs, sockets};
use lsregen_tensor::image;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::bridge::raise;
use crate::host::metadata::{self, Metadata};
use crate::host::write;
use crate::values::{Image, SavedFile};

/// Writes an image as a PNG file with 8 bits per channel. An existing file is replaced.
///
/// The file contains the graph that made it, so that `lsregen run` and `lsregen show` accept the PNG file itself. With
/// `--no-metadata` it contains only pixels.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SaveImage {
    /// The file, ending in `.png`, relative to the working directory or to `--output-dir`. Missing folders are created.
    pub path: PathBuf,
}

sockets! {
    pub struct SaveImageInputs {
        /// The image.
        pub image: Arc<Image>,
    }
}

outputs! {
    pub struct SaveImageOutputs {
        /// The written file.
        pub file: Arc<SavedFile>,
    }
}

impl Node for SaveImage {
    const TYPE: &'static str = "SaveImage";
    const VERSION: u32 = 1;
    const LANE: Lane = Lane::Io;
    const OUTPUT: bool = true;

    type Inputs = SaveImageInputs;
    type Outputs = SaveImageOutputs;

    fn check(&self, cx: &CheckContext) -> Vec<NodeError> {
        write::errors(&self.path, "png", cx)
    }

    fn writes(&self, cx: &CheckContext) -> Vec<FileRef> {
        vec![FileRef::new("path", cx.output_path(&self.path))]
    }

    fn effect(&self, outputs: &SaveImageOutputs, cx: &Context) -> Effect {
        let png = &outputs.file.0;
        // The file was written with the other setting of metadata.
        if metadata::is_carried(png) != Metadata::wanted(cx) {
            return Effect::Gone;
        }
        if write::is_intact(&self.path, png, cx) { Effect::Intact } else { Effect::Restorable }
    }

    fn restore(&self, outputs: &SaveImageOutputs, cx: &Context) -> anyhow::Result<()> {
        write::write(&self.path, &outputs.file.0, cx)
    }

    fn run(&self, inputs: SaveImageInputs, cx: &Context) -> anyhow::Result<SaveImageOutputs> {
        cx.cancel().check()?;
        let picture = inputs.image.to_rgb().map_err(raise)?;
        let png = image::png(&picture, &metadata::texts(cx)).map_err(raise)?;
        write::write(&self.path, &png, cx)?;
        Ok(SaveImageOutputs { file: Arc::new(SavedFile(png.into())) })
    }
}
