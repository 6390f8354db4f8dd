//! Attention.

use super::super::host::Arg;
use super::super::values::{Element, Values};
use super::super::{Subject, compare};

/// Samples, heads, queries and keys: the last block of each is not full.
const B: usize = 2;
const HEADS: usize = 2;
const N: usize = 70;
const M: usize = 83;

/// Numbers between the rows of two tokens that are not the kernel's; whole rows of 16 bytes.
const GAP: usize = 8;

pub fn check(s: &Subject<'_>) -> Result<(), String> {
    let size: usize = s.name.rsplit('_').next().and_then(|size| size.parse().ok()).ok_or("no head size")?;
    // Smaller heads are filled up with zeros.
    for d in [size, size - 8] {
        for causal in [false, true] {
            attention(s, d, causal).map_err(|e| format!("heads of {d}, causal {causal}: {e}"))?;
        }
    }
    Ok(())
}

/// Tokens (B, tokens, heads · d + GAP).
fn tokens(s: &Subject<'_>, tokens: usize, d: usize, stream: usize) -> Values {
    Values::noise(s.element, B * tokens * (HEADS * d + GAP), -2.0, 2.0, stream)
}

fn attention(s: &Subject<'_>, d: usize, causal: bool) -> Result<(), String> {
    let (q, k, v) = (tokens(s, N, d, 0), tokens(s, M, d, 1), tokens(s, M, d, 2));
    let token = HEADS * d + GAP;
    let scale = (std::f64::consts::LOG2_E / (d as f64).sqrt()) as f32;
    let mut args = vec![Arg::In(&q), Arg::In(&k), Arg::In(&v), Arg::Out(s.element, B * N * HEADS * d)];
    args.extend([N, M, M].into_iter().flat_map(|n| [n * token, d, token]).map(Arg::Size));
    args.extend([N, M, HEADS, d].map(|n| Arg::Int(n as i32)));
    args.extend([Arg::Number(Element::F32, scale.into()), Arg::Int(causal.into())]);
    let found = s.host.run(s.name, (N.div_ceil(64), B * HEADS), [128, 1, 1], 0, &args)?;

    let (q, k, v) = (q.numbers(), k.numbers(), v.numbers());
    let mut expected = vec![0.0; B * N * HEADS * d];
    for (sample, query, head) in (0..B * N * HEADS).map(|i| (i / (N * HEADS), i / HEADS % N, i % HEADS)) {
        fn row(x: &[f64], at: usize, d: usize, head: usize) -> &[f64] {
            &x[at * (HEADS * d + GAP) + head * d..][..d]
        }
        let seen = if causal { M.min(query + 1) } else { M };
        let q = row(&q, sample * N + query, d, head);
        let score = |key: usize| {
            let k = row(&k, sample * M + key, d, head);
            q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / (d as f64).sqrt()
        };
        let scores: Vec<f64> = (0..seen).map(score).collect();
        let largest = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let to = &mut expected[((sample * N + query) * HEADS + head) * d..][..d];
        for (key, weight) in weights.iter().enumerate() {
            let v = row(&v, sample * M + key, d, head);
            to.iter_mut().zip(v).for_each(|(to, v)| *to += weight / sum * v);
        }
    }
    // Weights are rounded to halves before the product with v, and the result is.
    compare("tokens", &found, &expected, s.element.precision())
}
