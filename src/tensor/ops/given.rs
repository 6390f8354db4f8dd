//! Values that come with a gradient of their own, whatever they were computed by, on every device.
//!
//! candle builds a graph of whatever touches a tracked tensor, and keeps all of it until the gradient is there. Here a
//! value is computed from detached inputs, which keeps nothing, and its graph is one node: the inputs and a function
//! that turns the gradient of the value into theirs.

use std::sync::Mutex;

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor, Var,
};

/// Gradients of inputs from the inputs, which of them are wanted, the value, and its gradient. All are detached.
pub type Gradient = dyn Fn(&[Tensor], &[bool], &Tensor, &Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync;

/// `value`, which was computed from these one to three inputs, with its gradient. The numbers are copied once if an
/// input is tracked by autodiff; else it is the value itself.
pub fn with_gradient(inputs: &[&Tensor], value: Tensor, gradient: Box<Gradient>) -> Result<Tensor> {
    if !inputs.iter().any(|t| t.track_op()) {
        return Ok(value);
    }
    let given = Given { value: Mutex::new(Some(value)), gradient };
    match inputs {
        [a] => a.apply_op1(given),
        [a, b] => a.apply_op2(b, given),
        [a, b, c] => a.apply_op3(b, c, given),
        _ => candle_core::bail!("a value with a gradient has one to three inputs, not {}", inputs.len()),
    }
}

/// The gradients of those `inputs` of `f` that are `wanted`, from the gradient of its result, which may depend on that
/// result: computes `f` again under autodiff.
pub fn pull_back(
    f: impl FnOnce(&[Tensor]) -> Result<Tensor>,
    inputs: &[Tensor],
    wanted: &[bool],
    gradient: impl FnOnce(Tensor) -> Result<Tensor>,
) -> Result<Vec<Option<Tensor>>> {
    let mut tracked = Vec::with_capacity(inputs.len());
    for (input, wanted) in inputs.iter().zip(wanted) {
        tracked.push(if *wanted { Var::from_tensor(input)?.into_inner() } else { input.clone() });
    }
    let y = f(&tracked)?;
    // candle begins with a gradient of one for a number: this number's is ours.
    let dy = gradient(y.detach())?;
    if y.shape() != dy.shape() {
        candle_core::bail!("a gradient {:?} for a result {:?}", dy.shape(), y.shape());
    }
    let number = Tensor::zeros((), y.dtype(), y.device())?;
    let number = with_gradient(&[&y], number, Box::new(move |_, _, _, _| Ok(vec![Some(dy.clone())])))?;
    drop(y);
    let mut gradients = number.backward()?;
    Ok(tracked.iter().zip(wanted).map(|(t, wanted)| gradients.remove(t).filter(|_| *wanted)).collect())
}

struct Given {
    /// Until it is taken.
    value: Mutex<Option<Tensor>>,
    gradient: Box<Gradient>,
}

const NAME: &str = "given";

impl Given {
    /// The value's numbers alone, in order.
    fn storage(&self) -> Result<(Storage, Shape)> {
        let value = self.value.lock().unwrap_or_else(|e| e.into_inner()).take();
        let Some(value) = value else { candle_core::bail!("{NAME}: the value was taken already") };
        let in_order = value.is_contiguous() && value.storage_and_layout().1.start_offset() == 0;
        let value = if in_order { value } else { value.force_contiguous()? };
        let (storage, layout) = value.storage_and_layout();
        Ok((storage.try_clone(layout)?, value.shape().clone()))
    }

    fn cpu(&self) -> Result<(CpuStorage, Shape)> {
        match self.storage()? {
            (Storage::Cpu(storage), shape) => Ok((storage, shape)),
            _ => candle_core::bail!("{NAME}: inputs and value lie on different devices"),
        }
    }

    fn cuda(&self) -> Result<(CudaStorage, Shape)> {
        match self.storage()? {
            (Storage::Cuda(storage), shape) => Ok((storage, shape)),
            _ => candle_core::bail!("{NAME}: inputs and value lie on different devices"),
        }
    }

    fn pull<const N: usize>(&self, inputs: [&Tensor; N], y: &Tensor, dy: &Tensor) -> Result<[Option<Tensor>; N]> {
        let wanted = inputs.map(Tensor::track_op);
        let gradients = (self.gradient)(&inputs.map(Tensor::detach), &wanted, &y.detach(), &dy.detach())?;
        // What is not wanted would stay in candle's store to the end.
        let gradients = std::array::from_fn(|i| gradients.get(i).cloned().flatten().filter(|_| wanted[i]));
        for (input, gradient) in inputs.iter().zip(&gradients) {
            if let Some(gradient) = gradient.as_ref().filter(|g: &&Tensor| g.shape() != input.shape()) {
                candle_core::bail!("a gradient {:?} of an input {:?}", gradient.shape(), input.shape());
            }
        }
        Ok(gradients)
    }
}

impl CustomOp1 for Given {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(&self, a: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let [a] = self.pull([a], y, dy)?;
        Ok(a)
    }
}

impl CustomOp2 for Given {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok(self.pull([a, b], y, dy)?.into())
    }
}

impl CustomOp3 for Given {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        Ok(self.pull([a, b, c], y, dy)?.into())
    }
}
