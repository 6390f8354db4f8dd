//! Nodes and runs that are executed at the same time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

use lsregen_engine::{Cancel, Event, Executor, Graph, Lanes, Outcome, RunRequest, Store, Summary};
use tokio::task::JoinHandle;

use crate::fake::*;

/// Counts how many visitors it has at a time. A visitor waits a little for another one.
#[derive(Default)]
struct Room {
    inside: Mutex<(usize, usize)>,
    more: Condvar,
}

impl Room {
    fn visit(&self) {
        let mut inside = self.inside.lock().unwrap();
        inside.0 += 1;
        inside.1 = inside.1.max(inside.0);
        self.more.notify_all();
        let patience = Duration::from_millis(300);
        let (mut inside, _) = self.more.wait_timeout_while(inside, patience, |(_, most)| *most < 2).unwrap();
        inside.0 -= 1;
    }

    fn most(&self) -> usize {
        self.inside.lock().unwrap().1
    }
}

fn run_in(lanes: Lanes, world: &World, graph: &Arc<Graph>) -> Run {
    let (request, log) = world.request(graph, world.plan(graph).unwrap());
    let executor = Executor::new(lanes, world.store.clone());
    let summary = runtime().block_on(async { executor.start(request).finished().await });
    Run::new(summary, &log)
}

#[test]
fn independent_branches_overlap_if_the_lanes_allow_it() {
    for (cpu, together) in [(2, 2), (1, 1)] {
        let room = Arc::new(Room::default());
        let world = World::at_steps({
            let room = room.clone();
            move |_, _| room.visit()
        });
        let graph = Sketch::default()
            .node("left", OnCpu { id: 1 }, &[])
            .node("right", OnCpu { id: 2 }, &[])
            .node("sink", Sink { id: 1 }, &["left", "right"])
            .graph();
        let run = run_in(Lanes { cpu, ..Lanes::NARROW }, &world, &graph);
        assert_eq!(room.most(), together, "{cpu} at a time");
        let log = run.log();
        let at = |line: &str| log.iter().position(|other| other.starts_with(line)).unwrap();
        assert_eq!(at("start right") < at("finish left"), together == 2, "{log:?}");
        assert!(at("start sink") > at("finish left").max(at("finish right")));
    }
}

#[test]
fn nodes_never_share_the_device_but_run_beside_it() {
    let (device, all) = (Arc::new(Room::default()), Arc::new(Room::default()));
    let world = World::at_steps({
        let (device, all) = (device.clone(), all.clone());
        move |id, _| if id < 10 { device.visit() } else { all.visit() }
    });
    let graph = Sketch::default()
        .node("d1", OnDevice { id: 1 }, &[])
        .node("d2", OnDevice { id: 2 }, &[])
        .node("d3", OnDevice { id: 3 }, &[])
        .node("c1", OnCpu { id: 11 }, &[])
        .node("c2", OnCpu { id: 12 }, &[])
        .node("sink", Sink { id: 1 }, &["d1", "d2", "d3", "c1", "c2"])
        .graph();
    let run = run_in(Lanes { cpu: 4, device: 1, io: 4 }, &world, &graph);
    assert_eq!((device.most(), all.most()), (1, 2));
    // The events show that a node on the device starts after the one before it has finished.
    let log = run.log();
    let on_device: Vec<_> = log.iter().filter(|line| line.contains(" d")).map(|line| &line[..8]).collect();
    assert_eq!(on_device, ["start d1", "finish d", "start d2", "finish d", "start d3", "finish d"]);
    let at = |line: &str| log.iter().position(|other| other.starts_with(line)).unwrap();
    assert!(at("start c1") < at("finish d1"), "{log:?}");
}

/// A run with its number.
type NumberedRun = (usize, JoinHandle<Summary>);

