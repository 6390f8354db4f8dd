//! Kernels that compute each element on its own.

use super::host::Arg;
use super::values::{Element, Values};
use super::{Subject, compare};

/// Rows and columns of the tensors.
const ROWS: usize = 21;
const COLUMNS: usize = 50;
const COUNT: usize = ROWS * COLUMNS;

/// Shape and strides of a transposed matrix, for one or more operands.
fn transposed(operands: usize) -> Vec<usize> {
    let mut info = vec![ROWS, COLUMNS];
    (0..operands).for_each(|_| info.extend([1, ROWS]));
    info
}

fn transpose(x: &[f64]) -> Vec<f64> {
    (0..COUNT).map(|i| x[i / COLUMNS + i % COLUMNS * ROWS]).collect()
}

pub fn check(subject: &Subject<'_>) -> Option<Result<(), String>> {
    let operation = subject.operation;
    if let Some((_, function, low, high)) = UNARY.iter().find(|(name, ..)| *name == operation) {
        return Some(unary(subject, *function, *low, *high, None));
    }
    if let Some((_, function)) = UNARY_WITH.iter().find(|(name, _)| *name == operation) {
        let (low, high) = if operation == "upowf" { (0.1, 4.0) } else { (-3.0, 3.0) };
        return Some(unary(subject, |x| function(x, 1.5), low, high, Some(1.5)));
    }
    if let Some((_, function)) = BINARY.iter().find(|(name, _)| *name == operation) {
        return Some(binary(subject, *function));
    }
    if let Some(from) = operation.strip_prefix("cast_").and_then(Element::named) {
        return Some(cast(subject, from));
    }
    if let Some(ids) = operation.strip_prefix("where_").and_then(Element::named) {
        return Some(choose(subject, ids));
    }
    match operation {
        "affine" => Some(affine(subject)),
        "fill" => Some(fill(subject)),
        "const_set" => Some(constant(subject)),
        "copy2d" => Some(copy(subject)),
        _ => None,
    }
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044_715 * x * x * x)).tanh())
}

/// The error function, by its series. The arguments are small.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

/// The exact GELU, x Φ(x).
pub fn gelu_erf(x: f64) -> f64 {
    x * 0.5 * (1.0 + erf(x / std::f64::consts::SQRT_2))
}

fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        0.0
    }
}

type Unary = fn(f64) -> f64;

const UNARY: &[(&str, Unary, f64, f64)] = &[
    ("ucopy", |x| x, -9.0, 200.0),
    ("uneg", |x| -x, -4.0, 4.0),
    ("urecip", |x| 1.0 / x, 0.2, 4.0),
    ("uexp", f64::exp, -4.0, 4.0),
    ("ulog", f64::ln, 0.1, 9.0),
    ("usin", f64::sin, -9.0, 9.0),
    ("ucos", f64::cos, -9.0, 9.0),
    ("utanh", f64::tanh, -3.0, 3.0),
    ("uerf", erf, -2.5, 2.5),
    ("uceil", f64::ceil, -9.0, 9.0),
    ("ufloor", f64::floor, -9.0, 9.0),
    ("uround", f64::round, -9.0, 9.0),
    ("unormcdf", |x| 0.5 * (1.0 + erf(x / std::f64::consts::SQRT_2)), -3.0, 3.0),
    ("uabs", f64::abs, -4.0, 4.0),
    ("usqr", |x| x * x, -4.0, 4.0),
    ("usqrt", f64::sqrt, 0.0, 9.0),
    ("ugelu", gelu, -3.0, 3.0),
    ("ugelu_erf", gelu_erf, -3.0, 3.0),
    ("urelu", |x| x.max(0.0), -4.0, 4.0),
    ("usilu", |x| x / (1.0 + (-x).exp()), -4.0, 4.0),
    ("usigmoid", |x| 1.0 / (1.0 + (-x).exp()), -4.0, 4.0),
    ("usign", sign, -4.0, 4.0),
];

type Binary = fn(f64, f64) -> f64;

const UNARY_WITH: &[(&str, Binary)] =
    &[("uelu", |x, a| if x > 0.0 { x } else { a * (x.exp() - 1.0) }), ("upowf", f64::powf)];

