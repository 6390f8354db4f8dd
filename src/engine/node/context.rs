//! What a node can ask and report besides its parameters and inputs: its host, its progress, and cancellation.
//!
//! None of this is part of the memo key, so none of it may change a node's result. The host's fingerprint is the one
//! exception: it is part of every key.

use std::any::type_name;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::event::{Event, Subscriber};
use super::host::{Host, OutputRules};

/// What a node's checks can ask before anything runs.
pub struct CheckContext<'a> {
    host: &'a Host,
    folder: Option<&'a Path>,
}

impl<'a> CheckContext<'a> {
    /// The context of a node in the graph's own file.
    pub fn new(host: &'a Host) -> CheckContext<'a> {
        CheckContext { host, folder: None }
    }

    /// The context of a node in a graph file in `folder`; `None` if it is the graph's own folder.
    pub fn within(host: &'a Host, folder: Option<&'a Path>) -> CheckContext<'a> {
        CheckContext { host, folder }
    }

    /// Resolves the path of an input file, which is relative to the folder of the node's own graph file.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.host.resolve(self.folder, path)
    }

    /// Resolves the path of a file to write, which is relative to the output folder.
    pub fn output_path(&self, path: &Path) -> PathBuf {
        self.host.output_folder.join(path)
    }

    /// The folder of written files.
    pub fn output_folder(&self) -> &Path {
        &self.host.output_folder
    }

    /// What the graph may write.
    pub fn output_rules(&self) -> OutputRules {
        self.host.output_rules
    }

    /// The service of type `T`, if the host has one.
    pub fn service<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.host.service()
    }
}

/// What a running node can ask and report.
pub struct Context {
    pub(crate) host: Arc<Host>,
    pub(crate) node: Arc<str>,
    /// The folder of the node's own graph file, if the node is in an included graph.
    pub(crate) folder: Option<Arc<Path>>,
    pub(crate) cancel: Cancel,
    pub(crate) subscriber: Arc<dyn Subscriber>,
    pub(crate) record: Option<Arc<dyn RunRecord>>,
    pub(crate) findings: Option<Arc<dyn Findings>>,
}

/// What nodes find out beside their results, kept in the cache for other processes. A finding must depend on nothing but
/// what `about` says, such as digests of files and a version.
pub trait Findings: Send + Sync {
    /// What was found about that.
    fn recall(&self, about: &str) -> Option<String>;

    /// Keeps what was found, if it can.
    fn keep(&self, about: &str, found: &str);
}

/// What a written file can record of the run that it comes from.
pub trait RunRecord: Send + Sync {
    /// The record as JSON; `None` if the graph as it was run has no text. See [`GraphRecord`](crate::GraphRecord).
    fn json(&self) -> Option<&str>;

    /// The record as JSON for the file of one of several images. By default without what is special to it.
    fn json_of_part(&self, _part: RecordPart) -> Option<String> {
        self.json().map(str::to_string)
    }
}

/// Which image of a batch a file contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordPart {
    /// Its number, from 1.
    pub number: usize,
    /// How many images the batch has.
    pub of: usize,
    /// The seed that it was sampled with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

impl Context {
    /// The context of the node called `node`. Its events go to `subscriber`.
    pub fn new(host: Arc<Host>, node: Arc<str>, cancel: Cancel, subscriber: Arc<dyn Subscriber>) -> Context {
        Context { host, node, folder: None, cancel, subscriber, record: None, findings: None }
    }

    /// The context of a node that runs by itself: without a subscriber, and never cancelled.
    pub fn detached(host: Arc<Host>) -> Context {
        Context::new(host, "detached".into(), Cancel::new(), Arc::new(|_: &Event| {}))
    }

    /// The node's name in the document, for messages.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Reports that `done` of `of` steps are done. Call it between steps, and return its error: this is how a run is
    /// cancelled.
    ///
    /// # Errors
    /// Returns [`Cancelled`] once the run is cancelled.
    pub fn step(&self, done: usize, of: usize) -> Result<(), Cancelled> {
        self.step_of_part(None, done, of)
    }

