//! Steps in Karras's space, x = z/√ᾱ = x₀ + σ ε: Euler's, Runge–Kutta methods and linear multistep methods. Names and
//! formulas are k-diffusion's. σ is the noise at the start of a step, σ' at its end, and d = (x − x̂₀)/σ = ε.

use candle_core::Tensor;
use lsregen_tensor::ops::{Mix, mix};

use super::StepInput;
use super::ddim::adams_bashforth;
use super::fresh::StepNoise;
use crate::Result;
use crate::denoiser::Prediction;
use crate::schedule::{Level, NoiseSchedule};

/// A step in Karras's space. Its methods return x at the end.
pub(super) struct Karras<'a> {
    /// The step.
    pub at: &'a StepInput<'a>,
    /// The level at its start.
    pub from: Level,
    /// The level at its end.
    pub to: Level,
    /// The model's noise schedule.
    pub schedule: &'a NoiseSchedule,
    /// η.
    pub eta: f64,
}

/// x + w d.
pub(super) fn plus(x: &Tensor, d: &Tensor, w: f64) -> Result<Tensor> {
    Ok(mix(x, d, Mix::Sum(1.0, w))?)
}

/// The part of σ' to which a step goes without noise, and the fresh noise that it adds.
fn ancestral(sigma: f64, end: f64, eta: f64) -> (f64, f64) {
    let up = (eta * (end * end * (sigma * sigma - end * end) / (sigma * sigma)).max(0.0).sqrt()).min(end);
    ((end * end - up * up).max(0.0).sqrt(), up)
}

/// σ in the middle, in ln σ.
fn middle(sigma: f64, end: f64) -> f64 {
    (sigma * end).sqrt()
}

