//! DPM-Solver, DPM-Solver++ (Lu et al.) and DEIS (Zhang and Chen) in Karras's space. h = ln σ − ln σ' is the step in λ.
//!
//! D₀ is the last prediction; D₁ and D₂ are the first and second divided differences of the last ones over λ.

use candle_core::Tensor;

use super::euler::{Karras, plus};
use super::fresh::StepNoise;
use super::{Form, Solver};
use crate::Result;
use crate::schedule::Level;

/// The most order of step i of `steps`, where `lowers` the order at the end of few steps.
pub(super) fn most_order(i: usize, steps: usize, lowers: bool) -> usize {
    match steps - i {
        left if lowers && steps < 15 => left,
        _ => 3,
    }
}

impl Solver {
    /// The order of step i of `steps`, of which `past` are kept.
    pub(super) fn order_at(&self, i: usize, steps: usize, past: usize, end: Level) -> usize {
        let is_last = i + 1 == steps;
        let most = if is_last && (self.euler_at_final || end.alpha_bar >= 1.0) { 1 } else { 3 };
        self.order.min(past + 1).min(most).min(most_order(i, steps, self.lower_order_final))
    }
}

/// What is integrated: x̂₀ or ε.
fn values<'a>(karras: &'a Karras, form: Form) -> Vec<&'a Tensor> {
    let predictions = karras.at.past.iter().map(|past| &past.prediction).chain([karras.at.now]);
    predictions.rev().map(|p| if form == Form::Data { &p.x0 } else { &p.e }).collect()
}

/// λ = −ln σ.
fn lambda(sigma: f64) -> f64 {
    -sigma.ln()
}

/// The integrals of the solver over a step: (e^{−h} or 1, φ₁, φ₂, φ₃) so that x' = decay x + φ₁ D₀ + φ₂ D₁ − φ₃ D₂.
fn phi(form: Form, h: f64, end: f64) -> (f64, f64, f64, f64) {
    match form {
        Form::Data => {
            let phi_1 = -(-h).exp_m1();
            let phi_2 = 1.0 - phi_1 / h;
            ((-h).exp(), phi_1, phi_2, phi_2 / h - 0.5)
        }
        Form::Noise => {
            let grown = h.exp_m1();
            (1.0, -end * grown, -end * (grown / h - 1.0), end * ((grown - h) / (h * h) - 0.5))
        }
    }
}

/// Lu et al., algorithm 2, of order 1 to 3, and its form for the stochastic equation: each step is as long as (1 + η) h
/// without noise.
pub(super) fn multistep(karras: &Karras, solver: &Solver, order: usize, noise: &mut StepNoise) -> Result<Tensor> {
    let (sigma, end) = karras.sigmas();
    let m = values(karras, solver.form);
    let fresh = solver.stochastic.then(|| noise.whole()).transpose()?;
    if end == 0.0 {
        return Ok(karras.at.now.x0.clone());
    }
    let h = lambda(end) - lambda(sigma);
    let stretch = if solver.stochastic && solver.form == Form::Data { 1.0 + karras.eta } else { 1.0 };
    let (decay, mut phi_1, mut phi_2, mut phi_3) = phi(solver.form, h * stretch, end);
    if solver.diffusers_third {
        phi_3 += 1.0;
    }
    if solver.stochastic && solver.form == Form::Noise {
        (phi_1, phi_2) = (2.0 * phi_1, 2.0 * phi_2);
    }
    let mut x = plus(&(karras.x()? * decay)?, m[0], phi_1)?;
    let steps: Vec<f64> = {
        let past = karras.at.past.iter().rev().map(|past| past.level.sigma());
        let sigmas: Vec<f64> = [sigma].into_iter().chain(past).collect();
        sigmas.windows(2).map(|pair| (lambda(pair[0]) - lambda(pair[1])) / h).collect()
    };
    if order == 2 {
        let d1 = ((m[0] - m[1])? / steps[0])?;
        x = plus(&x, &d1, if solver.heun { phi_2 } else { phi_1 / 2.0 })?;
    }
    if order == 3 {
        let (r0, r1) = (steps[0], steps[1]);
        let (first, second) = (((m[0] - m[1])? / r0)?, ((m[1] - m[2])? / r1)?);
        let difference = (&first - second)?;
        let d1 = plus(&first, &difference, r0 / (r0 + r1))?;
        let d2 = (difference / (r0 + r1))?;
        x = plus(&plus(&x, &d1, phi_2)?, &d2, -phi_3)?;
    }
    match fresh {
        Some(n) if solver.form == Form::Data => plus(&x, &n, end * (-(-2.0 * karras.eta * h).exp_m1()).max(0.0).sqrt()),
        Some(n) => plus(&x, &n, end * (2.0 * h).exp_m1().sqrt()),
        None => Ok(x),
    }
}

