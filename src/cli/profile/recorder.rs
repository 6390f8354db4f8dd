//! Puts a trace together. A slice of a node is written once the times of everything that it asked of the device are known.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lsregen_nodes::device_profile::{self, Counts, Launch};
use serde_json::{Map, Value as Json, json};

use super::totals::Totals;
use super::trace::{self, Trace, Track};

/// The process of the device in a trace. The runs follow it.
pub const DEVICE: usize = 0;

/// A slice of a node that has ended.
pub struct Slice {
    pub track: Track,
    pub category: &'static str,
    pub name: String,
    pub start: Duration,
    pub end: Duration,
    pub args: Map<String, Json>,
    /// What it asked of the device, without times.
    pub counts: Counts,
    /// The scopes in which it asked.
    pub scopes: Vec<u64>,
    /// The node that has ended with it: its name and type, and how many steps it had.
    pub whole: Option<(Arc<str>, &'static str, usize)>,
}

/// Something that is in progress when the trace must end.
pub trait Unfinished: Send + Sync {
    /// Ends its slices.
    fn end(&self);
}

pub struct Recorder {
    start: Instant,
    /// What this build can see of CUDA.
    sees_device: bool,
    scopes: AtomicU64,
    inner: Mutex<Inner>,
    runs: Mutex<Vec<Weak<dyn Unfinished>>>,
}

struct Inner {
    /// `None` after its end.
    trace: Option<Trace>,
    /// A run was started.
    has_begun: bool,
    most: u64,
    written: u64,
    left_out: u64,
    kernels: u64,
    kernels_left_out: u64,
    /// Slices whose device times are not known yet, in the order of their ends.
    waiting: VecDeque<Slice>,
    resolved: u64,
    times: BTreeMap<u64, Counts>,
    /// The run and the node of each scope whose kernels may still end.
    owners: BTreeMap<u64, (usize, Arc<str>)>,
    /// The streams that have a track.
    streams: Vec<usize>,
    totals: Totals,
}

impl Recorder {
    /// Starts to record what CUDA is asked for. The trace has at most `most` kernels, and at most as many slices of nodes.
    pub fn start(trace: Trace, most: u64) -> Recorder {
        let start = Instant::now();
        let sees_device = device_profile::start(most);
        let inner = Inner {
            trace: Some(trace),
            has_begun: false,
            most,
            written: 0,
            left_out: 0,
            kernels: 0,
            kernels_left_out: 0,
            waiting: VecDeque::new(),
            resolved: 0,
            times: BTreeMap::new(),
            owners: BTreeMap::new(),
            streams: vec![],
            totals: Totals::default(),
        };
        Recorder { start, sees_device, scopes: AtomicU64::new(1), inner: Mutex::new(inner), runs: Mutex::default() }
    }

    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a run, which gets a process in the trace.
    pub fn add_run(&self, run: Weak<dyn Unfinished>, process: usize, name: &str) {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.retain(|run| run.strong_count() > 0);
        runs.push(run);
        let mut inner = self.lock();
        inner.has_begun = true;
        inner.write(&trace::process(process, name));
    }

    /// A new scope of a node.
    pub fn scope(&self, run: usize, node: &Arc<str>) -> u64 {
        let scope = self.scopes.fetch_add(1, Ordering::Relaxed);
        if self.sees_device {
            self.lock().owners.insert(scope, (run, node.clone()));
        }
        scope
    }

    /// Writes events that no kernel belongs to.
    pub fn write(&self, events: &[Json]) {
        self.lock().write(events);
    }

    /// Changes the sums.
    pub fn totals(&self, change: impl FnOnce(&mut Totals)) {
        change(&mut self.lock().totals);
    }

    /// Adds a slice that has ended.
    pub fn slice(&self, slice: Slice) {
        let mut inner = self.lock();
        inner.waiting.push_back(slice);
        inner.collect(false);
    }

