//! The self-test of a network: compares its gradient, in the f32 in which it guides, with finite differences in f64.
//!
//! In f64 the steps are so small that they rarely cross a kink of ReLU, and curvature is negligible. So a deviation is
//! an error of the gradient, or f32's rounding. The test costs one gradient and three runs without one.

use std::collections::HashMap;
use std::fmt;

use candle_core::{DType, Tensor, Var};

use crate::dims::checked_count;
use crate::network::OnnxNetwork;
use crate::route::Route;
use crate::step::Step;
use crate::tape::Tape;
use crate::{Error, Result};
use lsregen_tensor::noise::Generator;

/// The size of a step, relative to the input's.
const STEP: f64 = 1e-6;

/// The size of a step that crosses fine jumps, such as those of quantised values.
const WIDE_STEP: f64 = 1e-3;

/// The greatest deviation along the gradient. Rounding matters little there, because all results change together.
const ALLOWED: f64 = 1e-2;

/// The greatest deviation in a random direction: torch's own gradients of a deep ReLU network in f32 and in f64 differ by
/// nearly 1e-2. The gradient of candle's own attention, which lacks a part, deviates by 35 %.
const ALLOWED_ACROSS: f64 = 5e-2;

/// The greatest deviation along the gradient over a wide step, for networks with piecewise constant parts: where they matter, it is
/// near 1.
const ALLOWED_OVER_STAIRS: f64 = 0.3;

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
        write!(f, "{:.1e} along itself and {:.1e} in another direction", self.along, self.across)
    }
}

impl OnnxNetwork {
    /// The version of the self-test and of the operators. A verdict of another version does not count: raise it when a
    /// gradient changes.
    pub const SELF_TEST: u32 = 1;

    /// Compares the gradient of Σ f(x)·r with finite differences, for a normal `x` of this shape and the first output.
    /// Returns the deviation along the gradient, relative to the gradient's norm.
    ///
    /// # Errors
    /// If the deviation exceeds 1e-2, or 5e-2 in a random direction, or the output changes mostly by jumps, through which no
    /// gradient flows. The message names the node, if there is one.
    pub fn self_test(&self, shape: &[usize]) -> Result<f64> {
        self.self_test_of(shape, self.outputs().first().map(|o| o.name.as_str()))
    }

    /// [`OnnxNetwork::self_test`] of the value `output`.
    ///
    /// # Errors
    /// As [`OnnxNetwork::self_test`].
    pub fn self_test_of(&self, shape: &[usize], output: Option<&str>) -> Result<f64> {
        checked_count(shape)?;
        let route = Route::new(&self.program, self.info().output(output)?)?;
        let x = self.accepted(&Generator::new(0).randn(shape, self.device())?)?;
        self.test_route(&route, &x)
    }

    fn test_route(&self, route: &Route, x: &Tensor) -> Result<f64> {
        let failed = |e: Error| self.info().error(format!("its gradient cannot be tested: {e}"));
        let (y, tape) = Tape::record(route, x).map_err(failed)?;
        let no_gradient = || {
            tape.piecewise_constant.as_ref().map(|label| format!("; {label} passes no gradient")).unwrap_or_default()
        };
        let y = self.of_floats(y, route.output)?;
        if !tape.has_gradient() {
            return Err(failed(Error::input(format!("its output does not depend on its input{}", no_gradient()))));
        }
        let value = |x: &Tensor| route.run(x, &mut |_, _, _| Ok(()));
        let differences = Differences::new(x, &y, |r| tape.vjp(r), value).map_err(failed)?;
        let deviation = differences.deviation().map_err(failed)?;
        let output = route.output;
        if !deviation.is_small() {
            let culprit = self.culprit(route, x)?.map_or_else(no_gradient, |culprit| format!("; {culprit}"));
            return Err(self.info().error(format!(
                "the gradient of `{output}` deviates from finite differences by {deviation} (at most {ALLOWED:.0e} and \
                 {ALLOWED_ACROSS:.0e}){culprit}; guidance by this network would be wrong"
            )));
        }
        if tape.piecewise_constant.is_some() {
            let over = differences.along(WIDE_STEP).map_err(failed)?;
            if over.is_nan() || over > ALLOWED_OVER_STAIRS {
                return Err(self.info().error(format!(
                    "the gradient of `{output}` deviates from finite differences by {over:.1e} over a wider step (at most \
                     {ALLOWED_OVER_STAIRS}){}; guidance by this network would be wrong; export it before it is quantised",
                    no_gradient()
                )));
            }
        }
        Ok(deviation.along)
    }

