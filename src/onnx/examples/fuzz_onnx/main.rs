//! Opens and runs damaged ONNX files: none may panic, abort, hang or exhaust the memory.
//!
//!     cargo run --release --example fuzz_onnx -p lsregen-onnx -- COUNT [SEED]
//!
//! Damages the networks of the tests at random, COUNT times from SEED on. A child process opens each file, computes its
//! outputs and their gradient, with 8 GiB of address space (on Unix) and 60 s. The parent reports every file at which it ends
//! otherwise, with the seed that makes the file again, and exits with 1.

mod damage;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor, Var};
use damage::damaged;
use lsregen_onnx::{Dim, OnnxNetwork, Result};

const LIMIT: Duration = Duration::from_secs(60);

/// Opens a file and computes its outputs. Returns how far that went.
fn attempt(path: &Path) -> Result<&'static str> {
    let inspected = OnnxNetwork::inspect(path);
    let Ok(network) = OnnxNetwork::open(path, &Device::Cpu) else { return Ok("refused") };
    assert!(inspected.is_ok(), "opened, but not inspected");
    let Some(input) = network.inputs().first() else { return Ok("opened") };
    let size = |d: &Dim| if let Dim::Fixed(n) = d { *n } else { 8 };
    let dims: Vec<usize> = input.shape.as_ref().map_or(vec![1, 3, 8, 8], |dims| dims.iter().map(size).collect());
    if dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).is_none_or(|n| n > 1 << 16) {
        return Ok("opened");
    }
    let x = Var::from_tensor(&Tensor::randn(0f32, 1.0, dims, &Device::Cpu)?)?;
    let mut how = "opened";
    for output in network.outputs() {
        if let Ok(y) = network.forward(&x, Some(&output.name)) {
            let _ = y.sum_all()?.backward();
            how = "ran";
        }
    }
    Ok(how)
}

fn files() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/onnx_nets");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.sort();
    // Those of the test of bad files are refused as they are.
    let sound = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".onnx") && !name.starts_with("bad_")
    };
    paths.iter().filter(sound).filter_map(|path| std::fs::read(path).ok()).filter(|bytes| !bytes.is_empty()).collect()
}

/// Prints each seed before its file is opened, and how it went.
fn child(first: u64, end: u64, path: &Path) {
    let files = files();
    for seed in first..end {
        println!("{seed}");
        let how = std::fs::write(path, damaged(&files, seed)).ok().and_then(|()| attempt(path).ok());
        println!("{}", how.unwrap_or("failed"));
    }
}

/// Runs seeds in a child process until one fails. Returns the seed after the last one, and whether that one was well.
fn watch(first: u64, end: u64, path: &Path, counts: &mut [(&str, usize)]) -> std::io::Result<(u64, bool)> {
    let program = std::env::current_exe()?;
    let mut command = Command::new(if cfg!(unix) { Path::new("sh") } else { &program });
    if cfg!(unix) {
        command.args(["-c", "ulimit -v 8388608; exec \"$0\" \"$@\""]).arg(&program);
    }
    command.args(["--child", &first.to_string(), &end.to_string()]).arg(path).stdout(Stdio::piped());
    let mut running = command.spawn()?;
    let (send, receive) = channel();
    let lines = BufReader::new(running.stdout.take().ok_or_else(|| std::io::Error::other("no output"))?).lines();
    let reader =
        std::thread::spawn(move || lines.map_while(std::result::Result::ok).for_each(|line| drop(send.send(line))));
    let mut seed = first;
    let well = loop {
        match receive.recv_timeout(LIMIT) {
            Ok(line) => match counts.iter_mut().find(|(how, _)| *how == line) {
                Some((_, count)) => *count += 1,
                None => seed = line.parse().unwrap_or(seed),
            },
            Err(RecvTimeoutError::Timeout) => {
                eprintln!("seed {seed}: more than {} s", LIMIT.as_secs());
                running.kill()?;
                break false;
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = running.wait()?;
                if !status.success() {
                    eprintln!("seed {seed}: {status}");
                }
                break status.success();
            }
        }
    };
    running.wait()?;
    let _ = reader.join();
    Ok((seed + 1, well))
}

fn main() -> std::io::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [_, first, end, path] = &arguments[..] {
        child(first.parse().unwrap_or(0), end.parse().unwrap_or(0), Path::new(path));
        return Ok(ExitCode::SUCCESS);
    }
    let number = |i: usize, default| arguments.get(i).and_then(|n| n.parse::<u64>().ok()).unwrap_or(default);
    let (count, first) = (number(0, 10_000), number(1, 0));
    let path = std::env::temp_dir().join(format!("lsregen-fuzz-{}.onnx", std::process::id()));
    let mut counts = [("refused", 0), ("opened", 0), ("ran", 0), ("failed", 0)];
    let (start, mut seed, mut bad) = (Instant::now(), first, 0);
    while seed < first + count {
        let (next, well) = watch(seed, first + count, &path, &mut counts)?;
        seed = next;
        bad += usize::from(!well);
    }
    let _ = std::fs::remove_file(&path);
    let [refused, opened, ran, failed] = counts.map(|(_, n)| n);
    writeln!(
        std::io::stdout(),
        "{count} files in {:.0?}: {refused} refused, {opened} opened, {ran} ran, {failed} failed otherwise, {bad} crashed or hung",
        start.elapsed()
    )?;
    Ok(if bad + failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
