//! Opens models with mutated configurations, schedules, tokenizers and preprocessors, and uses those that open: none may
//! panic or take more memory than its weights allow, every error must name the file, and no result may be NaN.
//!
//!     cargo run --release --example fuzz_configs -p lsregen-diffusion -- COUNT [SEED]

mod cases;
#[path = "../../../../tests/fuzz/memory.rs"]
mod memory;
mod usage;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use cases::{Corpus, MODELS};
use usage::{Outcome, open_and_use};

/// The memory that a model may take: its weights in f32, and what a small forward pass needs.
const ALLOWED: usize = 96 << 20;

/// The longest message that an error may have.
const MESSAGE: usize = 1000;

/// The results of the files of one kind.
#[derive(Default)]
struct Row {
    cases: usize,
    panics: usize,
    refused: usize,
    used: usize,
    faults: usize,
    peak: usize,
    seconds: f64,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let number = |index: usize| arguments.get(index).and_then(|argument| argument.parse::<u64>().ok());
    let Some(count) = number(0) else {
        eprintln!("usage: fuzz_configs COUNT [SEED]");
        return ExitCode::from(2);
    };
    let Ok(folder) = tempfile::tempdir() else {
        eprintln!("no temporary folder can be made");
        return ExitCode::from(2);
    };
    let corpus = Corpus::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    corpus.write(folder.path());
    let mut table: BTreeMap<String, Row> = BTreeMap::new();
    let first = number(1).unwrap_or(0);
    for seed in first..first.saturating_add(count) {
        let case = corpus.case(seed);
        let model = folder.path().join(MODELS[case.model]);
        if let Err(error) = case.place(folder.path()) {
            eprintln!("{}: {error}", model.display());
            return ExitCode::from(2);
        }
        let row = table.entry(format!("{} {}", MODELS[case.model], case.path)).or_default();
        judge(&model, &case.path, &format!("seed {seed} ({} {})", MODELS[case.model], case.path), row);
        if let Err(error) = corpus.restore(&case, folder.path()) {
            eprintln!("{}: {error}", model.display());
            return ExitCode::from(2);
        }
    }
    print(&table)
}

/// Opens and uses a model. Prints each violation.
fn judge(model: &Path, path: &str, name: &str, row: &mut Row) {
    row.cases += 1;
    let begin = Instant::now();
    let (result, peak) = memory::peak(|| catch_unwind(AssertUnwindSafe(|| open_and_use(model, path))));
    row.seconds = row.seconds.max(begin.elapsed().as_secs_f64());
    row.peak = row.peak.max(peak);
    let mut fault = |what: String| {
        println!("{name}: {what}");
        row.faults += 1;
    };
    if peak > ALLOWED {
        fault(format!("{peak} bytes of memory"));
    }
    match result {
        Err(_) => {
            println!("{name}: panicked");
            row.panics += 1;
        }
        Ok(Err(errors)) => {
            for error in errors.iter().filter(|error| error.is_empty() || error.len() > MESSAGE) {
                fault(format!("an error of {} bytes: {error:.200}", error.len()));
            }
            row.refused += 1;
        }
        // What a check accepts must run.
        Ok(Ok(Err(error))) => fault(format!("opened, but failed: {error:.300}")),
        Ok(Ok(Ok(Outcome::NotFinite))) => fault("opened, but its results are not finite".into()),
        Ok(Ok(Ok(Outcome::Finite))) => row.used += 1,
    }
}

fn print(table: &BTreeMap<String, Row>) -> ExitCode {
    println!(
        "{:<40} {:>7} {:>6} {:>8} {:>7} {:>9} {:>9} {:>9}",
        "file", "cases", "panics", "refused", "used", "peak MiB", "slowest s", "other"
    );
    for (file, row) in table {
        println!(
            "{file:<40} {:>7} {:>6} {:>8} {:>7} {:>9} {:>9.3} {:>9}",
            row.cases,
            row.panics,
            row.refused,
            row.used,
            row.peak >> 20,
            row.seconds,
            row.faults
        );
    }
    let sum = |of: fn(&Row) -> usize| table.values().map(of).sum::<usize>();
    let (panics, faults) = (sum(|row| row.panics), sum(|row| row.faults));
    println!(
        "{} files: {} used, {} refused, {panics} panics, {faults} other violations",
        sum(|row| row.cases),
        sum(|row| row.used),
        sum(|row| row.refused)
    );
    if panics + faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
