//! Perturbed-attention guidance (PAG; Ahn et al., "Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance"): its
//! settings, and the names of the layers.

use std::fmt;
use std::str::FromStr;

use crate::models::unet::{AttentionLayer, UNetBlock};
use crate::{Error, Result};

/// How perturbed-attention guidance acts: the prediction gets s (ε_c − ε_p) more, where ε_p is the conditional prediction with
/// the identity for the self-attention of some layers.
#[derive(Clone, Debug, PartialEq)]
pub struct PerturbedAttention {
    /// s.
    pub scale: f64,
    /// a, by which the scale falls with t: max(0, s − a (1000 − t)); 0 keeps it constant.
    pub adaptive_scale: f64,
    /// The layers.
    pub layers: Vec<LayerName>,
}

impl PerturbedAttention {
    /// Returns the scale at the timestep t, if there is such guidance.
    pub fn scale_at(&self, t: f64) -> Option<f64> {
        let fallen = if self.adaptive_scale > 0.0 { self.adaptive_scale * (1000.0 - t) } else { 0.0 };
        Some(self.scale - fallen).filter(|scale| *scale > 0.0)
    }

    /// Selects its layers from those of a network.
    ///
    /// # Errors
    /// If a name means none of them.
    pub fn of(&self, all: &[AttentionLayer]) -> Result<Vec<AttentionLayer>> {
        if let Some(absent) = self.layers.iter().find(|name| !name.is_in(all)) {
            let has = LayerName::list(all);
            return Err(Error::input(format!("this model has no self-attention in `{absent}`, but in {has}")));
        }
        Ok(all.iter().filter(|layer| self.layers.iter().any(|name| name.means(layer))).copied().collect())
    }
}

/// The most names in a message: all of Stable Diffusion's.
const LISTED: usize = 24;

/// A kind of block of a U-Net.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Down,
    Mid,
    Up,
}

/// The name of attention layers of a U-Net, as long as needed: `up_blocks.0.attentions.1.transformer_blocks.2`, as in diffusers'
/// modules, or its first parts. `down`, `mid` and `up` are all such blocks. Parses the former notation of diffusers as well,
/// `up.block_0.attentions_1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerName {
    way: Way,
    block: Option<usize>,
    transformer: Option<usize>,
    layer: Option<usize>,
}

impl LayerName {
    /// Returns whether the name is that of the layer, or of a part that contains it.
    pub fn means(&self, of: &AttentionLayer) -> bool {
        let (way, block) = match of.unet_block {
            UNetBlock::Down(n) => (Way::Down, n),
            UNetBlock::Mid => (Way::Mid, 0),
            UNetBlock::Up(n) => (Way::Up, n),
        };
        let is = |given: Option<usize>, own: usize| given.is_none_or(|given| given == own);
        self.way == way && is(self.block, block) && is(self.transformer, of.transformer) && is(self.layer, of.block)
    }

    /// Returns whether it means any of the layers of a network.
    pub fn is_in(&self, all: &[AttentionLayer]) -> bool {
        all.iter().any(|layer| self.means(layer))
    }

    /// Returns the names of a network with these layers, except those of single layers of a transformer.
    pub fn all(all: &[AttentionLayer]) -> Vec<LayerName> {
        let mut names = vec![];
        let mut last = None;
        for layer in all {
            if last.replace((layer.unet_block, layer.transformer)) == Some((layer.unet_block, layer.transformer)) {
                continue;
            }
            let (way, block) = match layer.unet_block {
                UNetBlock::Down(n) => (Way::Down, Some(n)),
                UNetBlock::Mid => (Way::Mid, None),
                UNetBlock::Up(n) => (Way::Up, Some(n)),
            };
            let whole = LayerName { way, block: None, transformer: None, layer: None };
            let named = LayerName { block, ..whole };
            let transformer = LayerName { transformer: Some(layer.transformer), ..named };
            for name in [whole, named, transformer] {
                // The middle block has one transformer.
                let is_new = !names.contains(&name) && (way != Way::Mid || name == whole);
                names.extend(is_new.then_some(name));
            }
        }
        names
    }

    /// Returns [`LayerName::all`] for a message, at most 24 of them.
    pub fn list(all: &[AttentionLayer]) -> String {
        let names = LayerName::all(all);
        let more = names.len().saturating_sub(LISTED);
        let listed = names.iter().take(LISTED).map(LayerName::to_string).collect::<Vec<_>>().join(", ");
        match (names.is_empty(), more) {
            (true, _) => "no layer".into(),
            (_, 0) => listed,
            _ => format!("{listed} and {more} more"),
        }
    }
}

impl fmt::Display for LayerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (short, long) = match self.way {
            Way::Down => ("down", "down_blocks"),
            Way::Mid => ("mid", "mid_block"),
            Way::Up => ("up", "up_blocks"),
        };
        match (self.way, self.block, self.transformer) {
            (Way::Mid, _, Some(_)) => write!(f, "{long}")?,
            (_, Some(n), _) if self.way != Way::Mid => write!(f, "{long}.{n}")?,
            _ => write!(f, "{short}")?,
        }
        for (part, number) in [("attentions", self.transformer), ("transformer_blocks", self.layer)] {
            if let Some(number) = number {
                write!(f, ".{part}.{number}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for LayerName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parsed(text).ok_or_else(|| {
            Error::input(format!(
                "`{text:.80}` is not the name of attention layers, such as `mid`, `down`, `up_blocks.0` or \
                 `up_blocks.0.attentions.1`"
            ))
        })
    }
}

