//! LoadImage.

use std::path::PathBuf;
use std::sync::Arc;

use lsregen_engine::{CheckContext, Context, Declaration, FileRef, Lane, Links, Node, NodeError, outputs};
use lsregen_tensor::{Error, image};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::bridge::raise;
use crate::values::{Image, ImageInfo, ImageSize, declared};

/// Reads an image from a PNG, JPEG or WebP file.
///
/// Transparent parts are laid over white, and the image is turned upright as its EXIF orientation says.
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
    const VERSION: u32 = 2;
    const LANE: Lane = Lane::Io;

    type Inputs = ();
    type Outputs = LoadImageOutputs;

    fn check(&self, cx: &CheckContext) -> Vec<NodeError> {
        match image::dimensions(&cx.resolve(&self.path)) {
            Ok(_) => vec![],
            // The engine reports every file that cannot be read.
            Err(Error::Io { .. }) => vec![],
            Err(error) => {
                vec![NodeError::new("path", error.to_string()).help("convert it to a PNG, JPEG or WebP file")]
            }
        }
    }

    fn declare(&self, _: &Links, cx: &CheckContext) -> Vec<(&'static str, Declaration)> {
        let size = image::dimensions(&cx.resolve(&self.path)).ok();
        let size = size.map(|(width, height)| ImageSize { width, height });
        declared("image", Some(ImageInfo { size, count: Some(1), ..ImageInfo::default() }))
    }

    fn files(&self, cx: &CheckContext) -> Vec<FileRef> {
        vec![FileRef::new("path", cx.resolve(&self.path))]
    }

    fn run(&self, (): (), cx: &Context) -> anyhow::Result<LoadImageOutputs> {
        let image = image::load(&cx.resolve(&self.path)).map_err(raise)?;
        Ok(LoadImageOutputs { image: Arc::new(Image::Rgb(image)) })
    }
}
