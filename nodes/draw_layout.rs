//! DrawLayout.

use std::sync::Arc;

use lsregen_diffusion::draw;
use lsregen_engine::{Context, Node, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bridge::raise;
use crate::defaults;
use crate::values::{Image, Layout};

/// Draws a layout's boxes over a picture, each in its own colour, with its phrase.
///
/// Lines and letters grow with the picture.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrawLayout {
    /// Whether the phrases are written too. Leave them out where many small boxes would be covered.
    #[serde(default = "defaults::yes")]
    pub labels: bool,
}

sockets! {
    pub struct DrawLayoutInputs {
        /// The picture.
        pub image: Arc<Image>,
        /// The boxes and phrases.
        pub layout: Arc<Layout>,
    }
}

outputs! {
    pub struct DrawLayoutOutputs {
        /// The picture with the boxes.
        pub image: Arc<Image>,
    }
}

impl Node for DrawLayout {
    const TYPE: &'static str = "DrawLayout";
    const VERSION: u32 = 1;

    type Inputs = DrawLayoutInputs;
    type Outputs = DrawLayoutOutputs;

    fn run(&self, inputs: DrawLayoutInputs, _: &Context) -> anyhow::Result<DrawLayoutOutputs> {
        let mut picture = inputs.image.to_rgb().map_err(raise)?;
        draw::layout(&mut picture, &inputs.layout.0, self.labels);
        Ok(DrawLayoutOutputs { image: Arc::new(Image::from_rgb(&picture).map_err(raise)?) })
    }
}
