//! ColourLayout.

use std::sync::Arc;

use lsregen_diffusion::guidance::{ColourLayoutGuidance, GuidanceSettings, Metric, Normalise, Window};
use lsregen_engine::{CheckContext, Context, Links, NodeError, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::as_node::GuidanceNode;
use crate::params::guidance::{GuidanceParams, Strength};
use crate::params::{boxes, colour};
use crate::values::{Guidance, Layout, SamplingNeeds};

/// Guides the sampling towards a given mean colour in each box.
///
/// The gradient goes through the network and the decoder. By default the guidance acts three times in each of the first
/// 60 % of the steps, with fresh noise between, normalised as in FreeDoM.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct ColourLayout {
    /// The boxes and their colours.
    pub colours: Vec<ColouredBox>,
    /// The distance between the two colours.
    #[serde(default)]
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

/// A colour in a box.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct ColouredBox {
    /// The colour, as `"#rrggbb"`.
    pub colour: String,
    /// `[x0, y0, x1, y1]`: the left, upper, right and lower side, as fractions of the image with the origin at the top left.
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
        /// Where the guidance acts: in the boxes of this layout. Without `layout` and `mask` it acts everywhere.
        pub layout: Option<Arc<Layout>>,
    }
}

impl GuidanceNode for ColourLayout {
    const TYPE: &'static str = "ColourLayout";
    const VERSION: u32 = 1;

    type Inputs = ColourLayoutInputs;

    fn strength(&self) -> Strength {
        self.scale
    }

    fn params(&self) -> &GuidanceParams {
        &self.params
    }

    fn check(&self, _: &CheckContext) -> Vec<NodeError> {
        let mut errors = vec![];
        if self.colours.is_empty() {
            errors.push(NodeError::new("colours", "`colours` is empty").help("give at least one colour and its box"));
        }
        for (i, entry) in self.colours.iter().enumerate() {
            errors.extend(boxes::error(format!("colours/{i}/box"), &entry.bounds));
            errors.extend(colour::error(format!("colours/{i}/colour"), &entry.colour));
        }
        errors
    }

    fn needs(&self, _: &Links) -> SamplingNeeds {
        let boxes = self.colours.iter().filter_map(|colour| boxes::inside(&colour.bounds).ok());
        SamplingNeeds { boxes: boxes.collect(), ..SamplingNeeds::default() }
    }

    fn guidance(&self, inputs: ColourLayoutInputs, _: &Context) -> anyhow::Result<Guidance> {
        let colour = |c: &ColouredBox| Ok((boxes::inside(&c.bounds)?, colour::parse(&c.colour)?));
        Ok(Guidance::new(ColourLayoutGuidance {
            colours: self.colours.iter().map(colour).collect::<anyhow::Result<_>>()?,
            metric: self.distance,
            settings: self.params.resolve(self.scale, defaults(), inputs.layout.as_deref()),
        }))
    }
}
