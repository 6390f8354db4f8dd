//! Kernels that reduce rows: sums, extremes, softmax, norms, sorts.

use super::host::Arg;
use super::values::{Element, Values};
use super::{Subject, compare};

const ROWS: usize = 7;
const COLUMNS: usize = 133;
const COUNT: usize = ROWS * COLUMNS;

pub fn check(s: &Subject<'_>) -> Option<Result<(), String>> {
    match s.operation {
        "fast_sum" | "fast_min" | "fast_max" | "fast_argmin" | "fast_argmax" => Some(fast(s)),
        "fast_sum_small" => Some(small(s)),
        "sum" => Some(atomic_sum(s)),
        "softmax" => Some(softmax(s)),
        "rmsnorm" | "layernorm" => Some(norm(s)),
        "asort_asc" | "asort_desc" => Some(sort(s)),
        _ => None,
    }
}

/// Different numbers, so that extremes and orders have one answer.
fn input(element: Element) -> Values {
    let mixed = |i: usize| (i * 37 % 131) as f64;
    Values::new(element, (0..COUNT).map(|i| if element.float() { (mixed(i) - 65.0) / 64.0 } else { mixed(i) }))
}

fn sums(row: &[f64]) -> f64 {
    row.iter().sum()
}

fn reduced(operation: &str, row: &[f64]) -> f64 {
    let by = |better: fn(f64, f64) -> bool| {
        row.iter().enumerate().fold(0, |best, (i, x)| if better(*x, row[best]) { i } else { best })
    };
    match operation {
        "fast_sum" => sums(row),
        "fast_min" => row[by(|a, b| a < b)],
        "fast_max" => row[by(|a, b| a > b)],
        "fast_argmin" => by(|a, b| a < b) as f64,
        _ => by(|a, b| a > b) as f64,
    }
}

/// The element at a row and column of the matrix, or of its transposed form.
fn rows(x: &[f64], strided: bool) -> Vec<Vec<f64>> {
    let at = |r: usize, c: usize| if strided { x[r + c * ROWS] } else { x[r * COLUMNS + c] };
    (0..ROWS).map(|r| (0..COLUMNS).map(|c| at(r, c)).collect()).collect()
}

fn fast(s: &Subject<'_>) -> Result<(), String> {
    let x = input(s.element);
    let is_index = s.operation.starts_with("fast_arg");
    let result = if is_index { Element::U32 } else { s.element };
    for (what, strided) in [("contiguous", false), ("transposed", true)] {
        let info = if strided { [ROWS, COLUMNS, 1, ROWS] } else { [ROWS, COLUMNS, COLUMNS, 1] };
        let args = [
            Arg::Size(COUNT),
            Arg::Size(COLUMNS),
            Arg::Size(2),
            Arg::Sizes(&info),
            Arg::In(&x),
            Arg::Out(result, ROWS),
        ];
        let found = s.host.run(s.name, ROWS as u32, [128, 1, 1], 0, &args)?;
        let rows = rows(&x.numbers(), strided);
        let mut expected: Vec<f64> = rows.iter().map(|row| reduced(s.operation, row)).collect();
        if is_index && rows.iter().any(|row| repeated(row, s.operation == "fast_argmin")) {
            // Of equal extremes, any index is right.
            let indices = found.numbers();
            for (row, (index, expected)) in rows.iter().zip(indices.iter().zip(&mut expected)) {
                if row.get(*index as usize) == row.get(*expected as usize) {
                    *expected = *index;
                }
            }
        }
        compare(what, &found, &expected, 20.0 * s.element.precision())?;
    }
    Ok(())
}

fn repeated(row: &[f64], least: bool) -> bool {
    let best = reduced(if least { "fast_min" } else { "fast_max" }, row);
    row.iter().filter(|x| **x == best).count() > 1
}

fn small(s: &Subject<'_>) -> Result<(), String> {
    let x = input(s.element);
    for (what, strided) in [("contiguous", false), ("transposed", true)] {
        let info = if strided { [ROWS, COLUMNS, 1, ROWS] } else { [ROWS, COLUMNS, COLUMNS, 1] };
        let result = Arg::Out(s.element, ROWS);
        let args = [Arg::Size(ROWS), Arg::Size(COLUMNS), Arg::Size(2), Arg::Sizes(&info), Arg::In(&x), result];
        let found = s.host.run(s.name, 1, [32, 1, 1], 0, &args)?;
        let expected: Vec<f64> = rows(&x.numbers(), strided).iter().map(|row| sums(row)).collect();
        compare(what, &found, &expected, 40.0 * s.element.precision())?;
    }
    Ok(())
}

