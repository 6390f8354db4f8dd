//! The sampling loop: from noise to a latent, step by step, with backward guidance before each network call.

use candle_core::Tensor;

use crate::Result;
use crate::denoiser::Denoiser;
use crate::guidance::{BoundGuidance, Session, StepContext};
use crate::sampler::{FreshNoise, OnStep, Past, Sampler, Step, StepInput};
use crate::schedule::Level;

/// The most steps that a multistep method looks back.
const MOST_PAST: usize = 3;

impl Sampler {
    /// Samples a latent from unit noise, or from the noise and a latent.
    pub fn run(
        &self,
        noise: &Tensor,
        denoiser: &dyn Denoiser,
        guidance: &[BoundGuidance],
        fresh: &mut FreshNoise,
        on_step: OnStep,
    ) -> Result<Tensor> {
        self.run_from(0, &self.start(noise)?, denoiser, guidance, fresh, on_step)
    }

    /// Samples from the latent `z` at timestep number `first`, as image-to-image does.
    pub fn run_from(
        &self,
        first: usize,
        z: &Tensor,
        denoiser: &dyn Denoiser,
        guidance: &[BoundGuidance],
        fresh: &mut FreshNoise,
        on_step: OnStep,
    ) -> Result<Tensor> {
        let steps = self.timesteps().len();
        let parameterisation = self.schedule().parameterisation;
        let context = |i: usize| {
            let Level { t, alpha_bar, .. } = self.levels()[i];
            StepContext { step: i, steps, t, alpha_bar, parameterisation, denoiser }
        };
        let mut session = Session::new(guidance);
        let mut z = z.clone();
        let mut past: Vec<Past> = vec![];
        for i in first..steps {
            let level = self.levels()[i];
            let _span = tracing::debug_span!("step", number = i + 1, of = steps, timestep = level.t).entered();
            let at = context(i);
            let call = |z: &Tensor, level: Level| self.predict(denoiser, z, level);
            let passes = session.passes(&at);
            let mut pass = 0;
            let (seen, prediction) = loop {
                let guided = session.update(&z, &at, pass)?;
                let now = self.predict(denoiser, &guided, level)?;
                let arrived = (pass == 0).then_some(&z);
                let moment = StepInput { i, z: &guided, arrived, now: &now, past: &past, call: &call };
                let (next, corrected) = self.step(&moment, fresh)?;
                z = next;
                pass += 1;
                if pass >= passes {
                    break (corrected.unwrap_or(guided), now);
                }
                z = self.undo(i, &z, fresh)?;
            };
            tracing::debug!(passes, "sampled");
            session.check((i + 1 < steps).then(|| context(i + 1)).as_ref())?;
            on_step(Step { done: i + 1 - first, of: steps - first, predicted_x0: &prediction.x0 })?;
            if past.len() == MOST_PAST {
                past.remove(0);
            }
            past.push(Past { z: seen, level, prediction });
        }
        self.finish(z)
    }
}
