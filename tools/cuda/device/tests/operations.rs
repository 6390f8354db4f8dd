//! Compares instructions with Rust's arithmetic, bit for bit where IEEE or integers say what the result is.
//!
//! One kernel holds all instructions. Each finds its inputs as `%l1 %l2 %l3` (64 bits), and their lower bits as `%u1`…
//! (32), `%h1`… (16), `%f1`… (f32) and `%d1`… (f64), and leaves its result in `%lr`, `%ur`, `%hr`, `%fr`, `%dr` or `%pr`.

mod common;

use common::*;
use half::{bf16, f16};

/// A result as bits.
type Reference = fn(u64, u64, u64) -> u64;

/// How a result is compared.
#[derive(Clone, Copy, PartialEq)]
enum Exact {
    Yes,
    /// f32 with this relative error.
    About(f64),
}

struct Row {
    text: &'static str,
    reference: Reference,
    exact: Exact,
}

const fn row(text: &'static str, reference: Reference) -> Row {
    Row { text, reference, exact: Exact::Yes }
}

const fn about(text: &'static str, reference: Reference) -> Row {
    Row { text, reference, exact: Exact::About(2e-6) }
}

fn f(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}
fn d(bits: u64) -> f64 {
    f64::from_bits(bits)
}
fn fb(value: f32) -> u64 {
    u64::from(value.to_bits())
}
fn db(value: f64) -> u64 {
    value.to_bits()
}
fn h(bits: u64) -> f32 {
    f16::from_bits(bits as u16).to_f32()
}
fn b(bits: u64) -> f32 {
    bf16::from_bits(bits as u16).to_f32()
}
fn hb(value: f64) -> u64 {
    u64::from(f16::from_f32(odd32(value)).to_bits())
}
fn bb(value: f64) -> u64 {
    u64::from(bf16::from_f32(odd32(value)).to_bits())
}
/// To f32, rounded to odd: a second rounding then gives what one rounding would.
fn odd32(x: f64) -> f32 {
    let nearest = x as f32;
    if f64::from(nearest) == x || !nearest.is_finite() {
        return nearest;
    }
    let below = f64::from(nearest).abs() > x.abs();
    f32::from_bits((nearest.to_bits() - u32::from(below)) | 1)
}
/// x · y + z of short numbers, whose product is exact, rounded to odd.
fn fused(x: f32, y: f32, z: f32) -> f64 {
    sum(f64::from(x) * f64::from(y), z.into())
}
/// x + y, rounded to odd.
fn sum(x: f64, y: f64) -> f64 {
    let sum = x + y;
    let part = sum - x;
    let error = (x - (sum - part)) + (y - part);
    match sum.to_bits() {
        bits if error == 0.0 || !error.is_finite() || bits & 1 == 1 => f64::from_bits(bits),
        bits if (error > 0.0) == (sum > 0.0) => f64::from_bits(bits + 1),
        bits => f64::from_bits(bits - 1),
    }
}
fn s(bits: u64) -> i32 {
    bits as i32
}
fn u(bits: u64) -> u32 {
    bits as u32
}
fn p(value: bool) -> u64 {
    u64::from(value)
}
/// An i32 as the bits of a result.
fn sb(value: i32) -> u64 {
    u64::from(value as u32)
}

