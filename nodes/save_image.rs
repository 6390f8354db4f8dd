//! SaveImage.

use std::path::PathBuf;
use std::sync::Arc;

use lsregen_engine::{CheckContext, Context, Effect, FileRef, Lane, Node, NodeError, outputs, sockets};
use lsregen_tensor::image;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bridge::raise;
use crate::metadata::{self, Metadata};
use crate::values::{Image, SavedFile};
use crate::write;

/// Writes a picture as a PNG file, 8 bits a channel. A file that is there already is replaced.
///
/// The file carries the graph that made it, so that `lsregen run` and `lsregen show` take the picture itself; with
/// `--no-metadata` it carries pixels alone.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SaveImage {
    /// The file, ending in `.png`, relative to the working directory or to `--output-dir`. Its folders are made.
    pub path: PathBuf,
}

sockets! {
    pub struct SaveImageInputs {
        /// The picture.
        pub image: Arc<Image>,
    }
}

outputs! {
    pub struct SaveImageOutputs {
        /// The file that was written.
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
        write::faults(&self.path, "png", cx)
    }

    fn writes(&self, cx: &CheckContext) -> Vec<FileRef> {
        vec![FileRef::new("path", cx.output_path(&self.path))]
    }

    fn effect(&self, outputs: &SaveImageOutputs, cx: &Context) -> Effect {
        let png = &outputs.file.0;
        // The file of a run that wanted it otherwise: with its graph, or without.
        if metadata::is_carried(png) != Metadata::wanted(cx) {
            return Effect::Gone;
        }
        if write::stands(&self.path, png, cx) { Effect::Intact } else { Effect::Restorable }
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
