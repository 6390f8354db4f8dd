//! The families of models.

/// A family of models, recognised by the configuration of the U-Net.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Stable Diffusion 1.x: one text encoder.
    Sd1,
    /// Stable Diffusion 1.x with GLIGEN's grounding.
    Gligen,
    /// SDXL: two text encoders, pooled text and sizes.
    Sdxl,
}

impl Family {
    /// The short name in messages: `sd1`, `gligen`, `sdxl`.
    pub fn name(self) -> &'static str {
        match self {
            Family::Sd1 => "sd1",
            Family::Gligen => "gligen",
            Family::Sdxl => "sdxl",
        }
    }

    /// The reverse of [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        [Family::Sd1, Family::Gligen, Family::Sdxl].into_iter().find(|f| f.name() == name)
    }

    /// Whether both families have the same latent space. GLIGEN has that of the SD1 model that it was made from.
    pub fn shares_latents(self, other: Family) -> bool {
        (self == Family::Sdxl) == (other == Family::Sdxl)
    }
}
