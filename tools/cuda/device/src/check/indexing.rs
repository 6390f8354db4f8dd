//! Kernels that read or write at indices.

use super::host::Arg;
use super::values::{Element, Values};
use super::{Subject, compare};

/// Sizes: before the indexed dimension, of it, of the indices, and behind it.
const LEFT: usize = 3;
const SOURCE: usize = 11;
const IDS: usize = 6;
const RIGHT: usize = 5;

pub fn check(s: &Subject<'_>) -> Option<Result<(), String>> {
    let (operation, ids) = s.operation.rsplit_once('_')?;
    let ids = Element::named(ids)?;
    match operation {
        "is" => Some(select(s, ids)),
        "gather" => Some(gather(s, ids)),
        "ia" => Some(add(s, ids)),
        "s" | "sa" => Some(scatter(s, ids, operation == "sa")),
        _ => None,
    }
}

fn sizes(list: [usize; 4]) -> [Arg<'static>; 4] {
    list.map(Arg::Size)
}

fn select(s: &Subject<'_>, ids: Element) -> Result<(), String> {
    let x = Values::between(s.element, LEFT * SOURCE * RIGHT, 0.0, 99.0);
    let ids = Values::new(ids, [3.0, 0.0, 10.0, 3.0, 7.0, 1.0]);
    let count = LEFT * IDS * RIGHT;
    let info = [LEFT, SOURCE, RIGHT, SOURCE * RIGHT, RIGHT, 1];
    let mut args = vec![Arg::Size(count), Arg::Size(3), Arg::Sizes(&info), Arg::In(&ids), Arg::In(&x)];
    args.push(Arg::Out(s.element, count));
    args.extend(sizes([LEFT, SOURCE, IDS, RIGHT]));
    let found = s.host.run(s.name, 2, [32, 1, 1], 0, &args)?;
    let (x, ids) = (x.numbers(), ids.numbers());
    let expected: Vec<f64> = (0..count)
        .map(|i| {
            let (left, id, right) = (i / (IDS * RIGHT), ids[i / RIGHT % IDS] as usize, i % RIGHT);
            x[(left * SOURCE + id) * RIGHT + right]
        })
        .collect();
    compare("rows", &found, &expected, 0.0)
}

fn gather(s: &Subject<'_>, ids: Element) -> Result<(), String> {
    let x = Values::between(s.element, LEFT * SOURCE * RIGHT, 0.0, 99.0);
    let count = LEFT * IDS * RIGHT;
    let ids = Values::new(ids, (0..count).map(|i| (i * 7 % SOURCE) as f64));
    let mut args = vec![Arg::Size(count), Arg::In(&ids), Arg::In(&x), Arg::Out(s.element, count)];
    args.extend(sizes([LEFT, SOURCE, IDS, RIGHT]));
    let found = s.host.run(s.name, 2, [32, 1, 1], 0, &args)?;
    let (x, ids) = (x.numbers(), ids.numbers());
    let expected: Vec<f64> =
        (0..count).map(|i| x[(i / (RIGHT * IDS) * SOURCE + ids[i] as usize) * RIGHT + i % RIGHT]).collect();
    compare("elements", &found, &expected, 0.0)
}

/// Adds slices to those at indices, which may repeat.
fn add(s: &Subject<'_>, ids: Element) -> Result<(), String> {
    let x = Values::between(s.element, LEFT * IDS * RIGHT, 0.0, 9.0);
    let to = Values::between(s.element, LEFT * SOURCE * RIGHT, 0.0, 9.0);
    let ids = Values::new(ids, [3.0, 0.0, 10.0, 3.0, 7.0, 1.0]);
    let mut args = vec![Arg::In(&ids), Arg::Size(IDS), Arg::In(&x), Arg::Changed(&to)];
    args.extend(sizes([LEFT, IDS, SOURCE, RIGHT]));
    let found = s.host.run(s.name, 1, [32, 1, 1], 0, &args)?;
    let (x, ids, mut expected) = (x.numbers(), ids.numbers(), to.numbers());
    for (i, value) in x.iter().enumerate() {
        let (left, id, right) = (i / (IDS * RIGHT), ids[i / RIGHT % IDS] as usize, i % RIGHT);
        expected[(left * SOURCE + id) * RIGHT + right] += value;
    }
    compare("slices", &found, &expected, 2.0 * s.element.precision())
}

fn scatter(s: &Subject<'_>, ids: Element, adds: bool) -> Result<(), String> {
    let count = LEFT * IDS * RIGHT;
    let x = Values::between(s.element, count, 0.0, 9.0);
    let to = Values::between(s.element, LEFT * SOURCE * RIGHT, 0.0, 9.0);
    let ids = Values::new(ids, (0..count).map(|i| (i * 7 % SOURCE) as f64));
    let mut args = vec![Arg::In(&ids), Arg::In(&x), Arg::Changed(&to)];
    args.extend(sizes([LEFT, IDS, SOURCE, RIGHT]));
    let found = s.host.run(s.name, 1, [32, 1, 1], 0, &args)?;
    let (x, ids, mut expected) = (x.numbers(), ids.numbers(), to.numbers());
    for (i, value) in x.iter().enumerate() {
        let at = (i / (RIGHT * IDS) * SOURCE + ids[i] as usize) * RIGHT + i % RIGHT;
        expected[at] = if adds { expected[at] + value } else { *value };
    }
    compare("elements", &found, &expected, 3.0 * s.element.precision())
}
