//! Checks any number of documents that nobody would write, and prints the time of the slowest.
//!
//!     cargo run --release --example fuzz -- COUNT [SEED [MINUTES]]
//!     cargo run --release --example fuzz -- large      each large document, at the maximum size of a file
//!     cargo run --release --example fuzz -- FILE       one document again
//!
//! A document that makes the check panic or takes more than ten seconds is written to a file, and the exit code is 1.

mod clock;
mod documents;
mod judge;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use documents::{Corpus, LARGE, set_argument};
use judge::Judge;

/// The maximum size of a workflow in bytes.
const MOST: usize = 1 << 20;

/// The most time on a processor that a document may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The document that is being checked, the processor time at its start, and how the document was made.
type Current = Arc<Mutex<Option<(Duration, String, String)>>>;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let current = Current::default();
    watch(current.clone());
    // The stack of a thread is smaller than that of the program, so that deep recursion overflows sooner.
    let worker = std::thread::spawn(move || work(&arguments, &current));
    worker.join().unwrap_or(ExitCode::FAILURE)
}

fn work(arguments: &[String], current: &Current) -> ExitCode {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let judge = Judge::new(repository);
    let number = |index: usize| arguments.get(index).and_then(|argument| argument.parse::<u64>().ok());
    match (arguments.first().map(String::as_str), number(0)) {
        (Some("large"), _) => large(&judge, current),
        (_, Some(count)) => {
            let minutes = number(2).map_or(Duration::MAX, |minutes| Duration::from_secs(60 * minutes));
            many(&judge, &Corpus::read(repository), count, number(1).unwrap_or(0), minutes, current)
        }
        (Some(file), _) => match std::fs::read(file) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                one(&judge, current, file.into(), text).map_or(ExitCode::FAILURE, |(seconds, good)| {
                    println!("{seconds:.3} s, {}", if good { "accepted" } else { "refused" });
                    ExitCode::SUCCESS
                })
            }
            Err(error) => {
                eprintln!("{file}: {error}");
                ExitCode::from(2)
            }
        },
        (None, None) => {
            eprintln!("usage: fuzz COUNT [SEED [MINUTES]] | large | FILE");
            ExitCode::from(2)
        }
    }
}

/// Checks a document; returns the seconds that it took and whether it was accepted, or `None` after a panic, which is
/// reported.
fn one(judge: &Judge, current: &Current, name: String, text: String) -> Option<(f64, bool)> {
    let begin = Instant::now();
    if let Ok(mut current) = current.lock() {
        *current = Some((clock::spent(), name.clone(), text.clone()));
    }
    let outcome = catch_unwind(AssertUnwindSafe(|| judge.judge(&text, &[])));
    let seconds = begin.elapsed().as_secs_f64();
    if let Ok(mut current) = current.lock() {
        *current = None;
    }
    match outcome {
        Ok(good) => Some((seconds, good)),
        Err(_) => {
            keep(&name, &text);
            None
        }
    }
}

/// Writes a document to a file.
fn keep(name: &str, text: &str) {
    let file = format!("fuzz-{}.yaml", name.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
    match std::fs::write(&file, text) {
        Ok(()) => println!("{name}: the document is in {file}"),
        Err(error) => println!("{name}: {file} cannot be written: {error}\n{text:?}"),
    }
}

/// Ends the program if a document takes too long.
fn watch(current: Current) {
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let Ok(current) = current.lock() else { return };
            let late = |begin: Duration| clock::spent().saturating_sub(begin) > PATIENCE;
            if let Some((_, name, text)) = current.as_ref().filter(|(begin, ..)| late(*begin)) {
                println!("{name} is not done after {PATIENCE:?}");
                keep(name, text);
                std::process::exit(1);
            }
        }
    });
}

/// Checks the documents of `count` seeds from `first` on.
fn many(judge: &Judge, corpus: &Corpus, count: u64, first: u64, time: Duration, current: &Current) -> ExitCode {
    let begin = Instant::now();
    let (mut done, mut accepted, mut panics, mut bytes) = (0, 0, 0, 0);
    let mut slowest: Vec<(f64, usize, u64, &str)> = vec![];
    for seed in first..first.saturating_add(count) {
        let (way, text) = corpus.document(seed);
        let size = text.len();
        bytes += size;
        let name = format!("seed {seed} ({way})");
        let argument = set_argument(seed);
        if catch_unwind(AssertUnwindSafe(|| judge.set(&argument))).is_err() {
            println!("seed {seed}: --set {argument:?} panicked");
            panics += 1;
        }
        match one(judge, current, name, text) {
            Some((seconds, good)) => {
                accepted += usize::from(good);
                slowest.push((seconds, size, seed, way));
            }
            None => panics += 1,
        }
        if slowest.len() > 100 {
            slowest.sort_by(|a, b| b.0.total_cmp(&a.0));
            slowest.truncate(5);
        }
        done += 1;
        if done % 50_000 == 0 {
            // A stack overflow ends the program at once: the seed is then one of those after this line.
            eprintln!("{done} documents, up to seed {seed}, {:.0} s", begin.elapsed().as_secs_f64());
        }
        if begin.elapsed() > time {
            break;
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("{done} documents, {accepted} accepted, {panics} panics");
    println!("{:.0} documents and {:.1} MiB a second", done as f64 / seconds, bytes as f64 / seconds / MOST as f64);
    slowest.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (seconds, size, seed, way) in slowest.iter().take(5) {
        println!("{seconds:.4} s for {size} bytes: seed {seed} ({way})");
    }
    memory();
    if panics == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Checks each large document at the maximum size: first the check alone, then with its diagnostics in every form.
fn large(judge: &Judge, current: &Current) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for (way, make) in LARGE {
        let mut text = make(MOST);
        while text.len() > MOST {
            text.pop();
        }
        let begin = Instant::now();
        if let Ok(mut current) = current.lock() {
            *current = Some((clock::spent(), format!("check of {way}"), text.clone()));
        }
        let checked = catch_unwind(AssertUnwindSafe(|| judge.check(&text, &[]).graph.is_some()));
        let check = begin.elapsed().as_secs_f64();
        let size = text.len();
        match (checked, one(judge, current, way.to_string(), text)) {
            (Ok(good), Some((whole, _))) => {
                let verdict = if good { "accepted" } else { "refused" };
                println!("check {check:.3} s, with faults told {whole:.3} s, {size} bytes, {verdict}: {way}");
            }
            _ => code = ExitCode::FAILURE,
        }
    }
    memory();
    code
}

/// The peak memory of the program, if the system reports it.
fn memory() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(line) = status.lines().find(|line| line.starts_with("VmHWM:")) {
        println!("peak memory {}", line.trim_start_matches("VmHWM:").trim());
    }
}
