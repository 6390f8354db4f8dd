//! One operation with a gradient of our own.
//!
//! candle's tape keeps every intermediate of a composition, computes the gradients of constants too, and some of its
//! gradients are wrong. Here the value is computed off the tape and the vector-Jacobian product is written by hand.

use std::sync::Mutex;

use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor};

/// (x, y, ∂L/∂y) → ∂L/∂x.
type Vjp = dyn Fn(&Tensor, &Tensor, &Tensor) -> crate::Result<Tensor> + Send + Sync;

/// `y`, computed from `x` where no tape was looking, as a function of `x` with the given vector-Jacobian product.
pub fn differentiable(
    x: &Tensor,
    y: Tensor,
    vjp: impl Fn(&Tensor, &Tensor, &Tensor) -> crate::Result<Tensor> + Send + Sync + 'static,
) -> crate::Result<Tensor> {
    if !x.track_op() {
        return Ok(y);
    }
    // A copy of its numbers is made from the beginning of its storage on.
    let in_order = y.is_contiguous() && y.storage_and_layout().1.start_offset() == 0;
    let (y, shape) = (if in_order { y } else { y.force_contiguous()? }, x.shape().clone());
    Ok(x.apply_op1(Function { y: Mutex::new(Some(y)), shape, vjp: Box::new(vjp) })?)
}

struct Function {
    /// Taken by the forward pass, so that the tape does not hold the result twice.
    y: Mutex<Option<Tensor>>,
    /// Of x.
    shape: Shape,
    vjp: Box<Vjp>,
}

impl Function {
    fn value(&self) -> Result<Tensor> {
        let mut y = self.y.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        y.take().ok_or_else(|| candle_core::Error::Msg("a result was asked for twice".into()))
    }
}

impl CustomOp1 for Function {
    fn name(&self) -> &'static str {
        "onnx"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = self.value()?;
        let (storage, layout) = y.storage_and_layout();
        match &*storage {
            Storage::Cpu(s) => {
                Ok((candle_core::backend::BackendStorage::try_clone(s, layout)?, layout.shape().clone()))
            }
            _ => candle_core::bail!("a result is not where its argument is"),
        }
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        let y = self.value()?;
        let (storage, layout) = y.storage_and_layout();
        match &*storage {
            Storage::Cuda(s) => {
                Ok((candle_core::backend::BackendStorage::try_clone(s, layout)?, layout.shape().clone()))
            }
            _ => candle_core::bail!("a result is not where its argument is"),
        }
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (x, y, gradient) = (x.detach(), y.detach(), gradient.detach());
        let dx = (self.vjp)(&x, &y, &gradient).map_err(|e| candle_core::Error::Msg(e.to_string()))?;
        if *dx.shape() != self.shape {
            candle_core::bail!("a gradient {:?} of an argument {:?}", dx.shape(), self.shape);
        }
        Ok(Some(dx))
    }
}
