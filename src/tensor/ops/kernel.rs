//! Turns a CPU kernel into a candle operation with a custom VJP.
//!
//! Where the kernel does not apply, on other devices and dtypes, the plain form gets the same VJP. Weights have no gradient.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Storage, Tensor};

use super::vjp::custom_vjp;
use super::widen::WeightSlice;
use crate::{checked_elements, elements};

/// A contiguous argument in f32. `data` has exactly as many numbers as `dims` say, so that a kernel may compute places in
/// `data` from `dims`.
#[derive(Clone, Copy)]
pub(super) struct Arg<'a> {
    pub data: &'a [f32],
    pub dims: &'a [usize],
}

/// An operation with `N` arguments and some constants (weights), which has a kernel for f32 on the CPU.
pub(super) trait Kernel<const N: usize>: Send + Sync + 'static {
    const NAME: &'static str;

    /// Whether constants may be in half precision.
    const HALF_WEIGHTS: bool = false;

    /// The constants that the operation reads. They get no gradient: if autodiff tracks one, the plain form is used under
    /// autodiff.
    fn constants(&self) -> [Option<&Tensor>; 2] {
        [None, None]
    }

    /// Computes the result and its shape with the kernel.
    fn fast(&self, args: [Arg; N]) -> Result<(Vec<f32>, Shape)>;

    /// Computes the result with candle's operations: the definition of the operation.
    fn plain(&self, args: [&Tensor; N]) -> Result<Tensor>;

    /// Computes the result with kernels for a CUDA device. `None` where they do not apply. Autodiff tracks no argument; the
    /// arguments are of dtypes that [`crate::cuda`] knows, and may have any strides.
    #[cfg(feature = "cuda")]
    fn device(&self, _args: [&Tensor; N]) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// The VJP: gradients of the arguments, at least of those that are `wanted`, from the gradient of the result. Autodiff
    /// tracks none of the tensors. The default is for operations that are themselves part of a VJP.
    fn vjp(&self, _args: [&Tensor; N], _wanted: [bool; N], _dy: &Tensor) -> Result<[Option<Tensor>; N]> {
        candle_core::bail!("{}: has no VJP", Self::NAME)
    }
}

struct Operation<K>(K);

fn arg<'a>(storage: &'a CpuStorage, layout: &'a Layout, name: &str) -> Result<Arg<'a>> {
    match storage {
        CpuStorage::F32(data) => Ok(Arg { data: numbers(data, layout, name)?, dims: layout.dims() }),
        _ => candle_core::bail!("{name}: needs f32"),
    }
}

/// The numbers of a contiguous tensor. Its dimensions are held against them once more: candle multiplies dimensions
/// without a check, and a product that wraps must not reach the pointers of a kernel.
fn numbers<'a, T>(data: &'a [T], layout: &Layout, name: &str) -> Result<&'a [T]> {
    let Some((from, to)) = layout.contiguous_offsets() else { candle_core::bail!("{name}: needs to be contiguous") };
    match data.get(from..to) {
        Some(numbers) if elements(layout.dims()) == Some(numbers.len()) => Ok(numbers),
        _ => candle_core::bail!("{name}: its dimensions {:?} do not fit its {} numbers", layout.dims(), data.len()),
    }
}

/// The number of elements of a result.
pub(super) fn result_len(dims: &[usize]) -> Result<usize> {
    Ok(checked_elements(dims)?)
}

impl<K: Kernel<1>> CustomOp1 for Operation<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let (y, shape) = self.0.fast([arg(s, l, K::NAME)?])?;
        Ok((CpuStorage::F32(y), shape))
    }

    fn bwd(&self, a: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let [a] = tracked_vjp(&self.0, [a], gradient)?;
        Ok(a)
    }
}

impl<K: Kernel<2>> CustomOp2 for Operation<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (y, shape) = self.0.fast([arg(s1, l1, K::NAME)?, arg(s2, l2, K::NAME)?])?;
        Ok((CpuStorage::F32(y), shape))
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok(tracked_vjp(&self.0, [a, b], gradient)?.into())
    }
}

