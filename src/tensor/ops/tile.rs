//! The innermost loop of convolution and attention: a tile of products that stays in registers.
//!
//! A tile has `R` rows by `N` vectors of columns. Its left operand comes in *panels*: for each step, the entries of
//! [`ROWS`] rows beside each other. Its right operand is read in place, a vector of neighbouring columns at a time, so that
//! a convolution needs no unrolled copy (im2col) of its input.

use pulp::Simd;

use super::simd::load;

/// Rows of a panel.
pub(super) const ROWS: usize = 8;

/// Vectors of columns of a full tile: 8 × 3 accumulators leave 8 of 32 registers for the operands.
pub(super) const VECTORS: usize = 3;

/// Where the right operand of each step begins: in every plane, at every offset.
#[derive(Clone, Copy)]
pub(super) struct Steps<'a> {
    pub planes: usize,
    /// Distance between planes.
    pub plane: usize,
    pub offsets: &'a [usize],
}

/// `acc[i][j] += Σ panel[step][i] · columns[step][j]`.
///
/// # Safety
/// `panel` must hold [`ROWS`] entries for each step, and `columns` must be readable for `N` vectors at every step.
#[inline(always)]
pub(super) unsafe fn tile<S: Simd, const R: usize, const N: usize>(
    s: S,
    acc: &mut [[S::f32s; N]; R],
    mut panel: *const f32,
    columns: *const f32,
    steps: Steps<'_>,
) {
    let mut sums = *acc;
    for plane in 0..steps.planes {
        for &offset in steps.offsets {
            // SAFETY: guaranteed by the caller.
            unsafe {
                let at = columns.add(plane * steps.plane + offset);
                let mut c = [s.splat_f32s(0.0); N];
                for (j, c) in c.iter_mut().enumerate() {
                    *c = load::<S>(at.add(j * S::F32_LANES));
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let p = s.splat_f32s(*panel.add(i));
                    for (sum, c) in sums.iter_mut().zip(c) {
                        *sum = s.mul_add_e_f32s(p, c, *sum);
                    }
                }
                panel = panel.add(ROWS);
            }
        }
    }
    *acc = sums;
}
