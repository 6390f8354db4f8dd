//! Products of matrices in f32.

/// A matrix by its strides, within a slice.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) data: &'a [f32],
    pub(super) row: usize,
    pub(super) column: usize,
}

impl Matrix<'_> {
    fn holds(&self, rows: usize, columns: usize) -> bool {
        rows == 0 || columns == 0 || (rows - 1) * self.row + (columns - 1) * self.column < self.data.len()
    }
}

/// `to (m, n) = left (m, k) · right (k, n)`, or added to `to`. `to` is given by its strides `(row, column)`.
pub(super) fn product(
    (m, n, k): (usize, usize, usize),
    left: Matrix,
    right: Matrix,
    to: &mut [f32],
    (row, column): (usize, usize),
    add: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(left.holds(m, k) && right.holds(k, n), "the factors are in bounds");
    assert!((m - 1) * row + (n - 1) * column < to.len(), "the product is in bounds");
    if k == 0 {
        if !add {
            to.fill(0.0);
        }
        return;
    }
    // Small products are not worth the threads.
    let threads = if m * n * k > 1 << 18 {
        gemm::Parallelism::Rayon(crate::mode::settings().threads)
    } else {
        gemm::Parallelism::None
    };
    // SAFETY: the strides stay within the slices, as the assertions say.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            to.as_mut_ptr(),
            column as isize,
            row as isize,
            add,
            left.data.as_ptr(),
            left.column as isize,
            left.row as isize,
            right.data.as_ptr(),
            right.column as isize,
            right.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            threads,
        );
    }
}
