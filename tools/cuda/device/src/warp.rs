//! What the lanes of a warp do together: shuffles, votes, reductions, and products of small matrices.

use std::ops::Range;

use crate::block::{Grid, State, Worker, stop};
use crate::fault::Fault;
use crate::kernel::{Context, request};

/// Answers requests of a warp whose lanes all wait. Returns whether some lane can go on.
pub fn answer(worker: &mut Worker, lanes: Range<usize>, grid: &Grid<'_>) -> bool {
    let mut any = false;
    for i in lanes.clone() {
        let context = &worker.contexts[i];
        if worker.states[i] != State::Waits || context.kind == request::BARRIER {
            continue;
        }
        let mask = context.mask;
        let lane = i - lanes.start;
        if mask >> lane & 1 == 0 {
            let text = format!("lane {lane} is not in the mask {mask:#x} of its instruction in line {}", context.line);
            stop(grid, context, Fault::AbsentLane, &text);
        }
        let group: Vec<usize> = lanes.clone().filter(|j| mask >> (j - lanes.start) & 1 == 1).collect();
        if group.iter().all(|j| same(worker, i, *j)) {
            resolve(worker, &group, lanes.start, grid);
            any = true;
        } else if let Some(absent) = group.iter().copied().find(|j| gone(worker, *j)) {
            let what = if worker.states[absent] == State::Done { "has ended" } else { "waits at a barrier" };
            let text = format!("lane {lane} waits in line {}, but lane {} {what}", context.line, absent - lanes.start);
            stop(grid, context, Fault::AbsentLane, &text);
        }
    }
    any
}

/// Returns whether two lanes wait for the same.
fn same(worker: &Worker, i: usize, j: usize) -> bool {
    let (a, b) = (&worker.contexts[i], &worker.contexts[j]);
    worker.states[j] == State::Waits && (a.kind, a.mode, a.mask) == (b.kind, b.mode, b.mask)
}

/// Returns whether a lane cannot come before others go on.
fn gone(worker: &Worker, j: usize) -> bool {
    match worker.states[j] {
        State::Done => true,
        State::Waits => worker.contexts[j].kind == request::BARRIER,
        State::Ready => false,
    }
}

fn resolve(worker: &mut Worker, group: &[usize], first: usize, grid: &Grid<'_>) {
    let contexts = &worker.contexts;
    let one = &contexts[group[0]];
    let replies: Vec<(u32, bool)> = match one.kind {
        request::SHUFFLE => group.iter().map(|i| shuffle(contexts, group, *i, first, grid)).collect(),
        request::VOTE => vec![(vote(contexts, group, first), true); group.len()],
        request::REDUCE => vec![(reduce(contexts, group), true); group.len()],
        request::MATRIX => {
            product(contexts, group, grid);
            vec![(0, true); group.len()]
        }
        request::LOAD_MATRIX => {
            load_matrix(worker, group, grid);
            vec![(0, true); group.len()]
        }
        _ => vec![(0, true); group.len()],
    };
    for (i, (reply, predicate)) in group.iter().zip(replies) {
        worker.contexts[*i].reply = reply;
        worker.contexts[*i].reply_pred = u32::from(predicate);
        worker.states[*i] = State::Ready;
    }
    worker.block.time += 1;
    let warp = first / 32;
    worker.block.last_sync[warp] = worker.block.time;
}

/// `shfl.sync`: PTX ISA, "Data Movement and Conversion Instructions".
fn shuffle(contexts: &[Context], group: &[usize], i: usize, first: usize, grid: &Grid<'_>) -> (u32, bool) {
    let context = &contexts[i];
    let lane = (i - first) as i64;
    let by = i64::from(context.b & 31);
    let (clamp, segment) = (i64::from(context.clamp & 31), i64::from(context.clamp >> 8 & 31));
    let (low, high) = (lane & segment, (lane & segment) | (clamp & !segment));
    let (from, valid) = match context.mode {
        0 => (lane - by, lane - by >= high),
        1 => (lane + by, lane + by <= high),
        2 => (lane ^ by, lane ^ by <= high),
        _ => (low | (by & !segment), low | (by & !segment) <= high),
    };
    let from = if valid { from } else { lane };
    match group.iter().find(|j| (**j - first) as i64 == from) {
        Some(j) => (contexts[*j].a, valid),
        None => {
            let text = format!("lane {lane} reads lane {from}, which is absent, in line {}", context.line);
            stop(grid, context, Fault::AbsentLane, &text)
        }
    }
}

