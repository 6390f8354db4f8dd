//! ImageGrid.

use std::sync::Arc;

use lsregen_diffusion::draw;
use lsregen_engine::{Context, Node, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::bridge::raise;
use crate::values::Image;

/// Arranges images on a labelled contact sheet.
///
/// Each image is fitted into its cell, whatever its size.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageGrid {
    /// One text for each image, in the order of `images`, drawn below it. By default there are no labels.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Images in a row. By default all of them, but at most 4.
    #[serde(default)]
    #[schemars(range(min = 1, max = 16))]
    pub columns: Option<u32>,
    /// Width of a cell in pixels. Its height is that of the tallest image at this width.
    #[serde(default = "cell")]
    #[schemars(range(min = 16, max = 2048))]
    pub cell: u32,
}

fn cell() -> u32 {
    256
}

sockets! {
    pub struct ImageGridInputs {
        /// The images.
        pub images: Vec<Arc<Image>>,
    }
}

outputs! {
    pub struct ImageGridOutputs {
        /// The sheet.
        pub image: Arc<Image>,
    }
}

impl Node for ImageGrid {
    const TYPE: &'static str = "ImageGrid";
    const VERSION: u32 = 1;

    type Inputs = ImageGridInputs;
    type Outputs = ImageGridOutputs;

    fn run(&self, inputs: ImageGridInputs, _: &Context) -> anyhow::Result<ImageGridOutputs> {
        anyhow::ensure!(!inputs.images.is_empty(), "`images` is empty: link at least one image");
        let pictures =
            inputs.images.iter().map(|image| image.to_rgb()).collect::<Result<Vec<_>, _>>().map_err(raise)?;
        let columns = self.columns.map_or(pictures.len().min(4), |n| n as usize);
        let sheet = draw::contact_sheet(&pictures, &self.labels, columns, self.cell).map_err(raise)?;
        Ok(ImageGridOutputs { image: Arc::new(Image::Rgb(sheet)) })
    }
}
