//! The counts of each scope, the device memory in use, and what is captured into graphs.

use std::collections::{BTreeMap, HashMap};
use std::mem::take;
use std::sync::{Arc, Mutex};

use super::clock::since_start;
use super::descriptors::Descriptors;
use crate::counts::{Counts, Group, MemorySample, Tally};

pub(super) static STATE: Mutex<State> = Mutex::new(State::new());

/// At most so many samples of the memory are kept between two calls of [`State::samples`].
const MOST_SAMPLES: usize = 1 << 16;

/// What was captured of a stream or is in a graph: see [`Group`].
pub(super) type Captured = BTreeMap<(Group, Arc<str>), Tally>;

pub(super) struct State {
    /// The scope of each task in progress.
    open: BTreeMap<u64, u64>,
    scopes: BTreeMap<u64, Counts>,
    in_use: u64,
    /// The bytes of each allocation, by its address.
    sizes: BTreeMap<u64, u64>,
    /// The most bytes in use since the start.
    most: u64,
    samples: Vec<MemorySample>,
    /// The last sample.
    sampled: u64,
    /// The names of functions and the shapes of descriptors, by their addresses.
    pub(super) descriptors: Option<Descriptors>,
    /// By the address of the stream, of the graph, of the executable graph.
    capturing: BTreeMap<usize, Captured>,
    graphs: BTreeMap<usize, Captured>,
    executables: BTreeMap<usize, Arc<Captured>>,
    names: Option<HashMap<String, Arc<str>>>,
}

impl State {
    const fn new() -> State {
        State {
            open: BTreeMap::new(),
            scopes: BTreeMap::new(),
            in_use: 0,
            sizes: BTreeMap::new(),
            most: 0,
            samples: vec![],
            sampled: 0,
            descriptors: None,
            capturing: BTreeMap::new(),
            graphs: BTreeMap::new(),
            executables: BTreeMap::new(),
            names: None,
        }
    }

    /// Lets a task be counted in a new scope.
    pub fn open(&mut self, task: u64, scope: u64) {
        self.open.insert(task, scope);
        self.scopes.entry(scope).or_default().peak = self.in_use;
    }

    pub fn close(&mut self, task: u64) {
        self.open.remove(&task);
    }

    /// The scope that something belongs to which a thread with this task asks; 0 is none.
    pub fn scope(&self, task: u64) -> u64 {
        match (self.open.get(&task), self.open.first_key_value(), self.open.len()) {
            (Some(scope), ..) | (None, Some((_, scope)), 1) => *scope,
            _ => 0,
        }
    }

    pub fn take(&mut self, scope: u64) -> Counts {
        let in_use = self.in_use;
        Counts { in_use, ..self.scopes.remove(&scope).unwrap_or_default() }
    }

    pub fn count(&mut self, scope: u64, group: Group, name: &Arc<str>, tally: Tally) {
        self.scopes.entry(scope).or_default().add(group, name, tally);
    }

    /// A name, of which there is one copy.
    pub fn name(&mut self, name: &str) -> Arc<str> {
        let names = self.names.get_or_insert_default();
        match names.get(name) {
            Some(known) => known.clone(),
            None => {
                let new: Arc<str> = name.into();
                names.insert(name.into(), new.clone());
                new
            }
        }
    }

    pub fn allocated(&mut self, scope: u64, function: &str, address: u64, bytes: u64) {
        let name = self.name(function);
        self.count(scope, Group::Allocations, &name, Tally { count: 1, bytes, microseconds: 0.0 });
        self.sizes.insert(address, bytes);
        self.in_use += bytes;
        self.most = self.most.max(self.in_use);
        let in_use = self.in_use;
        for scope in self.open.values().chain([&0]) {
            let counts = self.scopes.entry(*scope).or_default();
            counts.peak = counts.peak.max(in_use);
        }
        self.sample();
    }

    pub fn freed(&mut self, scope: u64, function: &str, address: u64) {
        let name = self.name(function);
        let bytes = self.sizes.remove(&address).unwrap_or(0);
        self.count(scope, Group::Frees, &name, Tally { count: 1, bytes, microseconds: 0.0 });
        self.in_use = self.in_use.saturating_sub(bytes);
        self.sample();
    }

    /// Keeps the memory in use, if it has changed by a part of what it ever was that can be seen.
    fn sample(&mut self) {
        let visible = (self.most / 256).max(1 << 16);
        if self.in_use.abs_diff(self.sampled) >= visible && self.samples.len() < MOST_SAMPLES {
            self.sampled = self.in_use;
            self.samples.push(MemorySample { at: since_start(), in_use: self.in_use });
        }
    }

    pub fn samples(&mut self) -> Vec<MemorySample> {
        take(&mut self.samples)
    }

    /// Whether calls of some stream are captured into a graph, so that the device must not be asked for anything.
    pub fn captures(&self) -> bool {
        !self.capturing.is_empty()
    }

    pub fn begin_capture(&mut self, stream: usize) {
        self.capturing.insert(stream, Captured::new());
    }

    /// Ends a capture. `graph` is 0 if there is none.
    pub fn end_capture(&mut self, stream: usize, graph: usize) {
        if let (Some(captured), true) = (self.capturing.remove(&stream), graph != 0) {
            self.graphs.insert(graph, captured);
        }
    }

    pub fn instantiated(&mut self, graph: usize, executable: usize) {
        let captured = self.graphs.get(&graph).cloned().unwrap_or_default();
        self.executables.insert(executable, Arc::new(captured));
    }

    pub fn is_captured(&self, stream: usize) -> bool {
        self.capturing.contains_key(&stream)
    }

    /// Keeps what a captured call adds to a graph.
    pub fn captured(&mut self, stream: usize, group: Group, name: &Arc<str>, bytes: u64) {
        let Some(captured) = self.capturing.get_mut(&stream) else { return };
        let tally = captured.entry((group, name.clone())).or_default();
        (tally.count, tally.bytes) = (tally.count + 1, tally.bytes + bytes);
    }

    /// Counts what a launch of an executable graph runs.
    pub fn launched(&mut self, scope: u64, executable: usize) {
        let Some(captured) = self.executables.get(&executable).cloned() else { return };
        for ((group, name), tally) in &*captured {
            self.count(scope, *group, name, *tally);
        }
    }
}