impl<K: Kernel<3>> CustomOp3 for Operation<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let args = [arg(s1, l1, K::NAME)?, arg(s2, l2, K::NAME)?, arg(s3, l3, K::NAME)?];
        let (y, shape) = self.0.fast(args)?;
        Ok((CpuStorage::F32(y), shape))
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        Ok(tracked_vjp(&self.0, [a, b, c], gradient)?.into())
    }
}

/// Whether a kernel can read a constant as it is: contiguous, on the CPU, in f32 or, if `half`, in half precision.
pub(super) fn ready(constant: &Tensor, half: bool) -> bool {
    let dtype = match constant.dtype() {
        DType::F32 => true,
        DType::F16 | DType::BF16 => half,
        _ => false,
    };
    dtype && constant.device().is_cpu() && constant.is_contiguous() && !constant.track_op()
}

/// Returns the gradients of those arguments that autodiff tracks. candle would keep others to the end.
fn tracked_vjp<const N: usize, K: Kernel<N>>(
    kernel: &K,
    args: [&Tensor; N],
    dy: &Tensor,
) -> Result<[Option<Tensor>; N]> {
    let (wanted, args) = (args.map(Tensor::track_op), args.map(Tensor::detach));
    let gradients = kernel.vjp(args.each_ref(), wanted, &dy.detach())?;
    Ok(std::array::from_fn(|i| gradients[i].clone().filter(|_| wanted[i])))
}

/// Whether the kernel applies: f32 on the CPU.
fn applies<const N: usize, K: Kernel<N>>(kernel: &K, args: [&Tensor; N]) -> bool {
    args.iter().all(|a| a.device().is_cpu() && a.dtype() == DType::F32)
        && kernel.constants().into_iter().flatten().all(|c| ready(c, K::HALF_WEIGHTS))
}

/// Computes the form for a CUDA device if there is one, else the plain form.
fn forward<const N: usize, K: Kernel<N>>(kernel: &K, args: [&Tensor; N]) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if on_device(args)
        && let Some(y) = kernel.device(args)?
    {
        return Ok(y);
    }
    kernel.plain(args)
}

/// Whether all arguments are on a CUDA device, of dtypes that our kernels know.
#[cfg(feature = "cuda")]
pub(super) fn on_device<const N: usize>(args: [&Tensor; N]) -> bool {
    args.iter().all(|a| a.device().is_cuda() && crate::cuda::known(a.dtype()) && a.elem_count() > 0)
}

/// [`on_device`], and all arguments are of one dtype.
#[cfg(feature = "cuda")]
pub(super) fn alike_on_device<const N: usize>(args: [&Tensor; N]) -> bool {
    on_device(args) && args.windows(2).all(|pair| pair[0].dtype() == pair[1].dtype())
}

/// Computes the form for the device, with the kernel's VJP unless autodiff tracks a constant.
fn elsewhere<const N: usize, K: Kernel<N>>(kernel: K, args: [&Tensor; N]) -> Result<Tensor> {
    if kernel.constants().into_iter().flatten().any(|c| c.track_op()) {
        return kernel.plain(args);
    }
    if !args.iter().any(|a| a.track_op()) {
        return forward(&kernel, args);
    }
    let value = forward(&kernel, args.map(Tensor::detach).each_ref())?;
    let vjp = move |args: &[Tensor], wanted: &[bool], _: &Tensor, dy: &Tensor| {
        let (args, wanted) = (std::array::from_fn(|i| &args[i]), std::array::from_fn(|i| wanted[i]));
        Ok(kernel.vjp(args, wanted, dy)?.into())
    };
    custom_vjp(&args, value, Box::new(vjp))
}

/// Applies the kernel, or the plain form where the kernel does not apply.
pub(super) fn apply1<K: Kernel<1>>(k: K, a: &Tensor) -> Result<Tensor> {
    if applies(&k, [a]) { a.contiguous()?.apply_op1(Operation(k)) } else { elsewhere(k, [a]) }
}

