//! Compares the kernels of candle with references in f64: `cuda-device check-kernels DIR`.
//!
//! The folder has candle's kernels as PTX. Every kernel is run on small tensors, contiguous and strided.

mod host;
mod values;
mod elementwise;
mod reductions;
mod indexing;
mod images;

use std::path::Path;

use host::Host;
use values::{Element, Values};

/// What is known of a kernel.
enum Verdict {
    Passed,
    /// No reference is written for it.
    Unknown,
    Failed(String),
}

/// A kernel to check, with its name split.
struct Subject<'a> {
    host: &'a Host,
    name: &'a str,
    /// The name without its type.
    operation: &'a str,
    element: Element,
}

type Check = fn(&Subject<'_>) -> Option<Result<(), String>>;

const CHECKS: [Check; 4] = [elementwise::check, reductions::check, indexing::check, images::check];

/// Checks all kernels of a folder of PTX files. The error says how many failed.
pub fn check_folder(folder: &Path) -> Result<(), String> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .map_err(|e| format!("cannot read {}: {e}", folder.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "ptx"))
        .collect();
    files.sort();
    let (mut passed, mut failed) = (0, 0);
    for file in files {
        let text = std::fs::read_to_string(&file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
        let host = Host::new(&text)?;
        let mut unknown = Vec::new();
        let before = passed;
        for name in host.kernels() {
            match check(&host, &name) {
                Verdict::Passed => passed += 1,
                Verdict::Unknown => unknown.push(name),
                Verdict::Failed(text) => {
                    println!("{name}: {text}");
                    failed += 1;
                }
            }
        }
        println!("{}: {} passed, {} without a reference {unknown:?}", file.display(), passed - before, unknown.len());
    }
    println!("{passed} passed, {failed} failed");
    if failed > 0 { Err(format!("{failed} kernels failed")) } else { Ok(()) }
}

fn check(host: &Host, name: &str) -> Verdict {
    let Some((operation, element)) = split(name) else { return Verdict::Unknown };
    let subject = Subject { host, name, operation, element };
    match CHECKS.iter().find_map(|check| check(&subject)) {
        Some(Ok(())) => Verdict::Passed,
        Some(Err(text)) => Verdict::Failed(text),
        None => Verdict::Unknown,
    }
}

/// Splits `badd_f32` into its operation and its type.
fn split(name: &str) -> Option<(&str, Element)> {
    let (operation, ty) = name.rsplit_once('_')?;
    Some((operation, Element::named(ty)?))
}

/// Compares results with their reference.
fn compare(what: &str, found: &Values, expected: &[f64], tolerance: f64) -> Result<(), String> {
    let found_numbers = found.numbers();
    if found_numbers.len() != expected.len() {
        return Err(format!("{what}: {} results, not {}", found_numbers.len(), expected.len()));
    }
    for (at, (x, y)) in found_numbers.iter().zip(expected).enumerate() {
        let y = found.element.round(*y);
        let same = *x == y || (x.is_nan() && y.is_nan());
        if !same && (x - y).abs() > tolerance * (1.0 + y.abs()) {
            return Err(format!("{what}: result {at} is {x}, not {y}"));
        }
    }
    Ok(())
}
