//! `lsregen cache`: the results on disk.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Subcommand};
use lsregen_engine::{DiskStore, Explanation, FileDigests, Store, SweepReport, Verified};

use super::args::{CacheFolderArgs, HostArgs, ParamArgs};
use super::{Exit, open, terminal, usage};

/// Inspect and clean the cache of results on disk
#[derive(Args)]
#[command(after_help = "Examples:
  lsregen cache status
  lsregen cache explain graph.yaml save")]
pub struct Cache {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Print the folder, the size and the contents of the cache
    Status(Folder),
    #[command(
        after_help = "Examples:\n  lsregen cache explain graph.yaml save\n  lsregen cache explain graph.yaml save --set seed=8"
    )]
    Explain(Explain),
    /// Remove results beyond the size limit, unreferenced values, and temporary files of dead processes
    Gc(Folder),
    /// Read everything and remove what is corrupt; exits with 1 if anything was
    Verify(Folder),
    /// Remove everything
    Clear(Folder),
}

#[derive(Args)]
struct Folder {
    #[command(flatten)]
    folder: CacheFolderArgs,
}

/// Explain whether the result of a node is cached, and if not, how it differs from the nearest cached result
#[derive(Args)]
struct Explain {
    /// Graph file
    graph: PathBuf,

    /// Name of a node
    node: String,

    #[command(flatten)]
    params: ParamArgs,

    #[command(flatten)]
    host: HostArgs,

    #[command(flatten)]
    folder: CacheFolderArgs,
}

impl Cache {
    pub fn main(self) -> Result<Exit, Exit> {
        match self.verb {
            Verb::Status(verb) => status(&verb.folder.open()?),
            Verb::Explain(verb) => verb.main(),
            Verb::Gc(verb) => sweep(&verb.folder.open()?, DiskStore::gc),
            Verb::Verify(verb) => verify(&verb.folder.open()?),
            Verb::Clear(verb) => sweep(&verb.folder.open()?, DiskStore::clear),
        }
    }
}

fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

fn status(store: &DiskStore) -> Result<Exit, Exit> {
    let status = store.status();
    let results: usize = status.by_type.values().map(|kind| kind.results).sum();
    let records: usize = status.by_type.values().map(|kind| kind.records).sum();
    terminal::print(&format!("folder     {}\n", store.folder().path().display()));
    terminal::print(&format!("size       {} of {}\n", size(status.bytes), size(store.limit())));
    terminal::print(&format!("results    {results}, and the keys of {records} that are not stored on disk\n"));
    terminal::print(&format!("files      digests of {}\n", status.files));
    if status.temporary > 0 {
        let help = if status.busy { "" } else { "; no process is writing: `lsregen cache gc` removes them" };
        terminal::print(&format!("temporary  {} files, {}{help}\n", status.temporary, size(status.temporary_bytes)));
    }
    if status.damaged > 0 {
        terminal::print(&format!("corrupt    at least {}: `lsregen cache verify` removes them\n", status.damaged));
    }
    let width = status.by_type.keys().map(|name| name.len()).max().unwrap_or(0);
    for (name, kind) in &status.by_type {
        let records = if kind.records > 0 { format!("  {} not stored", kind.records) } else { String::new() };
        terminal::print(&format!("  {name:width$}  {:6}  {:>10}{records}\n", kind.results, size(kind.bytes)));
    }
    Ok(Exit::Done)
}

/// Removes results and prints what was removed.
fn sweep(store: &DiskStore, sweep: fn(&DiskStore) -> io::Result<SweepReport>) -> Result<Exit, Exit> {
    let SweepReport { entries, blobs, temporary, bytes, left } = sweep(store).map_err(|error| {
        terminal::complain(format_args!("{}: cannot be cleaned: {error}", store.folder().path().display()));
        Exit::Failed
    })?;
    let (bytes, left) = (size(bytes), size(left));
    terminal::print(&format!(
        "removed {entries} results, {blobs} values and {temporary} temporary files: {bytes}; {left} remain\n"
    ));
    Ok(Exit::Done)
}

fn verify(store: &DiskStore) -> Result<Exit, Exit> {
    let registry = lsregen_nodes::registry();
    let sockets = registry.iter().flat_map(|entry| entry.node_type.outputs);
    let codecs: HashMap<_, _> = sockets.filter_map(|socket| Some((socket.type_name, socket.codec?))).collect();
    let Verified { removed, failed } = store.verify(&codecs);
    for found in removed.iter().chain(&failed) {
        terminal::print(&format!("{}: {}\n", found.path.display(), found.what));
    }
    if removed.is_empty() && failed.is_empty() {
        terminal::print("the cache is intact\n");
        return Ok(Exit::Done);
    }
    terminal::print(&format!("removed {} corrupt files\n", removed.len()));
    if !failed.is_empty() {
        terminal::print(&format!("{} places could not be read or cleaned: the cache may be corrupt\n", failed.len()));
    }
    Ok(Exit::Failed)
}

impl Explain {
    fn main(self) -> Result<Exit, Exit> {
        let host = self.host.host(&self.graph, &self.params.models)?;
        let graph = open::open(&self.graph, &self.params, &host)?;
        let disk = self.folder.open()?;
        let named = graph.order().iter().find(|&&index| *graph.node(index).name == *self.node);
        let Some(&node) = named else {
            let names: Vec<_> = graph.order().iter().map(|&index| &*graph.node(index).name).collect();
            return Err(usage(format!("the graph has no node {}; its nodes are {}", self.node, names.join(", "))));
        };
        // Only the keys of the plan are used, not the cached results.
        let plan = open::plan(&graph, &host, &Store::in_memory(0), &FileDigests::kept_in(disk.folder().clone()))?;
        if let Some(explanation) = Explanation::new(&graph, &plan, node, &disk) {
            terminal::print(&explanation.describe(&graph));
        }
        Ok(Exit::Done)
    }
}