const ROWS: &[Row] = &[
    // Integers.
    row("add.s32 %ur, %u1, %u2;", |x, y, _| u64::from(u(x).wrapping_add(u(y)))),
    row("sub.s64 %lr, %l1, %l2;", |x, y, _| x.wrapping_sub(y)),
    row("mul.lo.s32 %ur, %u1, %u2;", |x, y, _| u64::from(u(x).wrapping_mul(u(y)))),
    row("mul.hi.s32 %ur, %u1, %u2;", |x, y, _| sb(((i64::from(s(x)) * i64::from(s(y))) >> 32) as i32)),
    row("mul.hi.u32 %ur, %u1, %u2;", |x, y, _| (u64::from(u(x)) * u64::from(u(y))) >> 32),
    row("mul.hi.u64 %lr, %l1, %l2;", |x, y, _| ((u128::from(x) * u128::from(y)) >> 64) as u64),
    row("mul.wide.s32 %lr, %u1, %u2;", |x, y, _| (i64::from(s(x)) * i64::from(s(y))) as u64),
    row("mad.lo.s32 %ur, %u1, %u2, %u3;", |x, y, z| u64::from(u(x).wrapping_mul(u(y)).wrapping_add(u(z)))),
    row("mad.wide.u32 %lr, %u1, %u2, %l3;", |x, y, z| (u64::from(u(x)) * u64::from(u(y))).wrapping_add(z)),
    row("div.s32 %ur, %u1, 7;", |x, _, _| sb(s(x) / 7)),
    row("div.u64 %lr, %l1, 1000;", |x, _, _| x / 1000),
    row("rem.s64 %lr, %l1, 1000;", |x, _, _| ((x as i64) % 1000) as u64),
    row("rem.u32 %ur, %u1, 17;", |x, _, _| u64::from(u(x) % 17)),
    row("min.s32 %ur, %u1, %u2;", |x, y, _| sb(s(x).min(s(y)))),
    row("max.u64 %lr, %l1, %l2;", |x, y, _| x.max(y)),
    row("abs.s32 %ur, %u1;", |x, _, _| sb(s(x).wrapping_abs())),
    row("neg.s64 %lr, %l1;", |x, _, _| x.wrapping_neg()),
    row("add.s16 %hr, %h1, %h2;", |x, y, _| u64::from((x as u16).wrapping_add(y as u16))),
    row("sad.u32 %ur, %u1, %u2, %u3;", |x, y, z| u64::from(u(x).abs_diff(u(y)).wrapping_add(u(z)))),
    row(
        "{ .reg .b32 %lo, %hi, %a, %b; mov.b64 {%lo, %hi}, %l1; mov.b64 {%a, %b}, %l2; add.cc.u32 %lo, %lo, %a; \
         addc.u32 %hi, %hi, %b; mov.b64 %lr, {%lo, %hi}; }",
        |x, y, _| x.wrapping_add(y),
    ),
    row(
        "{ .reg .b32 %lo, %hi, %a, %b; mov.b64 {%lo, %hi}, %l1; mov.b64 {%a, %b}, %l2; sub.cc.u32 %lo, %lo, %a; \
         subc.u32 %hi, %hi, %b; mov.b64 %lr, {%lo, %hi}; }",
        |x, y, _| x.wrapping_sub(y),
    ),
    // Bits.
    row("and.b32 %ur, %u1, %u2;", |x, y, _| u64::from(u(x) & u(y))),
    row("xor.b64 %lr, %l1, %l2;", |x, y, _| x ^ y),
    row("not.b32 %ur, %u1;", |x, _, _| u64::from(!u(x))),
    row("and.b32 %ur, %u2, 63; shl.b32 %ur, %u1, %ur;", |x, y, _| u64::from(u(x).checked_shl(u(y) & 63).unwrap_or(0))),
    row("and.b32 %ur, %u2, 63; shr.u32 %ur, %u1, %ur;", |x, y, _| u64::from(u(x).checked_shr(u(y) & 63).unwrap_or(0))),
    row("and.b32 %ur, %u2, 63; shr.s32 %ur, %u1, %ur;", |x, y, _| sb(s(x) >> (u(y) & 63).min(31))),
    row("shr.s64 %lr, %l1, 5;", |x, _, _| ((x as i64) >> 5) as u64),
    row("shf.l.wrap.b32 %ur, %u1, %u2, 7;", |x, y, _| u64::from((u(y) << 7) | (u(x) >> 25))),
    row("shf.r.wrap.b32 %ur, %u1, %u2, 7;", |x, y, _| u64::from((u(y) << 25) | (u(x) >> 7))),
    row("prmt.b32 %ur, %u1, %u2, 0x5410;", |x, y, _| u64::from((u(x) & 0xffff) | (u(y) << 16))),
    row("prmt.b32 %ur, %u1, %u2, 0x0123;", |x, _, _| u64::from(u(x).swap_bytes())),
    row("lop3.b32 %ur, %u1, %u2, %u3, 0xe8;", |x, y, z| {
        let (x, y, z) = (u(x), u(y), u(z));
        u64::from((x & y) | (y & z) | (x & z))
    }),
    row("bfe.u32 %ur, %u1, 5, 9;", |x, _, _| u64::from(u(x) >> 5 & 0x1ff)),
    row("bfe.s32 %ur, %u1, 5, 9;", |x, _, _| sb((s(x) << 18) >> 23)),
    row("bfe.s32 %ur, %u1, 28, 9;", |x, _, _| sb(s(x) >> 28)),
    row("bfe.u64 %lr, %l1, 60, 9;", |x, _, _| x >> 60),
    row("bfi.b32 %ur, %u1, %u2, 8, 4;", |x, y, _| u64::from((u(y) & !0xf00) | ((u(x) & 0xf) << 8))),
    row("popc.b32 %ur, %u1;", |x, _, _| u64::from(u(x).count_ones())),
    row("clz.b32 %ur, %u1;", |x, _, _| u64::from(u(x).leading_zeros())),
    row("clz.b64 %ur, %l1;", |x, _, _| u64::from(x.leading_zeros())),
    row("brev.b32 %ur, %u1;", |x, _, _| u64::from(u(x).reverse_bits())),
    row("dp4a.s32.s32 %ur, %u1, %u2, %u3;", |x, y, z| {
        let lanes = u(x).to_le_bytes().into_iter().zip(u(y).to_le_bytes());
        sb(lanes.fold(s(z), |sum, (a, b)| sum.wrapping_add(i32::from(a as i8) * i32::from(b as i8))))
    }),
    // Comparisons.
    row("setp.lt.s32 %pr, %u1, %u2;", |x, y, _| p(s(x) < s(y))),
    row("setp.lo.u32 %pr, %u1, %u2;", |x, y, _| p(u(x) < u(y))),
    row("setp.ne.f32 %pr, %f1, %f2;", |x, y, _| p(f(x) < f(y) || f(x) > f(y))),
    row("setp.neu.f32 %pr, %f1, %f2;", |x, y, _| p(f(x) != f(y))),
    row("setp.ltu.f32 %pr, %f1, %f2;", |x, y, _| p(f(x).partial_cmp(&f(y)).is_none_or(|order| order.is_lt()))),
    row("setp.ge.f64 %pr, %d1, %d2;", |x, y, _| p(d(x) >= d(y))),
    row("setp.nan.f32 %pr, %f1, %f2;", |x, y, _| p(f(x).is_nan() || f(y).is_nan())),
    row("setp.gt.f16 %pr, %h1, %h2;", |x, y, _| p(h(x) > h(y))),
    row("setp.gt.s32 %pr, %u1, 0; setp.lt.and.s32 %pr, %u2, 9, %pr;", |x, y, _| p(s(x) > 0 && s(y) < 9)),
    row("setp.lt.s32 %pr, %u1, %u2; selp.b32 %ur, %u1, %u3, %pr;", |x, y, z| {
        u64::from(if s(x) < s(y) { u(x) } else { u(z) })
    }),
    row("set.lt.f32.f32 %fr, %f1, %f2;", |x, y, _| fb(if f(x) < f(y) { 1.0 } else { 0.0 })),
    // Numbers with a fraction.
    row("add.f32 %fr, %f1, %f2;", |x, y, _| fb(f(x) + f(y))),
    row("sub.f32 %fr, %f1, %f2;", |x, y, _| fb(f(x) - f(y))),
    row("mul.f32 %fr, %f1, %f2;", |x, y, _| fb(f(x) * f(y))),
    row("mul.f32 %fr, %f1, %f2; add.f32 %fr, %fr, %f3;", |x, y, z| fb(f(x) * f(y) + f(z))),
    row("fma.rn.f32 %fr, %f1, %f2, %f3;", |x, y, z| fb(f(x).mul_add(f(y), f(z)))),
    row("fma.rn.f64 %dr, %d1, %d2, %d3;", |x, y, z| db(d(x).mul_add(d(y), d(z)))),
    row("div.rn.f32 %fr, %f1, %f2;", |x, y, _| fb(f(x) / f(y))),
    row("div.rn.f64 %dr, %d1, %d2;", |x, y, _| db(d(x) / d(y))),
    row("sqrt.rn.f32 %fr, %f1;", |x, _, _| fb(f(x).sqrt())),
    row("rcp.rn.f32 %fr, %f1;", |x, _, _| fb(1.0 / f(x))),
    row("neg.f32 %fr, %f1;", |x, _, _| fb(-f(x))),
    row("abs.f64 %dr, %d1;", |x, _, _| db(d(x).abs())),
    row("max.f32 %fr, %f1, %f2;", |x, y, _| fb(maximum(f(x), f(y)))),
    row("min.f32 %fr, %f1, %f2;", |x, y, _| fb(-maximum(-f(x), -f(y)))),
    row("max.NaN.f32 %fr, %f1, %f2;", |x, y, _| {
        fb(if f(x).is_nan() || f(y).is_nan() { f32::NAN } else { maximum(f(x), f(y)) })
    }),
    row("copysign.f32 %fr, %f1, %f2;", |x, y, _| fb(f(y).copysign(f(x)))),
    row("add.sat.f32 %fr, %f1, %f2;", |x, y, _| {
        let sum = f(x) + f(y);
        fb(if sum > 0.0 { sum.min(1.0) } else { 0.0 })
    }),
    row("add.ftz.f32 %fr, %f1, %f2;", |x, y, _| fb(flush(flush(f(x)) + flush(f(y))))),
    row("add.rz.f32 %fr, %f1, %f2;", |x, y, _| fb(toward_zero(sum(f(x).into(), f(y).into())))),
    row("mul.rz.f32 %fr, %f1, %f2;", |x, y, _| fb(toward_zero(f64::from(f(x)) * f64::from(f(y))))),
    about("ex2.approx.ftz.f32 %fr, %f1;", |x, _, _| fb(f(x).exp2())),
    about("lg2.approx.f32 %fr, %f1;", |x, _, _| fb(f(x).log2())),
    about("rsqrt.approx.f32 %fr, %f1;", |x, _, _| fb(1.0 / f(x).sqrt())),
    about("rcp.approx.ftz.f32 %fr, %f1;", |x, _, _| fb(flush(1.0 / flush(f(x))))),
    about("tanh.approx.f32 %fr, %f1;", |x, _, _| fb(f(x).tanh())),
    // Halves.
    row("add.rn.f16 %hr, %h1, %h2;", |x, y, _| hb(f64::from(h(x)) + f64::from(h(y)))),
    row("mul.f16 %hr, %h1, %h2;", |x, y, _| hb(f64::from(h(x)) * f64::from(h(y)))),
    row("fma.rn.f16 %hr, %h1, %h2, %h3;", |x, y, z| hb(fused(h(x), h(y), h(z)))),
    row("fma.rn.bf16 %hr, %h1, %h2, %h3;", |x, y, z| bb(fused(b(x), b(y), b(z)))),
    row("neg.f16 %hr, %h1;", |x, _, _| (x ^ 0x8000) & 0xffff),
    row("max.bf16 %hr, %h1, %h2;", |x, y, _| bb(maximum(b(x), b(y)).into())),
    row("mul.f16x2 %ur, %u1, %u2;", |x, y, _| {
        hb(f64::from(h(x)) * f64::from(h(y))) | hb(f64::from(h(x >> 16)) * f64::from(h(y >> 16))) << 16
    }),
    row("fma.rn.bf16x2 %ur, %u1, %u2, %u3;", |x, y, z| {
        let side = |i: u64| bb(fused(b(x >> i), b(y >> i), b(z >> i)));
        side(0) | side(16) << 16
    }),
    // Conversions.
    row("cvt.s64.s32 %lr, %u1;", |x, _, _| i64::from(s(x)) as u64),
    row("cvt.u64.u32 %lr, %u1;", |x, _, _| u64::from(u(x))),
    row("cvt.s16.s8 %hr, %h1;", |x, _, _| u64::from(i16::from(x as i8) as u16)),
    row("cvt.sat.u8.s32 %hr, %u1;", |x, _, _| s(x).clamp(0, 255) as u64),
    row("cvt.rn.f32.s32 %fr, %u1;", |x, _, _| fb(s(x) as f32)),
    row("cvt.rn.f32.u64 %fr, %l1;", |x, _, _| fb(x as f32)),
    row("cvt.rz.f32.s32 %fr, %u1;", |x, _, _| fb(toward_zero(s(x).into()))),
    row("cvt.rn.f64.s64 %dr, %l1;", |x, _, _| db(x as i64 as f64)),
    row("cvt.f64.f32 %dr, %f1;", |x, _, _| db(f(x).into())),
    row("cvt.rn.f32.f64 %fr, %d1;", |x, _, _| fb(d(x) as f32)),
    row("cvt.rzi.s32.f32 %ur, %f1;", |x, _, _| sb(f(x) as i32)),
    row("cvt.rni.s32.f32 %ur, %f1;", |x, _, _| sb(f(x).round_ties_even() as i32)),
    row("cvt.rmi.u32.f64 %ur, %d1;", |x, _, _| u64::from(d(x).floor() as u32)),
    row("cvt.rzi.u64.f64 %lr, %d1;", |x, _, _| d(x) as u64),
    row("cvt.rpi.f32.f32 %fr, %f1;", |x, _, _| fb(f(x).ceil())),
    row("cvt.sat.f32.f32 %fr, %f1;", |x, _, _| fb(if f(x) > 0.0 { f(x).min(1.0) } else { 0.0 })),
    row("cvt.f32.f16 %fr, %h1;", |x, _, _| fb(h(x))),
    row("cvt.rn.f16.f32 %hr, %f1;", |x, _, _| hb(f(x).into())),
    row("cvt.rn.f16.f64 %hr, %d1;", |x, _, _| hb(d(x))),
    row("cvt.rn.bf16.f32 %hr, %f1;", |x, _, _| bb(f(x).into())),
    row("cvt.rn.f16.s32 %hr, %u1;", |x, _, _| hb(s(x).into())),
    row("cvt.rn.f16x2.f32 %ur, %f1, %f2;", |x, y, _| hb(f(x).into()) << 16 | hb(f(y).into())),
    row("cvt.rn.bf16x2.f32 %ur, %f1, %f2;", |x, y, _| bb(f(x).into()) << 16 | bb(f(y).into())),
    // Moves.
    row("mov.b32 {%hr, _}, %u1;", |x, _, _| x & 0xffff),
    row("mov.b32 %ur, {%h2, %h1};", |x, y, _| (y & 0xffff) | (x & 0xffff) << 16),
    row("mov.b32 %fr, %u1;", |x, _, _| x & 0xffff_ffff),
];

