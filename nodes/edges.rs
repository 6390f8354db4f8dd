//! Edges.

use std::sync::Arc;

use lsregen_diffusion::guidance::edges::{self, EdgesGuide};
use lsregen_diffusion::guidance::{self, Normalise, Window};
use lsregen_engine::{CheckContext, Context, Links, Node, NodeError, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::acting::{Acting, GuidanceOutputs, Strength};
use crate::options::Distance;
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
    pub distance: Distance,
    /// γ: how strongly. With `normalise: freedom` the share of what classifier-free guidance adds. `auto` follows the size of
    /// each box.
    #[serde(default = "scale")]
    #[schemars(extend("minimum" = 0.0))]
    pub scale: Strength,
    /// How the guidance acts.
    #[serde(flatten)]
    pub acting: Acting,
}

/// What a drawing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Drawing {
    /// A picture whose own edges count.
    #[default]
    Picture,
    /// Dark lines on a light ground.
    DarkLines,
    /// Light lines on a dark ground.
    LightLines,
}

fn distance() -> Distance {
    Distance::L2Mean
}

fn usual() -> guidance::Acting {
    guidance::Acting {
        scale: 1.0,
        window: Window::first(0.5),
        repeats: 3,
        renoise: true,
        normalise: Normalise::Freedom,
        ..guidance::Acting::default()
    }
}

fn scale() -> Strength {
    Strength::Number(usual().scale)
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
        self.acting.faults()
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        self.acting.auto_fault("scale", self.scale, links).into_iter().collect()
    }

    fn run(&self, inputs: EdgesInputs, _: &Context) -> anyhow::Result<GuidanceOutputs> {
        let guide = EdgesGuide {
            picture: inputs.image.0.clone(),
            drawing: match self.drawing {
                Drawing::Picture => edges::Drawing::Picture,
                Drawing::DarkLines => edges::Drawing::DarkLines,
                Drawing::LightLines => edges::Drawing::LightLines,
            },
            metric: self.distance.into(),
            acting: self.acting.told(self.scale, usual(), inputs.layout.as_deref()),
        };
        Ok(GuidanceOutputs::of(guide))
    }
}
