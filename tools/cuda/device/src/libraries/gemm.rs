//! The matrix product behind cuBLAS and cuBLASLt: `D = f(α · op(A) · op(B) + β · C + bias)`, column by column, in batches.

use super::number::{Number, round_to_tf32};
use super::product::{Matrix, product};
use super::view::View;
use crate::count::Counted;
use crate::stream::{StreamHandle, Work, enqueue};

/// A matrix in device memory: columns of `ld` elements, and matrices of a batch `stride` elements apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operand {
    pub(super) address: u64,
    pub(super) number: Number,
    pub(super) ld: usize,
    pub(super) stride: usize,
    pub(super) transposed: bool,
}

impl Operand {
    /// The matrix of batch entry `i`, as its columns.
    fn view(&self, what: &str, i: usize, rows: usize, columns: usize) -> View {
        View {
            what: what.into(),
            address: self.address + (i * self.stride * self.number.bytes()) as u64,
            number: self.number,
            dims: vec![columns, rows],
            strides: vec![self.ld, 1],
        }
    }
}

/// How the product is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compute {
    F16,
    F32,
    Tf32,
    F64,
}

/// What is applied to the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    None,
    Relu,
    Gelu,
}

/// A factor, which lies in the host's memory (and was read by the call) or on the device (and is read when the work runs).
#[derive(Clone, Copy, Debug)]
pub(super) enum Scalar {
    Host(f64),
    Device(u64, Number),
}

impl Scalar {
    /// # Safety
    /// A scalar of the host may be read as `number`.
    pub(super) unsafe fn new(address: *const std::ffi::c_void, number: Number, on_device: bool) -> Self {
        if on_device {
            return Self::Device(address as u64, number);
        }
        // SAFETY: guaranteed by the caller.
        Self::Host(unsafe {
            match number {
                Number::F64 => *address.cast::<f64>(),
                Number::F16 => (*address.cast::<half::f16>()).to_f64(),
                _ => f64::from(*address.cast::<f32>()),
            }
        })
    }

