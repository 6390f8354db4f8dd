//! The cache on disk: a second process runs nothing, whatever its folder and the names of nodes, and a corrupt result is
//! computed again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::{lsregen, outcome, repository};

/// The graph of LSReGen with two steps, its own cache, and an output folder.
pub struct Case {
    pub folder: TempDir,
}

impl Case {
    pub fn new() -> Case {
        let case = Case { folder: tempfile::tempdir().unwrap() };
        fs::copy(repository("graphs/lsregen.yaml"), case.graph()).unwrap();
        case
    }

    pub fn graph(&self) -> PathBuf {
        self.path("graph.yaml")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command with the cache of this case.
    pub fn lsregen(&self, arguments: &[&str]) -> Command {
        let mut command = lsregen();
        command.args(arguments).env("LSREGEN_CACHE_DIR", self.path("cache"));
        command
    }

    pub fn command(&self, output: &str, set: &[&str]) -> Command {
        let mut command = self.lsregen(&["run", "--device", "cpu", "--set", "steps=2"]);
        for set in set {
            command.args(["--set", set]);
        }
        command.arg(self.graph()).arg("--output-dir").arg(self.path(output));
        command
    }

    /// Runs the graph; returns the nodes that ran, and stderr.
    fn run(&self, output: &str, set: &[&str]) -> (Vec<String>, String) {
        said(&mut self.command(output, set))
    }

    pub fn picture(&self, output: &str) -> Vec<u8> {
        fs::read(self.path(output).join("out/lsregen-0001.png")).unwrap()
    }

    fn explain(&self, node: &str, set: &str) -> String {
        let mut command = self.lsregen(&["cache", "explain", "--device", "cpu", "--set", "steps=2", "--set", set]);
        let (stdout, stderr, code) = outcome(command.arg(self.graph()).arg(node).output().unwrap());
        assert_eq!(code, 0, "{stderr}");
        stdout
    }
}

/// The nodes that ran, and stderr.
fn said(command: &mut Command) -> (Vec<String>, String) {
    let (_, stderr, code) = outcome(command.output().unwrap());
    assert_eq!(code, 0, "{stderr}");
    let started = stderr.lines().filter_map(|line| line.strip_prefix('[')?.split_once("] "));
    let nodes = started.filter(|(_, name)| !name.contains(": "));
    (nodes.map(|(_, name)| name.to_string()).collect(), stderr)
}

/// All files below a folder whose paths end with `end`.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn a_second_process_runs_nothing() {
    let case = Case::new();
    let (ran, stderr) = case.run("out", &[]);
    assert!(ran.len() >= 7, "{stderr}");
    let picture = case.picture("out");

    let (ran, stderr) = case.run("out", &[]);
    assert_eq!(ran, [""; 0], "{stderr}");
    let elsewhere = tempfile::tempdir().unwrap();
    let (ran, stderr) = said(case.command("out", &[]).current_dir(elsewhere.path()));
    assert_eq!(ran, [""; 0], "{stderr}");

    // Other names of nodes, and another path for the image.
    let text = fs::read_to_string(case.graph()).unwrap();
    let renamed = text
        .replace("small", "draughtsman")
        .replace("  layout:\n", "  sketch:\n")
        .replace("layout.", "sketch.")
        .replace("save:", "keep:");
    assert_ne!(text, renamed);
    fs::write(case.graph(), renamed).unwrap();
    let (ran, stderr) = case.run("other", &[]);
    assert_eq!(ran, [""; 0], "{stderr}");
    assert_eq!(case.picture("other"), picture);

    // A change runs the nodes that it affects: here everything from the sampling on.
    let (ran, stderr) = case.run("out", &["cfg=3"]);
    assert_eq!(ran, ["large", "sample", "image", "keep"], "{stderr}");
}

#[test]
fn values_from_disk_give_the_same_image() {
    let case = Case::new();
    case.run("fresh", &["cfg=3"]);
    fs::remove_dir_all(case.path("cache")).unwrap();
    // The guidance, the latents and the layout's image now come from the disk.
    case.run("out", &["cfg=2"]);
    let (ran, stderr) = case.run("mixed", &["cfg=3"]);
    assert_eq!(ran, ["large", "sample", "image", "save"], "{stderr}");
    assert_eq!(case.picture("mixed"), case.picture("fresh"));
    let mut command = case.command("none", &["cfg=3"]);
    let (ran, stderr) = said(command.arg("--no-cache"));
    assert!(ran.len() >= 7, "{stderr}");
    assert_eq!(case.picture("none"), case.picture("fresh"));
}

#[test]
fn plan_shows_what_is_cached() {
    let case = Case::new();
    case.run("out", &[]);
    let mut command = case.lsregen(&["plan", "--device", "cpu", "--set", "steps=2", "--output-dir"]);
    let (stdout, stderr, code) = outcome(command.arg(case.path("other")).arg(case.graph()).output().unwrap());
    assert_eq!(code, 0, "{stderr}");
    let line = |name: &str| stdout.lines().find(|line| line.starts_with(name)).unwrap().to_string();
    assert!(line("sample").contains("skipped"), "{stdout}");
    assert!(line("image").contains("cached") || line("save").contains("cached"), "{stdout}");
}

