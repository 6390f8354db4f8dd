//! What a node may know beside its parameters and inputs: its host, progress, cancellation.
//!
//! Nothing here may change a node's result, for none of it is in the memo key; the one exception, the numbers'
//! fingerprint, is in every key.

use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;

use crate::event::{Event, Subscriber};
use crate::record::Record;

/// Where graphs run: folders, and the services the program offers its nodes. Clones share the services.
#[derive(Clone)]
pub struct Host {
    graph_folder: PathBuf,
    output_folder: PathBuf,
    fingerprint: Arc<str>,
    previews: bool,
    services: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl Host {
    /// Input files are relative to `graph_folder` (the graph file's), written files to `output_folder` (the working
    /// directory, or what the user asked for).
    pub fn new(graph_folder: impl Into<PathBuf>, output_folder: impl Into<PathBuf>) -> Host {
        Host {
            graph_folder: graph_folder.into(),
            output_folder: output_folder.into(),
            fingerprint: "".into(),
            previews: false,
            services: HashMap::new(),
        }
    }

    /// Adds a service, which nodes reach by its type; a former one of the same type is replaced.
    pub fn with_service<T: Send + Sync + 'static>(mut self, service: T) -> Host {
        self.services.insert(TypeId::of::<T>(), Arc::new(service));
        self
    }

    /// Sets what decides the numbers beside the nodes: device kind, dtype, backend version. Part of every memo key.
    pub fn with_fingerprint(mut self, fingerprint: impl Into<Arc<str>>) -> Host {
        self.fingerprint = fingerprint.into();
        self
    }

    pub fn fingerprint(&self) -> &Arc<str> {
        &self.fingerprint
    }

    /// The same host, but files are written to another folder.
    pub fn with_output_folder(mut self, output_folder: impl Into<PathBuf>) -> Host {
        self.output_folder = output_folder.into();
        self
    }

    /// Whether nodes should show how far they are by small pictures: see [`Context::preview`].
    pub fn with_previews(mut self, previews: bool) -> Host {
        self.previews = previews;
        self
    }

    /// The folder of the graph's file.
    pub fn graph_folder(&self) -> &Path {
        &self.graph_folder
    }

    /// The place of an input file that a node of `folder`'s file names.
    fn resolve(&self, folder: Option<&Path>, path: &Path) -> PathBuf {
        folder.unwrap_or(&self.graph_folder).join(path)
    }

    fn service<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.services.get(&TypeId::of::<T>())?.clone().downcast().ok()
    }
}

/// What a node's checks may know, before anything runs.
pub struct CheckContext<'a> {
    host: &'a Host,
    folder: Option<&'a Path>,
}

impl<'a> CheckContext<'a> {
    pub fn new(host: &'a Host) -> CheckContext<'a> {
        CheckContext { host, folder: None }
    }

    /// For a node of an included graph, whose file lies in `folder`.
    pub fn within(host: &'a Host, folder: Option<&'a Path>) -> CheckContext<'a> {
        CheckContext { host, folder }
    }

    /// The place of an input file: relative to the folder of the file in which the node stands.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.host.resolve(self.folder, path)
    }

    /// The place of a file to be written.
    pub fn output_path(&self, path: &Path) -> PathBuf {
        self.host.output_folder.join(path)
    }

    /// A service of the host, if it offers it.
    pub fn service<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.host.service()
    }
}

/// What a running node may know and say.
pub struct Context {
    pub(crate) host: Arc<Host>,
    pub(crate) node: Arc<str>,
    /// Of the file in which the node stands, where that is not the graph's own.
    pub(crate) folder: Option<Arc<Path>>,
    pub(crate) cancel: Cancel,
    pub(crate) subscriber: Arc<dyn Subscriber>,
    pub(crate) record: Option<Arc<Record>>,
}

impl Context {
    pub fn new(host: Arc<Host>, node: Arc<str>, cancel: Cancel, subscriber: Arc<dyn Subscriber>) -> Context {
        Context { host, node, folder: None, cancel, subscriber, record: None }
    }

    /// A context that no one listens to and no one cancels: for running one node by itself.
    pub fn detached(host: Arc<Host>) -> Context {
        Context::new(host, "detached".into(), Cancel::new(), Arc::new(|_: &Event| {}))
    }

    /// The node's name in the document, for messages.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Reports `done` of `of` steps and is where cancellation takes hold: call it between steps, and pass the error on.
    pub fn step(&self, done: usize, of: usize) -> Result<(), Cancelled> {
        self.subscriber.event(&Event::Step { node: self.node.clone(), done, of });
        self.cancel.check()
    }

    /// A line for the user.
    pub fn note(&self, text: impl Into<String>) {
        self.subscriber.event(&Event::Note { node: self.node.clone(), text: text.into() });
    }

    /// Whether someone wants to see [previews](Context::preview); without, do not make any.
    pub fn previews_enabled(&self) -> bool {
        self.host.previews
    }

    /// Shows how the result looks after `done` of `of` steps: a small PNG file.
    pub fn preview(&self, done: usize, of: usize, png: Vec<u8>) {
        self.subscriber.event(&Event::Preview { node: self.node.clone(), done, of, png: png.into() });
    }

    /// The run's cancellation, for code that has no steps to report.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// What is run, for a file that carries the graph it came from; `None` where a node is run by itself.
    pub fn record(&self) -> Option<&Record> {
        self.record.as_deref()
    }

    /// The place of an input file: relative to the folder of the file in which the node stands.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.host.resolve(self.folder.as_deref(), path)
    }

    /// The place of a file to be written: relative to the output folder.
    pub fn output_path(&self, path: &Path) -> PathBuf {
        self.host.output_folder.join(path)
    }

    /// A service of the host.
    ///
    /// # Errors
    /// When the program was built without it.
    pub fn service<T: Send + Sync + 'static>(&self) -> anyhow::Result<Arc<T>> {
        self.host.service().with_context(|| format!("this host offers no service `{}`", type_name::<T>()))
    }
}

/// A flag that asks a run to stop. Clones share it.
#[derive(Clone, Default)]
pub struct Cancel {
    asked: Arc<AtomicBool>,
    /// Of a node's work: those who wait for it. It is cancelled when none of them does any longer.
    waiters: Option<Arc<dyn Awaited>>,
}

/// Who can say whether someone still waits for a node's result.
pub(crate) trait Awaited: Send + Sync {
    fn is_awaited(&self) -> bool;
}

impl Cancel {
    pub fn new() -> Cancel {
        Cancel::default()
    }

    pub(crate) fn when_abandoned(waiters: Arc<dyn Awaited>) -> Cancel {
        Cancel { asked: Arc::default(), waiters: Some(waiters) }
    }

    pub fn cancel(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    pub fn is_cancelled(&self) -> bool {
        self.asked.load(Ordering::Relaxed) || self.waiters.as_ref().is_some_and(|waiters| !waiters.is_awaited())
    }

    /// `Err` once the run is cancelled.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }
}

/// The run was cancelled; not a failure of the node that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_reach_the_services_of_their_host() {
        let host = Host::new("", "").with_service(7u32);
        let cx = CheckContext::new(&host);
        assert_eq!(cx.service::<u32>().as_deref(), Some(&7));
        assert!(cx.service::<u64>().is_none());
    }
}
