//! Tests over the whole: the command, every graph, every fault, and the rules between the crates.

mod command;
mod docs;
mod faults;
mod graphs;
mod layers;
mod watch;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A path inside the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The command, to be run in the repository's root.
fn lsregen() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lsregen"));
    command.current_dir(repository("")).env("NO_COLOR", "1");
    command
}

/// What it wrote to stdout and stderr, and its exit code.
fn outcome(output: Output) -> (String, String, i32) {
    let text = |bytes| String::from_utf8(bytes).expect("the command writes UTF-8");
    (text(output.stdout), text(output.stderr), output.status.code().expect("the command was not killed"))
}
