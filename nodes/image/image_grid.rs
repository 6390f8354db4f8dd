//! ImageGrid.

use std::sync::Arc;

use lsregen_diffusion::draw;
use lsregen_engine::{CheckContext, Context, Declaration, LinkedNode, Links, Node, NodeError, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::bridge::raise;
use crate::values::{Image, ImageInfo, declared};

/// Arranges images on a labelled contact sheet.
///
/// Each image is fitted into its cell, whatever its size. Each image of a batch has a cell.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageGrid {
    /// One text for each image, in the order of `images`, drawn below it, and one for each image of a batch. By default there
    /// are no labels.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Images in a row. By default all of them, but at most 4; batches of one length, up to 16, have a row each.
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

/// Returns the images in a row, if there are so many in each of the linked values.
fn default_columns(counts: &[usize]) -> usize {
    match counts {
        [first @ 2..=16, rest @ ..] if rest.iter().all(|count| count == first) => *first,
        _ => counts.iter().sum::<usize>().min(4),
    }
}

sockets! {
    pub struct ImageGridInputs {
        /// The images, or batches of them.
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

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        let count = |link: &LinkedNode| {
            let info = link.declaration?.downcast_ref::<ImageInfo>()?;
            Some(info.count? as usize)
        };
        let counts: Vec<_> = links.of("images").map(count).collect();
        let (images, labels) = (counts.iter().map(|count| count.unwrap_or(1)).sum::<usize>(), self.labels.len());
        // What does not say how many images it has may be a batch.
        let fit = labels == images || labels > images && counts.contains(&None);
        let error = if !links.has("images") {
            NodeError::new("images", "`images` is empty").help("link at least one image")
        } else if labels > 0 && !fit {
            NodeError::new("labels", format!("{labels} labels do not fit {images} images"))
                .help("give one for each image, or none")
        } else {
            return vec![];
        };
        vec![error]
    }

    fn declare(&self, _: &Links, _: &CheckContext) -> Vec<(&'static str, Declaration)> {
        declared("image", Some(ImageInfo { count: Some(1), ..ImageInfo::default() }))
    }

    fn run(&self, inputs: ImageGridInputs, _: &Context) -> anyhow::Result<ImageGridOutputs> {
        anyhow::ensure!(!inputs.images.is_empty(), "`images` is empty: link at least one image");
        let images = inputs.images.iter().flat_map(|image| image.images());
        let pictures = images.map(Image::to_rgb).collect::<Result<Vec<_>, _>>().map_err(raise)?;
        let counts: Vec<_> = inputs.images.iter().map(|image| image.count()).collect();
        let columns = self.columns.map_or(default_columns(&counts), |n| n as usize);
        let sheet = draw::contact_sheet(&pictures, &self.labels, columns, self.cell).map_err(raise)?;
        Ok(ImageGridOutputs { image: Arc::new(Image::Rgb(sheet)) })
    }
}
