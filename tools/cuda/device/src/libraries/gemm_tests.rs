//! Tests of products through cuBLAS and cuBLASLt, against f64.

use std::ffi::c_void;
use std::ptr::null_mut;

use super::blas::*;
use super::blas_lt::*;
use super::number::Number;
use super::testing::{Buffer, faults, noise};

/// A product in columns: sizes, transpositions, what each leading dimension has beyond its rows, batch.
#[derive(Clone, Copy)]
struct Case {
    m: usize,
    n: usize,
    k: usize,
    ta: bool,
    tb: bool,
    extra: usize,
    batch: usize,
    beta: f32,
}

const ALPHA: f32 = 1.5;

impl Case {
    fn lds(self) -> [usize; 3] {
        [if self.ta { self.k } else { self.m }, if self.tb { self.n } else { self.k }, self.m].map(|r| r + self.extra)
    }

    fn strides(self) -> [usize; 3] {
        let [a, b, c] = self.lds();
        [a * if self.ta { self.m } else { self.k }, b * if self.tb { self.k } else { self.n }, c * self.n]
    }

    /// As many elements as the product may touch: nothing after the last column.
    fn lens(self) -> [usize; 3] {
        let strides = self.strides();
        std::array::from_fn(|i| strides[i] * self.batch - self.extra)
    }

    fn exact(self, a: &[f32], b: &[f32], c: &[f32]) -> Vec<Option<f64>> {
        let ([la, lb, lc], [sa, sb, sc]) = (self.lds(), self.strides());
        let mut exact = vec![None; c.len()];
        for (i, column, row) in
            (0..self.batch).flat_map(|i| (0..self.n).flat_map(move |j| (0..self.m).map(move |r| (i, j, r))))
        {
            let sum: f64 = (0..self.k)
                .map(|p| {
                    let a = a[i * sa + if self.ta { row * la + p } else { p * la + row }];
                    let b = b[i * sb + if self.tb { p * lb + column } else { column * lb + p }];
                    f64::from(a) * f64::from(b)
                })
                .sum();
            let at = i * sc + column * lc + row;
            let old = if self.beta == 0.0 { 0.0 } else { f64::from(self.beta) * f64::from(c[at]) };
            exact[at] = Some(f64::from(ALPHA) * sum + old);
        }
        exact
    }
}

fn cases() -> Vec<Case> {
    let plain = Case { m: 7, n: 5, k: 9, ta: false, tb: false, extra: 0, batch: 1, beta: 0.0 };
    vec![
        plain,
        Case { ta: true, extra: 3, batch: 3, ..plain },
        Case { tb: true, extra: 1, beta: 0.5, ..plain },
        Case { ta: true, tb: true, m: 33, n: 64, k: 100, batch: 2, beta: -1.0, ..plain },
        Case { m: 1, n: 1, k: 1, ..plain },
    ]
}

fn cuda_type(number: Number) -> i32 {
    match number {
        Number::F16 => 2,
        Number::Bf16 => 14,
        _ => 0,
    }
}

#[test]
fn strided_batched_products() {
    let mut handle = null_mut();
    assert_eq!(cublasCreate_v2(&mut handle), 0);
    for (number, most) in [(Number::F32, 1e-6), (Number::F16, 2e-3), (Number::Bf16, 8e-3)] {
        for case in cases() {
            let [a, b, c]: [Vec<f32>; 3] = std::array::from_fn(|i| noise(number, case.lens()[i], i as u32 + 1));
            let (da, db) = (Buffer::of(number, &a), Buffer::of(number, &b));
            // With a beta of 0, nothing may read the old result.
            let dc = if case.beta == 0.0 { Buffer::new(number, c.len()) } else { Buffer::of(number, &c) };
            let ([la, lb, lc], [sa, sb, sc]) = (case.lds().map(|n| n as i32), case.strides().map(|n| n as i64));
            let (t, alpha) = (cuda_type(number), ALPHA);
            let scalars = [&raw const alpha, &raw const case.beta].map(|p| p.cast::<c_void>());
            let [m, n, k] = [case.m, case.n, case.k].map(|n| n as i32);
            let code = cublasGemmStridedBatchedEx(
                handle,
                case.ta.into(),
                case.tb.into(),
                m,
                n,
                k,
                scalars[0],
                da.pointer(),
                t,
                la,
                sa,
                db.pointer(),
                t,
                lb,
                sb,
                scalars[1],
                dc.pointer(),
                t,
                lc,
                sc,
                case.batch as i32,
                68,
                -1,
            );
            assert_eq!(code, 0);
            if case.extra > 0 && case.beta == 0.0 {
                continue; // the gaps between columns are still unwritten, so the whole cannot be read back
            }
            let exact = case.exact(&a, &b, &c);
            let scale = exact.iter().flatten().fold(0f64, |s, x| s.max(x.abs()));
            for (got, exact) in dc.read().iter().zip(&exact) {
                let Some(exact) = exact else { continue };
                assert!((f64::from(*got) - exact).abs() <= most * scale, "{number:?}: {got} {exact}");
            }
        }
    }
    cublasDestroy_v2(handle);
}