impl Karras<'_> {
    /// x at the start.
    pub fn x(&self) -> Result<Tensor> {
        Ok((self.at.z / self.from.alpha_bar.sqrt())?)
    }

    /// σ and σ'.
    pub fn sigmas(&self) -> (f64, f64) {
        (self.from.sigma(), self.to.sigma())
    }

    fn d(&self) -> &Tensor {
        &self.at.now.e
    }

    /// The prediction for x at σ.
    fn call(&self, x: &Tensor, sigma: f64) -> Result<Prediction> {
        let level = Level::of_sigma(sigma, self.schedule.c_noise(sigma));
        (self.at.call)(&(x * level.alpha_bar.sqrt())?, level)
    }

    /// x' = x + (σ' − σ) d.
    pub fn euler(&self) -> Result<Tensor> {
        let (sigma, end) = self.sigmas();
        plus(&self.x()?, self.d(), end - sigma)
    }

    pub fn euler_ancestral(&self, noise: &mut StepNoise) -> Result<Tensor> {
        let (sigma, end) = self.sigmas();
        let (down, up) = ancestral(sigma, end, self.eta);
        let x = plus(&self.x()?, self.d(), down - sigma)?;
        if self.eta == 0.0 { Ok(x) } else { plus(&x, &noise.whole()?, up) }
    }

    /// The mean of d at both ends.
    pub fn heun(&self) -> Result<Tensor> {
        let (sigma, end) = self.sigmas();
        let x = self.x()?;
        let there = plus(&x, self.d(), end - sigma)?;
        if end == 0.0 {
            return Ok(there);
        }
        let second = (self.at.call)(&(there * self.to.alpha_bar.sqrt())?, self.to)?;
        plus(&x, &((self.d() + second.e)? / 2.0)?, end - sigma)
    }

    pub fn dpm_2(&self) -> Result<Tensor> {
        let (sigma, end) = self.sigmas();
        if end == 0.0 {
            return self.euler();
        }
        self.by_middle(sigma, end)
    }

    pub fn dpm_2_ancestral(&self, noise: &mut StepNoise) -> Result<Tensor> {
        let (sigma, end) = self.sigmas();
        let (down, up) = ancestral(sigma, end, self.eta);
        let x = if down == 0.0 { plus(&self.x()?, self.d(), -sigma)? } else { self.by_middle(sigma, down)? };
        if end == 0.0 || self.eta == 0.0 { Ok(x) } else { plus(&x, &noise.whole()?, up) }
    }

    /// To σ' by the d of the middle.
    fn by_middle(&self, sigma: f64, end: f64) -> Result<Tensor> {
        let x = self.x()?;
        let between = middle(sigma, end);
        let second = self.call(&plus(&x, self.d(), between - sigma)?, between)?;
        plus(&x, &second.e, end - sigma)
    }

    /// The integral of the polynomial through the last four d.
    pub fn lms(&self) -> Result<Tensor> {
        let (sigma, end) = self.sigmas();
        let past = self.at.past.iter().rev().take(3);
        let nodes: Vec<f64> = [sigma].into_iter().chain(past.clone().map(|past| past.level.sigma())).collect();
        let ds = [self.d()].into_iter().chain(past.map(|past| &past.prediction.e));
        let mut x = self.x()?;
        for (j, d) in ds.enumerate() {
            let others = nodes.iter().enumerate().filter(|(k, _)| *k != j);
            let lagrange = |s: f64| others.clone().map(|(_, node)| (s - node) / (nodes[j] - node)).product::<f64>();
            // Simpson's rule is exact for cubic polynomials.
            let integral =
                (end - sigma) / 6.0 * (lagrange(sigma) + 4.0 * lagrange((sigma + end) / 2.0) + lagrange(end));
            x = plus(&x, d, integral)?;
        }
        Ok(x)
    }

    /// Zhang and Chen, eq. 37: the Adams–Bashforth mean of the last four d.
    pub fn ipndm(&self) -> Result<Tensor> {
        let (sigma, end) = self.sigmas();
        let past: Vec<&Tensor> = self.at.past.iter().rev().map(|past| &past.prediction.e).collect();
        plus(&self.x()?, &adams_bashforth(self.d(), &past)?, end - sigma)
    }

    /// (σ'/σ) x + (1 − σ'/σ) x̂₀: exact if x̂₀ does not change.
    pub fn towards(&self, x: &Tensor, x0: &Tensor, sigma: f64, end: f64) -> Result<Tensor> {
        let share = end / sigma;
        Ok(mix(x, x0, Mix::Sum(share, 1.0 - share))?)
    }

    pub fn dpmpp_2s_ancestral(&self, noise: &mut StepNoise) -> Result<Tensor> {
        let (sigma, end) = self.sigmas();
        let (down, up) = ancestral(sigma, end, self.eta);
        let x = self.x()?;
        let x = if down == 0.0 {
            plus(&x, self.d(), -sigma)?
        } else {
            let between = middle(sigma, down);
            let second = self.call(&self.towards(&x, &self.at.now.x0, sigma, between)?, between)?;
            self.towards(&x, &second.x0, sigma, down)?
        };
        if end == 0.0 || self.eta == 0.0 { Ok(x) } else { plus(&x, &noise.whole()?, up) }
    }

    /// Both noises are of one Brownian motion in σ.
    pub fn dpmpp_sde(&self, noise: &mut StepNoise) -> Result<Tensor> {
        let (sigma, end) = self.sigmas();
        if end == 0.0 {
            return self.euler();
        }
        let x = self.x()?;
        let between = middle(sigma, end);
        let has_noise = self.eta != 0.0;
        let (down, up) = ancestral(sigma, between, self.eta);
        let mut there = self.towards(&x, &self.at.now.x0, sigma, down)?;
        let mut whole = None;
        if has_noise {
            let (first, all) = noise.parts(between)?;
            there = plus(&there, &first, up)?;
            whole = Some(all);
        }
        let second = self.call(&there, between)?;
        let (down, up) = ancestral(sigma, end, self.eta);
        // With the middle at half of ln σ, the second prediction alone counts.
        let x = self.towards(&x, &second.x0, sigma, down)?;
        match whole {
            Some(noise) => plus(&x, &noise, up),
            None => Ok(x),
        }
    }
}
