//! The tests of the planted tree: their names, the time of each, and the mutants that it reaches.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::tree::Tree;

/// A test binary.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Binary {
    /// The name and kind of its target, such as `lib` or `test`.
    pub name: String,
    pub path: PathBuf,
    /// The folder of its package, in which it runs, as with cargo.
    pub folder: PathBuf,
}

/// A test that passes without a mutant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Test {
    /// Index of its binary.
    pub binary: usize,
    pub name: String,
    pub seconds: f64,
    /// The mutants that it reaches.
    pub reached: BTreeSet<u32>,
}

/// The tests of the tree.
#[derive(Default, Serialize, Deserialize)]
pub struct Suite {
    pub binaries: Vec<Binary>,
    pub tests: Vec<Test>,
    /// Tests that fail in the tree without a mutant, and are skipped.
    pub red: Vec<String>,
}

/// How some tests ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// The first test that failed.
    Failed(String),
    TimedOut,
}

impl Suite {
    /// Builds the tests and runs each one alone, without a mutant, `jobs` at a time.
    pub fn measured(tree: &Tree, jobs: usize) -> Result<Suite> {
        let binaries = build(tree)?;
        let mut all = Vec::new();
        for (index, binary) in binaries.iter().enumerate() {
            all.extend(binary.tests(tree)?.into_iter().map(|name| (index, name)));
        }
        println!("{} tests in {} programs, each by itself without a mutant", all.len(), binaries.len());
        let queue = Mutex::new(all.into_iter());
        let suite = Mutex::new(Suite { binaries: binaries.clone(), ..Suite::default() });
        let work = &|job: usize| -> Result<()> {
            let log = tree.state.join(format!("reached.{job}"));
            loop {
                let Some((index, name)) = queue.lock().expect(NO_PANIC).next() else { return Ok(()) };
                let tested = binaries[index].measure(tree, index, &name, &log)?;
                let mut suite = suite.lock().expect(NO_PANIC);
                match tested {
                    Some(test) => suite.tests.push(test),
                    None => {
                        println!("fails without a mutant, left out: {}: {name}", binaries[index].name);
                        suite.red.push(format!("{}: {name}", binaries[index].name));
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..jobs.max(1)).map(|job| scope.spawn(move || work(job))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect(NO_PANIC))
        })?;
        Ok(suite.into_inner().expect(NO_PANIC))
    }
}

/// The reason why locking a mutex and joining a thread succeed.
pub const NO_PANIC: &str = "no thread panics";

fn numbers(log: &Path) -> BTreeSet<u32> {
    fs::read_to_string(log).unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect()
}

/// Builds the tests of the tree, and returns their binaries.
fn build(tree: &Tree) -> Result<Vec<Binary>> {
    let output = Command::new("cargo")
        .args(["test", "--workspace", "--no-run", "--message-format=json", "--target-dir"])
        .arg(&tree.target)
        .current_dir(&tree.copy)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "the tests of the planted tree do not compile");
    let mut binaries = Vec::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let json: Json = serde_json::from_str(line).context("cargo prints JSON")?;
        if let (Some(path), true) = (json["executable"].as_str(), json["profile"]["test"] == true) {
            let text = |json: &Json| json.as_str().unwrap_or_default().to_string();
            let manifest = PathBuf::from(text(&json["manifest_path"]));
            let folder = manifest.parent().context("a manifest has a folder")?.to_path_buf();
            let target = &json["target"];
            let name = format!("{} ({})", text(&target["name"]), text(&target["kind"][0]));
            binaries.push(Binary { name, path: path.into(), folder });
        }
    }
    Ok(binaries)
}

impl Binary {
    /// Returns its tests, except for ignored ones.
    fn tests(&self, tree: &Tree) -> Result<Vec<String>> {
        let list = |ignored: &[&str]| -> Result<Vec<String>> {
            let output = self.command(tree).args(["--list", "--format", "terse"]).args(ignored).output()?;
            let text = String::from_utf8(output.stdout)?;
            Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_string).collect())
        };
        let ignored = list(&["--ignored"])?;
        Ok(list(&[])?.into_iter().filter(|name| !ignored.contains(name)).collect())
    }

    /// Runs a test without a mutant. `None` if it fails.
    fn measure(&self, tree: &Tree, index: usize, name: &str, log: &Path) -> Result<Option<Test>> {
        let _ = fs::remove_file(log);
        let start = Instant::now();
        let reached = ("LSREGEN_MUTANTS_REACHED", log.display().to_string());
        let outcome = self.run(tree, &[name], reached, Duration::from_secs(1200))?;
        let seconds = start.elapsed().as_secs_f64();
        let test = || Test { binary: index, name: name.to_string(), seconds, reached: numbers(log) };
        Ok((outcome == Outcome::Passed).then(test))
    }

    /// Returns the command to start the binary as cargo does. Snapshots are compared, never written.
    fn command(&self, tree: &Tree) -> Command {
        let mut command = Command::new(&self.path);
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
        command.env("INSTA_UPDATE", "no").env("INSTA_WORKSPACE_ROOT", &tree.copy).env_remove("INSTA_FORCE_PASS");
        command.env_remove("LSREGEN_MUTANT").env_remove("LSREGEN_MUTANTS_REACHED").env("RUST_BACKTRACE", "0");
        command
    }

    /// Runs some of its tests one after another, until one fails.
    pub fn run(&self, tree: &Tree, tests: &[&str], switch: (&str, String), limit: Duration) -> Result<Outcome> {
        let mut command = self.command(tree);
        command.args(["--exact", "--test-threads", "1"]).args(tests).env(switch.0, switch.1);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", self.path.display()))?;
        let outcome = follow(&mut child, Instant::now() + limit);
        // Also ends the processes that the tests have started.
        let group = format!("-{}", child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        child.wait()?;
        outcome
    }
}

/// Reads the output of a test binary until a test fails, it ends, or the time is over.
fn follow(child: &mut Child, end: Instant) -> Result<Outcome> {
    let stdout = child.stdout.take().context("stdout is a pipe")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    let mut last = String::new();
    loop {
        match lines.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => {
                let Some(test) = line.strip_prefix("test ") else { continue };
                let Some((name, result)) = test.split_once(" ... ") else { continue };
                last = name.to_string();
                if result == "FAILED" {
                    return Ok(Outcome::Failed(last));
                }
            }
            Err(RecvTimeoutError::Timeout) if Instant::now() > end => return Ok(Outcome::TimedOut),
            Err(RecvTimeoutError::Timeout) if child.try_wait()?.is_none() => {}
            Err(_) => {
                let status = child.wait()?;
                return Ok(match status.success() {
                    true => Outcome::Passed,
                    false => Outcome::Failed(format!("after `{last}`: {status}")),
                });
            }
        }
    }
}
