//! Bytes that kernels must move at least, by their parameters: each element once for each tensor.
//!
//! Accesses, which run mode counts, are more: kernels read shapes for each element, and caches hold what is read twice.
//! To teach it a kernel, add a row to [`ROWS`].

use crate::launch::Shape;

/// How many elements a kernel handles.
#[derive(Clone, Copy)]
enum Elements {
    /// The integer in this parameter.
    Param(usize),
    /// The product of two parameters.
    Params(usize, usize),
    /// As many rows as blocks, with as many elements as this parameter says.
    RowsOf(usize),
    /// The product of two parameters, for each row of blocks in y.
    Samples(usize, usize),
    /// Queries, keys, values and results of lsregen's attention: twice this.
    Attention,
    /// As many as threads.
    Threads,
}

/// The start of a kernel's name, its elements, and how often each is read and written.
const ROWS: &[(&str, Elements, u64)] = &[
    // lsregen's own kernels.
    ("layer_norm_vjp", Elements::Params(4, 5), 3),
    ("layer_norm", Elements::Params(4, 5), 2),
    ("geglu_vjp", Elements::RowsOf(3), 5),
    ("geglu", Elements::RowsOf(2), 3),
    ("add_channels", Elements::RowsOf(4), 2),
    ("double_pixels", Elements::RowsOf(3), 5),
    ("sum_pixels", Elements::RowsOf(3), 5),
    ("activation_vjp", Elements::Param(3), 3),
    ("mix", Elements::Param(3), 3),
    ("strided", Elements::RowsOf(2), 2),
    ("group_sums", Elements::Samples(2, 3), 1),
    ("group_norm_vjp_sums", Elements::Samples(6, 7), 2),
    ("group_norm_vjp_total", Elements::Threads, 1),
    ("group_norm_vjp", Elements::Samples(7, 8), 3),
    ("group_norm", Elements::Samples(5, 6), 2),
    ("group_moments", Elements::Threads, 1),
    ("attention_", Elements::Attention, 2),
    // candle's.
    ("copy2d_", Elements::Params(2, 3), 2),
    ("const_set_", Elements::Param(0), 1),
    ("fill_", Elements::Threads, 1),
    ("softmax_", Elements::RowsOf(2), 3),
    ("rmsnorm_", Elements::RowsOf(3), 3),
    ("layernorm_", Elements::RowsOf(4), 3),
    ("fast_", Elements::Param(0), 1),
    ("sum_", Elements::Param(0), 1),
    ("where_", Elements::Param(0), 4),
    ("affine_", Elements::Param(0), 2),
    ("is_", Elements::Param(0), 2),
    ("gather_", Elements::Param(0), 2),
    ("ia_", Elements::Threads, 3),
    ("sa_", Elements::Threads, 3),
    ("im2col", Elements::Param(0), 2),
    ("upsample_", Elements::Threads, 2),
    ("avg_pool2d_", Elements::Threads, 2),
    ("max_pool2d_", Elements::Threads, 2),
    ("asort_", Elements::Threads, 2),
    ("b", Elements::Param(0), 3),
    ("u", Elements::Param(0), 2),
];

/// Returns about how many bytes a launch reads and writes. 0 of an unknown kernel.
pub fn estimate(name: &str, shape: &Shape, layout: &[(usize, usize)], params: &[u8]) -> u64 {
    let param = |at: usize| {
        let (offset, bytes) = *layout.get(at)?;
        let mut number = [0; 8];
        number[..bytes.min(8)].copy_from_slice(params.get(offset..offset + bytes.min(8))?);
        Some(u64::from_le_bytes(number))
    };
    let product = |numbers: [u32; 3]| numbers.iter().map(|n| u64::from(*n)).product::<u64>();
    // `cast_f32_bf16` reads one type and writes another.
    if let Some(types) = name.strip_prefix("cast_") {
        let sizes: u64 = types.split('_').filter_map(size).sum();
        return param(0).unwrap_or(0) * sizes;
    }
    let Some((_, elements, times)) = ROWS.iter().find(|(start, ..)| name.starts_with(start)) else { return 0 };
    let count = match *elements {
        Elements::Param(at) => param(at),
        Elements::Params(a, b) => param(a).zip(param(b)).map(|(a, b)| a * b),
        Elements::Samples(a, b) => param(a).zip(param(b)).map(|(a, b)| a * b * u64::from(shape.grid[1])),
        Elements::Attention => {
            let (queries, keys, width) = (param(13), param(14), param(16));
            let rows = queries.zip(keys).map(|(n, m)| (n + m) * u64::from(shape.grid[1]));
            rows.zip(width).map(|(rows, width)| rows * width)
        }
        Elements::RowsOf(at) => param(at).map(|n| n * product(shape.grid)),
        Elements::Threads => Some(product(shape.grid) * product(shape.block)),
    };
    let bytes = name.rsplit('_').find_map(size).unwrap_or(4);
    count.unwrap_or(0) * times * bytes
}

fn size(ty: &str) -> Option<u64> {
    Some(match ty {
        "u8" => 1,
        "f16" | "bf16" | "i16" => 2,
        "f32" | "u32" | "i32" => 4,
        "f64" | "i64" => 8,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_follow_parameters() {
        let shape = Shape { grid: [10, 1, 1], block: [32, 1, 1], dynamic: 0 };
        let layout = [(0, 8), (8, 8), (16, 4)];
        let mut params = 100u64.to_le_bytes().to_vec();
        params.extend(0u64.to_le_bytes());
        params.extend(7u32.to_le_bytes());
        let of = |name| estimate(name, &shape, &layout, &params);
        assert_eq!(of("usqrt_f32"), 100 * 2 * 4);
        assert_eq!(of("badd_bf16"), 100 * 3 * 2);
        assert_eq!(of("cast_f32_bf16"), 100 * 6);
        assert_eq!(of("softmax_f32"), 70 * 3 * 4);
        assert_eq!(of("other"), 0);
    }
}
