//! The slices of one run: its nodes, the steps of each, and what took place in them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use lsregen_engine::{Event, Graph, Key, Lane, Subscriber};
use lsregen_nodes::device_profile::{self, Counts};
use serde_json::{Map, Value as Json, json};

use super::recorder::{Recorder, Slice, Unfinished};
use super::spans::{self, Owner};
use super::trace::{self, Track};

/// A run in a trace.
pub struct RunProfile {
    me: Weak<RunProfile>,
    recorder: Arc<Recorder>,
    run: usize,
    name: String,
    /// By name: the type, and the number in the order of the graph.
    nodes: HashMap<Arc<str>, (&'static str, usize)>,
    start: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    active: BTreeMap<Arc<str>, Active>,
    /// For each lane, which of its tracks are taken.
    lanes: [Vec<bool>; 3],
}

/// A node that runs.
struct Active {
    key: Key,
    lane: Lane,
    /// Its place in its lane.
    slot: usize,
    track: Track,
    start: Duration,
    /// The end of its last step.
    since: Duration,
    /// Its number for the device's counts.
    task: u64,
    scopes: Vec<u64>,
    counts: Counts,
    /// How many steps it has reported.
    steps: usize,
    /// The last step, as it was reported.
    done: usize,
    /// What comes before the steps has a slice.
    has_begun: bool,
}

/// The track of what is no node.
const RUN_TRACK: usize = 0;

impl RunProfile {
    pub fn begin(recorder: &Arc<Recorder>, run: usize, name: &str, graph: &Arc<Graph>) -> Arc<RunProfile> {
        let nodes = graph.order().iter().enumerate().map(|(number, &index)| {
            let node = graph.node(index);
            (node.name.clone(), (node.node_type.name, number))
        });
        let nodes = nodes.collect();
        let profile = Arc::new_cyclic(|me: &Weak<RunProfile>| RunProfile {
            me: me.clone(),
            recorder: recorder.clone(),
            run,
            name: name.into(),
            nodes,
            start: recorder.now(),
            state: Mutex::default(),
        });
        let me: Weak<dyn Unfinished> = profile.me.clone();
        recorder.add_run(me, profile.track(RUN_TRACK).process, &format!("run {run}: {name}"));
        recorder.write(&trace::thread(profile.track(RUN_TRACK), "run"));
        profile
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn track(&self, thread: usize) -> Track {
        Track { process: self.run + 1, thread }
    }

    /// What is known of a node.
    fn args(&self, node: &str, key: Option<Key>, result: &str) -> Map<String, Json> {
        let (r#type, id) = self.nodes.get(node).copied().unwrap_or_default();
        let mut args =
            Map::from_iter([("node".into(), json!(node)), ("type".into(), json!(r#type)), ("id".into(), json!(id))]);
        if let Some(key) = key {
            args.insert("key".into(), json!(key.to_string().get(..12)));
        }
        args.insert("result".into(), json!(result));
        args
    }

    fn started(&self, node: &Arc<str>, key: Key, lane: Lane) {
        let task = self.recorder.scope(self.run, node);
        let mut state = self.lock();
        let slots = &mut state.lanes[lane as usize];
        let slot = slots.iter().position(|taken| !taken).unwrap_or(slots.len());
        let is_new = slot == slots.len();
        slots.resize(slots.len().max(slot + 1), false);
        slots[slot] = true;
        let (first, name) = match lane {
            Lane::Device => (1, "device"),
            Lane::Cpu => (100, "cpu"),
            Lane::Io => (10_000, "io"),
        };
        let track = self.track(first + slot);
        if is_new {
            self.recorder.write(&trace::thread(track, &format!("{name} {}", slot + 1)));
        }
        let now = self.recorder.now();
        let active = Active {
            key,
            lane,
            slot,
            track,
            start: now,
            since: now,
            task,
            scopes: vec![task],
            counts: Counts::default(),
            steps: 0,
            done: 0,
            has_begun: false,
        };
        state.active.insert(node.clone(), active);
        drop(state);
        device_profile::enter(task);
        spans::enter(self.me.clone() as Weak<dyn Owner>, node);
    }

    /// Ends a part of a node, and begins the next.
    fn cut(&self, node: &Arc<str>, active: &mut Active, name: String, args: Map<String, Json>) {
        let scope = self.recorder.scope(self.run, node);
        device_profile::change(active.task, scope);
        let now = self.recorder.now();
        let former = active.scopes.last().copied().unwrap_or(active.task);
        let counts = device_profile::take(former);
        active.counts.merge(&counts);
        active.scopes.push(scope);
        let (start, track) = (active.since, active.track);
        active.since = now;
        let scopes = vec![former];
        self.recorder.slice(Slice {
            track,
            category: "step",
            name,
            start,
            end: now,
            args,
            counts,
            scopes,
            whole: None,
        });
    }

    fn step(&self, node: &Arc<str>, done: usize, of: usize, part: Option<(usize, usize)>) {
        if done == 0 {
            return self.begin_steps(node);
        }
        let mut state = self.lock();
        // The same step is reported again where the next image begins.
        let Some(active) = state.active.get_mut(node).filter(|active| done > active.done) else { return };
        (active.has_begun, active.done) = (true, done);
        active.steps += 1;
        let mut args = Map::from_iter([("done".into(), json!(done)), ("of".into(), json!(of))]);
        if let Some((image, images)) = part {
            args.insert("image".into(), json!(image));
            args.insert("images".into(), json!(images));
        }
        self.cut(node, active, format!("step {done} of {of}"), args);
    }

    fn ended(&self, node: &Arc<str>, result: &str, error: Option<&str>) {
        let mut state = self.lock();
        let Some(mut active) = state.active.remove(node) else { return };
        if active.steps > 0 {
            self.cut(node, &mut active, "after the steps".into(), Map::new());
        }
        device_profile::leave(active.task);
        let rest = active.scopes.last().map(|scope| device_profile::take(*scope)).unwrap_or_default();
        active.counts.merge(&rest);
        state.lanes[active.lane as usize][active.slot] = false;
        drop(state);
        spans::leave();
        let mut args = self.args(node, Some(active.key), result);
        if let Some(error) = error {
            args.insert("error".into(), json!(error));
        }
        let r#type = self.nodes.get(node).copied().unwrap_or_default().0;
        self.recorder.slice(Slice {
            track: active.track,
            category: "node",
            name: node.to_string(),
            start: active.start,
            end: self.recorder.now(),
            args,
            counts: active.counts,
            scopes: active.scopes,
            whole: Some((node.clone(), r#type, active.steps)),
        });
    }

    fn instant(&self, node: &Arc<str>, key: Option<Key>, result: &str, more: &[(&str, Json)]) {
        let mut args = self.args(node, key, result);
        args.extend(more.iter().map(|(name, value)| (name.to_string(), value.clone())));
        let name = format!("{node}: {result}");
        let at = self.recorder.now();
        self.recorder.write(&[trace::instant(self.track(RUN_TRACK), "node", &name, at, &Json::Object(args))]);
    }

    fn cached(&self, node: &Arc<str>) {
        let r#type = self.nodes.get(node).copied().unwrap_or_default().0;
        self.recorder.totals(|totals| totals.node(node, r#type).cached += 1);
    }

    fn finished(&self, time: Duration, succeeded: bool) {
        self.recorder.totals(|totals| totals.ran(self.run, &self.name, time, succeeded));
        let (start, duration) = (self.start, self.recorder.now().saturating_sub(self.start));
        let args = json!({ "run": self.run, "succeeded": succeeded });
        self.recorder.write(&[trace::slice(self.track(RUN_TRACK), "run", &self.name, start, duration, &args)]);
    }
}

impl Subscriber for RunProfile {
    fn event(&self, event: &Event) {
        match event {
            Event::NodeStarted { node, key, lane } => self.started(node, *key, *lane),
            Event::Step { node, done, of, part } => self.step(node, *done, *of, *part),
            Event::NodeFinished { node, .. } => self.ended(node, "computed", None),
            Event::Failed { node, error } => self.ended(node, "failed", Some(error)),
            Event::Cancelled { node } => self.ended(node, "cancelled", None),
            Event::Cached { node, key } => {
                self.instant(node, Some(*key), "cached", &[]);
                self.cached(node);
            }
            Event::Restored { node, key } => {
                self.instant(node, Some(*key), "restored", &[]);
                self.cached(node);
            }
            Event::Joined { node, key } => self.instant(node, Some(*key), "joined", &[]),
            Event::Shared { node, with } => {
                self.instant(node, None, "shared", &[("with", json!(with))]);
                self.cached(node);
            }
            Event::Blocked { node, because } => self.instant(node, None, "skipped", &[("because", json!(because))]),
            Event::RunFinished { duration, succeeded } => self.finished(*duration, *succeeded),
            Event::PlanMade { .. } | Event::Preview { .. } | Event::Saved { .. } | Event::Note { .. } => {}
        }
    }
}

impl Owner for RunProfile {
    fn span(&self, node: &Arc<str>, name: &str, started: Duration, args: Map<String, Json>) {
        let Some(track) = self.lock().active.get(node).map(|active| active.track) else { return };
        let duration = self.recorder.now().saturating_sub(started);
        self.recorder.write(&[trace::slice(track, "span", name, started, duration, &Json::Object(args))]);
    }

    fn now(&self) -> Duration {
        self.recorder.now()
    }

    fn begin_steps(&self, node: &Arc<str>) {
        if let Some(active) = self.lock().active.get_mut(node).filter(|active| !active.has_begun) {
            active.has_begun = true;
            self.cut(node, active, "before the steps".into(), Map::new());
        }
    }
}

impl Unfinished for RunProfile {
    fn end(&self) {
        let nodes: Vec<_> = self.lock().active.keys().cloned().collect();
        nodes.iter().for_each(|node| self.ended(node, "unfinished", None));
    }
}