/// PTX: a number wins over no number, and +0 over -0.
fn maximum(x: f32, y: f32) -> f32 {
    match (x.is_nan(), y.is_nan()) {
        (true, _) => y,
        (_, true) => x,
        _ if x == y => f32::from_bits(x.to_bits() & y.to_bits()),
        _ => x.max(y),
    }
}

fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

/// Rounds an exact value towards zero.
fn toward_zero(x: f64) -> f32 {
    let nearest = x as f32;
    if f64::from(nearest).abs() <= x.abs() || x.is_nan() { nearest } else { f32::from_bits(nearest.to_bits() - 1) }
}

/// The register of a row's result, its type, and an instruction that makes 64 bits of it.
fn result(text: &str) -> &'static str {
    let last = text.rfind("r, ").or(text.rfind("r,")).or(text.rfind("{%hr")).unwrap();
    let name = if text.contains("{%hr") { "%hr" } else { &text[last - 2..=last] };
    match name.trim() {
        "%lr" => "mov.b64 %out, %lr;",
        "%ur" => "cvt.u64.u32 %out, %ur;",
        "%hr" => "cvt.u64.u16 %out, %hr;",
        "%fr" => "mov.b32 %ur, %fr; cvt.u64.u32 %out, %ur;",
        "%dr" => "mov.b64 %out, %dr;",
        "%pr" => "selp.u64 %out, 1, 0, %pr;",
        other => panic!("{other} in {text}"),
    }
}

