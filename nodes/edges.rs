//! Edges.

use std::sync::Arc;

use lsregen_diffusion::guidance::edges::{Drawing, EdgesGuidance};
use lsregen_diffusion::guidance::{GuidanceSettings, Metric, Normalise, Window};
use lsregen_engine::{CheckContext, Context, Links, Node, NodeError, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::guidance_params::{GuidanceOutputs, GuidanceParams, Strength};
use crate::values::{Image, Layout};

/// Draws the edges of the predicted picture to those of a drawing or of another picture.
///
/// Any picture will do, of any size. The gradient goes through the network and the decoder. Unless told otherwise it acts three times in each of
/// the first half of the steps, with fresh noise between, scaled as FreeDoM scales it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct Edges {
    /// What the picture is.
    #[serde(default)]
    pub drawing: Drawing,
    /// By what edges are compared.
    #[serde(default = "distance")]
    pub distance: Metric,
    /// γ: how strongly. With `normalise: freedom` the share of what classifier-free guidance adds. `auto` follows the size of
    /// each box.
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
        /// The drawing.
        pub image: Arc<Image>,
        /// Where the guidance acts: in the boxes of this layout. Everywhere where neither this nor `mask` is given.
        pub layout: Option<Arc<Layout>>,
    }
}

impl Node for Edges {
    const TYPE: &'static str = "Edges";
    const VERSION: u32 = 1;

    type Inputs = EdgesInputs;
    type Outputs = GuidanceOutputs;

    fn check(&self, _: &CheckContext) -> Vec<NodeError> {
        self.params.faults()
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        self.params.auto_fault("scale", self.scale, links).into_iter().collect()
    }

    fn run(&self, inputs: EdgesInputs, _: &Context) -> anyhow::Result<GuidanceOutputs> {
        let spec = EdgesGuidance {
            picture: inputs.image.0.clone(),
            drawing: self.drawing,
            metric: self.distance,
            settings: self.params.resolve(self.scale, defaults(), inputs.layout.as_deref()),
        };
        Ok(GuidanceOutputs::of(spec))
    }
}