/// Parses a name.
fn parsed(text: &str) -> Option<LayerName> {
    let number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<usize>().ok())?;
    let mut parts = text.split('.').peekable();
    let way = match parts.next()? {
        "down" | "down_blocks" => Way::Down,
        "mid" | "mid_block" => Way::Mid,
        "up" | "up_blocks" => Way::Up,
        _ => return None,
    };
    let mut numbers = [None; 3];
    // The number of a block is a part of its own, or follows `block_`.
    if let Some(n) = parts.peek().and_then(|part| number(part.strip_prefix("block_").unwrap_or(part))) {
        numbers[0] = Some(n);
        parts.next();
    }
    for (i, name) in ["attentions", "transformer_blocks"].into_iter().enumerate() {
        let Some(part) = parts.next() else { break };
        let digits = part.strip_prefix(name)?;
        let digits = if digits.is_empty() { parts.next()? } else { digits.strip_prefix('_')? };
        numbers[i + 1] = Some(number(digits)?);
    }
    let [block, transformer, layer] = numbers;
    // A transformer belongs to one block, and the middle block has no number.
    let is_whole = way == Way::Mid || transformer.is_none() || block.is_some();
    (parts.next().is_none() && is_whole).then_some(LayerName { way, block, transformer, layer })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers() -> Vec<AttentionLayer> {
        let at = |unet_block, transformer, block| AttentionLayer { unet_block, transformer, block, downscale: 1 };
        vec![
            at(UNetBlock::Down(1), 0, 0),
            at(UNetBlock::Down(1), 1, 0),
            at(UNetBlock::Down(10), 0, 0),
            at(UNetBlock::Mid, 0, 0),
            at(UNetBlock::Mid, 0, 1),
            at(UNetBlock::Up(0), 0, 0),
        ]
    }

    #[test]
    fn names_mean_layers() {
        for (name, meant) in [
            ("down", &[0, 1, 2][..]),
            ("down_blocks.1", &[0, 1]),
            ("down.block_1", &[0, 1]),
            ("down.block_1.attentions_1", &[1]),
            ("down_blocks.1.attentions.1", &[1]),
            ("mid", &[3, 4]),
            ("mid_block", &[3, 4]),
            ("mid.block_0.attentions_0", &[3, 4]),
            ("mid_block.attentions.0.transformer_blocks.1", &[4]),
            ("up_blocks.0.attentions.0.transformer_blocks.0", &[5]),
            ("up_blocks.1", &[]),
        ] {
            let parsed: LayerName = name.parse().unwrap();
            let found: Vec<_> = (0..6).filter(|i| parsed.means(&layers()[*i])).collect();
            assert_eq!(found, meant, "{name}");
            assert_eq!(parsed.is_in(&layers()), !meant.is_empty());
            assert_eq!(parsed.to_string().parse::<LayerName>().unwrap().to_string(), parsed.to_string());
        }
        for wrong in [
            "",
            "left",
            "down.",
            "down..1",
            "down.x",
            "down.block_",
            "down.block_x",
            "down_blocks.1.attentions",
            "down.1.2",
            "down_blocks.attentions.1",
            "mid.attentions.0.transformer_blocks.0.attn1",
            "up_blocks.1.attentions_+1",
            "Mid",
        ] {
            assert!(wrong.parse::<LayerName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_of_a_network_are_listed() {
        let names: Vec<_> = LayerName::all(&layers()).iter().map(LayerName::to_string).collect();
        let all = "down down_blocks.1 down_blocks.1.attentions.0 down_blocks.1.attentions.1 down_blocks.10 \
                   down_blocks.10.attentions.0 mid up up_blocks.0 up_blocks.0.attentions.0";
        assert_eq!(names.join(" "), all);
        assert!(names.iter().all(|name| name.parse::<LayerName>().unwrap().is_in(&layers())));
        let guidance =
            |name: &str| PerturbedAttention { scale: 3.0, adaptive_scale: 0.0, layers: vec![name.parse().unwrap()] };
        assert_eq!(guidance("mid").of(&layers()).unwrap(), layers()[3..5]);
        let error = guidance("up.block_1").of(&layers()).unwrap_err().to_string();
        assert!(error.contains("no self-attention in `up_blocks.1`, but in down, down_blocks.1"), "{error}");
    }

    #[test]
    fn the_adaptive_scale_falls_with_the_timestep() {
        let guidance = |adaptive_scale| PerturbedAttention { scale: 3.0, adaptive_scale, layers: vec![] };
        assert_eq!(guidance(0.0).scale_at(1.0), Some(3.0));
        assert_eq!(guidance(0.004).scale_at(500.0), Some(1.0));
        assert_eq!(guidance(0.004).scale_at(250.0), None);
        assert_eq!(PerturbedAttention { scale: 0.0, ..guidance(0.0) }.scale_at(999.0), None);
    }
}
