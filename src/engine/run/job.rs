//! The execution of one task by a worker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use petgraph::graph::NodeIndex;

use super::task::TaskId;
use crate::graph::{Graph, GraphNode};
use crate::key::Material;
use crate::node::{Cancelled, Context, EdgeValue, Findings, Lane, guarded};
use crate::plan::ReadFiles;
use crate::store::Store;

/// A task that a worker executes.
pub(super) struct Job {
    pub id: TaskId,
    pub lane: Lane,
    pub graph: Arc<Graph>,
    pub node: NodeIndex,
    pub cx: Context,
    pub work: Work,
}

/// What a job does.
pub(super) enum Work {
    /// Runs the node.
    Run {
        /// The values of each input socket; `None` if a producer gave no value.
        inputs: Option<Vec<Vec<EdgeValue>>>,
        material: Material,
        files: ReadFiles,
    },
    /// Restores the effect of a cached result.
    Restore { outputs: Arc<[EdgeValue]> },
}

/// How a job ended.
pub(super) struct Completion {
    pub id: TaskId,
    pub lane: Lane,
    pub result: anyhow::Result<Arc<[EdgeValue]>>,
    pub duration: Duration,
}

impl Job {
    /// Runs the node's code, and stores its result.
    pub fn execute(self, store: &Store) -> Completion {
        let Job { id, lane, graph, node, mut cx, work } = self;
        cx.findings = store.disk().map(|disk| Arc::new(disk.folder().clone()) as Arc<dyn Findings>);
        let node = graph.node(node);
        let name = node.node_type.name;
        let _span = tracing::info_span!("node", node = %node.name, r#type = name, key = %id.key).entered();
        let start = Instant::now();
        let result = match work {
            Work::Restore { outputs } => {
                let restored = guarded(name, || node.node.restore(&outputs, &cx));
                restored.map_err(anyhow::Error::from).flatten().map(|()| outputs)
            }
            Work::Run { inputs, material, files } => run(node, inputs, &files, store, &cx).map(|outputs| {
                let outputs = outputs.into();
                store.put(id.key, &material, node.node_type.outputs, &outputs);
                outputs
            }),
        };
        let duration = start.elapsed();
        match &result {
            Ok(_) => tracing::info!(?duration, "done"),
            Err(error) => tracing::info!(?duration, error = format_args!("{error:#}"), "failed"),
        }
        Completion { id, lane, result, duration }
    }
}

impl Completion {
    /// Whether the node stopped because it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        let is_cancellation =
            |error: &anyhow::Error| error.chain().any(|cause| cause.is::<Cancelled>()) || error.is::<Cancelled>();
        self.result.as_ref().is_err_and(is_cancellation)
    }
}

/// Runs a node.
///
/// # Errors
/// Returns the node's own error, or an error if its outputs are not those that it declares or a file that it read has
/// changed.
fn run(
    node: &GraphNode,
    inputs: Option<Vec<Vec<EdgeValue>>>,
    read: &ReadFiles,
    store: &Store,
    cx: &Context,
) -> anyhow::Result<Vec<EdgeValue>> {
    let Some(inputs) = inputs else { bail!("an input is missing (this is a bug of the engine)") };
    let name = node.node_type.name;
    let outputs = guarded(name, || node.node.run(inputs, cx)).map_err(anyhow::Error::from).flatten();
    // The key contains the digests from when the plan was made. A result from other contents must not get this key, and
    // values that read late may hold parts of both.
    let changed = read.files.iter().find(|file| !file.still_holds());
    if changed.is_some() {
        read.late.iter().for_each(|key| store.memory().remove(key));
    }
    let outputs = outputs?;
    let given: Vec<_> = outputs.iter().map(EdgeValue::type_name).collect();
    let declared = node.node_type.outputs.iter().map(|socket| socket.type_name);
    ensure!(
        declared.clone().eq(given.iter().copied()),
        "it returned [{}], but declares [{}] (this is a bug of the node type `{name}`)",
        given.join(", "),
        declared.collect::<Vec<_>>().join(", "),
    );
    if let Some(file) = changed {
        bail!("`{}` changed after the run was planned; run again", file.path().display());
    }
    Ok(outputs)
}