const BINARY: &[(&str, Binary)] = &[
    ("badd", |x, y| x + y),
    ("bsub", |x, y| x - y),
    ("bmul", |x, y| x * y),
    ("bdiv", |x, y| x / y),
    ("bmaximum", f64::max),
    ("bminimum", f64::min),
    ("eq", |x, y| f64::from(x == y)),
    ("ne", |x, y| f64::from(x != y)),
    ("lt", |x, y| f64::from(x < y)),
    ("le", |x, y| f64::from(x <= y)),
    ("gt", |x, y| f64::from(x > y)),
    ("ge", |x, y| f64::from(x >= y)),
];

fn unary(s: &Subject<'_>, function: impl Fn(f64) -> f64, low: f64, high: f64, with: Option<f64>) -> Result<(), String> {
    let element = s.element;
    let x = Values::between(element, COUNT, low, high);
    let info = transposed(1);
    // Chains of halves round more than once.
    let tolerance = 4.0 * element.precision();
    for (what, strided) in [("contiguous", false), ("transposed", true)] {
        let mut args = vec![Arg::Size(COUNT), Arg::Size(2), if strided { Arg::Sizes(&info) } else { Arg::Null }];
        args.extend(with.map(|number| Arg::Number(element, number)));
        args.extend([Arg::In(&x), Arg::Out(element, COUNT)]);
        let found = s.host.run(s.name, 3, [128, 1, 1], 0, &args)?;
        let numbers = if strided { transpose(&x.numbers()) } else { x.numbers() };
        let expected: Vec<f64> = numbers.into_iter().map(&function).collect();
        compare(what, &found, &expected, tolerance)?;
    }
    Ok(())
}

fn binary(s: &Subject<'_>, function: Binary) -> Result<(), String> {
    let element = s.element;
    let compares = !s.operation.starts_with('b');
    let result = if compares { Element::U8 } else { element };
    // Few different numbers, so that some are equal; none is zero, for the divisions.
    let x = Values::new(element, (0..COUNT).map(|i| 1.0 + (i * 7 % 13) as f64));
    let y = Values::new(element, (0..COUNT).map(|i| 1.0 + (i * 5 % 11) as f64));
    let whole = |f: f64| if element.float() || compares { f } else { f.trunc() };
    let (a, b) = (x.numbers(), y.numbers());
    let dims = [ROWS, COLUMNS];
    let contiguous = [COLUMNS, 1];
    let cases: [(&str, [usize; 2], [usize; 2]); 4] = [
        ("contiguous", contiguous, contiguous),
        ("row over columns", contiguous, [0, 1]),
        ("column before rows", [1, 0], contiguous),
        ("both transposed", [1, ROWS], [1, ROWS]),
    ];
    for (what, left, right) in cases {
        let info: Vec<usize> = dims.into_iter().chain(left).chain(right).collect();
        let args =
            [Arg::Size(COUNT), Arg::Size(2), Arg::Sizes(&info), Arg::In(&x), Arg::In(&y), Arg::Out(result, COUNT)];
        let found = s.host.run(s.name, 3, [128, 1, 1], 0, &args)?;
        let at = |i: usize, strides: [usize; 2]| i / COLUMNS * strides[0] + i % COLUMNS * strides[1];
        let expected: Vec<f64> = (0..COUNT).map(|i| whole(function(a[at(i, left)], b[at(i, right)]))).collect();
        compare(what, &found, &expected, element.precision())?;
    }
    Ok(())
}

fn cast(s: &Subject<'_>, from: Element) -> Result<(), String> {
    let x = Values::between(from, COUNT, 0.0, 200.0);
    let info = transposed(1);
    for (what, strided) in [("contiguous", false), ("transposed", true)] {
        let place = if strided { Arg::Sizes(&info) } else { Arg::Null };
        let args = [Arg::Size(COUNT), Arg::Size(2), place, Arg::In(&x), Arg::Out(s.element, COUNT)];
        let found = s.host.run(s.name, 3, [128, 1, 1], 0, &args)?;
        let expected = if strided { transpose(&x.numbers()) } else { x.numbers() };
        compare(what, &found, &expected, 0.0)?;
    }
    Ok(())
}