#[test]
fn invalid_products_are_refused() {
    let mut handle = null_mut();
    cublasCreate_v2(&mut handle);
    let x = Buffer::of(Number::F32, &[1.0; 64]);
    let one = 1f32;
    let gemm = |m, lda, at, compute| {
        let p = (&raw const one).cast();
        cublasGemmEx(
            handle,
            0,
            0,
            m,
            2,
            2,
            p,
            x.pointer(),
            at,
            lda,
            x.pointer(),
            0,
            2,
            p,
            x.pointer(),
            0,
            4,
            compute,
            -1,
        )
    };
    assert_eq!(gemm(4, 3, 0, 68), INVALID_VALUE);
    assert_eq!(gemm(-1, 4, 0, 68), INVALID_VALUE);
    assert_eq!(gemm(4, 4, 2, 68), NOT_SUPPORTED);
    assert_eq!(gemm(4, 4, 0, 64), NOT_SUPPORTED);
    cublasDestroy_v2(handle);
}

/// The product that a linear map is: D = Wᵀ x + bias + C.
#[test]
fn products_with_an_epilogue() {
    let (m, n, k) = (6usize, 5usize, 8usize);
    let number = Number::Bf16;
    let [w, x, c, bias] = [(k * m, 1), (k * n, 2), (m * n, 3), (m, 4)].map(|(len, seed)| noise(number, len, seed));
    let buffers = [&w, &x, &c, &bias].map(|v| Buffer::of(number, v));
    let d = Buffer::new(number, m * n);
    let [mut handle, mut product, mut preference] = [null_mut(); 3];
    let mut layouts = [null_mut(); 3];
    assert_eq!(cublasLtCreate(&mut handle), 0);
    assert_eq!(cublasLtMatmulDescCreate(&mut product, 68, 0), 0);
    assert_eq!(cublasLtMatmulPreferenceCreate(&mut preference), 0);
    for (layout, (rows, columns)) in layouts.iter_mut().zip([(k, m), (k, n), (m, n)]) {
        assert_eq!(cublasLtMatrixLayoutCreate(layout, 14, rows as u64, columns as u64, rows as i64), 0);
    }
    let [a, b, of] = layouts;
    let (yes, gelu_bias, room) = (1i32, 36i32, 1u64 << 20);
    let (alpha, beta) = (1f32, 1f32);
    let pointer = |p: *const f32| p.cast::<c_void>();
    let mut found = std::mem::MaybeUninit::<Found>::uninit();
    let mut count = 0;
    // SAFETY: attributes of their sizes, and room for the results.
    unsafe {
        assert_eq!(cublasLtMatmulDescSetAttribute(product, 3, (&raw const yes).cast(), 4), 0);
        assert_eq!(cublasLtMatmulDescSetAttribute(product, 7, (&raw const gelu_bias).cast(), 4), 0);
        assert_eq!(cublasLtMatmulDescSetAttribute(product, 8, (&raw const buffers[3].address).cast(), 8), 0);
        assert_eq!(cublasLtMatmulDescSetAttribute(product, 8, (&raw const yes).cast(), 4), INVALID_VALUE);
        assert_eq!(cublasLtMatmulPreferenceSetAttribute(preference, 1, (&raw const room).cast(), 8), 0);
        let code = cublasLtMatmulAlgoGetHeuristic(
            handle,
            product,
            a,
            b,
            of,
            of,
            preference,
            1,
            found.as_mut_ptr(),
            &mut count,
        );
        assert_eq!((code, count), (0, 1));
        let space = Buffer::new(Number::Bool, room as usize);
        let run = |bytes| {
            cublasLtMatmul(
                handle,
                product,
                pointer(&alpha),
                buffers[0].pointer(),
                a,
                buffers[1].pointer(),
                b,
                pointer(&beta),
                buffers[2].pointer(),
                of,
                d.pointer(),
                of,
                found.as_ptr().cast(),
                space.pointer(),
                bytes,
                null_mut(),
            )
        };
        assert_eq!(run(0), INVALID_VALUE);
        assert_eq!(run(room as usize), 0);
        for (i, got) in d.read().iter().enumerate() {
            let (column, row) = (i / m, i % m);
            let sum: f64 = (0..k).map(|p| f64::from(w[row * k + p]) * f64::from(x[column * k + p])).sum();
            let y = sum + f64::from(c[i]) + f64::from(bias[row]);
            let exact = 0.5 * y * (1.0 + (0.797_884_560_8 * (y + 0.044_715 * y * y * y)).tanh());
            assert!((f64::from(*got) - exact).abs() < 0.02, "{got} {exact}");
        }
    }
}

#[test]
fn a_matrix_past_its_end_is_a_fault() {
    faults("libraries::gemm_tests::a_matrix_past_its_end_is_a_fault", "out of bounds", || {
        let mut handle = null_mut();
        cublasCreate_v2(&mut handle);
        let (x, y) = (Buffer::of(Number::F32, &[1.0; 64]), Buffer::new(Number::F32, 64));
        let one = 1f32;
        cublasSgemm_v2(handle, 0, 0, 8, 8, 8, &one, x.pointer(), 1000, x.pointer(), 8, &0.0, y.pointer(), 8);
        y.read();
    });
}
