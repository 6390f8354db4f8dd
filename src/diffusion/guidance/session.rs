//! The state of guidances during one run.

use candle_core::Tensor;

use super::{BoundGuidance, StepContext, Until};
use crate::Result;

/// Guidances during a run.
pub struct Session<'a> {
    guidance: &'a [BoundGuidance],
    /// Whether each has settled, and skips the rest of the run.
    settled: Vec<bool>,
}

impl<'a> Session<'a> {
    /// Starts a run.
    pub fn new(guidance: &'a [BoundGuidance]) -> Self {
        Session { guidance, settled: vec![false; guidance.len()] }
    }

    /// Returns how many times the sampler takes this step: more than once if a guidance renoises between its repeats.
    pub fn passes(&self, at: &StepContext) -> usize {
        let settings = self.guidance.iter().zip(&self.settled).filter(|(g, settled)| !**settled && g.settings.acts(at));
        settings.filter(|(g, _)| g.settings.renoise).map(|(g, _)| g.settings.repeats).max().unwrap_or(1)
    }

    /// Returns z̃_t: the latent after all guidances that act in this step, one after another. `pass` is the pass of the step,
    /// from 0.
    pub fn update(&mut self, z: &Tensor, at: &StepContext, pass: usize) -> Result<Tensor> {
        let mut z = z.clone();
        for (number, (guidance, settled)) in self.guidance.iter().zip(&mut self.settled).enumerate() {
            let settings = &guidance.settings;
            if !settings.acts(at) {
                continue;
            }
            let updates = match settings.renoise {
                true => usize::from(pass < settings.repeats),
                false => settings.repeats,
            };
            for update in 0..updates {
                if *settled {
                    break;
                }
                let (value, updated) = guidance.step(&z, at)?;
                tracing::debug!(guidance = number, update, distance = value, "guided");
                match settings.until {
                    Until::Reached(enough) if value.is_some_and(|d| d <= enough) => break,
                    Until::Settled(enough) => *settled = value.is_some_and(|d| d <= enough),
                    _ => {}
                }
                z = updated;
            }
        }
        Ok(z)
    }
}
