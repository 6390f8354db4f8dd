//! How a kernel for the CPU becomes an operation of candle's, with gradient.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Storage, Tensor, Var};

use super::widen::Numbers;

/// A contiguous argument.
#[derive(Clone, Copy)]
pub(super) struct Arg<'a> {
    pub data: &'a [f32],
    pub dims: &'a [usize],
}

/// An operation with `N` arguments and constants (weights), which has a kernel for f32 on the CPU.
pub(super) trait Kernel<const N: usize>: Send + Sync + 'static {
    const NAME: &'static str;

    /// Whether constants may be in half precision.
    const HALF_WEIGHTS: bool = false;

    /// What the operation reads besides its arguments. Gradients do not flow into constants: where one is tracked by
    /// autodiff, the plain form is taken.
    fn constants(&self) -> [Option<&Tensor>; 2];

    /// The result and its shape.
    fn fast(&self, args: [Arg; N]) -> Result<(Vec<f32>, Shape)>;

    /// The definition.
    fn plain(&self, args: [&Tensor; N]) -> Result<Tensor>;

    /// The vector-Jacobian product for each argument that autodiff tracks, by default that of the plain form.
    fn gradient(&self, args: [&Tensor; N], gradient: &Tensor) -> Result<[Option<Tensor>; N]> {
        let mut inputs = Vec::with_capacity(N);
        for a in args {
            let a_copy = a.detach();
            inputs.push(if a.track_op() { Var::from_tensor(&a_copy)?.as_tensor().clone() } else { a_copy });
        }
        let y = self.plain(std::array::from_fn(|i| &inputs[i]))?;
        let gradients = (y * gradient.detach())?.sum_all()?.backward()?;
        Ok(std::array::from_fn(|i| if args[i].track_op() { gradients.get(&inputs[i]).cloned() } else { None }))
    }
}

struct Operation<K>(K);

fn arg<'a>(storage: &'a CpuStorage, layout: &'a Layout, name: &str) -> Result<Arg<'a>> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((from, to))) => Ok(Arg { data: &data[from..to], dims: layout.dims() }),
        _ => candle_core::bail!("{name}: needs contiguous f32"),
    }
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
        let [ga] = self.0.gradient([a], gradient)?;
        Ok(ga)
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
        let [ga, gb] = self.0.gradient([a, b], gradient)?;
        Ok((ga, gb))
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
        let [ga, gb, gc] = self.0.gradient([a, b, c], gradient)?;
        Ok((ga, gb, gc))
    }
}

/// Whether a constant, f32 or else half of it, lies ready for a kernel.
pub(super) fn ready(constant: &Tensor, half: bool) -> bool {
    let dtype = match constant.dtype() {
        DType::F32 => true,
        DType::F16 | DType::BF16 => half,
        _ => false,
    };
    dtype && constant.device().is_cpu() && constant.is_contiguous() && !constant.track_op()
}

/// f32 on the CPU is what kernels take.
fn fast<const N: usize, K: Kernel<N>>(kernel: &K, args: [&Tensor; N]) -> bool {
    args.iter().all(|a| a.device().is_cpu() && a.dtype() == DType::F32)
        && kernel.constants().into_iter().flatten().all(|c| ready(c, K::HALF_WEIGHTS))
}

/// Applies the kernel, or the plain form where the kernel does not suit.
pub(super) fn apply1<K: Kernel<1>>(k: K, a: &Tensor) -> Result<Tensor> {
    if fast(&k, [a]) { a.contiguous()?.apply_op1(Operation(k)) } else { k.plain([a]) }
}

/// [`apply1`] with two arguments.
pub(super) fn apply2<K: Kernel<2>>(k: K, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if fast(&k, [a, b]) { a.contiguous()?.apply_op2(&b.contiguous()?, Operation(k)) } else { k.plain([a, b]) }
}

/// [`apply1`] with three arguments.
pub(super) fn apply3<K: Kernel<3>>(k: K, a: &Tensor, b: &Tensor, c: &Tensor) -> Result<Tensor> {
    if fast(&k, [a, b, c]) {
        a.contiguous()?.apply_op3(&b.contiguous()?, &c.contiguous()?, Operation(k))
    } else {
        k.plain([a, b, c])
    }
}

/// Reads a constant as it lies.
pub(super) fn read_numbers<R>(t: &Tensor, f: impl FnOnce(Numbers) -> R) -> Result<R> {
    let (storage, layout) = t.storage_and_layout();
    let Some((from, to)) = layout.contiguous_offsets() else { candle_core::bail!("constant: needs to be contiguous") };
    match &*storage {
        Storage::Cpu(CpuStorage::F32(data)) => Ok(f(Numbers::F32(&data[from..to]))),
        Storage::Cpu(CpuStorage::F16(data)) => Ok(f(Numbers::F16(&data[from..to]))),
        Storage::Cpu(CpuStorage::BF16(data)) => Ok(f(Numbers::Bf16(&data[from..to]))),
        _ => candle_core::bail!("constant: needs f32, f16 or bf16 on the CPU"),
    }
}

/// Reads a constant, all of it in f32.
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
