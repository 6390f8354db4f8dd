//! What the lanes of a warp do together.

mod common;

use common::*;
use half::{bf16, f16};

use Arg::Address;

fn kernel(name: &str) -> *const cuda_device::driver::module::Function {
    function(load(include_str!("kernels/warp.ptx")), name)
}

#[test]
fn small_matrices_are_multiplied() {
    start();
    let a: Vec<f16> = (0..256).map(|i| f16::from_f32(((i * 7) % 31) as f32 / 8.0 - 2.0)).collect();
    let b: Vec<f16> = (0..128).map(|i| f16::from_f32(((i * 5) % 29) as f32 / 8.0 - 1.0)).collect();
    let (at_a, at_b, at_d) = (upload(&a), upload(&b), allocate(4 * 128));
    run(kernel("product"), 1, 32, &[Address(at_a), Address(at_b), Address(at_d)]);
    let d: Vec<f32> = download(at_d, 128);
    for (i, found) in d.iter().enumerate() {
        let (row, column) = (i / 8, i % 8);
        let expected: f32 = (0..16).map(|k| a[row * 16 + k].to_f32() * b[k * 8 + column].to_f32()).sum();
        assert_eq!(*found, expected, "row {row}, column {column}");
    }
}

#[test]
fn lanes_exchange_values() {
    start();
    let out = allocate(4 * 10 * 32);
    run(kernel("lanes"), 1, 32, &[Address(out)]);
    let words: Vec<i32> = download(out, 320);
    for (lane, found) in words.chunks(10).enumerate() {
        let lane = lane as i32;
        let up = if lane < 3 { lane } else { lane - 3 };
        let down = if lane > 28 { lane } else { lane + 3 };
        let third = (0..32).filter(|i| i % 3 == 0).fold(0u32, |all, i| all | 1 << i) as i32;
        let expected = [up, down, 5, lane ^ 1, lane ^ 3, (lane & !7) + 2, third, 1, 496, 7];
        assert_eq!(found, expected, "lane {lane}");
    }
}

#[test]
fn pairs_of_halves_are_added() {
    start();
    let x: Vec<bf16> = (0..256).map(|i| bf16::from_f32(i as f32 / 4.0)).collect();
    let (at, out) = (upload(&x), allocate(4 * 32));
    run(kernel("pairs"), 1, 32, &[Address(at), Address(out)]);
    let found: Vec<u16> = download(out, 64);
    let add = |a: bf16, b: bf16| bf16::from_f32(a.to_f32() + b.to_f32());
    for i in 0..64 {
        let x = &x[8 * (31 - i / 2) + i % 2..];
        assert_eq!(bf16::from_bits(found[i]), add(add(x[0], x[2]), add(x[4], x[6])), "{i}");
    }
}
