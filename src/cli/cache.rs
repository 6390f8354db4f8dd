//! `lsregen cache`: what is kept on disk, why something is not, and keeping house there.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Subcommand};
use lsregen_engine::{DiskStore, Explanation, FileDigests, Store, SweepReport};

use super::cache_args::CacheFolder;
use super::open::{self, Params, Place};
use super::{Exit, console, print, usage};

/// Look after the results that are kept on disk
#[derive(Args)]
pub struct Cache {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Where the cache is, and what it holds
    Status(Folder),
    Explain(Explain),
    /// Remove what is over the bound, what nothing names, and what dead processes left
    Gc(Folder),
    /// Read everything, and remove what is damaged; ends with 1 if anything was
    Verify(Folder),
    /// Remove everything
    Clear(Folder),
}

#[derive(Args)]
struct Folder {
    #[command(flatten)]
    folder: CacheFolder,
}

/// Tell whether a node's result is known, and if not, what differs from the nearest that is
#[derive(Args)]
struct Explain {
    /// Graph file
    graph: PathBuf,

    /// Name of a node
    node: String,

    #[command(flatten)]
    params: Params,

    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    folder: CacheFolder,
}

impl Cache {
    pub fn main(self) -> Result<Exit, Exit> {
        match self.verb {
            Verb::Status(verb) => status(&verb.folder.open()?),
            Verb::Explain(verb) => verb.main(),
            Verb::Gc(verb) => swept(&verb.folder.open()?, DiskStore::gc),
            Verb::Verify(verb) => verify(&verb.folder.open()?),
            Verb::Clear(verb) => swept(&verb.folder.open()?, DiskStore::clear),
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
    print(&format!("folder     {}\n", store.folder().path().display()));
    print(&format!("size       {} of {}\n", size(status.bytes), size(store.limit())));
    print(&format!("results    {results}, and records of {records} that are not kept on disk\n"));
    print(&format!("files      digests of {}\n", status.files));
    if status.temporary > 0 {
        let who = if status.busy { "" } else { "; no one is writing: `lsregen cache gc` removes them" };
        print(&format!("half done  {} files, {}{who}\n", status.temporary, size(status.temporary_bytes)));
    }
    if status.damaged > 0 {
        print(&format!("damaged    {} at least: `lsregen cache verify` removes them\n", status.damaged));
    }
    let width = status.by_type.keys().map(|name| name.len()).max().unwrap_or(0);
    for (name, kind) in &status.by_type {
        let records = if kind.records > 0 { format!("  {} not kept", kind.records) } else { String::new() };
        print(&format!("  {name:width$}  {:6}  {:>10}{records}\n", kind.results, size(kind.bytes)));
    }
    Ok(Exit::Done)
}

/// Sweeps, and tells what went.
fn swept(store: &DiskStore, sweep: fn(&DiskStore) -> io::Result<SweepReport>) -> Result<Exit, Exit> {
    let SweepReport { entries, blobs, temporary, bytes, left } = sweep(store).map_err(|error| {
        console::complain(format_args!("{}: cannot be swept: {error}", store.folder().path().display()));
        Exit::Failed
    })?;
    let (bytes, left) = (size(bytes), size(left));
    print(&format!(
        "removed {entries} results, {blobs} values, {temporary} half done files: {bytes}; {left} are left\n"
    ));
    Ok(Exit::Done)
}

fn verify(store: &DiskStore) -> Result<Exit, Exit> {
    let registry = lsregen_nodes::registry();
    let sockets = registry.iter().flat_map(|entry| entry.node_type.outputs);
    let codecs: HashMap<_, _> = sockets.filter_map(|socket| Some((socket.type_name, socket.codec?))).collect();
    let damaged = store.verify(&codecs);
    for damaged in &damaged {
        print(&format!("{}: {}\n", damaged.path.display(), damaged.what));
    }
    if damaged.is_empty() {
        print("all is as it was written\n");
        return Ok(Exit::Done);
    }
    print(&format!("{} damaged, and removed\n", damaged.len()));
    Ok(Exit::Failed)
}

impl Explain {
    fn main(self) -> Result<Exit, Exit> {
        let host = self.place.host(&self.graph, &self.params.models)?;
        let graph = open::open(&self.graph, &self.params, &host)?;
        let disk = self.folder.open()?;
        let named = graph.order().iter().find(|&&index| *graph.node(index).name == *self.node);
        let Some(&node) = named else {
            let names: Vec<_> = graph.order().iter().map(|&index| &*graph.node(index).name).collect();
            return Err(usage(format!("the graph has no node {}; it has {}", self.node, names.join(", "))));
        };
        // Only keys are wanted of the plan, not what is known under them.
        let plan = open::plan(&graph, &host, &Store::in_memory(0), &FileDigests::kept_in(disk.folder().clone()))?;
        if let Some(explanation) = Explanation::new(&graph, &plan, node, &disk) {
            print(&explanation.describe(&graph));
        }
        Ok(Exit::Done)
    }
}
