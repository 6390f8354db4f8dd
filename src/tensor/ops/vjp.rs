//! Vector–Jacobian products (VJPs): values with a custom VJP, and the VJP of a function, on every device.
//!
//! candle builds a graph of every operation on a tracked tensor, and keeps all of it until the backward pass. A value with
//! a custom VJP is computed from detached inputs, which keeps nothing. Its graph is one node: the inputs, and a function
//! that turns the gradient of the value into the gradients of the inputs.

use std::sync::Mutex;

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor, Var,
};

/// A VJP: (inputs, which of their gradients are wanted, value, gradient of the value) → gradients of the inputs. All
/// tensors are detached.
pub type Vjp = dyn Fn(&[Tensor], &[bool], &Tensor, &Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync;

/// Makes `value`, which was computed from one to three detached `inputs`, a function of them with a custom VJP.
///
/// Copies the numbers once if autodiff tracks an input; otherwise returns `value` itself.
///
/// # Errors
/// If there are no inputs, or more than three.
pub fn custom_vjp(inputs: &[&Tensor], value: Tensor, vjp: Box<Vjp>) -> Result<Tensor> {
    if !inputs.iter().any(|t| t.track_op()) {
        return Ok(value);
    }
    // A custom operation gives numbers in the order of their dimensions. A value that has them in another order, such as a
    // feature map with channels last, goes through it in the order of its numbers.
    if let Some(order) = order_of_numbers(&value) {
        let (back, value) = (inverse(&order), value.permute(order)?);
        let of_dimensions = back.clone();
        let vjp = move |inputs: &[Tensor], wanted: &[bool], y: &Tensor, dy: &Tensor| {
            vjp(inputs, wanted, &y.permute(of_dimensions.clone())?, &dy.permute(of_dimensions.clone())?)
        };
        return custom_vjp(inputs, value, Box::new(vjp))?.permute(back);
    }
    let op = CustomVjp { value: Mutex::new(Some(value)), vjp };
    match inputs {
        [a] => a.apply_op1(op),
        [a, b] => a.apply_op2(b, op),
        [a, b, c] => a.apply_op3(b, c, op),
        _ => candle_core::bail!("a value with a custom VJP has one to three inputs, not {}", inputs.len()),
    }
}

/// Returns the gradients of those `inputs` of `f` that are `wanted`. Computes `f` under autodiff; `gradient` returns the
/// gradient of its result, on which it may depend.
///
/// # Errors
/// If `f` or `gradient` fails, or the gradient does not have the shape of the result.
pub fn vjp(
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
    // candle starts from a scalar whose gradient is 1. The VJP of this scalar is the given gradient.
    let dy = gradient(y.detach())?;
    if y.shape() != dy.shape() {
        candle_core::bail!("a gradient {:?} does not fit a result {:?}", dy.shape(), y.shape());
    }
    let scalar = Tensor::zeros((), y.dtype(), y.device())?;
    let scalar = custom_vjp(&[&y], scalar, Box::new(move |_, _, _, _| Ok(vec![Some(dy.clone())])))?;
    drop(y);
    let mut gradients = scalar.backward()?;
    Ok(tracked.iter().zip(wanted).map(|(t, wanted)| gradients.remove(t).filter(|_| *wanted)).collect())
}

/// The order of dimensions in which a tensor's numbers lie one after the other; `None` if they do already, or never do.
fn order_of_numbers(t: &Tensor) -> Option<Vec<usize>> {
    if t.is_contiguous() {
        return None;
    }
    let mut order: Vec<usize> = (0..t.rank()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(t.stride()[*i]));
    let ordered = t.permute(order.clone()).ok()?;
    ordered.is_contiguous().then_some(order)
}

/// The order that takes a permutation back.
fn inverse(order: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; order.len()];
    for (to, from) in order.iter().enumerate() {
        inverse[*from] = to;
    }
    inverse
}

struct CustomVjp {
    /// Taken by the forward pass.
    value: Mutex<Option<Tensor>>,
    vjp: Box<Vjp>,
}

const NAME: &str = "custom VJP";

impl CustomVjp {
    /// The value's numbers, contiguous.
    fn storage(&self) -> Result<(Storage, Shape)> {
        let value = self.value.lock().unwrap_or_else(|e| e.into_inner()).take();
        let Some(value) = value else { candle_core::bail!("{NAME}: the forward pass has run already") };
        let in_order = value.is_contiguous() && value.storage_and_layout().1.start_offset() == 0;
        let value = if in_order { value } else { value.force_contiguous()? };
        let (storage, layout) = value.storage_and_layout();
        Ok((storage.try_clone(layout)?, value.shape().clone()))
    }

    fn cpu(&self) -> Result<(CpuStorage, Shape)> {
        match self.storage()? {
            (Storage::Cpu(storage), shape) => Ok((storage, shape)),
            _ => candle_core::bail!("{NAME}: inputs and value are on different devices"),
        }
    }

    fn cuda(&self) -> Result<(CudaStorage, Shape)> {
        match self.storage()? {
            (Storage::Cuda(storage), shape) => Ok((storage, shape)),
            _ => candle_core::bail!("{NAME}: inputs and value are on different devices"),
        }
    }

    fn vjp<const N: usize>(&self, inputs: [&Tensor; N], y: &Tensor, dy: &Tensor) -> Result<[Option<Tensor>; N]> {
        let wanted = inputs.map(Tensor::track_op);
        let gradients = (self.vjp)(&inputs.map(Tensor::detach), &wanted, &y.detach(), &dy.detach())?;
        // candle would keep unwanted gradients to the end of the backward pass.
        let gradients = std::array::from_fn(|i| gradients.get(i).cloned().flatten().filter(|_| wanted[i]));
        for (input, gradient) in inputs.iter().zip(&gradients) {
            if let Some(gradient) = gradient.as_ref().filter(|g: &&Tensor| g.shape() != input.shape()) {
                candle_core::bail!("a gradient {:?} does not fit an input {:?}", gradient.shape(), input.shape());
            }
        }
        Ok(gradients)
    }
}

impl CustomOp1 for CustomVjp {
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
        let [a] = self.vjp([a], y, dy)?;
        Ok(a)
    }
}

impl CustomOp2 for CustomVjp {
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
        Ok(self.vjp([a, b], y, dy)?.into())
    }
}

impl CustomOp3 for CustomVjp {
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
        Ok(self.vjp([a, b, c], y, dy)?.into())
    }
}