/// Starts runs, also from a running node.
#[derive(Clone)]
struct Starter {
    executor: Executor,
    /// The runs that are to start, each with its number; the next one comes last.
    requests: Arc<Mutex<Vec<(usize, RunRequest)>>>,
    summaries: Arc<Mutex<Vec<NumberedRun>>>,
}

impl Starter {
    fn start(&self) {
        let Some((number, request)) = self.requests.lock().unwrap().pop() else { return };
        let running = self.executor.start(request);
        let summary = tokio::runtime::Handle::current().spawn(running.finished());
        self.summaries.lock().unwrap().push((number, summary));
    }
}

/// Runs two graphs on one executor. `at` starts the second run, and may cancel the first.
fn two_runs(
    at: impl Fn(usize, &Cancel, &dyn Fn()) + Send + Sync + 'static,
    graphs: impl Fn() -> [Arc<Graph>; 2],
) -> [Run; 2] {
    let starter: Arc<OnceLock<Starter>> = Arc::default();
    let world = World::at_steps({
        let starter = starter.clone();
        move |step, cancel| at(step, cancel, &|| starter.get().unwrap().start())
    });
    let [first, second] = graphs();
    let (first, first_log) = world.request(&first, world.plan(&first).unwrap());
    let (mut second, second_log) = world.request(&second, world.plan(&second).unwrap());
    second.cancel = Cancel::new();
    let executor = Executor::new(Lanes { cpu: 2, ..Lanes::NARROW }, world.store.clone());
    let requests = Arc::new(Mutex::new(vec![(1, second), (0, first)]));
    let _ = starter.set(Starter { executor, requests, summaries: Arc::default() });
    let summaries = runtime().block_on(async {
        let starter = starter.get().unwrap();
        starter.start();
        let mut summaries = vec![];
        while summaries.len() < 2 {
            let next = starter.summaries.lock().unwrap().pop();
            match next {
                Some((number, summary)) => summaries.push((number, summary.await.unwrap())),
                None => tokio::task::yield_now().await,
            }
        }
        summaries.sort_by_key(|(number, _)| *number);
        summaries
    });
    let mut summaries = summaries.into_iter().map(|(_, summary)| summary);
    [&first_log, &second_log].map(|log| Run::new(summaries.next().unwrap(), log))
}

#[test]
fn two_runs_share_a_task_in_progress() {
    let graph = || Sketch::default().node("work", Steps { of: 3 }, &[]).node("sink", Sink { id: 1 }, &["work"]).graph();
    let start_second = |step, _: &Cancel, start: &dyn Fn()| {
        if step == 2 {
            start()
        }
    };
    let [first, second] = two_runs(start_second, || [graph(), graph()]);
    assert_eq!(first.ran(), ["work", "sink"]);
    assert_eq!(
        second.log(),
        [
            "plan: 2 run, 0 cached, 0 shared, 0 skipped",
            "join work",
            "step work 2/3",
            "step work 3/3",
            "finish work: 0 bytes",
            "start sink",
            "finish sink: 0 bytes",
            "done",
        ]
    );
    assert!(second.summary.succeeded());
}

#[test]
fn a_task_goes_on_for_the_other_run_when_one_is_cancelled() {
    let wanted =
        || Sketch::default().node("work", Steps { of: 3 }, &[]).node("sink", Sink { id: 1 }, &["work"]).graph();
    let hand_over = |step, cancel: &Cancel, start: &dyn Fn()| {
        if step == 2 {
            start();
            cancel.cancel();
        }
    };
    let [first, second] = two_runs(hand_over, || [wanted(), wanted()]);
    assert!(first.summary.was_cancelled());
    assert_eq!(first.ran(), ["work"]);
    assert!(second.summary.succeeded());
    assert_eq!(second.ran(), ["sink"], "the task in progress does not start again");
}

