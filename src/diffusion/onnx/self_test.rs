//! Whether a network's gradient is that of its values: by finite differences, when it is loaded.

use std::collections::HashMap;

use candle_core::{DType, Tensor, Var};

use super::network::{OnnxNetwork, Step};
use crate::noise::Generator;
use crate::{Error, Result};

/// Directions that are tried. The median of them counts: one may cross a kink at every step, while a gradient that is off
/// by some vector is off in nearly all.
const DIRECTIONS: usize = 5;

/// Steps of the differences, the likeliest first, relative to a standard normal input. The best of them counts: the longer ones cross kinks of
/// ReLU and bend, the shorter ones drown in the rounding of f32; a wrong gradient is wrong at every one.
const STEPS: [f64; 5] = [0.004, 0.02, 0.0008, 0.1, 0.000_16];

/// What rounding and kinks explain at the best of these steps; wrong gradients miss it by far (candle's own attention by
/// 35 %, its MaxPool by a factor).
const ALLOWED: f64 = 1e-2;

impl OnnxNetwork {
    /// The deviation of the gradient of Σ f(x)·r from finite differences, for a normal `x` of this shape and the
    /// only or first output, relative to the gradient's size; the median over a few directions.
    ///
    /// Errors if it exceeds 1e-2, naming the first node whose own gradient deviates.
    pub fn self_test(&self, shape: &[usize]) -> Result<f64> {
        self.self_test_of(shape, self.outputs().first().map(|o| o.name.as_str()))
    }

    /// [`OnnxNetwork::self_test`] of the value `output`.
    pub fn self_test_of(&self, shape: &[usize], output: Option<&str>) -> Result<f64> {
        super::room(shape)?;
        let output = self.info().output(output)?;
        let x = Generator::new(0).randn(shape, self.device())?;
        let deviation = deviation(&x, |x| self.forward(x, Some(output)))
            .map_err(|e| self.info().error(format!("its gradient cannot be tested: {e}")))?;
        if deviation <= ALLOWED {
            return Ok(deviation);
        }
        let culprit = match self.culprit(&x, output)? {
            Some((label, own)) => format!("; {label} deviates by {own:.1e} on its own"),
            None => String::new(),
        };
        Err(self.info().error(format!(
            "the gradient of `{output}` deviates from finite differences by {deviation:.1e} (allowed is \
             {ALLOWED:.0e}){culprit}; guidance by this network would go astray"
        )))
    }

    /// The first node whose own gradient deviates at the values that it meets.
    fn culprit(&self, x: &Tensor, output: &str) -> Result<Option<(String, f64)>> {
        let mut found = None;
        let mut test = |step: &Step, values: &HashMap<&str, Tensor>, results: &[Tensor]| -> Result<()> {
            let real = |t: Option<&Tensor>| t.is_some_and(|t| t.dtype() == DType::F32 && t.elem_count() > 0);
            if found.is_some() || !real(results.first()) {
                return Ok(());
            }
            for name in step.inputs.iter().filter(|name| real(values.get(name.as_str()))) {
                let Some(own) = values.get(name.as_str()) else { continue };
                let run = |x: &Tensor| {
                    let value = |n: &str| if n == name { Some(x) } else { self.argument(n, values) };
                    let results = step.run(&self.info().label, self.device(), value)?;
                    results.into_iter().next().ok_or_else(|| Error::input("no result"))
                };
                match deviation(own, run) {
                    Ok(d) if d <= ALLOWED => {}
                    Ok(d) => found = Some((step.label.clone(), d)),
                    // A kink at every number, no gradient by its nature: not what is looked for.
                    Err(_) => {}
                }
            }
            Ok(())
        };
        self.walk(x, output, true, &mut test)?;
        Ok(found)
    }
}

fn dot(a: &Tensor, b: &Tensor) -> Result<f64> {
    let wide = |t: &Tensor| t.detach().to_dtype(DType::F64);
    Ok((wide(a)? * wide(b)?)?.sum_all()?.to_scalar::<f64>()?)
}

/// How far the gradient of Σ f(x)·r is from finite differences, relative to the larger of the two.
fn deviation(x: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<f64> {
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
    // As long as the input's own scale.
    let scale = (dot(&at, &at)? / at.elem_count() as f64).sqrt().max(1e-3);
    let mut deviations = Vec::with_capacity(DIRECTIONS);
    for _ in 0..DIRECTIONS {
        let d = generator.randn(x.dims(), x.device())?;
        let exact = dot(&gradient, &d)?;
        let mut best = f64::INFINITY;
        for step in STEPS.map(|s| s * scale) {
            let moved = |by: f64| -> Result<Tensor> { f(&(&at + (&d * by)?)?) };
            let numeric = dot(&(moved(step)? - moved(-step)?)?, &r)? / (2.0 * step);
            best = best.min((numeric - exact).abs() / size.max(numeric.abs()).max(f64::MIN_POSITIVE));
            if best <= ALLOWED / 10.0 {
                break;
            }
        }
        deviations.push(best);
    }
    deviations.sort_by(f64::total_cmp);
    Ok(deviations[DIRECTIONS / 2])
}
