//! Kernels that lsregen cannot launch, and why. They need no reference; all others do.

/// What the names of some kernels begin with, or contain, and why lsregen cannot launch them.
struct Exempt {
    matches: fn(&str) -> bool,
    reason: &'static str,
}

/// The beginnings of the names in candle's `quantized.cu`.
const QUANTISED: &[&str] = &[
    "dequantize_block_",
    "dequantize_mul_mat_vec_",
    "get_rows_",
    "indexed_moe_forward_",
    "mul_mat_q",
    "mul_mat_vec_q",
    "quantize_q8_1",
];

const EXEMPT: &[Exempt] = &[
    Exempt {
        matches: |name| QUANTISED.iter().any(|start| name.starts_with(start)),
        reason: "quantised: launched by candle's QTensor only, which lsregen does not use",
    },
    Exempt {
        matches: |name| name.contains("f8_e4m3"),
        reason: "8-bit floats: lsregen converts them when it reads a checkpoint, on the CPU",
    },
];

/// Returns why lsregen cannot launch a kernel, if that is so.
pub fn reason(name: &str) -> Option<&'static str> {
    EXEMPT.iter().find(|exempt| (exempt.matches)(name)).map(|exempt| exempt.reason)
}
