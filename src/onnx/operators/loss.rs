//! Losses of classifiers, as networks exported for training have them.

use candle_core::{Device, Tensor};

use super::activation::log_softmax_of;
use super::constant::placed;
use super::{Inputs, Run, ints, one};
use crate::attributes::Attributes;
use crate::{Error, Result};

/// How the losses of all positions become one.
#[derive(Clone, Copy)]
enum Reduction {
    None,
    Sum,
    Mean,
}

struct Settings {
    reduction: Reduction,
    /// A class whose positions do not count.
    ignored: Option<i64>,
}

impl Settings {
    fn new(a: &Attributes) -> Result<Self> {
        let reduction = match a.text("reduction", "mean")?.as_str() {
            "none" => Reduction::None,
            "sum" => Reduction::Sum,
            "mean" => Reduction::Mean,
            other => return Err(Error::input(format!("reduction {other:?} is not supported"))),
        };
        Ok(Settings { reduction, ignored: a.optional_int("ignore_index")? })
    }

    /// The loss of log-probabilities (N, C, …) for the classes (N, …) of argument 1, with the weights of argument 2.
    fn loss(&self, inputs: &Inputs, x: &Tensor) -> Result<Tensor> {
        let (classes, weights) = (inputs.get(1)?, inputs.floats(2)?);
        let c = x.dims().get(1).copied().unwrap_or(0);
        let mut places = x.dims().to_vec();
        if places.len() > 1 {
            places.remove(1);
        }
        if c == 0 || classes.dims() != places || weights.as_ref().is_some_and(|w| w.len() != c) {
            return Err(Error::input(format!("classes {:?} do not fit {:?}", classes.dims(), x.dims())));
        }
        let (mut index, mut factors) = (vec![], vec![]);
        for class in ints(classes)? {
            let counts = self.ignored != Some(class);
            let class = match usize::try_from(class) {
                Ok(class) if class < c => class,
                _ if !counts => 0,
                _ => return Err(Error::input(format!("there is no class {class} among {c}"))),
            };
            index.push(class as u32);
            factors.push(if counts { weights.as_ref().map_or(1.0, |w| w[class]) } else { 0.0 });
        }
        let total: f64 = factors.iter().map(|f| f64::from(*f)).sum();
        let index = Tensor::from_vec(index, places.as_slice(), x.device())?.unsqueeze(1)?;
        let factors = placed(&Tensor::from_vec(factors, places, &Device::Cpu)?, inputs)?;
        let losses = (x.contiguous()?.gather(&index, 1)?.squeeze(1)? * factors)?.neg()?;
        Ok(match self.reduction {
            Reduction::None => losses,
            Reduction::Sum => losses.sum_all()?,
            Reduction::Mean => (losses.sum_all()? / total)?,
        })
    }
}

pub fn negative_log_likelihood(a: &Attributes) -> Result<Run> {
    let settings = Settings::new(a)?;
    one(move |inputs| settings.loss(inputs, inputs.real(0)?))
}

/// Returns the log-probabilities too.
pub fn softmax_cross_entropy(a: &Attributes) -> Result<Run> {
    let settings = Settings::new(a)?;
    Ok(Box::new(move |inputs| {
        let x = inputs.real(0)?;
        if x.rank() < 2 {
            return Err(Error::input(format!("{:?} has no classes", x.dims())));
        }
        let log = log_softmax_of(x, 1)?;
        Ok(vec![settings.loss(inputs, &log)?, log])
    }))
}
