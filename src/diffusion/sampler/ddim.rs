//! Steps in the variance-preserving space: DDIM, DDPM, PLMS and the consistency models.
//!
//! a is ᾱ at the start of a step, b at its end.

use candle_core::Tensor;
use lsregen_tensor::ops::{Mix, mix};

use super::StepInput;
use super::fresh::StepNoise;
use crate::Result;
use crate::denoiser::{Prediction, noised};
use crate::schedule::{Level, NoiseSchedule};

/// Song et al., eq. 12 and 16: z' = √b x̂₀ + √(1−b−s²) ε + s n, s = η √((1−b)/(1−a)) √(1−a/b).
pub(super) fn ddim(now: &Prediction, a: f64, b: f64, eta: f64, noise: &mut StepNoise) -> Result<Tensor> {
    let s = eta * ((1.0 - b) / (1.0 - a) * (1.0 - a / b)).max(0.0).sqrt();
    let z = mix(&now.x0, &now.e, Mix::Sum(b.sqrt(), (1.0 - b - s * s).max(0.0).sqrt()))?;
    if eta == 0.0 {
        return Ok(z);
    }
    Ok(mix(&z, &noise.whole()?, Mix::Sum(1.0, s))?)
}

/// Ho et al., eq. 7: the mean of the posterior, and noise of its variance or, if `large`, of the variance β = 1 − a/b.
pub(super) fn ddpm(
    z: &Tensor,
    now: &Prediction,
    from: Level,
    to: Level,
    large: bool,
    noise: &mut StepNoise,
) -> Result<Tensor> {
    let (a, b) = (from.alpha_bar, to.alpha_bar);
    let alpha = a / b;
    let beta = 1.0 - alpha;
    let shares = Mix::Sum(b.sqrt() * beta / (1.0 - a), alpha.sqrt() * (1.0 - b) / (1.0 - a));
    let mean = mix(&now.x0, z, shares)?;
    if to.alpha_bar >= 1.0 {
        return Ok(mean);
    }
    let variance = if large { beta } else { ((1.0 - b) / (1.0 - a) * beta).max(1e-20) };
    Ok(mix(&mean, &noise.whole()?, Mix::Sum(1.0, variance.sqrt()))?)
}

/// Luo et al., eq. 9: the consistency function c_skip z + c_out x̂₀, noised to the next level; at the `end` it is the result.
/// Without a `scaling` of the timestep it is x̂₀.
pub(super) fn lcm(
    z: &Tensor,
    now: &Prediction,
    from: Level,
    end: Option<Level>,
    scaling: Option<f64>,
    noise: &mut StepNoise,
) -> Result<Tensor> {
    const SIGMA_DATA: f64 = 0.5;
    let denoised = match scaling.map(|scaling| from.t * scaling) {
        Some(t) => {
            let spread = t * t + SIGMA_DATA * SIGMA_DATA;
            mix(&now.x0, z, Mix::Sum(t / spread.sqrt(), SIGMA_DATA * SIGMA_DATA / spread))?
        }
        None => now.x0.clone(),
    };
    match end {
        Some(end) => noised(&denoised, &noise.whole()?, end.alpha_bar),
        None => Ok(denoised),
    }
}

/// Zheng et al., algorithm 4: down to `middle` without noise, and up to the `end` with fresh noise.
pub(super) fn tcd(now: &Prediction, middle: f64, end: Option<f64>, noise: &mut StepNoise) -> Result<Tensor> {
    let z = noised(&now.x0, &now.e, middle)?;
    match end {
        Some(b) => {
            let share = b / middle;
            Ok(mix(&z, &noise.whole()?, Mix::Sum(share.sqrt(), (1.0 - share).max(0.0).sqrt()))?)
        }
        None => Ok(z),
    }
}

/// Liu et al., algorithm 2 (PLMS): a DDIM step with the Adams–Bashforth mean of the predictions. The first step calls the
/// network a second time, at its end, and takes the mean of both.
pub(super) fn plms(
    at: &StepInput,
    schedule: &NoiseSchedule,
    steps: usize,
    from: Level,
    to: Level,
    next: Option<&Level>,
) -> Result<Tensor> {
    let past: Vec<&Tensor> = at.past.iter().rev().map(|past| &past.prediction.raw).collect();
    let now = &at.now.raw;
    let ddim = |raw: Tensor, a: f64, b: f64| -> Result<Tensor> {
        let mean = Prediction::new(schedule.parameterisation, raw, at.z, a)?;
        noised(&mean.x0, &mean.e, b)
    };
    let Some(next) = next.filter(|_| past.is_empty()) else {
        return ddim(adams_bashforth(now, &past)?, from.alpha_bar, to.alpha_bar);
    };
    let there = (at.call)(&ddim(now.clone(), from.alpha_bar, to.alpha_bar)?, *next)?;
    // As in diffusers, the second time from N/T above the next timestep; this is the same if N/T is between the two.
    let above = schedule.alpha_bar(next.t + (schedule.len() / steps) as f64);
    ddim(((now + there.raw)? / 2.0)?, above, next.alpha_bar)
}

/// The Adams–Bashforth mean of a value and of up to three before it, the last one first.
pub(super) fn adams_bashforth(now: &Tensor, past: &[&Tensor]) -> Result<Tensor> {
    let weights: &[f64] = match past.len() {
        0 => &[1.0],
        1 => &[3.0 / 2.0, -1.0 / 2.0],
        2 => &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
        _ => &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
    };
    let mut sum = (now * weights[0])?;
    for (value, weight) in past.iter().zip(&weights[1..]) {
        sum = mix(&sum, value, Mix::Sum(1.0, *weight))?;
    }
    Ok(sum)
}
