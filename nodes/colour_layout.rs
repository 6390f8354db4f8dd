//! ColourLayout.

use std::sync::Arc;

use lsregen_diffusion::guidance::{ColourLayoutGuidance, GuidanceSettings, Metric, Normalise, Window};
use lsregen_engine::{CheckContext, Context, Links, Node, NodeError, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::boxes;
use crate::guidance_params::{GuidanceOutputs, GuidanceParams, Strength};
use crate::options;
use crate::values::Layout;

/// Draws the mean colour of the predicted picture in each box to a given colour.
///
/// The gradient goes through the network and the decoder. Unless told otherwise it acts three times in each of
/// the first 60 % of the steps, with fresh noise between, scaled as FreeDoM scales it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct ColourLayout {
    /// The boxes and their colours.
    pub colours: Vec<ColouredBox>,
    /// By what colours are compared.
    #[serde(default)]
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

/// A colour in a box.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct ColouredBox {
    /// The colour, as `"#rrggbb"`.
    pub colour: String,
    /// `[x0, y0, x1, y1]`: left, upper, right and lower side as fractions of the picture, origin top left.
    #[serde(rename = "box")]
    pub bounds: [f64; 4],
}

fn defaults() -> GuidanceSettings {
    GuidanceSettings {
        scale: 0.6,
        window: Window::first(0.6),
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
    pub struct ColourLayoutInputs {
        /// Where the guidance acts: in the boxes of this layout. Everywhere where neither this nor `mask` is given.
        pub layout: Option<Arc<Layout>>,
    }
}

impl Node for ColourLayout {
    const TYPE: &'static str = "ColourLayout";
    const VERSION: u32 = 1;

    type Inputs = ColourLayoutInputs;
    type Outputs = GuidanceOutputs;

    fn check(&self, _: &CheckContext) -> Vec<NodeError> {
        let mut faults = self.params.faults();
        if self.colours.is_empty() {
            faults.push(NodeError::new("colours", "there is no box").help("give at least one colour and its box"));
        }
        for (i, entry) in self.colours.iter().enumerate() {
            faults.extend(boxes::fault(format!("colours/{i}/box"), &entry.bounds));
            faults.extend(options::colour_fault(format!("colours/{i}/colour"), &entry.colour));
        }
        faults
    }

    fn check_links(&self, links: &Links) -> Vec<NodeError> {
        self.params.auto_fault("scale", self.scale, links).into_iter().collect()
    }

    fn run(&self, inputs: ColourLayoutInputs, _: &Context) -> anyhow::Result<GuidanceOutputs> {
        let colour = |c: &ColouredBox| Ok((c.bounds.map(|v| v as f32), options::colour(&c.colour)?));
        let spec = ColourLayoutGuidance {
            colours: self.colours.iter().map(colour).collect::<anyhow::Result<_>>()?,
            metric: self.distance,
            settings: self.params.resolve(self.scale, defaults(), inputs.layout.as_deref()),
        };
        Ok(GuidanceOutputs::of(spec))
    }
}