#[test]
fn explain_names_the_difference() {
    let case = Case::new();
    case.run("out", &[]);
    assert!(case.explain("sample", "cfg=2").contains("its result is cached"));
    assert!(case.explain("small", "cfg=2").contains("values of type Model are kept only in memory"));
    let text = case.explain("sample", "cfg=3");
    assert!(text.contains("`cfg` was 2.0, is 3.0") && text.lines().count() == 3, "{text}");
    // A node further upstream: once for each path to the node.
    let text = case.explain("image", "boxes=[{phrase: a star, box: [0, 0, 0.5, 0.5]}]");
    assert!(
        text.contains("`guidance`, from guide (Invert):") && text.contains("from layout (GLIGENLayout):"),
        "{text}"
    );
    assert!(text.contains("`boxes` was [{") && text.contains("a star"), "{text}");
    let arguments = ["cache", "explain", "graphs/sdxl.yaml", "smaple"];
    let (_, stderr, code) = outcome(case.lsregen(&arguments).output().unwrap());
    assert!(code == 2 && stderr.contains("sample"), "{stderr}");
}

#[test]
fn a_corrupt_value_is_computed_again() {
    let case = Case::new();
    case.run("out", &[]);
    let picture = case.picture("out");
    for blob in files(&case.path("cache"), "safetensors") {
        let mut bytes = fs::read(&blob).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&blob, bytes).unwrap();
    }
    fs::remove_dir_all(case.path("out")).unwrap();
    for manifest in files(&case.path("cache"), "json").iter().step_by(2) {
        fs::write(manifest, "{").unwrap();
    }
    // Other parameters, so that a corrupt result is needed although the file of the image is cached.
    let (_, stderr) = case.run("again", &["cfg=3"]);
    assert!(stderr.contains("warning: the result") && stderr.contains("was removed from the cache"), "{stderr}");
    let (_, stderr) = case.run("out", &[]);
    assert_eq!(case.picture("out"), picture, "{stderr}");
}

#[test]
fn the_verbs_inspect_and_clean_the_cache() {
    let case = Case::new();
    let verb = |arguments: &[&str]| outcome(case.lsregen(&["cache"]).args(arguments).output().unwrap());
    // A cache that does not exist is not created.
    for arguments in [&["status"][..], &["gc"], &["verify"], &["clear"]] {
        let (_, stderr, code) = verb(arguments);
        assert_eq!((stderr.as_str(), code), ("", 0), "{arguments:?}");
    }
    assert!(!case.path("cache").exists());

    case.run("out", &[]);
    let (stdout, _, _) = verb(&["status", "--cache-size", "2GiB"]);
    assert!(
        stdout.contains("of 2.0 GiB") && stdout.contains("GuidedSDXLSample") && stdout.contains("not stored"),
        "{stdout}"
    );
    assert_eq!(verb(&["verify"]).2, 0);

    let blob = &files(&case.path("cache"), "safetensors")[0];
    fs::write(blob, "short").unwrap();
    let left = case.path("cache/v1/tmp/lsregen-left.tmp");
    fs::write(&left, "half").unwrap();
    let (stdout, _, code) = verb(&["verify"]);
    assert!(code == 1 && stdout.contains("corrupt"), "{stdout}");
    assert_eq!(verb(&["verify"]).2, 0);
    let (stdout, _, code) = verb(&["gc"]);
    assert!(code == 0 && stdout.contains("1 temporary file") && !left.exists(), "{stdout}");

    let before = files(&case.path("cache"), "safetensors").len();
    let (stdout, _, code) = verb(&["gc", "--cache-size", "100kB"]);
    assert_eq!(code, 0, "{stdout}");
    assert!(files(&case.path("cache"), "safetensors").len() < before, "{stdout}");
    assert_eq!(verb(&["clear"]).2, 0);
    assert_eq!(files(&case.path("cache"), "json").len(), 0);
    let (_, stderr, code) = verb(&["status", "--cache-size", "much"]);
    assert!(code == 2 && stderr.contains("much"), "{stderr}");
}

#[test]
fn a_run_succeeds_without_a_writable_cache() {
    let case = Case::new();
    fs::write(case.path("cache"), "a file where a folder is wanted").unwrap();
    let (ran, stderr) = case.run("out", &[]);
    assert!(ran.len() >= 7, "{stderr}");
    assert_eq!(stderr.matches("results cannot be stored in the cache").count(), 1, "{stderr}");
}

/// Limits files to 256 kB, which acts on large values as a full disk does.
#[cfg(unix)]
#[test]
fn a_run_succeeds_on_a_full_disk() {
    let case = Case::new();
    let run = case.command("out", &[]);
    let mut shell = Command::new("sh");
    // In blocks of 512 bytes. The signal is ignored, because it would end the process.
    shell.args(["-c", "trap '' XFSZ; ulimit -f 512; exec \"$@\"", "sh"]).arg(run.get_program()).args(run.get_args());
    shell.current_dir(repository("")).env("NO_COLOR", "1").env("LSREGEN_CACHE_DIR", case.path("cache"));
    let (ran, stderr) = said(&mut shell);
    assert!(ran.len() >= 7, "{stderr}");
    assert_eq!(stderr.matches("results cannot be stored in the cache").count(), 1, "{stderr}");
    assert_eq!(fs::read_dir(case.path("cache/v1/tmp")).unwrap().count(), 0);
    assert!(!case.picture("out").is_empty());
    let (stdout, _, code) = outcome(case.lsregen(&["cache", "verify"]).output().unwrap());
    assert_eq!(code, 0, "{stdout}");
}
