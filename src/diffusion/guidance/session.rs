//! The state of guidances during one run.

use candle_core::Tensor;

use super::{BoundGuidance, StepContext, Until, sizes};
use crate::Result;
use crate::reduce::numbers;

/// The number of guided steps after which a device is asked whether an update has diverged. A read waits for everything that was
/// submitted to the device, so that there is none in most steps, and few steps are computed in vain.
const UNCHECKED: usize = 8;

/// Guidances during a run.
pub struct Session<'a> {
    guidance: &'a [BoundGuidance],
    /// Whether each has settled, and skips the rest of the run.
    settled: Vec<bool>,
    /// The updates that have not been checked yet.
    unchecked: Vec<Unchecked<'a>>,
    /// The guided steps among them.
    steps: usize,
    /// Whether they are checked later on the CPU too, where a read costs nothing.
    deferred: bool,
}

/// An update whose sizes are still on the device.
struct Unchecked<'a> {
    guidance: usize,
    at: StepContext<'a>,
    sizes: Tensor,
}

impl<'a> Session<'a> {
    /// Starts a run.
    pub fn new(guidance: &'a [BoundGuidance]) -> Self {
        Session { guidance, settled: vec![false; guidance.len()], unchecked: vec![], steps: 0, deferred: false }
    }

    /// Returns how many times the sampler takes this step: more than once if a guidance renoises between its repeats.
    pub fn passes(&self, at: &StepContext) -> usize {
        let settings = self.guidance.iter().zip(&self.settled).filter(|(g, settled)| !**settled && g.settings.acts(at));
        settings.filter(|(g, _)| g.settings.renoise).map(|(g, _)| g.settings.repeats).max().unwrap_or(1)
    }

    /// Returns z̃_t: the latent after all guidances that act in this step, one after another. `pass` is the pass of the step,
    /// from 0.
    ///
    /// Reads D from the device after each update of a guidance that ends by it ([`Until`]), and nothing else.
    ///
    /// # Errors
    /// If an update has diverged. On a device other than the CPU, [`Session::check`] finds most of these later.
    pub fn update(&mut self, z: &Tensor, at: &StepContext<'a>, pass: usize) -> Result<Tensor> {
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
                let updated = guidance.update(&z, at)?;
                let value = if settings.until != Until::Never || (z.device().is_cpu() && !self.deferred) {
                    let (value, sizes) = updated.read()?;
                    guidance.check(sizes, at)?;
                    value
                } else {
                    self.unchecked.push(Unchecked { guidance: number, at: *at, sizes: updated.sizes.clone() });
                    None
                };
                tracing::debug!(guidance = number, update, distance = value, "guided");
                match settings.until {
                    Until::Reached(enough) if value.is_some_and(|d| d <= enough) => break,
                    Until::Settled(enough) => *settled = value.is_some_and(|d| d <= enough),
                    _ => {}
                }
                z = updated.z;
            }
        }
        Ok(z)
    }

    /// Between two steps, and after the last one: checks the updates of the last steps, in every few guided steps and after the
    /// last guided one, by one read.
    ///
    /// # Errors
    /// If an update has diverged: that of the first one.
    pub fn check(&mut self, next: Option<&StepContext>) -> Result<()> {
        if self.unchecked.is_empty() {
            return Ok(());
        }
        self.steps += 1;
        let is_guided = |at: &StepContext| self.guidance.iter().any(|g| g.settings.acts(at));
        if self.steps < UNCHECKED && next.is_some_and(is_guided) {
            return Ok(());
        }
        self.steps = 0;
        let unchecked = std::mem::take(&mut self.unchecked);
        let all = numbers(&Tensor::stack(&unchecked.iter().map(|u| &u.sizes).collect::<Vec<_>>(), 0)?)?;
        unchecked
            .iter()
            .zip(all.chunks_exact(2))
            .try_for_each(|(u, pair)| self.guidance[u.guidance].check(sizes(pair), &u.at))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::Device;

    use super::*;
    use crate::guidance::{Extractor, FeatureSpace, GuidanceSettings, SquaredL2, Window};
    use crate::reduce::readings;
    use crate::schedule::PredictionType;

    struct Zero;

    impl Extractor for Zero {
        fn name(&self) -> &str {
            "zero"
        }

        fn feat(&self, z: &Tensor, _: &StepContext) -> Result<Tensor> {
            Ok(z.clone())
        }

        fn target(&self, _: &StepContext) -> Result<Tensor> {
            Ok(Tensor::zeros((1, 1, 1, 2), candle_core::DType::F32, &Device::Cpu)?)
        }
    }

    /// As on a GPU: updates read only D, and only if it decides; divergence is found after the last guided step, or a few steps
    /// later at most.
    #[test]
    fn checks_are_deferred() {
        let steps = 3 * UNCHECKED;
        let predict = |z: &Tensor, _: f64| Ok(z.clone());
        let context = |step: usize| StepContext {
            step,
            steps,
            t: 900.0 - step as f64,
            alpha_bar: 0.5,
            parameterisation: PredictionType::Epsilon.into(),
            denoiser: &predict,
        };
        let run = |scale: f64, window: Window, until: Until| {
            let settings = GuidanceSettings { scale, window, until, ..GuidanceSettings::default() };
            let (extractor, distance) = (Arc::new(Zero), Arc::new(SquaredL2));
            let guidance = [BoundGuidance { extractor, distance, space: FeatureSpace::Latent, settings, mask: None }];
            let mut session = Session { deferred: true, ..Session::new(&guidance) };
            let mut z = Tensor::new(&[[[[3f32, -4.0]]]], &Device::Cpu).unwrap();
            let (mut inside, mut between) = (vec![], vec![]);
            for step in 0..steps {
                let before = readings();
                z = session.update(&z, &context(step), 0).unwrap();
                inside.push(readings() - before);
                let before = readings();
                if let Err(error) = session.check((step + 1 < steps).then(|| context(step + 1)).as_ref()) {
                    return (inside, between, Some((step, error.to_string())));
                }
                between.push(readings() - before);
            }
            (inside, between, None)
        };
        let none = vec![0; steps];
        let after = |step: usize| (0..steps).map(|i| u64::from(i == step)).collect::<Vec<_>>();
        assert_eq!(run(0.1, Window::first(2.0 / steps as f64), Until::Never), (none.clone(), after(1), None));
        let (inside, between, _) = run(0.1, Window::first(1.0), Until::Never);
        assert_eq!((inside, between.iter().sum::<u64>()), (none.clone(), 3));
        let (inside, between, _) = run(0.1, Window::first(2.0 / steps as f64), Until::Reached(0.0));
        assert_eq!((&inside[..3], between), (&[1, 1, 0][..], none));
        // Each update enlarges the latent by more than a hundred times: the first is reported.
        let (inside, _, error) = run(100.0, Window::first(1.0), Until::Never);
        let (found, error) = error.unwrap();
        assert!(found < UNCHECKED && inside.iter().all(|reads| *reads == 0), "{found}");
        assert!(error.contains("`zero` diverged at step 1 of 24 (t = 900)") && error.contains("grew to"), "{error}");
    }
}
