//! Vectors of f32 and elementary functions on them.
//!
//! The binary is built for any processor of its architecture; `pulp` selects AVX-512, AVX2, NEON or scalars at run time.
//! Everything here is inlined into functions that are compiled for each of them.

use std::mem::MaybeUninit;

use pulp::{Arch, Simd, WithSimd};

/// Runs `kernel` compiled for the best instructions of this processor.
pub(super) fn dispatch<K: WithSimd>(kernel: K) -> K::Output {
    arch().dispatch(kernel)
}

#[cfg(not(test))]
fn arch() -> Arch {
    Arch::new()
}

/// Overrides the best instructions, to test the others.
#[cfg(test)]
pub(super) static FORCED: std::sync::Mutex<Option<Arch>> = std::sync::Mutex::new(None);

/// Held by tests that override the instructions or compare bits, which depend on them.
#[cfg(test)]
pub(super) static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[cfg(test)]
fn arch() -> Arch {
    FORCED.lock().unwrap().unwrap_or_default()
}

/// Lanes of the longest vector.
pub(super) const LONGEST: usize = 16;

/// A number that is not initialised. Filling a large result with zeros first can take as long as computing it.
pub(super) type Unwritten = MaybeUninit<f32>;

/// Returns a vector of `n` numbers, which `write` initialises.
///
/// # Safety
/// `write` must initialise every number.
pub(super) unsafe fn written(n: usize, write: impl FnOnce(&mut [Unwritten])) -> Vec<f32> {
    let mut data = Vec::with_capacity(n);
    write(&mut data.spare_capacity_mut()[..n]);
    // SAFETY: the caller guarantees that all elements are written.
    unsafe { data.set_len(n) };
    data
}

/// # Safety
/// Every number of `data` must be initialised.
pub(super) unsafe fn assume_written(data: &mut [Unwritten]) -> &mut [f32] {
    // SAFETY: the layout is the same, and the caller guarantees that all elements are written.
    unsafe { &mut *(std::ptr::from_mut(data) as *mut [f32]) }
}

/// A slice that several threads write at once, each at its own indices.
#[derive(Clone, Copy)]
pub(super) struct Shared {
    first: *mut f32,
    len: usize,
}

// SAFETY: whoever creates a `Shared` guarantees that no two threads write the same element, and that none is read while
// it is written.
unsafe impl Send for Shared {}
// SAFETY: as for `Send`.
unsafe impl Sync for Shared {}

impl Shared {
    pub fn new(data: &mut [Unwritten]) -> Self {
        Shared { first: data.as_mut_ptr().cast(), len: data.len() }
    }

    /// A slice of initialised numbers, which the thread that owns an index may also read.
    pub fn of(data: &mut [f32]) -> Self {
        Shared { first: data.as_mut_ptr(), len: data.len() }
    }

    /// Returns the place of `count` numbers from `i` on.
    ///
    /// # Panics
    /// If they are not in bounds.
    ///
    /// # Safety
    /// No other thread may access them.
    #[inline(always)]
    pub unsafe fn at(self, i: usize, count: usize) -> *mut f32 {
        assert!(i <= self.len && count <= self.len - i, "{count} numbers at {i} of {}", self.len);
        // SAFETY: `i` is in bounds.
        unsafe { self.first.add(i) }
    }
}

/// # Safety
/// A whole vector must be readable at `p`.
#[inline(always)]
pub(super) unsafe fn load<S: Simd>(p: *const f32) -> S::f32s {
    // SAFETY: the caller's pointer may be read, aligned or not.
    unsafe { (p as *const S::f32s).read_unaligned() }
}

/// # Safety
/// A whole vector must be writable at `p`.
#[inline(always)]
pub(super) unsafe fn store<S: Simd>(p: *mut f32, v: S::f32s) {
    // SAFETY: the caller's pointer may be written, aligned or not.
    unsafe { (p as *mut S::f32s).write_unaligned(v) }
}

/// A function of `K` numbers, on vectors. Not a closure, because only `#[inline(always)]` guarantees that it is compiled
/// for the selected instructions.
pub(super) trait Function<const K: usize>: Copy {
    fn of<S: Simd>(self, s: S, x: [S::f32s; K]) -> S::f32s;
}

