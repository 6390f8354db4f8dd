//! Opens malformed weights files: none may panic, or take more memory than its size allows, and every error must name the
//! file.
//!
//!     cargo run --release --example fuzz_weights -p lsregen-weights -- COUNT [SEED]
//!     cargo run --release --example fuzz_weights -p lsregen-weights -- large [BYTES]   files that try to exhaust memory
//!
//! A file may take [`ALLOWED`] bytes of memory for each of its own, and [`CONSTANT`] bytes more. A header takes more
//! memory than its size in the file. A pickle keeps up to sixteen bytes for each byte of the file, and a vector that
//! doubles temporarily keeps its old half, hence 48. The safetensors crate parses JSON into values: two bytes (`1,`)
//! become a value of 32 bytes, hence 48 again. Memory must never follow a *claim*, such as a length of 2^40 in a file
//! of 100 bytes.

mod files;
#[path = "../../../../tests/fuzz/memory.rs"]
mod memory;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use files::{Corpus, LARGE, load, open};

const ALLOWED: usize = 48;
const CONSTANT: usize = 4 << 20;

/// The longest message that an error may have.
const MESSAGE: usize = 1000;

/// The results of the files of one kind.
#[derive(Default)]
struct Row {
    cases: usize,
    panics: usize,
    errors: usize,
    opened: usize,
    loaded: usize,
    /// The greatest memory beyond the constant for each byte of a file, and the greatest memory.
    ratio: f64,
    peak: usize,
    seconds: f64,
    faults: usize,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    // A thread has a smaller stack than the program, so that deep recursion shows sooner.
    let worker = std::thread::Builder::new().stack_size(1 << 20).spawn(move || work(&arguments));
    worker.map_or(ExitCode::FAILURE, |worker| worker.join().unwrap_or(ExitCode::FAILURE))
}

fn work(arguments: &[String]) -> ExitCode {
    let number = |index: usize| arguments.get(index).and_then(|argument| argument.parse::<u64>().ok());
    let (large, count) = (arguments.first().is_some_and(|a| a == "large"), number(0));
    if !large && count.is_none() {
        eprintln!("usage: fuzz_weights COUNT [SEED] | large [BYTES]");
        return ExitCode::from(2);
    }
    let Ok(folder) = tempfile::tempdir() else {
        eprintln!("no temporary folder can be made");
        return ExitCode::from(2);
    };
    let mut table: BTreeMap<&str, Row> = BTreeMap::new();
    let written = if large {
        LARGE.iter().try_for_each(|(way, make)| {
            let bytes = make(number(1).unwrap_or(16 << 20) as usize);
            let path = folder.path().join("case.weights");
            std::fs::write(&path, &bytes)?;
            let size = bytes.len();
            drop(bytes);
            judge(&path, size, way, table.entry(way).or_default());
            Ok(())
        })
    } else {
        let corpus = Corpus::read(Path::new(env!("CARGO_MANIFEST_DIR")));
        let first = number(1).unwrap_or(0);
        (first..first.saturating_add(count.unwrap_or(0))).try_for_each(|seed| {
            let (way, path, size) = corpus.write(seed, folder.path())?;
            judge(&path, size, &format!("seed {seed}, {way}"), table.entry(way).or_default());
            Ok(())
        })
    };
    if let Err(error) = written.map_err(|error: std::io::Error| error) {
        eprintln!("{}: {error}", folder.path().display());
        return ExitCode::from(2);
    }
    print(&table)
}

/// Opens a file and loads its tensors. Returns a violation, if there is one.
fn judge(path: &Path, size: usize, name: &str, row: &mut Row) {
    row.cases += 1;
    let begin = Instant::now();
    let (opened, peak) = memory::peak(|| catch_unwind(AssertUnwindSafe(|| open(path))));
    row.seconds = row.seconds.max(begin.elapsed().as_secs_f64());
    row.peak = row.peak.max(peak);
    row.ratio = row.ratio.max(peak.saturating_sub(CONSTANT) as f64 / size.max(1) as f64);
    if peak > ALLOWED * size + CONSTANT {
        println!("{name}: {peak} bytes of memory for a file of {size}");
        row.faults += 1;
    }
    match opened {
        Err(_) => {
            println!("{name}: panicked");
            row.panics += 1;
        }
        Ok(Err(error)) => {
            row.errors += 1;
            let folder = path.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
            if !error.contains(&folder) || error.len() > MESSAGE {
                println!("{name}: an error of {} bytes: {error:.200}", error.len());
                row.faults += 1;
            }
        }
        Ok(Ok(sorted)) => {
            row.opened += 1;
            match catch_unwind(AssertUnwindSafe(|| load(sorted))) {
                Ok(count) => row.loaded += count,
                Err(_) => {
                    println!("{name}: panicked while tensors were loaded");
                    row.panics += 1;
                }
            }
        }
    }
}

fn print(table: &BTreeMap<&str, Row>) -> ExitCode {
    println!(
        "{:<42} {:>7} {:>6} {:>7} {:>7} {:>8} {:>10} {:>9} {:>9}",
        "made by", "cases", "panics", "errors", "opened", "tensors", "peak KiB", "per byte", "slowest s"
    );
    let mut good = true;
    for (way, row) in table {
        good &= row.panics + row.faults == 0;
        println!(
            "{way:<42} {:>7} {:>6} {:>7} {:>7} {:>8} {:>10} {:>9.1} {:>9.4}",
            row.cases,
            row.panics,
            row.errors,
            row.opened,
            row.loaded,
            row.peak >> 10,
            row.ratio,
            row.seconds
        );
    }
    let sum = |of: fn(&Row) -> usize| table.values().map(of).sum::<usize>();
    let (cases, panics, faults) = (sum(|r| r.cases), sum(|r| r.panics), sum(|r| r.faults));
    println!(
        "{cases} files: {} opened, {} refused, {panics} panics, {faults} other violations",
        sum(|r| r.opened),
        sum(|r| r.errors)
    );
    println!("memory allowed: {ALLOWED} bytes for each of the file's, and {} KiB", CONSTANT >> 10);
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
