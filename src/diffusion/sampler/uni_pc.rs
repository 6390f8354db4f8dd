//! UniPC (Zhao et al., NeurIPS 2023): a predictor, and a corrector that uses the prediction at the point that it corrects.
//!
//! As diffusers' `UniPCMultistepScheduler`, in Karras's space.

use candle_core::Tensor;

use super::euler::plus;
use super::{Form, StepInput};
use crate::Result;
use crate::denoiser::Prediction;
use crate::schedule::Level;

/// UniPC.
pub(super) struct UniPc {
    /// Whether B(h) = h rather than e^h − 1.
    pub bh1: bool,
    /// What it integrates.
    pub form: Form,
}

/// A point whose prediction is known.
struct Known<'a> {
    sigma: f64,
    value: &'a Tensor,
}

impl UniPc {
    /// Corrects z with the prediction for it, unless `corrected` is `None`, with the order of the step that led to it, and
    /// takes the next step with the order `order`. Returns the corrected z too.
    ///
    /// The correction computes z anew from the step before. This would lose a guidance's update, so it is added again.
    pub fn step(
        &self,
        at: &StepInput,
        from: Level,
        to: Level,
        order: usize,
        corrected: Option<usize>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let mut z = at.z.clone();
        if let (Some(order), Some(arrived), Some((last, before))) = (corrected, at.arrived, at.past.split_last()) {
            let before = before.iter().rev().map(|past| self.known(past.level, &past.prediction));
            let known: Vec<_> = [self.known(last.level, &last.prediction)].into_iter().chain(before).collect();
            let order = order.min(known.len());
            let x = (&last.z / last.level.alpha_bar.sqrt())?;
            let corrected = self.update(&x, &known[..order], from.sigma(), Some(self.value(at.now)))?;
            z = ((corrected * from.alpha_bar.sqrt())? + (at.z - arrived)?)?;
        }
        let now = self.known(from, at.now);
        let before = at.past.iter().rev().map(|past| self.known(past.level, &past.prediction));
        let known: Vec<_> = [now].into_iter().chain(before).collect();
        let order = if to.alpha_bar >= 1.0 { 1 } else { order.min(known.len()) };
        let x = (&z / from.alpha_bar.sqrt())?;
        let x = if to.alpha_bar >= 1.0 && self.form == Form::Data {
            at.now.x0.clone()
        } else {
            self.update(&x, &known[..order], to.sigma(), None)?
        };
        Ok(((x * to.alpha_bar.sqrt())?, Some(z)))
    }

    fn value<'a>(&self, prediction: &'a Prediction) -> &'a Tensor {
        if self.form == Form::Data { &prediction.x0 } else { &prediction.e }
    }

    fn known<'a>(&self, level: Level, prediction: &'a Prediction) -> Known<'a> {
        Known { sigma: level.sigma(), value: self.value(prediction) }
    }

    /// From x at the first of the `known` points, the last in time, to σ'. The corrector has the prediction `there`.
    fn update(&self, x: &Tensor, known: &[Known], end: f64, there: Option<&Tensor>) -> Result<Tensor> {
        let order = known.len();
        let first = &known[0];
        let h = first.sigma.ln() - end.ln();
        let (hh, decay, unit) = match self.form {
            Form::Data => (-h, (-h).exp(), 1.0),
            Form::Noise => (h, 1.0, end),
        };
        let grown = hh.exp_m1();
        let b_h = if self.bh1 { hh } else { grown };
        let mut ratios: Vec<f64> = known[1..].iter().map(|point| (first.sigma.ln() - point.sigma.ln()) / h).collect();
        let differences: Vec<Tensor> = known[1..]
            .iter()
            .zip(&ratios)
            .map(|(point, ratio)| Ok(((point.value - first.value)? / *ratio)?))
            .collect::<Result<_>>()?;
        ratios.push(1.0);
        // R ρ = b (eq. 9 and 10).
        let mut b = vec![];
        let (mut phi, mut factorial) = (grown / hh - 1.0, 1.0);
        for i in 1..=order {
            b.push(phi * factorial / b_h);
            factorial *= (i + 1) as f64;
            phi = phi / hh - 1.0 / factorial;
        }
        let rows = |size: usize| (0..size).map(|i| ratios[..size].iter().map(|r| r.powi(i as i32)).collect()).collect();
        let weights = match (there.is_some(), order) {
            (true, 1) | (false, 2) => vec![0.5],
            (true, order) => solve(rows(order), b),
            (false, order) => solve(rows(order - 1), b[..order - 1].to_vec()),
        };
        let mut x = plus(&(x * decay)?, first.value, -unit * grown)?;
        for (difference, weight) in differences.iter().zip(&weights) {
            x = plus(&x, difference, -unit * b_h * weight)?;
        }
        match (there, weights.last()) {
            (Some(there), Some(weight)) => plus(&x, &(there - first.value)?, -unit * b_h * weight),
            _ => Ok(x),
        }
    }
}

/// Solves a small system of linear equations by elimination with pivots.
fn solve(mut rows: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for i in 0..n {
        let pivot = (i..n).max_by(|p, q| rows[*p][i].abs().total_cmp(&rows[*q][i].abs())).unwrap_or(i);
        rows.swap(i, pivot);
        b.swap(i, pivot);
        for k in 0..n {
            if k != i {
                let factor = rows[k][i] / rows[i][i];
                let row = rows[i].clone();
                rows[k].iter_mut().zip(row).for_each(|(value, other)| *value -= factor * other);
                b[k] -= factor * b[i];
            }
        }
    }
    (0..n).map(|i| b[i] / rows[i][i]).collect()
}