/// `y[i] = f(x₀[i], x₁[i], …)`, a vector at a time, for slices of at least `y`'s length.
#[inline(always)]
pub(super) fn map<S: Simd, const K: usize>(s: S, x: [&[f32]; K], y: &mut [Unwritten], f: impl Function<K>) {
    let n = y.len();
    let x = x.map(|x| &x[..n]);
    let whole = n - n % S::F32_LANES;
    for i in (0..whole).step_by(S::F32_LANES) {
        let mut v = [s.splat_f32s(0.0); K];
        // SAFETY: `i + F32_LANES ≤ n`, the length of all.
        unsafe {
            for (v, x) in v.iter_mut().zip(x) {
                *v = load::<S>(x.as_ptr().add(i));
            }
            store::<S>(y.as_mut_ptr().add(i).cast(), f.of(s, v));
        }
    }
    if whole < n {
        let mut last = [0f32; LONGEST];
        let mut v = [s.splat_f32s(0.0); K];
        for (v, x) in v.iter_mut().zip(x) {
            *v = s.partial_load_f32s(&x[whole..]);
        }
        // SAFETY: no vector is longer than `last`.
        unsafe { store::<S>(last.as_mut_ptr(), f.of(s, v)) };
        y[whole..].iter_mut().zip(last).for_each(|(y, v)| _ = y.write(v));
    }
}

/// Σ c[i] xⁱ.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::f32s, c: [f32; N]) -> S::f32s {
    let mut y = s.splat_f32s(c[N - 1]);
    for i in (0..N - 1).rev() {
        y = s.mul_add_e_f32s(y, x, s.splat_f32s(c[i]));
    }
    y
}

/// eˣ to one or two units in the last place; 0 below −87.7, at most 2¹²⁷.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2: 2ⁿ from its bits, eʳ by a minimax polynomial.
#[inline(always)]
pub(super) fn exp<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    // ln 2 in two parts, the first with few bits, so that n times it is exact.
    const HIGH: f32 = 0.693_359_4;
    const LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5·2²³ leaves the nearest integer in a float's low bits.
    const ROUND: f32 = 12_582_912.0;
    // The constant is the first argument, so that NaN propagates.
    let x = s.min_f32s(s.splat_f32s(127.0 * std::f32::consts::LN_2), x);
    let x = s.max_f32s(s.splat_f32s(-127.0 * std::f32::consts::LN_2), x);
    let shifted = s.mul_add_e_f32s(x, s.splat_f32s(std::f32::consts::LOG2_E), s.splat_f32s(ROUND));
    let n = s.sub_f32s(shifted, s.splat_f32s(ROUND));
    let r = s.mul_add_e_f32s(n, s.splat_f32s(-HIGH), x);
    let r = s.mul_add_e_f32s(n, s.splat_f32s(-LOW), r);
    let e = polynomial(s, r, [1.0, 1.0, 0.499_999_9, 0.166_664_2, 0.041_668_225, 0.008_374_816, 0.001_383_683_5]);
    let bits = s.wrapping_dyn_shl_u32s(s.transmute_u32s_f32s(shifted), s.splat_u32s(23));
    s.mul_f32s(e, s.transmute_f32s_u32s(s.add_u32s(bits, s.splat_u32s(127 << 23))))
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(super) fn sigmoid<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    let one = s.splat_f32s(1.0);
    s.div_f32s(one, s.add_f32s(one, exp(s, s.neg_f32s(x))))
}

/// The standard normal distribution Φ(x), accurate in its lower tail too.
///
/// With t = 2 / (2 + z): erfc(z) = e^(−z²) t P(t), P a minimax polynomial for z ≤ 14.
#[inline(always)]
pub(super) fn normal_cdf<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    const P: [f32; 9] = [
        0.282_084_32,
        0.282_412_14,
        0.242_834_85,
        0.203_753_7,
        -0.029_151_604,
        0.281_738_16,
        -0.490_410_98,
        0.286_126_32,
        -0.059_386_972,
    ];
    let z = s.mul_f32s(s.abs_f32s(x), s.splat_f32s(std::f32::consts::FRAC_1_SQRT_2));
    let two = s.splat_f32s(2.0);
    let t = s.div_f32s(two, s.add_f32s(two, z));
    let half_erfc = s.mul_f32s(
        s.mul_f32s(t, s.splat_f32s(0.5)),
        s.mul_f32s(polynomial(s, t, P), exp(s, s.neg_f32s(s.mul_f32s(z, z)))),
    );
    let below = s.less_than_f32s(x, s.splat_f32s(0.0));
    s.select_f32s(below, half_erfc, s.sub_f32s(s.splat_f32s(1.0), half_erfc))
}
