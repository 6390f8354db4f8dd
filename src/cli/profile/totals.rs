//! The sums of a trace: for each node by its name, over all runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lsregen_nodes::device_profile::Counts;
use serde::Serialize;

/// What a node did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NodeTotal {
    pub r#type: &'static str,
    /// How often it ran.
    pub computed: usize,
    /// How often its result was cached, or that of an equal node.
    pub cached: usize,
    /// How long it ran, in all.
    pub seconds: f64,
    /// How many steps it reported.
    pub steps: usize,
    /// What it asked of the device.
    #[serde(skip_serializing_if = "Counts::is_empty")]
    pub cuda: Counts,
}

/// A run.
#[derive(Clone, Debug, Serialize)]
pub struct RunTotal {
    pub run: usize,
    pub name: String,
    pub seconds: f64,
    pub succeeded: bool,
}

#[derive(Default)]
pub struct Totals {
    pub nodes: BTreeMap<Arc<str>, NodeTotal>,
    /// The first [`RUNS`].
    pub runs: Vec<RunTotal>,
    /// How many there were.
    pub run_count: usize,
}

/// So many runs are listed.
const RUNS: usize = 10_000;

impl Totals {
    pub fn node(&mut self, name: &Arc<str>, r#type: &'static str) -> &mut NodeTotal {
        let total = self.nodes.entry(name.clone()).or_default();
        total.r#type = r#type;
        total
    }

    pub fn ran(&mut self, run: usize, name: &str, time: Duration, succeeded: bool) {
        self.run_count += 1;
        if self.runs.len() < RUNS {
            self.runs.push(RunTotal { run, name: name.into(), seconds: time.as_secs_f64(), succeeded });
        }
    }
}
