//! The state of an executor: its runs, their tasks, and the queue of each lane.
//!
//! Decides what is executed next. Executes nothing itself: see the [executor](crate::Executor).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use super::job::{Completion, Job, Work};
use super::request::RunRequest;
use super::state::{Ready, Run};
use super::summary::Summary;
use super::task::{TaskId, Waiters};
use crate::node::{Cancel, Event, Lane, Lanes};
use crate::store::Store;

/// The order in which tasks are executed: by run, then by position in the run's graph.
type Priority = (usize, usize);

/// The runs in progress, and the tasks that they wait for.
pub(super) struct Scheduler {
    runs: HashMap<usize, Run>,
    /// How many runs were started.
    started: usize,
    tasks: HashMap<TaskId, Task>,
    /// The tasks that wait for each lane.
    queues: [BinaryHeap<Reverse<(Priority, TaskId)>>; 3],
    /// How many more tasks each lane can take.
    free: [usize; 3],
    store: Arc<Store>,
}

struct Task {
    priority: Priority,
    kind: TaskKind,
    waiters: Arc<Waiters>,
    /// A worker executes it.
    started: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TaskKind {
    Run,
    /// Restores the effect of a cached result.
    Restore,
}

impl Scheduler {
    pub fn new(lanes: Lanes, store: Arc<Store>) -> Scheduler {
        let free = Lane::ALL.map(|lane| lanes.width(lane));
        Scheduler { runs: HashMap::new(), started: 0, tasks: HashMap::new(), queues: Default::default(), free, store }
    }

    /// How many tasks the lanes can take in all.
    pub fn width(&self) -> usize {
        self.free.iter().sum()
    }

    /// How many queued tasks could start now.
    pub fn startable(&self) -> usize {
        self.queues.iter().zip(self.free).map(|(queue, free)| queue.len().min(free)).sum()
    }

    pub fn is_idle(&self) -> bool {
        self.runs.is_empty()
    }

    /// Forgets all runs without reporting how they end.
    pub fn abandon_runs(&mut self) {
        self.runs.clear();
        self.tasks.clear();
        self.queues = Default::default();
    }

    /// Starts a run; `done` receives its summary.
    pub fn start(&mut self, request: RunRequest, done: tokio::sync::oneshot::Sender<Summary>) {
        let id = self.started;
        self.started += 1;
        let (run, ready) = Run::new(request, done);
        self.runs.insert(id, run);
        self.enqueue(id, ready);
    }

    /// Queues the nodes of a run that can be executed now, and finishes the run if none of it is left.
    fn enqueue(&mut self, id: usize, mut ready: Vec<Ready>) {
        while let Some(Ready { node, restore }) = ready.pop() {
            let Some(run) = self.runs.get_mut(&id) else { return };
            if run.is_stopping() {
                ready.extend(run.on_stop(node));
                continue;
            }
            let (step, graph_node) = run.step(node);
            let (key, kind) = (step.key, if restore { TaskKind::Restore } else { TaskKind::Run });
            // Another run may have stored the result since the plan was made. An output node still runs, because its
            // cached outputs do not restore its effect.
            if kind == TaskKind::Run
                && !graph_node.node_type.output
                && let Some(outputs) = self.store.memory().get(&key)
            {
                ready.extend(run.on_cached(node, &outputs));
                continue;
            }
            let lane = graph_node.node_type.lane;
            let task_id = TaskId { key, run: graph_node.node_type.output.then_some(id) };
            let waiter = run.waiter(id, node);
            match self.tasks.get(&task_id) {
                Some(task) => {
                    if task.started {
                        run.emit(Event::Joined { node: waiter.name.clone(), key });
                    }
                    task.waiters.join(waiter);
                }
                None => {
                    let priority = (id, run.position(node));
                    let waiters = Arc::new(Waiters::default());
                    waiters.join(waiter);
                    self.tasks.insert(task_id, Task { priority, kind, waiters, started: false });
                    self.queues[lane as usize].push(Reverse((priority, task_id)));
                }
            }
        }
        if self.runs.get(&id).is_some_and(Run::is_done)
            && let Some(run) = self.runs.remove(&id)
        {
            run.finish();
        }
    }

