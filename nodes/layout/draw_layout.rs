//! DrawLayout.

use std::sync::Arc;

use lsregen_diffusion::draw;
use lsregen_engine::{CheckContext, Context, Declaration, Links, Node, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::bridge::raise;
use crate::params::defaults;
use crate::values::{Image, ImageInfo, Layout, declared};

/// Draws the boxes of a layout over an image, each in its own colour and with its phrase.
///
/// Lines and letters scale with the image.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrawLayout {
    /// Whether the phrases are drawn too. Leave them out if they would cover many small boxes.
    #[serde(default = "defaults::yes")]
    pub labels: bool,
}

sockets! {
    pub struct DrawLayoutInputs {
        /// The image, or a batch of them.
        pub image: Arc<Image>,
        /// The boxes and phrases.
        pub layout: Arc<Layout>,
    }
}

outputs! {
    pub struct DrawLayoutOutputs {
        /// The image with the boxes.
        pub image: Arc<Image>,
    }
}

impl Node for DrawLayout {
    const TYPE: &'static str = "DrawLayout";
    const VERSION: u32 = 1;

    type Inputs = DrawLayoutInputs;
    type Outputs = DrawLayoutOutputs;

    fn declare(&self, links: &Links, _: &CheckContext) -> Vec<(&'static str, Declaration)> {
        declared("image", Some(ImageInfo::of(links, "image")))
    }

    fn run(&self, inputs: DrawLayoutInputs, _: &Context) -> anyhow::Result<DrawLayoutOutputs> {
        let image = inputs.image.each(|image| {
            let mut image = image.to_rgb().map_err(raise)?.into_owned();
            draw::layout(&mut image, &inputs.layout.0, self.labels);
            Ok(Image::Rgb(image))
        });
        Ok(DrawLayoutOutputs { image: Arc::new(image?) })
    }
}
