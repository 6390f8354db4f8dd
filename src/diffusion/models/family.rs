//! The families of models.

/// A family of models, recognised by the configuration of the U-Net.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Stable Diffusion 1.x: one text encoder.
    Sd1,
    /// Stable Diffusion 2.x: OpenCLIP's text encoder.
    Sd2,
    /// Stable Diffusion 1.x with GLIGEN's grounding.
    Gligen,
    /// SDXL: two text encoders, pooled text and sizes. SSD-1B and Segmind Vega are smaller networks of this family.
    Sdxl,
    /// SDXL on latents with a mean and a deviation of their own, as Playground v2.5.
    Playground,
    /// SDXL's refiner: SDXL's second text encoder alone, and an aesthetic score among the sizes.
    SdxlRefiner,
}

impl Family {
    const ALL: [Family; 6] =
        [Family::Sd1, Family::Sd2, Family::Gligen, Family::Sdxl, Family::Playground, Family::SdxlRefiner];

    /// The short name in messages: `sd1`, `sd2`, `gligen`, `sdxl`, `playground`, `sdxl-refiner`.
    pub fn name(self) -> &'static str {
        match self {
            Family::Sd1 => "sd1",
            Family::Sd2 => "sd2",
            Family::Gligen => "gligen",
            Family::Sdxl => "sdxl",
            Family::Playground => "playground",
            Family::SdxlRefiner => "sdxl-refiner",
        }
    }

    /// The reverse of [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }

    /// Whether it is one of SDXL's: with its autoencoder, on pooled text and sizes.
    pub fn is_xl(self) -> bool {
        matches!(self, Family::Sdxl | Family::Playground | Family::SdxlRefiner)
    }

    /// The layer of the text encoder that the family was trained on, counted from the last one, as A1111's web UI counts.
    pub fn clip_skip(self) -> usize {
        match self {
            Family::Sd1 | Family::Gligen => 1,
            _ => 2,
        }
    }

    /// Whether both families have the same latent space. GLIGEN has that of the SD1 model that it was made from; SD2 kept
    /// the encoder of SD1's autoencoder, and SDXL's refiner that of SDXL.
    pub fn shares_latents(self, other: Family) -> bool {
        let space = |family: Family| (family.is_xl(), family == Family::Playground);
        space(self) == space(other)
    }
}