    /// Takes the first task in the queues whose lane is free. Drops tasks that nobody waits for any more.
    pub fn next_job(&mut self) -> Option<Job> {
        loop {
            let (id, lane) = self.pop()?;
            let Some(task) = self.tasks.get(&id) else { continue };
            let (kind, waiters) = (task.kind, task.waiters.clone());
            for waiter in waiters.list().iter().filter(|waiter| waiter.stop.is_requested()) {
                let Some(run) = self.runs.get_mut(&waiter.run) else { continue };
                waiters.leave(waiter);
                let ready = run.on_stop(waiter.node);
                self.enqueue(waiter.run, ready);
            }
            let list = waiters.list();
            let Some((first, run)) = list.first().and_then(|first| Some((first, self.runs.get_mut(&first.run)?)))
            else {
                self.tasks.remove(&id);
                continue;
            };
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            task.started = true;
            self.free[lane as usize] -= 1;
            let cx = run.context(first.node, Cancel::when_abandoned(waiters.clone()), waiters);
            let graph = run.graph().clone();
            let work = match kind {
                TaskKind::Restore => Work::Restore { outputs: run.cached_outputs(first.node) },
                TaskKind::Run => {
                    let inputs = run.take_inputs(first.node);
                    let (step, _) = run.step(first.node);
                    Work::Run { inputs, material: step.material.clone(), files: step.files.clone() }
                }
            };
            if kind == TaskKind::Run {
                first.subscriber.event(&Event::NodeStarted { node: first.name.clone(), key: id.key, lane });
                for other in &list[1..] {
                    other.subscriber.event(&Event::Joined { node: other.name.clone(), key: id.key });
                }
            }
            return Some(Job { id, lane, graph, node: first.node, cx, work });
        }
    }

    /// The queued task that comes first among the lanes that are free.
    fn pop(&mut self) -> Option<(TaskId, Lane)> {
        let lanes = Lane::ALL.into_iter().filter(|lane| self.free[*lane as usize] > 0);
        let first = |lane: Lane| self.queues[lane as usize].peek().map(|Reverse((priority, _))| (*priority, lane));
        let (_, lane) = lanes.filter_map(first).min_by_key(|(priority, _)| *priority)?;
        let Reverse((_, id)) = self.queues[lane as usize].pop()?;
        Some((id, lane))
    }

    /// Hands the result of a task to all runs that wait for it.
    pub fn complete(&mut self, completion: Completion) {
        let is_cancelled = completion.is_cancelled();
        let Completion { id, lane, result, duration } = completion;
        self.free[lane as usize] += 1;
        let Some(task) = self.tasks.remove(&id) else { return };
        if is_cancelled {
            return self.complete_cancelled(id, lane, task);
        }
        let result = result.map_err(|error| format!("{error:#}"));
        for waiter in task.waiters.list() {
            let Some(run) = self.runs.get_mut(&waiter.run) else { continue };
            let ready = match &result {
                Ok(outputs) if task.kind == TaskKind::Run => run.on_run(waiter.node, outputs, duration),
                Ok(_) => run.on_restored(waiter.node),
                Err(error) => run.on_failure(waiter.node, error),
            };
            self.enqueue(waiter.run, ready);
        }
    }

    /// Ends a task that was cancelled; if a run has joined too late to keep it going, it is queued once more.
    fn complete_cancelled(&mut self, id: TaskId, lane: Lane, task: Task) {
        let mut again = false;
        for waiter in task.waiters.list() {
            let Some(run) = self.runs.get_mut(&waiter.run) else { continue };
            if run.is_stopping() || run.took_inputs(waiter.node) {
                let ready = run.on_stop(waiter.node);
                self.enqueue(waiter.run, ready);
                task.waiters.leave(&waiter);
            } else {
                again = true;
            }
        }
        if again {
            self.queues[lane as usize].push(Reverse((task.priority, id)));
            self.tasks.insert(id, Task { started: false, ..task });
        }
    }
}
