//! Group norm with channels last, in steps: sums of chunks of pixels, moments, the result, and the VJP.

use super::super::host::Arg;
use super::super::values::{Element, Values};
use super::super::{Subject, compare};
use super::{gradient, noise, silu, slope, tolerance};

const B: usize = 2;
const PIXELS: usize = 37;
/// Pixels of a block; the last block has fewer.
const CHUNK: usize = 15;
/// Rows of threads of a block.
const ROWS: usize = 5;
const EPS: f32 = 1e-5;

/// Sums of two numbers, of many terms in f32.
const SUMS: f64 = 4e-5;

/// A feature map (B, PIXELS, groups · size) and the parameters of its norm.
struct Map {
    groups: usize,
    size: usize,
    x: Values,
    weight: Values,
    bias: Values,
    dy: Values,
}

pub fn check(s: &Subject<'_>) -> Option<Result<(), String>> {
    let check: fn(&Subject<'_>, &Map) -> Result<(), String> = match s.operation {
        "group_sums" => sums,
        "group_moments" => moments,
        "group_norm" => norm,
        "group_norm_vjp_sums" => vjp_sums,
        "group_norm_vjp_total" => total,
        "group_norm_vjp" => vjp,
        _ => return None,
    };
    // With vectors, groups that end within one, and groups of several.
    let cases = if s.vector == 1 { [(3, 5), (7, 1)] } else { [(8, 3), (3, 8)] };
    let case = |(groups, size)| {
        let (count, channels) = (B * PIXELS * groups * size, groups * size);
        let (x, dy) = (noise(s, count, 0), noise(s, count, 1));
        let map = Map { groups, size, x, weight: noise(s, channels, 2), bias: noise(s, channels, 3), dy };
        check(s, &map).map_err(|e| format!("{groups} groups of {size}: {e}"))
    };
    Some(cases.into_iter().try_for_each(case))
}

impl Map {
    fn channels(&self) -> usize {
        self.groups * self.size
    }

    /// The indices of a group's numbers at some pixels, and the channel of each.
    fn group(&self, at: usize, pixels: std::ops::Range<usize>) -> impl Iterator<Item = (usize, usize)> + '_ {
        let (sample, first) = (at / self.groups, at % self.groups * self.size);
        let channels = first..first + self.size;
        pixels.flat_map(move |p| channels.clone().map(move |c| ((sample * PIXELS + p) * self.channels() + c, c)))
    }

    /// For each chunk of pixels, the two sums of each group: (B, chunks, groups, 2).
    fn chunked(&self, chunk: usize, pair: impl Fn(usize, usize, usize) -> [f64; 2]) -> Vec<f64> {
        let chunks = PIXELS.div_ceil(chunk);
        let one = |i: usize| {
            let (sample, n, group) = (i / (chunks * self.groups), i / self.groups % chunks, i % self.groups);
            let at = sample * self.groups + group;
            let numbers = self.group(at, n * chunk..PIXELS.min((n + 1) * chunk));
            numbers.map(|(i, c)| pair(at, i, c)).fold([0.0; 2], |[a, b], [c, d]| [a + c, b + d])
        };
        (0..B * chunks * self.groups).flat_map(one).collect()
    }

    /// Mean and variance of each group, (B, groups, 2).
    fn moments(&self) -> Vec<f64> {
        let x = self.x.numbers();
        let one = |at: usize| {
            let n = (PIXELS * self.size) as f64;
            let mean = self.group(at, 0..PIXELS).map(|(i, _)| x[i]).sum::<f64>() / n;
            [mean, self.group(at, 0..PIXELS).map(|(i, _)| (x[i] - mean) * (x[i] - mean)).sum::<f64>() / n]
        };
        (0..B * self.groups).flat_map(one).collect()
    }

    /// The shifted sums that the moments are made of.
    fn sums(&self, chunk: usize) -> Vec<f64> {
        let x = self.x.numbers();
        self.chunked(chunk, |at, i, _| {
            let off = x[i] - self.group(at, 0..1).next().map_or(0.0, |(first, _)| x[first]);
            [off, off * off]
        })
    }

    /// Runs a kernel with threads for all channels and some pixels. `args` are its addresses; all but the first sums take
    /// `activate` too. `adds` says whether blocks add.
    fn run(
        &self,
        s: &Subject<'_>,
        adds: bool,
        mut args: Vec<Arg<'_>>,
        activate: Option<bool>,
    ) -> Result<Values, String> {
        args.extend([PIXELS, self.channels(), self.groups, CHUNK].map(|n| Arg::Int(n as i32)));
        if let Some(activate) = activate {
            args.extend([Arg::Number(Element::F32, EPS.into()), Arg::Int(activate.into())]);
        }
        let threads = (self.channels() / s.vector * ROWS) as u32;
        let shared = if adds { (2 * ROWS * self.channels() * 4) as u32 } else { 0 };
        s.host.run(s.name, (PIXELS.div_ceil(CHUNK), B), [threads, 1, 1], shared, &args)
    }

    /// Σ d and Σ d x̂ of each group in chunks, where d is the gradient of x̂.
    fn gradient_sums(&self, moments: &[f64], activate: bool, chunk: usize) -> Vec<f64> {
        let (x, dy) = (self.x.numbers(), self.dy.numbers());
        let result = self.result(activate);
        self.chunked(chunk, |at, i, c| {
            let normal = (x[i] - moments[2 * at]) / (moments[2 * at + 1] + f64::from(EPS)).sqrt();
            let d = dy[i] * slope(|normal| result(normal, c), normal);
            [d, d * normal]
        })
    }

    /// The result for a normalised number of a channel.
    fn result(&self, activate: bool) -> impl Fn(f64, usize) -> f64 {
        let (weight, bias) = (self.weight.numbers(), self.bias.numbers());
        move |normal, c| {
            let y = normal * weight[c] + bias[c];
            if activate { silu(y) } else { y }
        }
    }
}

