//! The self-test of a network: compares its gradient with finite differences.

use std::collections::HashMap;
use std::fmt;

use candle_core::{DType, Tensor, Var};

use crate::dims::checked_count;
use crate::network::{OnnxNetwork, Step};
use crate::{Error, Result};
use lsregen_tensor::noise::Generator;

/// Number of random directions. The median counts, because one direction may cross a kink at every step size, while a
/// wrong gradient is wrong in nearly all directions.
const DIRECTIONS: usize = 5;

/// Step sizes in a random direction, relative to the input's size, the most likely first. The best result counts: larger
/// steps cross kinks of ReLU and curvature, smaller ones are lost in the rounding of f32, and a wrong gradient is wrong at
/// every step size.
const STEPS: [f64; 5] = [0.004, 0.02, 0.0008, 0.1, 0.000_16];

/// Step sizes along the gradient, where the values change far more.
const STEPS_ALONG: [f64; 4] = [1e-4, 1e-3, 1e-5, 1e-2];

/// The greatest deviation along the gradient. Kinks and rounding matter little there, because all results change together.
const ALLOWED: f64 = 1e-2;

/// The greatest deviation in random directions. Kinks and rounding matter there: torch's own gradients of a deep ReLU
/// network in f32 and in f64 differ by nearly 1e-2. These directions find missing parts of a gradient, which do not show
/// along it; that of candle's own attention lacks 35 %.
const ALLOWED_ACROSS: f64 = 5e-2;

/// The difference between a gradient and finite differences, relative to the gradient's norm.
#[derive(Clone, Copy)]
struct Deviation {
    along: f64,
    across: f64,
}

impl Deviation {
    fn is_small(&self) -> bool {
        self.along <= ALLOWED && self.across <= ALLOWED_ACROSS
    }
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:.1e} along itself and {:.1e} in other directions", self.along, self.across)
    }
}

impl OnnxNetwork {
    /// Compares the gradient of Σ f(x)·r with finite differences, for a normal `x` of this shape and the first output.
    /// Returns the deviation along the gradient, relative to the gradient's norm.
    ///
    /// # Errors
    /// If the deviation exceeds 1e-2, or 5e-2 in random directions. The message names the node whose gradient is wrong, if
    /// there is one.
    pub fn self_test(&self, shape: &[usize]) -> Result<f64> {
        self.self_test_of(shape, self.outputs().first().map(|o| o.name.as_str()))
    }

    /// [`OnnxNetwork::self_test`] of the value `output`.
    ///
    /// # Errors
    /// As [`OnnxNetwork::self_test`].
    pub fn self_test_of(&self, shape: &[usize], output: Option<&str>) -> Result<f64> {
        checked_count(shape)?;
        let output = self.info().output(output)?;
        let x = Generator::new(0).randn(shape, self.device())?;
        let deviation = deviation(&x, |x| self.forward(x, Some(output)))
            .map_err(|e| self.info().error(format!("its gradient cannot be tested: {e}")))?;
        if deviation.is_small() {
            return Ok(deviation.along);
        }
        let culprit = self.culprit(&x, output)?.map(|culprit| format!("; {culprit}")).unwrap_or_default();
        Err(self.info().error(format!(
            "the gradient of `{output}` deviates from finite differences by {deviation} (at most {ALLOWED:.0e} and \
             {ALLOWED_ACROSS:.0e}){culprit}; guidance by this network would be wrong"
        )))
    }

    /// Describes the first node whose own gradient deviates at its values, or else the first node without a gradient.
    fn culprit(&self, x: &Tensor, output: &str) -> Result<Option<String>> {
        let (mut wrong, mut blind) = (None, None);
        let mut test = |step: &Step, values: &HashMap<&str, Tensor>, results: &[Tensor]| -> Result<()> {
            let real = |t: Option<&Tensor>| t.is_some_and(|t| t.dtype() == DType::F32 && t.elem_count() > 0);
            if wrong.is_some() || !real(results.first()) {
                return Ok(());
            }
            for name in step.inputs.iter().filter(|name| real(values.get(name.as_str()))) {
                let Some(own) = values.get(name.as_str()) else { continue };
                let run = |x: &Tensor| {
                    let value = |n: &str| if n == name { Some(x) } else { self.argument(n, values) };
                    let results = step.run(&self.info().label, self.device(), value)?;
                    results.into_iter().next().ok_or_else(|| Error::input("no result"))
                };
                let label = &step.label;
                match deviation(own, run) {
                    Ok(d) if d.is_small() => {}
                    Ok(d) => wrong = Some(format!("{label} deviates by {d} on its own")),
                    Err(_) => blind = blind.take().or_else(|| Some(format!("{label} passes no gradient"))),
                }
            }
            Ok(())
        };
        self.walk(x, output, true, &mut test)?;
        Ok(wrong.or(blind))
    }
}

fn dot(a: &Tensor, b: &Tensor) -> Result<f64> {
    let wide = |t: &Tensor| t.detach().to_dtype(DType::F64);
    Ok((wide(a)? * wide(b)?)?.sum_all()?.to_scalar::<f64>()?)
}

/// Root mean square.
fn length(x: &Tensor) -> Result<f64> {
    Ok((dot(x, x)? / x.elem_count() as f64).sqrt())
}

/// Compares the gradient of Σ f(x)·r with finite differences.
fn deviation(x: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Deviation> {
    let x = Var::from_tensor(&x.detach())?;
    let y = f(x.as_tensor())?;
    let mut generator = Generator::new(1);
    let r = generator.randn(y.dims(), x.device())?;
    let loss = (&y * &r)?.sum_all()?;
    if !loss.to_scalar::<f32>()?.is_finite() {
        return Err(Error::input("its values are not finite"));
    }
    let gradient = if y.track_op() { loss.backward()?.remove(x.as_tensor()) } else { None };
    let gradient = gradient.ok_or_else(|| Error::input("its output does not depend on its input"))?;
    drop((y, loss));
    let (at, size) = (x.as_tensor().detach(), dot(&gradient, &gradient)?.sqrt());
    let scale = length(&at)?.max(1e-3);
    // `d` has entries near 1, so that a difference is relative to the gradient's norm in any direction.
    let deviation_along = |d: &Tensor, steps: &[f64]| -> Result<f64> {
        let exact = dot(&gradient, d)?;
        let mut best = f64::INFINITY;
        for step in steps.iter().map(|s| s * scale) {
            let moved = |by: f64| -> Result<Tensor> { f(&(&at + (d * by)?)?) };
            let numeric = dot(&(moved(step)? - moved(-step)?)?, &r)? / (2.0 * step);
            let size = size.max(exact.abs()).max(numeric.abs()).max(f64::MIN_POSITIVE);
            best = best.min((numeric - exact).abs() / size);
            if best <= ALLOWED / 10.0 {
                break;
            }
        }
        Ok(best)
    };
    let along = match length(&gradient)? {
        // A zero gradient has no direction; missing parts show in the random ones.
        0.0 => 0.0,
        length => deviation_along(&(&gradient / length)?, &STEPS_ALONG)?,
    };
    let across = (0..DIRECTIONS).map(|_| deviation_along(&generator.randn(x.dims(), x.device())?, &STEPS));
    let mut across = across.collect::<Result<Vec<_>>>()?;
    across.sort_by(f64::total_cmp);
    Ok(Deviation { along, across: across[DIRECTIONS / 2] })
}