    /// Reports a [step](Context::step) of one of several images: `part` is the number of the image, from 1, and how many there
    /// are. `done` and `of` count the steps of all.
    ///
    /// # Errors
    /// As for [`step`](Context::step).
    pub fn step_of_part(&self, part: Option<(usize, usize)>, done: usize, of: usize) -> Result<(), Cancelled> {
        self.subscriber.event(&Event::Step { node: self.node.clone(), done, of, part });
        self.cancel.check()
    }

    /// Reports a line of text to the user.
    pub fn note(&self, text: impl Into<String>) {
        self.subscriber.event(&Event::Note { node: self.node.clone(), text: text.into() });
    }

    /// Reports a file in which the result is. `new` if the node has written it; otherwise it was already there.
    pub fn saved(&self, path: &Path, new: bool) {
        self.subscriber.event(&Event::Saved { node: self.node.clone(), path: path.into(), new });
    }

    /// Whether the host asks for [previews](Context::preview). If not, the node must not create any.
    pub fn previews_enabled(&self) -> bool {
        self.host.previews
    }

    /// Reports how the result looks after `done` of `of` steps. `png` is a small PNG file.
    pub fn preview(&self, done: usize, of: usize, png: Vec<u8>) {
        self.subscriber.event(&Event::Preview { node: self.node.clone(), done, of, png: png.into() });
    }

    /// The cancellation of the run, for code that has no steps to report.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// The record of the run, for a file that carries the graph it comes from; `None` if the node runs by itself.
    pub fn record(&self) -> Option<&dyn RunRecord> {
        self.record.as_deref()
    }

    /// The findings in the cache; `None` if there is no cache on disk.
    pub fn findings(&self) -> Option<Arc<dyn Findings>> {
        self.findings.clone()
    }

    /// Resolves the path of an input file, which is relative to the folder of the node's own graph file.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.host.resolve(self.folder.as_deref(), path)
    }

    /// Resolves the path of a file to write, which is relative to the output folder.
    pub fn output_path(&self, path: &Path) -> PathBuf {
        self.host.output_folder.join(path)
    }

    /// The folder of written files.
    pub fn output_folder(&self) -> &Path {
        &self.host.output_folder
    }

    /// What the graph may write.
    pub fn output_rules(&self) -> OutputRules {
        self.host.output_rules
    }

    /// The service of type `T`.
    ///
    /// # Errors
    /// Returns an error if the host has no such service.
    pub fn service<T: Send + Sync + 'static>(&self) -> anyhow::Result<Arc<T>> {
        self.host.service().with_context(|| format!("this host has no service `{}`", type_name::<T>()))
    }
}

/// A flag that asks a run to stop. Clones share the flag.
#[derive(Clone, Default)]
pub struct Cancel {
    requested: Arc<AtomicBool>,
    /// For the task of a node: the runs that wait for it. It is cancelled when none of them waits any more.
    waiters: Option<Arc<dyn Awaited>>,
}

/// Knows whether anyone still waits for a node's result.
pub(crate) trait Awaited: Send + Sync {
    fn is_awaited(&self) -> bool;
}

impl Cancel {
    /// A flag that is not set.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// A flag that is set when nobody waits any more.
    pub(crate) fn when_abandoned(waiters: Arc<dyn Awaited>) -> Cancel {
        Cancel { requested: Arc::default(), waiters: Some(waiters) }
    }

    /// Sets the flag.
    pub fn cancel(&self) {
        self.requested.store(true, Ordering::Relaxed);
    }

    /// Whether the flag is set.
    pub fn is_cancelled(&self) -> bool {
        self.requested.load(Ordering::Relaxed) || self.waiters.as_ref().is_some_and(|waiters| !waiters.is_awaited())
    }

    /// Returns an error once the flag is set.
    ///
    /// # Errors
    /// Returns [`Cancelled`] once the flag is set.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }
}

/// The run was cancelled. The node that returns this has not failed.
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
