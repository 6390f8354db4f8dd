//! Compares kernels with references in f64: `cuda-device check-kernels DIRS`.
//!
//! The folders have the kernels of candle and lsregen as PTX. Every kernel is run on small tensors of odd sizes, contiguous
//! and strided. Each kernel needs a reference, unless `exempt` says why lsregen cannot launch it.

mod exempt;
mod host;
mod values;
mod convolutions;
mod elementwise;
mod images;
mod indexing;
mod own;
mod reductions;
mod rotary;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use host::Host;
use values::{Element, Values};

/// A kernel to check, with its name split.
struct Subject<'a> {
    host: &'a Host,
    name: &'a str,
    /// The name without its type.
    operation: &'a str,
    element: Element,
    /// How many numbers the kernel reads at once, which rows must be multiples of.
    vector: usize,
}

type Check = fn(&Subject<'_>) -> Option<Result<(), String>>;

const CHECKS: [Check; 7] = [
    own::check,
    elementwise::check,
    reductions::check,
    indexing::check,
    images::check,
    convolutions::check,
    rotary::check,
];

/// What came out, of all files.
#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
    /// Kernels without a reference that need one.
    unknown: usize,
    /// Why kernels need none, and how many.
    exempt: BTreeMap<&'static str, usize>,
}

impl Counts {
    fn seen(&self) -> usize {
        self.passed + self.failed + self.unknown
    }
}

/// Checks all kernels of folders of PTX files. The error says how many failed or have no reference.
pub fn check_folders(folders: &[&str]) -> Result<(), String> {
    let mut counts = Counts::default();
    for folder in folders {
        let before = counts.seen();
        files(Path::new(folder))?.iter().try_for_each(|file| check_file(file, &mut counts))?;
        if counts.seen() == before {
            return Err(format!("{folder} has no kernel that needs a reference"));
        }
    }
    for (reason, count) in &counts.exempt {
        println!("{count} exempt, {reason}");
    }
    let Counts { passed, failed, unknown, .. } = counts;
    println!("{passed} passed, {failed} failed, {unknown} lack a reference");
    match (failed, unknown) {
        (0, 0) => Ok(()),
        _ => Err(format!("{failed} kernels failed, {unknown} lack a reference: write it in src/check")),
    }
}

/// The PTX files of a folder, in order.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("cannot read {}: {e}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "ptx"))
        .collect();
    files.sort();
    Ok(files)
}

fn check_file(file: &Path, counts: &mut Counts) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    let host = Host::new(&text)?;
    let before = counts.passed;
    let (exempt, kernels): (Vec<_>, Vec<_>) =
        host.kernels().into_iter().partition(|name| exempt::reason(name).is_some());
    host.prepare(&kernels);
    for name in kernels {
        match check(&host, &name) {
            Some(Ok(())) => counts.passed += 1,
            Some(Err(text)) => {
                println!("{name}: {text}");
                counts.failed += 1;
            }
            None => {
                println!("{name}: no reference");
                counts.unknown += 1;
            }
        }
    }
    for reason in exempt.iter().filter_map(|name| exempt::reason(name)) {
        *counts.exempt.entry(reason).or_default() += 1;
    }
    println!("{}: {} passed, {} exempt", file.display(), counts.passed - before, exempt.len());
    if !exempt.is_empty() {
        println!("    exempt: {}", exempt.join(" "));
    }
    Ok(())
}

/// Checks a kernel, if there is a reference.
fn check(host: &Host, name: &str) -> Option<Result<(), String>> {
    let (operation, element, wide) = split(name)?;
    let vector = if wide { 16 / element.bytes() } else { 1 };
    let subject = Subject { host, name, operation, element, vector };
    CHECKS.iter().find_map(|check| check(&subject))
}

/// Splits `badd_f32` into its operation and its type, and says whether `_wide` follows. The attentions have a size behind
/// their type.
fn split(name: &str) -> Option<(&str, Element, bool)> {
    if name == "group_norm_vjp_total" {
        return Some((name, Element::F32, false));
    }
    if let Some((ty, _)) = name.strip_prefix("attention_").and_then(|rest| rest.split_once('_')) {
        return Some(("attention", Element::named(ty)?, false));
    }
    let rest = name.strip_suffix("_wide");
    let (operation, ty) = rest.unwrap_or(name).rsplit_once('_')?;
    Some((operation, Element::named(ty)?, rest.is_some()))
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
