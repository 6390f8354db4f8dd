//! What a caller asks the executor to run.

use std::sync::Arc;

use crate::graph::Graph;
use crate::node::{Cancel, Host, Subscriber};
use crate::plan::Plan;

/// A run to start.
pub struct RunRequest {
    /// The graph to run.
    pub graph: Arc<Graph>,
    /// The plan of this `graph` for this `host`.
    pub plan: Plan,
    /// Where the graph runs.
    pub host: Arc<Host>,
    /// Receives the events of the run.
    pub subscriber: Arc<dyn Subscriber>,
    /// Stops the run. Tasks that are shared with other runs continue.
    pub cancel: Cancel,
    /// Whether the first failure ends the run. Otherwise it stops only the nodes that depend on the failed one.
    pub fail_fast: bool,
}
