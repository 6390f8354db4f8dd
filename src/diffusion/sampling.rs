//! The sampling loop: from noise to a latent, step by step, with backward guidance before each network call.

use candle_core::Tensor;

use crate::Result;
use crate::denoiser::{Denoiser, epsilon, predicted_x0};
use crate::guidance::{BoundGuidance, Session, StepContext};
use crate::noise::Generator;
use crate::sampler::{OnStep, PreviousStep, Sampler, Step};

impl Sampler {
    /// Samples a latent from unit noise.
    pub fn run(
        &self,
        noise: &Tensor,
        denoiser: &dyn Denoiser,
        guidance: &[BoundGuidance],
        generator: &mut Generator,
        on_step: OnStep,
    ) -> Result<Tensor> {
        self.run_from(0, &self.start(noise)?, denoiser, guidance, generator, on_step)
    }

    /// Samples from the latent `z` at timestep number `first`, as image-to-image does.
    pub fn run_from(
        &self,
        first: usize,
        z: &Tensor,
        denoiser: &dyn Denoiser,
        guidance: &[BoundGuidance],
        generator: &mut Generator,
        on_step: OnStep,
    ) -> Result<Tensor> {
        let steps = self.timesteps().len();
        let prediction_type = self.schedule().config.prediction_type;
        let mut session = Session::new(guidance);
        let mut z = z.clone();
        let mut previous = None;
        for i in first..steps {
            let (t, alpha_bar) = (self.timesteps()[i], self.alpha_bar(i));
            let _span = tracing::debug_span!("step", number = i + 1, of = steps, timestep = t).entered();
            let at = StepContext { step: i, steps, t, alpha_bar, prediction_type, denoiser };
            let passes = session.passes(&at);
            let mut pass = 0;
            let x0 = loop {
                z = session.update(&z, &at, pass)?;
                let e = epsilon(prediction_type, &denoiser.predict(&z, t)?, &z, alpha_bar)?;
                let x0 = predicted_x0(&z, &e, alpha_bar)?;
                z = self.step(i, &z, e, &x0, previous.as_ref(), generator)?;
                pass += 1;
                if pass >= passes {
                    break x0;
                }
                z = self.undo(i, &z, generator)?;
            };
            tracing::debug!(passes, "sampled");
            on_step(Step { done: i + 1 - first, of: steps - first, predicted_x0: &x0 })?;
            previous = Some(PreviousStep { x0, alpha_bar });
        }
        Ok(z)
    }
}