/// Returns the module with one kernel, which stores all results of its thread.
fn module() -> String {
    let mut text = String::from(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry operations(.param .u64 in, .param .u64 out) {\n\
         .reg .b64 %l<4>, %lr, %out, %in, %to, %at;\n.reg .b32 %u<4>, %ur, %t;\n.reg .b16 %h<4>, %hr;\n\
         .reg .f32 %f<4>, %fr;\n.reg .f64 %d<4>, %dr;\n.reg .pred %pr;\n\
         ld.param.u64 %in, [in];\nld.param.u64 %to, [out];\nmov.u32 %t, %tid.x;\n\
         mul.wide.u32 %at, %t, 24;\nadd.s64 %in, %in, %at;\n",
    );
    for i in 1..4 {
        text += &format!(
            "ld.global.u64 %l{i}, [%in+{}];\ncvt.u32.u64 %u{i}, %l{i};\ncvt.u16.u64 %h{i}, %l{i};\n\
             mov.b32 %f{i}, %u{i};\nmov.b64 %d{i}, %l{i};\n",
            8 * (i - 1)
        );
    }
    text += &format!("mul.wide.u32 %at, %t, {};\nadd.s64 %to, %to, %at;\n", 8 * ROWS.len());
    for (at, row) in ROWS.iter().enumerate() {
        text += &format!("{}\n{}\nst.global.u64 [%to+{}], %out;\n", row.text, result(row.text), 8 * at);
    }
    text + "ret;\n}\n"
}

/// Numbers whose bits are special as one type or another, and random ones.
fn inputs() -> Vec<[u64; 3]> {
    let f64s = [0.0, -0.0, 1.0, -1.5, 2.5, 1e300, -1e-300, f64::INFINITY, f64::NAN, 65519.9, 0.333, 4e9, -3e9];
    let f32s =
        [0.0f32, -0.0, 1.0, -2.5, 3.5, 1e-40, 65520.0, -1e30, f32::INFINITY, f32::NAN, 0.1, 2147483648.0, 1.0000001];
    let mut numbers: Vec<u64> = f64s.iter().map(|x| x.to_bits()).collect();
    numbers.extend(f32s.iter().map(|x| fb(*x) | 0x4000_0000_0000_0000));
    numbers.extend([0, 1, u64::MAX, 1 << 63, 1 << 31, 0x7fff, 0x8000, 0x3c00, 0x7c00, 0xffff_ffff, 1000, 0x80]);
    let mut seed = 1u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..40 {
        // Numbers near one, so that sums do not just take the larger operand.
        let bits = random();
        numbers.push((bits & !0x7f80_7f80) | 0x3f80_3c00);
        numbers.push(random());
    }
    (0..512).map(|_| [0; 3].map(|_| numbers[random() as usize % numbers.len()])).collect()
}

fn nan(row: &Row, bits: u64) -> bool {
    let text = row.text;
    if text.contains("%fr") {
        f(bits).is_nan()
    } else if text.contains("%dr") {
        d(bits).is_nan()
    } else {
        let last = text.contains("bf16");
        let half = |x: u64| if last { b(x).is_nan() } else { h(x).is_nan() };
        text.contains("f16") && (half(bits) || (text.contains("%ur") && half(bits >> 16)))
    }
}

#[test]
fn instructions_compute_what_they_say() {
    start();
    let inputs = inputs();
    let flat: Vec<u64> = inputs.iter().flatten().copied().collect();
    let (from, to) = (upload(&flat), allocate(8 * inputs.len() * ROWS.len()));
    let kernel = function(load(&module()), "operations");
    run(kernel, 1, inputs.len() as u32, &[Arg::Address(from), Arg::Address(to)]);
    let results: Vec<u64> = download(to, inputs.len() * ROWS.len());
    let mut wrong = Vec::new();
    for (at, row) in ROWS.iter().enumerate() {
        let found = inputs.iter().enumerate().find_map(|(i, &[x, y, z])| {
            let (result, expected) = (results[i * ROWS.len() + at], (row.reference)(x, y, z));
            let same = match row.exact {
                Exact::Yes => result == expected,
                Exact::About(error) => {
                    let (a, b) = (f64::from(f(result)), f64::from(f(expected)));
                    a == b || (a - b).abs() <= error * b.abs().max(1e-37)
                }
            };
            (!(same || nan(row, result) && nan(row, expected)))
                .then(|| format!("{} of {x:#x} {y:#x} {z:#x}: {result:#x}, not {expected:#x}", row.text))
        });
        wrong.extend(found);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_unknown_instruction_is_named() {
    start();
    let text = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k() {\n.reg .b32 %r1;\nfancy.b32 %r1, 1;\nret;\n}";
    let module = cuda_device::ptx::parse(text).unwrap();
    let error = cuda_device::translate::kernel(&module, "k").unwrap_err().to_string();
    assert!(error.contains("line 6") && error.contains("fancy.b32") && error.contains("`k`"), "{error}");
}
