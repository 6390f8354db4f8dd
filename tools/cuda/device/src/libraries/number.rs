//! The types of numbers that the libraries compute with.

use half::{bf16, f16};

/// A type of numbers in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Number {
    F32,
    F64,
    F16,
    Bf16,
    I32,
    Bool,
}

impl Number {
    /// From a `cudaDataType` (library_types.h).
    pub(super) fn of_cuda(code: i32) -> Option<Self> {
        match code {
            0 => Some(Self::F32),
            1 => Some(Self::F64),
            2 => Some(Self::F16),
            14 => Some(Self::Bf16),
            _ => None,
        }
    }

    /// From a `cudnnDataType_t` (cudnn_graph.h).
    pub(super) fn of_cudnn(code: i32) -> Option<Self> {
        match code {
            0 => Some(Self::F32),
            1 => Some(Self::F64),
            2 => Some(Self::F16),
            4 => Some(Self::I32),
            9 => Some(Self::Bf16),
            11 => Some(Self::Bool),
            _ => None,
        }
    }

    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Bool => 1,
        }
    }

    pub(super) fn is_half(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16)
    }

    /// Rounds an f32 to this type.
    pub(super) fn round(self, x: f32) -> f32 {
        match self {
            Self::F16 => f16::from_f32(x).to_f32(),
            Self::Bf16 => bf16::from_f32(x).to_f32(),
            _ => x,
        }
    }

    /// Reads `to.len()` numbers, `step` apart.
    ///
    /// # Safety
    /// The numbers lie in memory that may be read.
    pub(super) unsafe fn read(self, address: u64, step: usize, to: &mut [f32]) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match self {
                Self::F32 => each(address, step, to, |x: f32| x),
                Self::F64 => each(address, step, to, |x: f64| x as f32),
                Self::F16 => each(address, step, to, f16::to_f32),
                Self::Bf16 => each(address, step, to, bf16::to_f32),
                Self::I32 => each(address, step, to, |x: i32| x as f32),
                Self::Bool => each(address, step, to, |x: u8| f32::from(x != 0)),
            }
        }
    }

    /// Writes numbers, `step` apart.
    ///
    /// # Safety
    /// The numbers lie in memory that may be written.
    pub(super) unsafe fn write(self, address: u64, step: usize, from: &[f32]) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match self {
                Self::F32 => put(address, step, from, |x| x),
                Self::F64 => put(address, step, from, f64::from),
                Self::F16 => put(address, step, from, f16::from_f32),
                Self::Bf16 => put(address, step, from, bf16::from_f32),
                Self::I32 => put(address, step, from, |x| x as i32),
                Self::Bool => put(address, step, from, |x| u8::from(x != 0.0)),
            }
        }
    }
}

unsafe fn each<T: Copy>(address: u64, step: usize, to: &mut [f32], widen: impl Fn(T) -> f32) {
    let from = address as *const T;
    for (i, to) in to.iter_mut().enumerate() {
        // SAFETY: guaranteed by the caller.
        *to = widen(unsafe { from.add(i * step).read_unaligned() });
    }
}

unsafe fn put<T>(address: u64, step: usize, from: &[f32], narrow: impl Fn(f32) -> T) {
    let to = address as *mut T;
    for (i, &x) in from.iter().enumerate() {
        // SAFETY: guaranteed by the caller.
        unsafe { to.add(i * step).write_unaligned(narrow(x)) };
    }
}

/// Whether NVIDIA's libraries may use TF32 where the caller allows it.
pub(super) fn tf32_allowed() -> bool {
    std::env::var("NVIDIA_TF32_OVERRIDE").map_or(true, |value| value != "0")
}

/// Rounds numbers to TF32: 10 bits of mantissa.
pub(super) fn round_to_tf32(numbers: &mut [f32]) {
    for x in numbers {
        if x.is_finite() {
            let bits = x.to_bits();
            *x = f32::from_bits((bits + 0x0fff + (bits >> 13 & 1)) & !0x1fff);
        }
    }
}