#[test]
fn a_task_that_no_run_waits_for_stops() {
    let old = Sketch::default().node("old", UntilCancelled {}, &[]).node("sink", Sink { id: 1 }, &["old"]).graph();
    let new = Sketch::default().node("new", make("x"), &[]).node("sink", Sink { id: 1 }, &["new"]).graph();
    let hand_over = |step, cancel: &Cancel, start: &dyn Fn()| {
        if step == 0 {
            start();
            cancel.cancel();
        }
    };
    let [first, second] = two_runs(hand_over, move || [old.clone(), new.clone()]);
    assert_eq!(first.log()[1..], ["start old", "cancel old", "cancel sink", "not done"]);
    assert!(second.summary.succeeded());
}

#[test]
fn a_task_that_stops_while_a_run_joins_it_starts_again() {
    let graph =
        || Sketch::default().node("work", UntilCancelled {}, &[]).node("sink", Sink { id: 1 }, &["work"]).graph();
    let given_up = AtomicUsize::new(0);
    let late = move |step, cancel: &Cancel, start: &dyn Fn()| match step {
        0 => cancel.cancel(),
        _ if given_up.fetch_add(1, Ordering::SeqCst) == 0 => start(),
        _ => {}
    };
    let [first, second] = two_runs(late, || [graph(), graph()]);
    assert!(first.summary.was_cancelled());
    assert!(second.summary.succeeded(), "{:?}", second.summary);
    assert_eq!(second.ran(), ["work", "sink"]);
}

#[test]
fn with_fail_fast_the_first_failure_ends_the_run() {
    let graph = || {
        Sketch::default()
            .node("bad", Fail { error: "no".into() }, &[])
            .node("lost", Sink { id: 1 }, &["bad"])
            .node("fine", make("x"), &[])
            .node("saved", Sink { id: 2 }, &["fine"])
            .graph()
    };
    let world = World::new();
    assert_eq!(world.run(&graph()).ran(), ["bad", "fine", "saved"]);
    let mut world = World::new();
    world.fail_fast = true;
    let run = world.run(&graph());
    assert_eq!(run.ran(), ["bad"]);
    let skipped = Outcome::Blocked { because: "bad".into() };
    assert_eq!(run.summary.nodes[1..].iter().filter(|(_, outcome)| *outcome == skipped).count(), 3);
}

#[test]
fn a_missing_effect_is_restored_from_the_result() {
    let world = World::new();
    let graph =
        Sketch::default().node("a", make("x"), &[]).node("note", Note { path: "note.txt".into() }, &["a"]).graph();
    assert_eq!(world.run(&graph).ran(), ["a", "note"]);
    assert_eq!(world.run(&graph).log(), ["plan: 0 run, 1 cached, 0 shared, 1 skipped", "hit note", "done"]);
    world.write("note.txt", "by another hand");
    let run = world.run(&graph);
    assert_eq!(run.log(), ["plan: 0 run, 1 cached, 0 shared, 1 skipped", "restore note", "done"]);
    assert_eq!(world.read("note.txt"), "x");
    std::fs::remove_file(world.path("note.txt")).unwrap();
    std::fs::create_dir(world.path("note.txt")).unwrap();
    let run = world.run(&graph);
    assert!(matches!(&run.summary.nodes[1].1, Outcome::Failed { error } if error.contains("directory")), "{run:?}");
}

#[test]
fn a_panic_of_a_subscriber_reaches_everyone_who_waits_for_the_run() {
    let world = World::new();
    let graph = Sketch::default().node("a", make("x"), &[]).node("sink", Sink { id: 1 }, &["a"]).graph();
    let (request, _) = world.request(&graph, world.plan(&graph).unwrap());
    let subscriber = Arc::new(|event: &Event| assert!(!matches!(event, Event::NodeStarted { .. }), "a bad listener"));
    let executor = Executor::new(Lanes::NARROW, Arc::new(Store::in_memory(0)));
    let run = || runtime().block_on(async { executor.start(RunRequest { subscriber, ..request }).finished().await });
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"a bad listener"));
}