    /// Describes the first node whose own gradient deviates at its values.
    fn culprit(&self, route: &Route, x: &Tensor) -> Result<Option<String>> {
        let mut wrong = None;
        let mut test = |step: &Step, values: &HashMap<&str, Tensor>, results: &[Tensor]| -> Result<()> {
            let real = |t: Option<&Tensor>| t.is_some_and(|t| t.dtype().is_float() && t.elem_count() > 0);
            if wrong.is_some() || !real(results.first()) {
                return Ok(());
            }
            for name in step.inputs.iter().filter(|name| real(values.get(name.as_str()))) {
                let Some(own) = values.get(name.as_str()) else { continue };
                let run = |x: &Tensor| {
                    let other = |t: &Tensor| if t.dtype().is_float() { t.to_dtype(x.dtype()) } else { Ok(t.clone()) };
                    let value = |n: &str| if n == name { Some(x.clone()) } else { other(values.get(n)?).ok() };
                    let results = route.run_step(step, x.dtype(), value)?;
                    results.into_iter().next().ok_or_else(|| Error::input("no result"))
                };
                let var = Var::from_tensor(own)?;
                let y = run(&var)?;
                if !y.track_op() {
                    continue;
                }
                let vjp = |r: &Tensor| Ok((&y * r)?.sum_all()?.backward()?.remove(var.as_tensor()));
                let deviation = Differences::new(own, &y.detach(), vjp, run).and_then(|d| d.deviation());
                if let Some(deviation) = deviation.ok().filter(|d| !d.is_small()) {
                    wrong = Some(format!("{} deviates by {deviation} on its own", step.label));
                }
            }
            Ok(())
        };
        route.run(x, &mut test)?;
        Ok(wrong)
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

/// The gradient of Σ f(x)·r, beside f in f64.
struct Differences<F> {
    f: F,
    at: Tensor,
    value: Tensor,
    r: Tensor,
    gradient: Tensor,
    scale: f64,
}

impl<F: Fn(&Tensor) -> Result<Tensor>> Differences<F> {
    /// `y` is f(x) in f32, and `vjp` its VJP.
    fn new(x: &Tensor, y: &Tensor, vjp: impl Fn(&Tensor) -> Result<Option<Tensor>>, f: F) -> Result<Self> {
        let r = Generator::new(1).randn(y.dims(), y.device())?;
        if !dot(y, &r)?.is_finite() {
            return Err(Error::input("its values are not finite"));
        }
        let gradient = vjp(&r)?.map_or_else(|| x.zeros_like(), Ok)?;
        let at = x.detach().to_dtype(DType::F64)?;
        let (value, scale) = (f(&at)?, length(&at)?.max(1e-3));
        Ok(Differences { f, at, value, r, gradient, scale })
    }

    /// The deviation in the direction `d`, whose entries are near 1, so that it is relative to the gradient's norm.
    fn towards(&self, d: &Tensor, step: f64) -> Result<f64> {
        let exact = dot(&self.gradient, d)?;
        let step = step * self.scale;
        let moved = (self.f)(&(&self.at + (d.to_dtype(DType::F64)? * step)?)?)?;
        let numeric = dot(&(moved - &self.value)?, &self.r)? / step;
        let size = dot(&self.gradient, &self.gradient)?.sqrt().max(exact.abs()).max(numeric.abs());
        Ok((numeric - exact).abs() / size.max(f64::MIN_POSITIVE))
    }

    /// The deviation along the gradient. A zero gradient has no direction; missing parts show in the random ones.
    fn along(&self, step: f64) -> Result<f64> {
        match length(&self.gradient)? {
            0.0 => Ok(0.0),
            length => self.towards(&(&self.gradient / length)?, step),
        }
    }

    fn deviation(&self) -> Result<Deviation> {
        // A random direction finds missing parts of the gradient, which do not show along it.
        let random = Generator::new(2).randn(self.at.dims(), self.at.device())?;
        Ok(Deviation { along: self.along(STEP)?, across: self.towards(&random, STEP)? })
    }
}