/// [`apply1`] with two arguments.
pub(super) fn apply2<K: Kernel<2>>(k: K, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if applies(&k, [a, b]) { a.contiguous()?.apply_op2(&b.contiguous()?, Operation(k)) } else { elsewhere(k, [a, b]) }
}

/// [`apply1`] with three arguments.
pub(super) fn apply3<K: Kernel<3>>(k: K, a: &Tensor, b: &Tensor, c: &Tensor) -> Result<Tensor> {
    if applies(&k, [a, b, c]) {
        a.contiguous()?.apply_op3(&b.contiguous()?, &c.contiguous()?, Operation(k))
    } else {
        elsewhere(k, [a, b, c])
    }
}

/// Calls `fast` if all tensors are f32 on the CPU, otherwise `plain`. For tensors that autodiff does not track. On a CUDA
/// device the caller has tried its kernels before.
pub(super) fn either<const N: usize, R>(
    args: [&Tensor; N],
    fast: impl FnOnce([Arg; N]) -> Result<R>,
    plain: impl FnOnce([&Tensor; N]) -> Result<R>,
) -> Result<R> {
    if !args.iter().all(|a| a.device().is_cpu() && a.dtype() == DType::F32) {
        return plain(args);
    }
    let mut contiguous = Vec::with_capacity(N);
    for a in args {
        contiguous.push(a.contiguous()?);
    }
    let storages: Vec<_> = contiguous.iter().map(Tensor::storage_and_layout).collect();
    let mut read = [Arg { data: &[], dims: &[] }; N];
    for (read, (storage, layout)) in read.iter_mut().zip(&storages) {
        if let Storage::Cpu(storage) = &**storage {
            *read = arg(storage, layout, "gradient")?;
        }
    }
    fast(read)
}

/// Calls `f` with the numbers of a constant in their own dtype.
pub(super) fn read_numbers<R>(t: &Tensor, f: impl FnOnce(WeightSlice) -> R) -> Result<R> {
    let (storage, layout) = t.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(data)) => Ok(f(WeightSlice::F32(numbers(data, layout, "constant")?))),
        Storage::Cpu(CpuStorage::F16(data)) => Ok(f(WeightSlice::F16(numbers(data, layout, "constant")?))),
        Storage::Cpu(CpuStorage::BF16(data)) => Ok(f(WeightSlice::Bf16(numbers(data, layout, "constant")?))),
        _ => candle_core::bail!("constant: needs f32, f16 or bf16 on the CPU"),
    }
}

/// Calls `f` with all numbers of a constant in f32.
pub(super) fn read<R>(t: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    read_numbers(t, |numbers| f(numbers.widened(0..t.elem_count(), &mut Vec::new())))
}

/// [`read`] of a constant that may be absent.
pub(super) fn read_some<R>(t: Option<&Tensor>, f: impl FnOnce(Option<&[f32]>) -> R) -> Result<R> {
    match t {
        Some(t) => read(t, |data| f(Some(data))),
        None => Ok(f(None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (2⁶⁰ + 1) · 16 is 16 in 64 bits.
    #[test]
    fn dimensions_whose_product_wraps_do_not_reach_a_kernel() {
        let data = [0f32; 16];
        let layout = |dims: &[usize]| Layout::contiguous(Shape::from(dims));
        assert_eq!(numbers(&data, &layout(&[4, 4]), "x").unwrap().len(), 16);
        let wrapped = std::panic::catch_unwind(|| numbers(&data, &layout(&[(1 << 60) + 1, 16]), "x").is_err());
        // candle may be built with checks of its own products.
        assert!(wrapped.unwrap_or(true));
        assert!(numbers(&data, &layout(&[4, 5]), "x").is_err());
        assert!(result_len(&[1 << 40, 1 << 40]).is_err());
    }
}
