//! Edges.

use std::sync::Arc;

use lsregen_diffusion::guidance::edges::{Drawing, EdgesGuidance};
use lsregen_diffusion::guidance::{GuidanceSettings, Metric, Normalise, Window};
use lsregen_engine::{Context, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::as_node::GuidanceNode;
use crate::params::guidance::{GuidanceParams, Strength};
use crate::values::{Guidance, Image, Layout};

/// Guides the sampling towards the edges of a drawing or of another image.
///
/// The image may have any size. The gradient goes through the network and the decoder. By default the guidance acts three
/// times in each of the first half of the steps, with fresh noise between, normalised as in FreeDoM.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct Edges {
    /// How the edges of the image are read.
    #[serde(default)]
    pub drawing: Drawing,
    /// The distance between the two edge maps.
    #[serde(default = "distance")]
    pub distance: Metric,
    /// γ, the strength. With `normalise: freedom` it is a share of classifier-free guidance's correction. `auto` follows the size
    /// of each box.
    #[serde(default = "scale")]
    #[schemars(extend("minimum" = 0.0))]
    pub scale: Strength,
    /// How the guidance acts.
    #[serde(flatten)]
    pub params: GuidanceParams,
}

fn distance() -> Metric {
    Metric::L2Mean
}

fn defaults() -> GuidanceSettings {
    GuidanceSettings {
        scale: 1.0,
        window: Window::first(0.5),
        repeats: 3,
        renoise: true,
        normalise: Normalise::Freedom,
        ..GuidanceSettings::default()
    }
}

fn scale() -> Strength {
    Strength::Number(defaults().scale)
}

sockets! {
    pub struct EdgesInputs {
        /// The drawing, or the image.
        pub image: Arc<Image>,
        /// Where the guidance acts: in the boxes of this layout. Without `layout` and `mask` it acts everywhere.
        pub layout: Option<Arc<Layout>>,
    }
}

impl GuidanceNode for Edges {
    const TYPE: &'static str = "Edges";
    const VERSION: u32 = 1;

    type Inputs = EdgesInputs;

    fn strength(&self) -> Strength {
        self.scale
    }

    fn params(&self) -> &GuidanceParams {
        &self.params
    }

    fn guidance(&self, inputs: EdgesInputs, _: &Context) -> anyhow::Result<Guidance> {
        Ok(Guidance::new(EdgesGuidance {
            picture: inputs.image.tensor()?,
            drawing: self.drawing,
            metric: self.distance,
            settings: self.params.resolve(self.scale, defaults(), inputs.layout.as_deref()),
        }))
    }
}
