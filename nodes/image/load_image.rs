//! LoadImage.

use std::path::PathBuf;
use std::sync::Arc;

use lsregen_engine::{CheckContext, Context, FileRef, Lane, Node, outputs};
use lsregen_tensor::image;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::bridge::raise;
use crate::values::Image;

/// Reads an image from a PNG, JPEG or WebP file. Transparent parts are laid over white.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadImage {
    /// The file, relative to the graph file.
    pub path: PathBuf,
}

outputs! {
    pub struct LoadImageOutputs {
        /// The image.
        pub image: Arc<Image>,
    }
}

impl Node for LoadImage {
    const TYPE: &'static str = "LoadImage";
    const VERSION: u32 = 1;
    const LANE: Lane = Lane::Io;

    type Inputs = ();
    type Outputs = LoadImageOutputs;

    fn files(&self, cx: &CheckContext) -> Vec<FileRef> {
        vec![FileRef::new("path", cx.resolve(&self.path))]
    }

    fn run(&self, (): (), cx: &Context) -> anyhow::Result<LoadImageOutputs> {
        let picture = image::load(&cx.resolve(&self.path)).map_err(raise)?;
        Ok(LoadImageOutputs { image: Arc::new(Image::from_rgb(&picture).map_err(raise)?) })
    }
}
