//! Weights in f32, f16 or bf16, widened to f32 where they are used.
//!
//! Every f16 and bf16 number is an f32 number too, so widening does not round: the result is the same as if the whole model
//! were in f32.

use std::ops::Range;

use half::{bf16, f16};
use pulp::{Simd, WithSimd};

use super::simd::dispatch;

/// The numbers of a contiguous weight.
#[derive(Clone, Copy)]
pub(super) enum WeightSlice<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

impl<'a> WeightSlice<'a> {
    /// The numbers of `range`, in place or widened into `room`.
    pub fn widened<'b>(self, range: Range<usize>, room: &'b mut Vec<f32>) -> &'b [f32]
    where
        'a: 'b,
    {
        if let WeightSlice::F32(data) = self {
            return &data[range];
        }
        if room.len() < range.len() {
            room.resize(range.len(), 0.0);
        }
        let room = &mut room[..range.len()];
        self.widen(range.start, room);
        room
    }

    /// Widens the numbers from `start` on, as many as fit into `to`.
    pub fn widen(self, start: usize, to: &mut [f32]) {
        let range = start..start + to.len();
        match self {
            WeightSlice::F32(from) => to.copy_from_slice(&from[range]),
            WeightSlice::F16(from) => dispatch(Widen { from: &from[range], to, f: f16_to_f32 }),
            WeightSlice::Bf16(from) => dispatch(Widen { from: &from[range], to, f: bf16_to_f32 }),
        }
    }
}

struct Widen<'a, H, F> {
    from: &'a [H],
    to: &'a mut [f32],
    f: F,
}

impl<H: Copy, F: Fn(H) -> f32> WithSimd for Widen<'_, H, F> {
    type Output = ();

    /// The compiler vectorises the loop for the selected instructions.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.to.iter_mut().zip(self.from).for_each(|(to, from)| *to = (self.f)(*from));
    }
}

/// Widens by bit operations; `half`'s conversion of a slice calls a function for every eight numbers.
#[inline(always)]
fn f16_to_f32(x: f16) -> f32 {
    let bits = u32::from(x.to_bits());
    let (sign, rest) = ((bits & 0x8000) << 16, (bits & 0x7fff) << 13);
    // A product changes the bias of the exponent from 15 to 127, which is correct for subnormal numbers too. Infinity and
    // NaN have all bits of the exponent set in both formats.
    let number = (f32::from_bits(rest) * f32::from_bits((254 - 15) << 23)).to_bits();
    let special = if rest >= 0x1f << 23 { 0xff << 23 } else { 0 };
    f32::from_bits(number | special | sign)
}

#[inline(always)]
fn bf16_to_f32(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All numbers, compared with `half`'s conversion.
    #[test]
    fn every_half_is_widened_exactly() {
        let bits: Vec<u16> = (0..=u16::MAX).collect();
        let halves: Vec<f16> = bits.iter().map(|b| f16::from_bits(*b)).collect();
        let brains: Vec<bf16> = bits.iter().map(|b| bf16::from_bits(*b)).collect();
        let mut room = Vec::new();
        for start in [0, 1, 65_500] {
            let wide = WeightSlice::F16(&halves).widened(start..halves.len(), &mut room);
            for (wide, half) in wide.iter().zip(&halves[start..]) {
                assert!(wide.to_bits() == half.to_f32().to_bits() || (wide.is_nan() && half.is_nan()), "{half} {wide}");
            }
            let wide = WeightSlice::Bf16(&brains).widened(start..brains.len(), &mut room);
            for (wide, brain) in wide.iter().zip(&brains[start..]) {
                assert!(wide.to_bits() == brain.to_f32().to_bits() || (wide.is_nan() && brain.is_nan()), "{brain}");
            }
        }
    }
}