/// The order of each step of a singlestep solver: 1, 2 (, 3), again and again.
fn orders(solver: &Solver, steps: usize, ends_without_noise: bool) -> Vec<usize> {
    let order = solver.order;
    // An uneven number of steps, or an end without noise, needs lower orders at the end.
    let lower = solver.lower_order_final || !steps.is_multiple_of(order) || ends_without_noise;
    let mut orders: Vec<usize> = (0..steps).map(|i| i % order + 1).collect();
    if lower && steps.is_multiple_of(order) {
        match order {
            2 => orders[steps - 1] = 1,
            3 => {
                orders[steps - 2] = 2;
                orders[steps - 1] = 1;
            }
            _ => {}
        }
    }
    if ends_without_noise {
        orders[steps - 1] = 1;
    }
    orders
}

/// Lu et al., DPM-Solver++(2S) and (3S) as diffusers lays them out: the steps of a group start at its first latent, and the
/// later ones use the predictions at the earlier ones. A guidance's update of a later step is added to its result.
pub(super) fn singlestep(karras: &Karras, solver: &Solver, steps: usize, noise: &mut StepNoise) -> Result<Tensor> {
    let (_, end) = karras.sigmas();
    let m = values(karras, solver.form);
    let fresh = solver.stochastic.then(|| noise.whole()).transpose()?;
    if end == 0.0 {
        return Ok(karras.at.now.x0.clone());
    }
    let order = orders(solver, steps, karras.to.alpha_bar >= 1.0)[karras.at.i].min(karras.at.past.len() + 1);
    let past: Vec<_> = karras.at.past.iter().rev().collect();
    let (z, from) = match order {
        1 => (karras.at.z, karras.from),
        order => (&past[order - 2].z, past[order - 2].level),
    };
    let start = lambda(from.sigma());
    let h = lambda(end) - start;
    let stretch = if solver.stochastic { 2.0 } else { 1.0 };
    let (decay, phi_1, phi_2, mut phi_3) = phi(solver.form, h * stretch, end);
    if solver.diffusers_third {
        phi_3 += 1.0;
    }
    let base = m[order - 1];
    let x = (z / from.alpha_bar.sqrt())?;
    let mut x = plus(&(x * decay)?, base, phi_1)?;
    let share = |sigma: f64| (lambda(sigma) - start) / h;
    if order == 2 {
        let d1 = ((m[0] - base)? / share(karras.from.sigma()))?;
        x = plus(&x, &d1, if solver.heun { phi_2 } else { phi_1 / 2.0 })?;
    }
    if order == 3 {
        let (r0, r1) = (share(karras.from.sigma()), share(past[0].level.sigma()));
        let (first, second) = (((m[1] - base)? / r1)?, ((m[0] - base)? / r0)?);
        if solver.heun {
            let d1 = (((&first * r0)? - (&second * r1)?)? / (r0 - r1))?;
            let d2 = ((second - first)? * (2.0 / (r0 - r1)))?;
            x = plus(&plus(&x, &d1, phi_2)?, &d2, -phi_3)?;
        } else {
            x = plus(&x, &second, phi_2)?;
        }
    }
    if let Some(n) = fresh {
        x = plus(&x, &n, end * (-(-2.0 * h).exp_m1()).sqrt())?;
    }
    match karras.at.arrived {
        Some(arrived) if order > 1 => Ok((x + ((karras.at.z - arrived)? / karras.to.alpha_bar.sqrt())?)?),
        _ => Ok(x),
    }
}

/// DEIS (Zhang and Chen, eq. 15): the integral of the polynomial in ln σ through the last ε, of order 1 to 3.
pub(super) fn deis(karras: &Karras, order: usize) -> Result<Tensor> {
    let (sigma, end) = karras.sigmas();
    let order = if end == 0.0 { 1 } else { order.min(karras.at.past.len() + 1) };
    let e = values(karras, Form::Noise);
    let past = karras.at.past.iter().rev().map(|past| past.level.sigma());
    let nodes: Vec<f64> = [sigma].into_iter().chain(past).take(order).map(f64::ln).collect();
    let mut x = karras.x()?;
    for (j, e) in e.into_iter().take(order).enumerate() {
        let weight = if order == 1 {
            end - sigma
        } else {
            lagrange_integral(&nodes, j, end) - lagrange_integral(&nodes, j, sigma)
        };
        x = plus(&x, e, weight)?;
    }
    Ok(x)
}

/// An antiderivative at σ of the Lagrange polynomial j in ln σ through two or three nodes.
fn lagrange_integral(nodes: &[f64], j: usize, sigma: f64) -> f64 {
    let others: Vec<f64> = nodes.iter().enumerate().filter(|(k, _)| *k != j).map(|(_, node)| *node).collect();
    let l = sigma.ln();
    let scale: f64 = others.iter().map(|other| nodes[j] - other).product();
    let integral = match others.as_slice() {
        [c] => l - c - 1.0,
        [c, d] => l * l - (c + d + 2.0) * l + c * d + c + d + 2.0,
        _ => 0.0,
    };
    sigma * integral / scale
}
