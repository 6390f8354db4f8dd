//! `torch.randn` of PyTorch's CPU generator, bit for bit.
//!
//! The same seed gives the same noise as in diffusers and ComfyUI, on every device: the noise is generated on the CPU and
//! moved. PyTorch has two algorithms. Below 16 elements it generates one f64 Box–Muller pair after another. From 16 on it
//! generates all uniforms first, then transforms blocks of 16 by vector polynomials for log, sin and cos (the
//! single-precision ones of Cephes). The functions below repeat these operation by operation, fused where PyTorch's
//! compiled code fuses, so that the result does not depend on the machine. PyTorch uses the second algorithm if its CPU
//! capability is AVX2; its other builds differ in the last bits.

// The constants are written as in their sources.
#![allow(clippy::excessive_precision)]

use candle_core::{Device, Tensor};
use rand_mt::Mt;

use crate::{Result, checked_elements};

/// PyTorch's CPU generator: `torch.Generator().manual_seed(seed)`.
pub struct Generator {
    mt: Mt,
    /// The second number of the last f64 Box–Muller pair.
    next_normal: Option<f64>,
}

impl Generator {
    /// Seeds the generator. Only the low 32 bits of the seed matter, as in PyTorch.
    pub fn new(seed: u64) -> Self {
        Generator { mt: Mt::new(seed as u32), next_normal: None }
    }

    /// Generates standard normal noise in f32 and moves it to `device`.
    ///
    /// # Errors
    /// If the shape is too large, or the device is out of memory.
    pub fn randn(&mut self, shape: &[usize], device: &Device) -> Result<Tensor> {
        let values = self.normals(checked_elements(shape)?);
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_device(device)?)
    }

    /// Generates `n` standard normal numbers.
    pub fn normals(&mut self, n: usize) -> Vec<f32> {
        if n < 16 {
            return (0..n).map(|_| self.normal_f64() as f32).collect();
        }
        let mut data = self.uniforms(n);
        for block in data.chunks_exact_mut(16) {
            normal_16(block);
        }
        if !n.is_multiple_of(16) {
            // The last block overlaps the previous one, with new uniforms.
            let tail = &mut data[n - 16..];
            tail.iter_mut().for_each(|x| *x = self.uniform_f32());
            normal_16(tail);
        }
        data
    }

    /// Generates `n` numbers from 0 up to, but not including, 1: `torch.rand`.
    pub fn uniforms(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.uniform_f32()).collect()
    }

    fn uniform_f32(&mut self) -> f32 {
        (self.mt.next_u32() & 0x00ff_ffff) as f32 * (1.0 / 16_777_216.0)
    }

    fn uniform_f64(&mut self) -> f64 {
        let (high, low) = (u64::from(self.mt.next_u32()), u64::from(self.mt.next_u32()));
        ((high << 32 | low) & ((1 << 53) - 1)) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    fn normal_f64(&mut self) -> f64 {
        if let Some(x) = self.next_normal.take() {
            return x;
        }
        let (u1, u2) = (self.uniform_f64(), self.uniform_f64());
        let r = (-2.0 * (-u2).ln_1p()).sqrt();
        let theta = 2.0 * std::f64::consts::PI * u1;
        self.next_normal = Some(r * theta.sin());
        r * theta.cos()
    }
}

/// Box–Muller of eight pairs of uniforms, `data[j]` and `data[j + 8]`.
fn normal_16(data: &mut [f32]) {
    for j in 0..8 {
        let radius = (-2.0 * log(1.0 - data[j])).sqrt();
        let (sin, cos) = sin_cos(std::f32::consts::TAU * data[j + 8]);
        data[j] = radius * cos;
        data[j + 8] = radius * sin;
    }
}

/// Cephes `logf` in its vector form, for x in (0, 1].
fn log(x: f32) -> f32 {
    const P: [f32; 9] = [
        7.0376836292E-2,
        -1.1514610310E-1,
        1.1676998740E-1,
        -1.2420140846E-1,
        1.4249322787E-1,
        -1.6668057665E-1,
        2.0000714765E-1,
        -2.4999993993E-1,
        3.3333331174E-1,
    ];
    let bits = x.max(f32::MIN_POSITIVE).to_bits();
    let mut e = (bits >> 23) as f32 - 127.0 + 1.0;
    let mut x = f32::from_bits(bits & !0x7f80_0000 | 0.5f32.to_bits());
    let small = x < std::f32::consts::FRAC_1_SQRT_2;
    let again = if small { x } else { 0.0 };
    x -= 1.0;
    e -= if small { 1.0 } else { 0.0 };
    x += again;
    let z = x * x;
    let mut y = P[0];
    for p in &P[1..] {
        y = y.mul_add(x, *p);
    }
    y *= x;
    y = y.mul_add(z, e * -2.12194440E-4);
    y = z.mul_add(-0.5, y);
    x += y;
    e.mul_add(0.693359375, x)
}

/// Cephes `sinf` and `cosf` in their vector form, for x ≥ 0.
fn sin_cos(x: f32) -> (f32, f32) {
    const DP: [f32; 3] = [-0.785_156_25, -2.4187564849853515625E-4, -3.77489497744594108E-8];
    let octant = ((x * 1.27323954473516) as i32 + 1) & !1;
    let y = octant as f32;
    let x = DP[0].mul_add(y, x);
    let x = DP[1].mul_add(y, x);
    let x = DP[2].mul_add(y, x);
    let z = x * x;
    let mut c = 2.443315711809948E-5f32;
    c = c.mul_add(z, -1.388731625493765E-3);
    c = c.mul_add(z, 4.166664568298827E-2);
    c *= z;
    c = c.mul_add(z, -(z * 0.5));
    c += 1.0;
    let mut s = -1.9515295891E-4f32;
    s = s.mul_add(z, 8.3321608736E-3);
    s = s.mul_add(z, -1.6666654611E-1);
    s *= z;
    s = s.mul_add(x, x);
    let (sin, cos) = if octant & 2 == 0 { (s, c) } else { (c, s) };
    let flip = |x: f32, negative: bool| if negative { -x } else { x };
    (flip(sin, octant & 4 != 0), flip(cos, (octant - 2) & 4 == 0))
}
