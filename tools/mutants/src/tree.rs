//! A copy of the repository, in which the mutants are planted.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value as Json;

use crate::mutant::Mutant;
use crate::rewrite::{Region, rewrite, switches};

/// The folders of the program.
pub struct Tree {
    /// The repository.
    pub repository: PathBuf,
    /// Its copy, with mutants.
    pub copy: PathBuf,
    /// Cargo's build files of the copy.
    pub target: PathBuf,
    /// The mutants, times, results and the report.
    pub state: PathBuf,
}

impl Tree {
    /// Finds the repository that contains the current folder.
    pub fn new(target: Option<PathBuf>) -> Result<Self> {
        let output = Command::new("git").args(["rev-parse", "--show-toplevel"]).output().context("cannot run git")?;
        ensure!(output.status.success(), "not in a git repository");
        let repository = PathBuf::from(String::from_utf8(output.stdout)?.trim());
        let state = repository.join("target/mutants");
        let target = match target {
            Some(target) => std::path::absolute(target)?,
            None => state.join("build"),
        };
        Ok(Tree { copy: state.join("tree"), target, state, repository })
    }

    /// Returns the files that git tracks or would track, relative to the root.
    pub fn files(&self) -> Result<Vec<String>> {
        let output = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(&self.repository)
            .output()?;
        ensure!(output.status.success(), "git cannot list the files of {}", self.repository.display());
        let all = String::from_utf8(output.stdout)?;
        let exists = |file: &&str| !file.is_empty() && self.repository.join(file).is_file();
        Ok(all.split('\0').filter(exists).map(str::to_string).collect())
    }

    pub fn source(&self, file: &str) -> Result<String> {
        fs::read_to_string(self.repository.join(file)).with_context(|| format!("cannot read {file}"))
    }

    /// Copies the repository and rewrites the files that have mutants. Files that are up to date are not written, so
    /// that cargo rebuilds little. Returns the regions of each rewritten file.
    pub fn write(&self, mutants: &[Mutant]) -> Result<BTreeMap<String, Vec<Region>>> {
        let files = self.files()?;
        let roots = self.crate_roots()?;
        let last = mutants.iter().map(|mutant| mutant.id).max().unwrap_or(0);
        let mut by_file = BTreeMap::<&str, Vec<&Mutant>>::new();
        for mutant in mutants {
            by_file.entry(&mutant.file).or_default().push(mutant);
        }
        let switched: Vec<_> = by_file.keys().map(|file| root_of(file, &roots)).collect::<Result<_>>()?;
        let mut regions = BTreeMap::new();
        for file in &files {
            let mutated = by_file.get(file.as_str());
            let is_root = switched.contains(&file.as_str());
            if mutated.is_none() && !is_root {
                update(&self.copy.join(file), &fs::read(self.repository.join(file))?)?;
                continue;
            }
            let mut rewritten = rewrite(&self.source(file)?, mutated.map_or(&[], Vec::as_slice));
            if is_root {
                rewritten.text.push_str(&switches(last));
            }
            update(&self.copy.join(file), rewritten.text.as_bytes())?;
            regions.insert(file.clone(), rewritten.regions);
        }
        remove_others(&self.copy, &self.copy, &files)?;
        Ok(regions)
    }

    /// Returns the root file of each library or program, relative to the root of the repository.
    fn crate_roots(&self) -> Result<Vec<String>> {
        let output = Command::new("cargo")
            .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
            .current_dir(&self.repository)
            .output()?;
        ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        let metadata: Json = serde_json::from_slice(&output.stdout)?;
        let packages = metadata["packages"].as_array().into_iter().flatten();
        let targets = packages.flat_map(|package| package["targets"].as_array().into_iter().flatten());
        let roots = targets.filter(|target| matches!(target["kind"][0].as_str(), Some("lib" | "bin")));
        let inside = |path: &str| Some(Path::new(path).strip_prefix(&self.repository).ok()?.to_str()?.to_string());
        Ok(roots.filter_map(|target| inside(target["src_path"].as_str()?)).collect())
    }
}

/// Returns the root file of the crate that a file belongs to: the one that shares most folders with it.
fn root_of<'r>(file: &str, roots: &'r [String]) -> Result<&'r str> {
    let holds = |root: &&String| Path::new(root).parent().is_some_and(|folder| Path::new(file).starts_with(folder));
    let root = roots.iter().filter(holds).max_by_key(|root| Path::new(root).components().count());
    root.map(String::as_str).with_context(|| format!("{file} belongs to no crate"))
}

/// Writes a file if its content differs.
fn update(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|former| former == content) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().expect("a file has a folder"))?;
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// Removes files that are no longer in the repository.
fn remove_others(root: &Path, folder: &Path, files: &[String]) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.strip_prefix(root)?.to_str().context("paths are UTF-8")?.to_string();
        if path.is_dir() {
            remove_others(root, &path, files)?;
        } else if files.binary_search(&name).is_err() && !files.contains(&name) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