    fn value(self, what: &str) -> f64 {
        match self {
            Self::Host(x) => x,
            Self::Device(address, number) => {
                let view = View { what: what.into(), address, number, dims: vec![1], strides: vec![1] };
                f64::from(view.read()[0])
            }
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Gemm {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) batch: usize,
    pub(super) compute: Compute,
    pub(super) alpha: Scalar,
    pub(super) beta: Scalar,
    pub(super) a: Operand,
    pub(super) b: Operand,
    pub(super) c: Operand,
    pub(super) d: Operand,
    /// One number for each row.
    pub(super) bias: Option<(u64, Number)>,
    pub(super) activation: Activation,
    /// Address and bytes. 0 is none.
    pub(super) workspace: (u64, usize),
}

impl Gemm {
    fn name(&self) -> String {
        let op = |o: &Operand| if o.transposed { 'T' } else { 'N' };
        let Self { m, n, k, batch, a, b, .. } = self;
        let aligned = [self.a, self.b, self.d].iter().all(|o| o.address.is_multiple_of(16));
        let note = if aligned { "" } else { ", not aligned to 16 bytes" };
        format!("gemm {:?} {}{} m{m} n{n} k{k} batch {batch}{note}", a.number, op(a), op(b))
    }

    /// Puts the product into the stream. Returns whether the stream takes it.
    pub(super) fn launch(self, stream: StreamHandle) -> bool {
        let Self { m, n, k, batch, .. } = self;
        if m == 0 || n == 0 || batch == 0 {
            return true;
        }
        let bytes =
            batch * (m * k * self.a.number.bytes() + k * n * self.b.number.bytes() + m * n * self.d.number.bytes());
        let flops = 2.0 * (m * n * k * batch) as f64;
        let work = Work { group: Counted::Gemm, name: self.name(), bytes: bytes as u64, flops };
        enqueue(stream, work, move || self.run()).is_ok()
    }

    fn run(&self) {
        super::blas_lt::use_workspace(self.workspace);
        let (alpha, beta) = (self.alpha.value("alpha"), self.beta.value("beta"));
        if self.compute == Compute::F64 {
            return self.run_f64(alpha, beta);
        }
        let (mut a, mut b) = (None, None);
        let bias = self.bias.map(|(address, number)| {
            View { what: "the bias of a gemm".into(), address, number, dims: vec![self.m], strides: vec![1] }.read()
        });
        for i in 0..self.batch {
            // An operand that all products of the batch share is read once.
            if i == 0 || self.a.stride != 0 {
                a = Some(self.factor("A", &self.a, i, self.m, self.k));
            }
            if i == 0 || self.b.stride != 0 {
                b = Some(self.factor("B", &self.b, i, self.k, self.n));
            }
            let (Some(a), Some(b)) = (&a, &b) else { return };
            self.one(i, (alpha, beta), a, b, bias.as_deref());
        }
    }

    /// Reads `op(X)`, `rows` by `columns`, as the columns of `X`.
    fn factor(&self, what: &str, x: &Operand, i: usize, rows: usize, columns: usize) -> Vec<f32> {
        let (rows, columns) = if x.transposed { (columns, rows) } else { (rows, columns) };
        let mut numbers = x.view(&format!("{what} of a gemm"), i, rows, columns).read();
        if self.compute == Compute::Tf32 && x.number == Number::F32 {
            round_to_tf32(&mut numbers);
        }
        numbers
    }

    fn one(&self, i: usize, (alpha, beta): (f64, f64), a: &[f32], b: &[f32], bias: Option<&[f32]>) {
        let &Self { m, n, k, .. } = self;
        let strides = |x: &Operand, rows, columns| if x.transposed { (columns, 1) } else { (1, rows) };
        let ((ar, ac), (br, bc)) = (strides(&self.a, m, k), strides(&self.b, k, n));
        let mut to = vec![0.0; m * n];
        let (a, b) = (Matrix { data: a, row: ar, column: ac }, Matrix { data: b, row: br, column: bc });
        product((m, n, k), a, b, &mut to, (1, m), false);
        // C is not read if its factor is 0, so that it may be uninitialised.
        let c = (beta != 0.0).then(|| self.c.view("C of a gemm", i, m, n).read());
        let (alpha, beta) = (alpha as f32, beta as f32);
        for (j, x) in to.iter_mut().enumerate() {
            let mut y = alpha * *x;
            if let Some(c) = &c {
                y += beta * c[j];
            }
            if let Some(bias) = bias {
                y += bias[j % m];
            }
            *x = match self.activation {
                Activation::None => y,
                Activation::Relu => y.max(0.0),
                Activation::Gelu => gelu(y),
            };
            if self.compute == Compute::F16 {
                *x = Number::F16.round(*x);
            }
        }
        self.d.view("D of a gemm", i, m, n).write(&to);
    }

    /// In f64, element by element: no operation of the product is in f64.
    fn run_f64(&self, alpha: f64, beta: f64) {
        use crate::memory::{Access, check, mark_written};
        let at = |x: &Operand, i, row, column| x.address + 8 * (i * x.stride + column * x.ld + row) as u64;
        let load = |what: &str, x: &Operand, i, row, column| {
            let address = if x.transposed { at(x, i, column, row) } else { at(x, i, row, column) };
            check(what, address, 8, Access::Read);
            // SAFETY: checked.
            unsafe { (address as *const f64).read_unaligned() }
        };
        for i in 0..self.batch {
            for (column, row) in (0..self.n).flat_map(|column| (0..self.m).map(move |row| (column, row))) {
                let sum: f64 = (0..self.k)
                    .map(|p| load("A of a gemm", &self.a, i, row, p) * load("B of a gemm", &self.b, i, p, column))
                    .sum();
                let c = if beta == 0.0 { 0.0 } else { beta * load("C of a gemm", &self.c, i, row, column) };
                let to = at(&self.d, i, row, column);
                check("D of a gemm", to, 8, Access::Write);
                // SAFETY: checked.
                unsafe { (to as *mut f64).write_unaligned(alpha * sum + c) };
                mark_written(to, 8);
            }
        }
    }
}

/// GELU by tanh, as cuBLASLt computes it.
pub(super) fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x * x * x)).tanh())
}