fn choose(s: &Subject<'_>, ids: Element) -> Result<(), String> {
    let ids = Values::new(ids, (0..COUNT).map(|i| (i % 3) as f64));
    let (t, f) = (Values::between(s.element, COUNT, 0.0, 9.0), Values::between(s.element, COUNT, 50.0, 99.0));
    for (what, strided) in [("contiguous", false), ("transposed", true)] {
        let contiguous = [ROWS, COLUMNS, COLUMNS, 1, COLUMNS, 1, COLUMNS, 1];
        let info = if strided { transposed(3) } else { contiguous.to_vec() };
        let args = [
            Arg::Size(COUNT),
            Arg::Size(2),
            Arg::Sizes(&info),
            Arg::In(&ids),
            Arg::In(&t),
            Arg::In(&f),
            Arg::Out(s.element, COUNT),
        ];
        let found = s.host.run(s.name, 3, [128, 1, 1], 0, &args)?;
        let (i, t, f) = (ids.numbers(), t.numbers(), f.numbers());
        let chosen: Vec<f64> = (0..COUNT).map(|k| if i[k] != 0.0 { t[k] } else { f[k] }).collect();
        compare(what, &found, &if strided { transpose(&chosen) } else { chosen }, 0.0)?;
    }
    Ok(())
}

fn affine(s: &Subject<'_>) -> Result<(), String> {
    let x = Values::between(s.element, COUNT, -4.0, 9.0);
    let (mul, add) = (3.0, 2.0);
    let info = transposed(1);
    for (what, strided) in [("contiguous", false), ("transposed", true)] {
        let args = [
            Arg::Size(COUNT),
            Arg::Size(2),
            if strided { Arg::Sizes(&info) } else { Arg::Null },
            Arg::In(&x),
            Arg::Out(s.element, COUNT),
            Arg::Number(s.element, mul),
            Arg::Number(s.element, add),
        ];
        let found = s.host.run(s.name, 3, [128, 1, 1], 0, &args)?;
        let numbers = if strided { transpose(&x.numbers()) } else { x.numbers() };
        let expected: Vec<f64> = numbers.iter().map(|x| x * mul + add).collect();
        compare(what, &found, &expected, 2.0 * s.element.precision())?;
    }
    Ok(())
}

fn fill(s: &Subject<'_>) -> Result<(), String> {
    let args = [Arg::Out(s.element, COUNT), Arg::Number(s.element, 7.0), Arg::Size(COUNT)];
    let found = s.host.run(s.name, 3, [128, 1, 1], 0, &args)?;
    compare("all", &found, &[7.0; COUNT], 0.0)
}

fn constant(s: &Subject<'_>) -> Result<(), String> {
    let info = transposed(1);
    let args =
        [Arg::Size(COUNT), Arg::Size(2), Arg::Sizes(&info), Arg::Number(s.element, 7.0), Arg::Out(s.element, COUNT)];
    let found = s.host.run(s.name, 3, [128, 1, 1], 0, &args)?;
    compare("transposed", &found, &[7.0; COUNT], 0.0)
}

/// Copies rows into wider rows.
fn copy(s: &Subject<'_>) -> Result<(), String> {
    let x = Values::between(s.element, COUNT, 0.0, 99.0);
    let wide = COLUMNS + 3;
    let to = Values::new(s.element, vec![1.0; ROWS * wide]);
    let args = [
        Arg::In(&x),
        Arg::Changed(&to),
        Arg::Int(ROWS as i32),
        Arg::Int(COLUMNS as i32),
        Arg::Int(COLUMNS as i32),
        Arg::Int(wide as i32),
    ];
    let found = s.host.run(s.name, COUNT.div_ceil(128) as u32, [128, 1, 1], 0, &args)?;
    let x = x.numbers();
    let expected: Vec<f64> =
        (0..ROWS * wide).map(|i| if i % wide < COLUMNS { x[i / wide * COLUMNS + i % wide] } else { 1.0 }).collect();
    compare("rows", &found, &expected, 0.0)
}