/// The sum of each column, by atomic additions in the type itself. Few rows, since halves lose digits at each.
fn atomic_sum(s: &Subject<'_>) -> Result<(), String> {
    let x = input(s.element);
    let zeros = Values::new(s.element, [0.0; COLUMNS]);
    for (what, strided) in [("contiguous", false), ("transposed", true)] {
        let strides = if strided { [1, ROWS] } else { [COLUMNS, 1] };
        let info = [ROWS, COLUMNS, strides[0], strides[1], ROWS, COLUMNS];
        let args = [Arg::Size(COUNT), Arg::Size(2), Arg::Size(1), Arg::Sizes(&info), Arg::In(&x), Arg::Changed(&zeros)];
        let found = s.host.run(s.name, 3, [128, 1, 1], 0, &args)?;
        let rows = rows(&x.numbers(), strided);
        let expected: Vec<f64> = (0..COLUMNS).map(|c| rows.iter().map(|row| row[c]).sum()).collect();
        compare(what, &found, &expected, 4.0 * s.element.precision())?;
    }
    Ok(())
}

fn softmax(s: &Subject<'_>) -> Result<(), String> {
    let x = input(s.element);
    let args = [Arg::In(&x), Arg::Out(s.element, COUNT), Arg::Int(COLUMNS as i32)];
    let found = s.host.run(s.name, ROWS as u32, [1, 32, 1], 0, &args)?;
    let row = |row: &Vec<f64>| {
        let sum: f64 = row.iter().map(|x| x.exp()).sum();
        row.iter().map(|x| x.exp() / sum).collect::<Vec<_>>()
    };
    let expected: Vec<f64> = rows(&x.numbers(), false).iter().flat_map(row).collect();
    compare("rows", &found, &expected, s.element.precision())
}

fn norm(s: &Subject<'_>) -> Result<(), String> {
    let x = input(s.element);
    let (alpha, beta) = (Values::between(s.element, COLUMNS, 0.5, 1.5), Values::between(s.element, COLUMNS, -0.5, 0.5));
    let layer = s.operation == "layernorm";
    let eps = 1e-5f32;
    for threads in [32u32, 1024] {
        let mut args = vec![Arg::In(&x), Arg::Out(s.element, COUNT), Arg::In(&alpha)];
        if layer {
            args.push(Arg::In(&beta));
        }
        args.extend([Arg::Int(COLUMNS as i32), Arg::Int(threads as i32), Arg::Number(Element::F32, eps.into())]);
        let found = s.host.run(s.name, ROWS as u32, [threads, 1, 1], 0, &args)?;
        let (a, b) = (alpha.numbers(), beta.numbers());
        let row = |row: &Vec<f64>| {
            let n = COLUMNS as f64;
            let mean = if layer { sums(row) / n } else { 0.0 };
            let square: f64 = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
            let scale = 1.0 / (square + f64::from(eps)).sqrt();
            let shift = |c: usize| if layer { b[c] } else { 0.0 };
            row.iter().enumerate().map(|(c, x)| (x - mean) * scale * a[c] + shift(c)).collect::<Vec<_>>()
        };
        let expected: Vec<f64> = rows(&x.numbers(), false).iter().flat_map(row).collect();
        // The kernels sum in f32, those of f64 too.
        compare(&format!("{threads} threads"), &found, &expected, (4.0 * s.element.precision()).max(1e-5))?;
    }
    Ok(())
}

fn sort(s: &Subject<'_>) -> Result<(), String> {
    let x = input(s.element);
    let padded = COLUMNS.next_power_of_two();
    let args = [Arg::In(&x), Arg::Out(Element::U32, COUNT), Arg::Int(COLUMNS as i32), Arg::Int(padded as i32)];
    let found = s.host.run(s.name, ROWS as u32, [padded as u32, 1, 1], (padded * 4) as u32, &args)?;
    let indices = found.numbers();
    for (row, indices) in rows(&x.numbers(), false).iter().zip(indices.chunks(COLUMNS)) {
        let mut seen = [false; COLUMNS];
        indices.iter().for_each(|i| seen[*i as usize] = true);
        let sorted: Vec<f64> = indices.iter().map(|i| row[*i as usize]).collect();
        let in_order = |pair: &[f64]| if s.operation == "asort_asc" { pair[0] <= pair[1] } else { pair[0] >= pair[1] };
        if !seen.iter().all(|seen| *seen) || !sorted.windows(2).all(in_order) {
            return Err(format!("the order is wrong: {sorted:?}"));
        }
    }
    Ok(())
}
