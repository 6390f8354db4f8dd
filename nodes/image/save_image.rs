//! SaveImage.

use std::path::PathBuf;
use std::sync::Arc;

use lsregen_engine::{CheckContext, Context, Effect, FileRef, Lane, Node, NodeError, outputs, sockets};
use lsregen_files::Kind;
use lsregen_tensor::image;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::bridge::raise;
use crate::host::metadata::{self, Metadata};
use crate::host::write::{OutputFile, OutputFormat};
use crate::values::{Image, SavedFile};

/// Writes an image as a PNG file with 8 bits per channel. A file that another program wrote is replaced only with
/// `--overwrite`.
///
/// The file contains the graph that made it, so that `lsregen run` and `lsregen show` accept the PNG file itself. With
/// `--no-metadata` it contains only pixels.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SaveImage {
    /// The file, ending in `.png`, below the working directory or `--output-dir`. Missing folders are created. `{counter}`
    /// stands for the next number, one more than the greatest in the folder, so that no file is replaced, `{date}` for the
    /// day, and `{name}` for the value of any of the file's `params`, as in `{seed}`.
    #[schemars(extend("x-role" = "output"))]
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

impl SaveImage {
    fn file(&self) -> OutputFile<'_> {
        OutputFile {
            path: &self.path,
            format: OutputFormat { extension: "png", kind: Kind::IMAGE, is_own: metadata::is_carried },
        }
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
        self.file().errors(cx)
    }

    fn writes(&self, cx: &CheckContext) -> Vec<FileRef> {
        self.file().writes(cx)
    }

    fn obstacle(&self, cx: &CheckContext) -> Option<NodeError> {
        self.file().obstacle(cx)
    }

    fn effect(&self, outputs: &SaveImageOutputs, cx: &Context) -> Effect {
        let png = &outputs.file.0;
        // The file was written with the other setting of metadata.
        if metadata::is_carried(png) != Metadata::wanted(cx) {
            return Effect::Gone;
        }
        self.file().effect(png, cx)
    }

    fn restore(&self, outputs: &SaveImageOutputs, cx: &Context) -> anyhow::Result<()> {
        self.file().write(&outputs.file.0, cx)
    }

    fn run(&self, inputs: SaveImageInputs, cx: &Context) -> anyhow::Result<SaveImageOutputs> {
        cx.cancel().check()?;
        let picture = inputs.image.to_rgb().map_err(raise)?;
        let png = image::png(&picture, &metadata::texts(cx)).map_err(raise)?;
        self.file().write(&png, cx)?;
        Ok(SaveImageOutputs { file: Arc::new(SavedFile(png.into())) })
    }
}