fn f32s(numbers: Vec<f64>) -> Values {
    Values::new(Element::F32, numbers)
}

fn sums(s: &Subject<'_>, map: &Map) -> Result<(), String> {
    let expected = map.sums(CHUNK);
    let args = vec![Arg::In(&map.x), Arg::Out(Element::F32, expected.len())];
    compare("sums", &map.run(s, true, args, None)?, &expected, SUMS)
}

fn moments(s: &Subject<'_>, map: &Map) -> Result<(), String> {
    // More chunks than a warp has threads.
    for chunk in [CHUNK, 1] {
        let sums = f32s(map.sums(chunk));
        let mut args = vec![Arg::In(&map.x), Arg::In(&sums), Arg::Out(Element::F32, B * map.groups * 2)];
        args.extend([PIXELS, map.channels(), map.groups, PIXELS.div_ceil(chunk)].map(|n| Arg::Int(n as i32)));
        let found = s.host.run(s.name, (map.groups, B), [32, 1, 1], 0, &args)?;
        compare("moments", &found, &map.moments(), 1e-5)?;
    }
    Ok(())
}

fn norm(s: &Subject<'_>, map: &Map) -> Result<(), String> {
    let moments = f32s(map.moments());
    for activate in [false, true] {
        let mut args = vec![Arg::In(&map.x), Arg::In(&moments), Arg::In(&map.weight), Arg::In(&map.bias)];
        args.push(Arg::Out(s.element, B * PIXELS * map.channels()));
        let found = map.run(s, false, args, Some(activate))?;
        let (x, m, result) = (map.x.numbers(), moments.numbers(), map.result(activate));
        let mut expected = vec![0.0; x.len()];
        for at in 0..B * map.groups {
            let scale = 1.0 / (m[2 * at + 1] + f64::from(EPS)).sqrt();
            map.group(at, 0..PIXELS).for_each(|(i, c)| expected[i] = result((x[i] - m[2 * at]) * scale, c));
        }
        compare(&format!("SiLU {activate}"), &found, &expected, tolerance(s.element))?;
    }
    Ok(())
}

fn vjp_sums(s: &Subject<'_>, map: &Map) -> Result<(), String> {
    let moments = f32s(map.moments());
    for activate in [false, true] {
        let expected = map.gradient_sums(&moments.numbers(), activate, CHUNK);
        let mut args = vec![Arg::In(&map.x), Arg::In(&moments), Arg::In(&map.weight), Arg::In(&map.bias)];
        args.extend([Arg::In(&map.dy), Arg::Out(Element::F32, expected.len())]);
        compare(&format!("SiLU {activate}"), &map.run(s, true, args, Some(activate))?, &expected, SUMS)?;
    }
    Ok(())
}

fn total(s: &Subject<'_>, map: &Map) -> Result<(), String> {
    let sums = f32s(map.sums(1));
    let expected = map.sums(PIXELS);
    let mut args = vec![Arg::In(&sums), Arg::Out(Element::F32, expected.len())];
    args.extend([map.groups, PIXELS].map(|n| Arg::Int(n as i32)));
    compare("totals", &s.host.run(s.name, (map.groups, B), [32, 1, 1], 0, &args)?, &expected, SUMS)
}

/// The gradient of a whole group norm, by its totals, and of one whose moments are given, without.
fn vjp(s: &Subject<'_>, map: &Map) -> Result<(), String> {
    let moments = f32s(map.moments());
    let (x, dy, m) = (map.x.numbers(), map.dy.numbers(), moments.numbers());
    for (activate, given) in [(false, false), (true, false), (false, true), (true, true)] {
        let total = f32s(map.gradient_sums(&m, activate, PIXELS));
        let mut args = vec![Arg::In(&map.x), Arg::In(&moments), Arg::In(&map.weight), Arg::In(&map.bias)];
        args.extend([Arg::In(&map.dy), if given { Arg::Null } else { Arg::In(&total) }]);
        args.push(Arg::Out(s.element, x.len()));
        let found = map.run(s, false, args, Some(activate))?;
        let result = map.result(activate);
        let mut expected = vec![0.0; x.len()];
        for at in 0..B * map.groups {
            let places: Vec<(usize, usize)> = map.group(at, 0..PIXELS).collect();
            let there: Vec<f64> = places.iter().map(|(i, _)| x[*i]).collect();
            let n = there.len() as f64;
            let along = |there: &[f64]| {
                let mean = there.iter().sum::<f64>() / n;
                let variance = there.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
                let scale = 1.0 / (variance + f64::from(EPS)).sqrt();
                places.iter().zip(there).map(|((i, c), x)| dy[*i] * result((x - mean) * scale, *c)).sum()
            };
            let scale = 1.0 / (m[2 * at + 1] + f64::from(EPS)).sqrt();
            let alone = |(i, c): &(usize, usize)| dy[*i] * slope(|x| result((x - m[2 * at]) * scale, *c), x[*i]);
            let dx = if given { places.iter().map(alone).collect() } else { gradient(along, &there) };
            places.iter().zip(dx).for_each(|((i, _), dx)| expected[*i] = dx);
        }
        compare(&format!("SiLU {activate}, moments given {given}"), &found, &expected, 2.0 * tolerance(s.element))?;
    }
    Ok(())
}
