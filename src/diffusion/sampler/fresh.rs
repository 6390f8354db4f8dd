//! The fresh noise of stochastic samplers.

use candle_core::Tensor;

use super::brownian::BrownianTree;
use crate::Result;
use crate::noise::Generator;

/// Where the fresh noise of a sampling comes from.
pub struct FreshNoise {
    generator: Generator,
    motion: Option<BrownianTree>,
}

impl FreshNoise {
    /// Draws one tensor after another from a generator, as diffusers does from the one that drew the first noise.
    pub fn new(generator: Generator) -> Self {
        FreshNoise { generator, motion: None }
    }

    /// Takes the noise of each step from a Brownian motion, and other noise from the generator.
    pub(super) fn of_motion(generator: Generator, motion: BrownianTree) -> Self {
        FreshNoise { generator, motion: Some(motion) }
    }

    /// Draws unit noise of the shape, device and dtype of `like`.
    pub(super) fn draw(&mut self, like: &Tensor) -> Result<Tensor> {
        Ok(self.generator.randn(like.dims(), like.device())?.to_dtype(like.dtype())?)
    }
}

impl From<Generator> for FreshNoise {
    fn from(generator: Generator) -> Self {
        FreshNoise::new(generator)
    }
}

/// The fresh noise of one step.
pub(super) struct StepNoise<'a> {
    /// Where it comes from.
    pub source: &'a mut FreshNoise,
    /// The latent of the step.
    pub z: &'a Tensor,
    /// σ at the start of the step.
    pub from: f64,
    /// σ at its end.
    pub to: f64,
    /// What it is multiplied by.
    pub scale: f64,
}

impl StepNoise<'_> {
    /// Returns the noise of the whole step.
    pub fn whole(&mut self) -> Result<Tensor> {
        let noise = match &mut self.source.motion {
            Some(motion) => placed(motion.increment(self.from, self.to), self.z)?,
            None => self.source.draw(self.z)?,
        };
        Ok((noise * self.scale)?)
    }

    /// Returns the noise of the step's first part, to the σ `middle`, and that of the whole step, which contains it.
    pub fn parts(&mut self, middle: f64) -> Result<(Tensor, Tensor)> {
        let (first, whole) = match &mut self.source.motion {
            Some(motion) => {
                let first = motion.increment(self.from, middle);
                (placed(first, self.z)?, placed(motion.increment(self.from, self.to), self.z)?)
            }
            None => {
                let (first, second) = (self.source.draw(self.z)?, self.source.draw(self.z)?);
                let sum = ((&first * (self.from - middle).sqrt())? + (second * (middle - self.to).sqrt())?)?;
                (first, (sum / (self.from - self.to).sqrt())?)
            }
        };
        Ok(((first * self.scale)?, (whole * self.scale)?))
    }
}

fn placed(noise: Vec<f32>, like: &Tensor) -> Result<Tensor> {
    let noise = Tensor::from_vec(noise, like.dims(), &candle_core::Device::Cpu)?;
    Ok(noise.to_device(like.device())?.to_dtype(like.dtype())?)
}
