//! Reads mutated images and layout files: none may panic, hang, or take more memory than its size allows; every error must
//! name the file, and what is read must be whole.
//!
//!     cargo run --release --example fuzz_inputs -p lsregen-diffusion -- images|layouts COUNT [SEED]
//!
//! A file may take [`OF_FILE`] bytes of memory for each of its own, [`CONSTANT`] bytes more, and what its kind allows for
//! what it states.

#[path = "../../../../tests/fuzz/clock.rs"]
mod clock;
#[path = "../../../../tests/fuzz/documents/dice.rs"]
mod dice;
mod layouts;
#[path = "../../../../tests/fuzz/memory.rs"]
mod memory;
mod images;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dice::Dice;

const OF_FILE: usize = 64;
const CONSTANT: usize = 4 << 20;

/// The longest message that an error may have, beside the path.
const MESSAGE: usize = 1000;

/// The most time on a processor that a file may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A kind of files.
pub trait Corpus {
    /// Returns a file of this seed: how it was made, the ending of its name, and its content.
    fn file(&self, dice: &mut Dice) -> (&'static str, &'static str, Vec<u8>);

    /// Reads a file. Returns the bytes of memory that it may take for what it states, and what reading gave: whether it is
    /// whole, or an error.
    fn read(&self, path: &Path) -> (usize, Result<bool, String>);
}

/// The results of the files that were made in one way.
#[derive(Default)]
struct Row {
    files: usize,
    read: usize,
    faults: usize,
    peak: usize,
    seconds: f64,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let number = |index: usize| arguments.get(index).and_then(|argument| argument.parse::<u64>().ok());
    let corpus: Box<dyn Corpus> = match arguments.first().map(String::as_str) {
        Some("images") => Box::new(images::Images::read()),
        Some("layouts") => Box::new(layouts::Layouts),
        _ => return usage(),
    };
    let (Some(count), Ok(folder)) = (number(1), tempfile::tempdir()) else { return usage() };
    let first = number(2).unwrap_or(0);
    let current = Arc::new(Mutex::new((clock::spent(), first)));
    watch(current.clone());
    let mut table: BTreeMap<(&str, &str), Row> = BTreeMap::new();
    for seed in first..first.saturating_add(count) {
        if let Ok(mut current) = current.lock() {
            *current = (clock::spent(), seed);
        }
        let (way, ending, bytes) = corpus.file(&mut Dice::new(seed));
        let path = folder.path().join(format!("file.{ending}"));
        if let Err(error) = std::fs::write(&path, &bytes) {
            eprintln!("{}: {error}", path.display());
            return ExitCode::from(2);
        }
        let faults = judge(&*corpus, &path, bytes.len(), table.entry((ending, way)).or_default());
        faults.iter().for_each(|fault| println!("seed {seed} ({ending}, {way}): {fault}"));
    }
    print(&table)
}

fn usage() -> ExitCode {
    eprintln!("usage: fuzz_inputs images|layouts COUNT [SEED]");
    ExitCode::from(2)
}

/// Ends the program if a file takes too long.
fn watch(current: Arc<Mutex<(Duration, u64)>>) {
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let Ok(current) = current.lock() else { return };
            if clock::spent().saturating_sub(current.0) > PATIENCE {
                println!("seed {} is not done after {PATIENCE:?}", current.1);
                std::process::exit(1);
            }
        }
    });
}

/// Reads a file. Returns the violations.
fn judge(corpus: &dyn Corpus, path: &Path, size: usize, row: &mut Row) -> Vec<String> {
    let begin = Instant::now();
    let (result, peak) = memory::peak(|| catch_unwind(AssertUnwindSafe(|| corpus.read(path))));
    row.files += 1;
    row.seconds = row.seconds.max(begin.elapsed().as_secs_f64());
    row.peak = row.peak.max(peak);
    let mut faults = vec![];
    match result {
        Err(_) => faults.push("panicked".into()),
        Ok((stated, read)) => {
            if peak > CONSTANT + OF_FILE * size + stated {
                faults.push(format!("{peak} bytes of memory for a file of {size} that may take {stated} more"));
            }
            let name = path.display().to_string();
            match read {
                Ok(true) => row.read += 1,
                Ok(false) => faults.push("what was read is not whole".into()),
                Err(error) if !error.contains(&name) => faults.push(format!("does not name the file: {error:.300}")),
                Err(error) if error.len() > MESSAGE + name.len() => {
                    faults.push(format!("an error of {} bytes: {error:.300}", error.len()));
                }
                Err(_) => {}
            }
        }
    }
    row.faults += faults.len();
    faults
}

fn print(table: &BTreeMap<(&str, &str), Row>) -> ExitCode {
    println!("{:<26} {:>7} {:>7} {:>9} {:>9} {:>6}", "file", "files", "read", "peak MiB", "slowest s", "faults");
    for ((ending, way), Row { files, read, faults, peak, seconds }) in table {
        let name = format!("{ending} {way}");
        println!("{name:<26} {files:>7} {read:>7} {:>9} {seconds:>9.3} {faults:>6}", peak >> 20);
    }
    let sum = |of: fn(&Row) -> usize| table.values().map(of).sum::<usize>();
    let faults = sum(|row| row.faults);
    println!("{} files: {} read, {faults} violations", sum(|row| row.files), sum(|row| row.read));
    if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