    /// Ends the trace; `wait`: once everything on the device has ended. Returns its path and whether it was written; `None` if it
    /// was ended before, or there was no run.
    pub fn finish(&self, wait: bool) -> Option<(String, io::Result<()>)> {
        let runs: Vec<_> = self.runs.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        runs.iter().filter_map(Weak::upgrade).for_each(|run| run.end());
        let mut inner = self.lock();
        if !inner.has_begun {
            inner.trace = None;
            return None;
        }
        inner.collect(wait);
        while let Some(slice) = inner.waiting.pop_front() {
            inner.write_slice(slice);
        }
        let trace = inner.trace.take()?;
        let other = inner.other(self.sees_device, self.now());
        Some((trace.path.display().to_string(), trace.finish(&other)))
    }
}

impl Inner {
    fn write(&mut self, events: &[Json]) {
        for event in events {
            if self.written >= self.most && event["ph"] != "M" {
                self.left_out += 1;
            } else if let Some(trace) = &mut self.trace {
                self.written += 1;
                trace.event(event);
            }
        }
    }

    /// Takes what has ended on the device, and writes the slices that have waited for it.
    fn collect(&mut self, wait: bool) {
        let drained = device_profile::drain(wait);
        for launch in &drained.launches {
            self.write_launch(launch);
        }
        for sample in &drained.memory {
            let event = trace::counter(DEVICE, "memory in use", sample.at, sample.in_use);
            self.write(&[event]);
        }
        for (scope, times) in drained.times {
            self.times.entry(scope).or_default().add_groups(&times);
        }
        (self.resolved, self.kernels_left_out) = (drained.resolved, drained.left_out);
        while let Some(slice) = self.waiting.pop_front_if(|slice| slice.counts.launched <= drained.resolved) {
            self.write_slice(slice);
        }
    }

    fn write_launch(&mut self, launch: &Launch) {
        let stream = self.streams.iter().position(|stream| *stream == launch.stream).unwrap_or_else(|| {
            let stream = self.streams.len();
            let track = Track { process: DEVICE, thread: stream + 1 };
            self.streams.push(launch.stream);
            if stream == 0 {
                self.write(&trace::process(DEVICE, "CUDA device"));
            }
            self.write(&trace::thread(track, &format!("stream {stream}")));
            stream
        });
        let track = Track { process: DEVICE, thread: stream + 1 };
        let args = match self.owners.get(&launch.scope) {
            Some((run, node)) => json!({ "run": run, "node": node }),
            None => json!({}),
        };
        let group = json!(launch.group);
        let group = group.as_str().unwrap_or_default();
        let event = trace::slice(track, group, &launch.name, launch.start, launch.duration, &args);
        self.kernels += 1;
        if let Some(trace) = &mut self.trace {
            trace.event(&event);
        }
    }

    fn write_slice(&mut self, slice: Slice) {
        let Slice { track, category, name, start, end, mut args, mut counts, scopes, whole } = slice;
        for scope in &scopes {
            match whole {
                // The node is the last that asks for them.
                Some(_) => {
                    self.owners.remove(scope);
                    self.times.remove(scope).iter().for_each(|times| counts.add_groups(times));
                }
                None => self.times.get(scope).into_iter().for_each(|times| counts.add_groups(times)),
            }
        }
        if let Some((node, r#type, steps)) = whole {
            let total = self.totals.node(&node, r#type);
            total.computed += 1;
            total.steps += steps;
            total.seconds += (end - start).as_secs_f64();
            total.cuda.merge(&counts);
        }
        if !counts.is_empty() {
            args.insert("cuda".into(), json!(counts));
        }
        self.write(&[trace::slice(track, category, &name, start, end.saturating_sub(start), &Json::Object(args))]);
    }

    /// What the trace says in numbers, without a viewer.
    fn other(&mut self, sees_device: bool, now: Duration) -> Json {
        let mut elsewhere = device_profile::take(0);
        self.times.values().for_each(|times| elsewhere.add_groups(times));
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(now);
        let mut other = json!({
            "version": 1,
            "start": began.as_secs_f64(),
            "seconds": now.as_secs_f64(),
            "run_count": self.totals.run_count,
            "runs": self.totals.runs,
            "nodes": self.totals.nodes,
            "slices_left_out": self.left_out,
        });
        if sees_device {
            other["kernels"] = json!(self.kernels);
            other["kernels_left_out"] = json!(self.kernels_left_out);
            other["elsewhere"] = json!(elsewhere);
        }
        other
    }
}
