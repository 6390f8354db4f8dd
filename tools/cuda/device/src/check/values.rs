//! Numbers of all types, as bytes and as f64.

use half::{bf16, f16};

/// A type of elements, as candle names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    U8,
    U32,
    I16,
    I32,
    I64,
    F16,
    Bf16,
    F32,
    F64,
}

impl Element {
    pub fn named(name: &str) -> Option<Element> {
        Some(match name {
            "u8" => Element::U8,
            "u32" => Element::U32,
            "i16" => Element::I16,
            "i32" => Element::I32,
            "i64" => Element::I64,
            "f16" => Element::F16,
            "bf16" => Element::Bf16,
            "f32" => Element::F32,
            "f64" => Element::F64,
            _ => return None,
        })
    }

    pub fn bytes(self) -> usize {
        match self {
            Element::U8 => 1,
            Element::I16 | Element::F16 | Element::Bf16 => 2,
            Element::U32 | Element::I32 | Element::F32 => 4,
            Element::I64 | Element::F64 => 8,
        }
    }

    pub fn float(self) -> bool {
        matches!(self, Element::F16 | Element::Bf16 | Element::F32 | Element::F64)
    }

    pub fn signed(self) -> bool {
        !matches!(self, Element::U8 | Element::U32)
    }

    /// Returns the relative error of one rounding, about.
    pub fn precision(self) -> f64 {
        match self {
            Element::F16 => 1e-3,
            Element::Bf16 => 8e-3,
            Element::F32 => 2e-6,
            Element::F64 => 1e-12,
            _ => 0.0,
        }
    }

    /// Returns the number as this type has it.
    pub fn round(self, x: f64) -> f64 {
        decode(self, &encode(self, x))
    }
}

/// To f32, rounded to odd, so that a second rounding gives what one would. `half`'s own conversions drop bits.
fn sticky(x: f64) -> f32 {
    let nearest = x as f32;
    if f64::from(nearest) == x || !nearest.is_finite() {
        return nearest;
    }
    let below = f64::from(nearest).abs() > x.abs();
    f32::from_bits((nearest.to_bits() - u32::from(below)) | 1)
}

fn encode(element: Element, x: f64) -> Vec<u8> {
    match element {
        // Whole numbers wrap, as those of kernels do.
        Element::U8 => vec![x as i64 as u8],
        Element::U32 => (x as i64 as u32).to_le_bytes().to_vec(),
        Element::I16 => (x as i64 as i16).to_le_bytes().to_vec(),
        Element::I32 => (x as i64 as i32).to_le_bytes().to_vec(),
        Element::I64 => (x as i64).to_le_bytes().to_vec(),
        Element::F16 => f16::from_f32(sticky(x)).to_le_bytes().to_vec(),
        Element::Bf16 => bf16::from_f32(sticky(x)).to_le_bytes().to_vec(),
        Element::F32 => (x as f32).to_le_bytes().to_vec(),
        Element::F64 => x.to_le_bytes().to_vec(),
    }
}

fn decode(element: Element, bytes: &[u8]) -> f64 {
    let mut all = [0u8; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    let bits = u64::from_le_bytes(all);
    match element {
        Element::U8 | Element::U32 => bits as f64,
        Element::I16 => f64::from(bits as i16),
        Element::I32 => f64::from(bits as i32),
        Element::I64 => bits as i64 as f64,
        Element::F16 => f16::from_bits(bits as u16).to_f64(),
        Element::Bf16 => bf16::from_bits(bits as u16).to_f64(),
        Element::F32 => f64::from(f32::from_bits(bits as u32)),
        Element::F64 => f64::from_bits(bits),
    }
}

/// Numbers of one type.
#[derive(Clone, Debug)]
pub struct Values {
    pub element: Element,
    pub bytes: Vec<u8>,
}

impl Values {
    pub fn new(element: Element, numbers: impl IntoIterator<Item = f64>) -> Values {
        Values { element, bytes: numbers.into_iter().flat_map(|x| encode(element, x)).collect() }
    }

    pub fn numbers(&self) -> Vec<f64> {
        self.bytes.chunks(self.element.bytes()).map(|bytes| decode(self.element, bytes)).collect()
    }

    /// As [`Values::between`]; each `stream` has other numbers.
    pub fn noise(element: Element, count: usize, low: f64, high: f64, stream: usize) -> Values {
        let low = if element.signed() { low } else { low.max(0.0) };
        let all = Values::between(Element::F64, count + 1009 * stream, low, high).numbers();
        let whole = |x: f64| if element.float() { x } else { x.floor() };
        Values::new(element, all.into_iter().skip(1009 * stream).map(whole))
    }

    /// Numbers between the bounds, without a pattern; whole ones for whole types.
    pub fn between(element: Element, count: usize, low: f64, high: f64) -> Values {
        let low = if element.signed() { low } else { low.max(0.0) };
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let numbers = (0..count).map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let x = low + (high - low) * ((seed >> 40) as f64 / (1u64 << 24) as f64);
            if element.float() { x } else { x.floor() }
        });
        Values::new(element, numbers.collect::<Vec<_>>())
    }
}