fn vote(contexts: &[Context], group: &[usize], first: usize) -> u32 {
    let yes = group.iter().filter(|i| contexts[**i].a != 0).count();
    match contexts[group[0]].mode {
        0 => u32::from(yes == group.len()),
        1 => u32::from(yes > 0),
        2 => u32::from(yes == 0 || yes == group.len()),
        _ => group.iter().filter(|i| contexts[**i].a != 0).fold(0, |all, i| all | 1 << (i - first)),
    }
}

fn reduce(contexts: &[Context], group: &[usize]) -> u32 {
    let values = group.iter().map(|i| contexts[*i].a);
    let signed = contexts[group[0]].b != 0;
    let least = |a: u32, b: u32| if signed { (a as i32).min(b as i32) as u32 } else { a.min(b) };
    let most = |a: u32, b: u32| if signed { (a as i32).max(b as i32) as u32 } else { a.max(b) };
    let result = match contexts[group[0]].mode {
        0 => values.reduce(u32::wrapping_add),
        1 => values.reduce(least),
        2 => values.reduce(most),
        3 => values.reduce(|a, b| a & b),
        4 => values.reduce(|a, b| a | b),
        _ => values.reduce(|a, b| a ^ b),
    };
    result.unwrap_or(0)
}

fn whole_warp(contexts: &[Context], group: &[usize], grid: &Grid<'_>) {
    if group.len() < 32 {
        let context = &contexts[group[0]];
        let text = format!("only {} lanes take part in line {}, which needs 32", group.len(), context.line);
        stop(grid, context, Fault::AbsentLane, &text);
    }
}

/// `mma.sync` m16n8k16 and m16n8k8 of halves, with sums in f32.
fn product(contexts: &[Context], group: &[usize], grid: &Grid<'_>) {
    whole_warp(contexts, group, grid);
    let bf16 = contexts[group[0]].mode == 1;
    let depth = contexts[group[0]].a as usize;
    let (a_words, b_words) = (depth / 4, depth / 8);
    let (mut a, mut b, mut c) = (vec![0f32; 16 * depth], vec![0f32; depth * 8], vec![0f32; 16 * 8]);
    let number =
        |bits: u16| if bf16 { half::bf16::from_bits(bits).to_f32() } else { half::f16::from_bits(bits).to_f32() };
    for (lane, i) in group.iter().enumerate() {
        let (row, pair) = (lane / 4, 2 * (lane % 4));
        // SAFETY: the kernel passes the words of A, B and C, in this order.
        let words = unsafe { std::slice::from_raw_parts(contexts[*i].input, a_words + b_words + 4) };
        for side in 0..2 {
            let part = |word: u32| number((word >> (16 * side)) as u16);
            for (k, word) in words[..a_words].iter().enumerate() {
                a[(row + 8 * (k % 2)) * depth + pair + side + 8 * (k / 2)] = part(*word);
            }
            for (k, word) in words[a_words..][..b_words].iter().enumerate() {
                b[(pair + side + 8 * k) * 8 + row] = part(*word);
            }
            for (k, word) in words[a_words + b_words..].iter().enumerate() {
                c[(row + 8 * (k / 2)) * 8 + pair + k % 2] = f32::from_bits(*word);
            }
        }
    }
    for (lane, i) in group.iter().enumerate() {
        let (row, pair) = (lane / 4, 2 * (lane % 4));
        for k in 0..4 {
            let (m, n) = (row + 8 * (k / 2), pair + k % 2);
            let sum: f64 = (0..depth).map(|d| f64::from(a[m * depth + d]) * f64::from(b[d * 8 + n])).sum();
            let value = (sum + f64::from(c[m * 8 + n])) as f32;
            // SAFETY: the kernel has room for 8 words.
            unsafe { *contexts[*i].output.add(k) = value.to_bits() };
        }
    }
}

/// `ldmatrix`: each lane names a row of 8 halves, and receives two of each matrix.
fn load_matrix(worker: &Worker, group: &[usize], grid: &Grid<'_>) {
    let contexts = &worker.contexts;
    whole_warp(contexts, group, grid);
    let (count, transposed) = (contexts[group[0]].b as usize, contexts[group[0]].mode == 1);
    let element = |matrix: usize, row: usize, column: usize| {
        let at = contexts[group[8 * matrix + row]].a as usize + 2 * column;
        // SAFETY: the lane that names the row checked its 16 bytes.
        u32::from(unsafe { worker.block.shared.add(at).cast::<u16>().read() })
    };
    for (lane, i) in group.iter().enumerate() {
        for matrix in 0..count {
            let (row, pair) = (lane / 4, 2 * (lane % 4));
            let of =
                |k: usize| if transposed { element(matrix, pair + k, row) } else { element(matrix, row, pair + k) };
            // SAFETY: the kernel has room for 8 words.
            unsafe { *contexts[*i].output.add(matrix) = of(0) | of(1) << 16 };
        }
    }
}
