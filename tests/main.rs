//! Tests of the whole program: the command, every graph, every message, and the dependencies between the crates.

mod batches;
mod bulk;
mod cache;
mod command;
mod docs;
mod faults;
mod fuzz;
mod graphs;
mod guidances;
mod guided;
mod kill;
mod layers;
mod limits;
mod models;
#[cfg(target_os = "linux")]
mod opens;
mod outputs;
mod pictures;
mod profile;
mod rows;
mod terminal;
mod watch;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

/// The path of a file in the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Copies a folder with all its files.
fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_folder(&entry.path(), &to),
            // Does not copy the permissions, which may forbid writing.
            false => std::fs::write(to, std::fs::read(entry.path()).unwrap()).unwrap(),
        }
    }
}

/// The command, in the root of the repository, with a cache of this test process.
fn lsregen() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lsregen"));
    command.current_dir(repository("")).env("NO_COLOR", "1").env("LSREGEN_CACHE_DIR", &*CACHE);
    for variable in ["COLUMNS", "LSREGEN_CACHE_SIZE", "LSREGEN_MODELS_DIR", "RUST_LOG", "SLURM_ARRAY_TASK_ID"] {
        command.env_remove(variable);
    }
    command
}

/// The cache folder. Folders of earlier processes are removed.
static CACHE: LazyLock<PathBuf> = LazyLock::new(|| {
    let caches = Path::new(env!("CARGO_TARGET_TMPDIR")).join("caches");
    for former in std::fs::read_dir(&caches).into_iter().flatten().flatten() {
        let modified = former.metadata().and_then(|metadata| metadata.modified());
        let age = modified.map(|modified| SystemTime::now().duration_since(modified).unwrap_or_default());
        if age.is_ok_and(|age| age > Duration::from_secs(3600)) {
            let _ = std::fs::remove_dir_all(former.path());
        }
    }
    caches.join(std::process::id().to_string())
});

/// The stdout, the stderr and the exit code of a process.
fn outcome(output: Output) -> (String, String, i32) {
    let text = |bytes| String::from_utf8(bytes).expect("the command writes UTF-8");
    (text(output.stdout), text(output.stderr), output.status.code().expect("the command was not killed"))
}
