//! Runs: failure, cancellation, panics, and the lifetime of values.

use std::time::Instant;

use lsregen_engine::{NodeType, Outcome};

use crate::fake::*;

#[test]
fn the_log_of_a_run() {
    let world = World::new();
    let graph = Sketch::default()
        .node("word", make("word"), &[])
        .node("same", make("word"), &[])
        .node("steps", Steps { of: 2 }, &["same"])
        .node("split", Split {}, &["word"])
        .node("broken", Fail { error: "no luck".into() }, &["split.1"])
        .node("never", join(""), &["broken", "steps"])
        .node("lost", save("lost"), &["never"])
        .node("idle", make("idle"), &[])
        .node("save", save("saved"), &["split.0", "steps"])
        .graph();
    let first = world.run(&graph).log().join("\n");
    let second = world.run(&graph).log().join("\n");
    insta::assert_snapshot!(format!("{first}\n\n{second}"));
    assert_eq!(world.read("saved"), "wword");
}

#[test]
fn a_failure_stops_only_what_depends_on_it() {
    let world = World::new();
    let graph = Sketch::default()
        .node("broken", Fail { error: "the disk is full".into() }, &[])
        .node("below", join(""), &["broken"])
        .node("lost", save("lost"), &["below"])
        .node("fine", make("x"), &[])
        .node("save", save("saved"), &["fine"])
        .graph();
    let run = world.run(&graph);
    let outcome = |name| &run.summary.nodes.iter().find(|(node, _)| &**node == name).unwrap().1;
    assert_eq!(*outcome("broken"), Outcome::Failed { error: "it was to fail: the disk is full".into() });
    assert_eq!(*outcome("below"), Outcome::Blocked { because: "broken".into() });
    assert_eq!(*outcome("lost"), Outcome::Blocked { because: "broken".into() });
    assert!(matches!(outcome("save"), Outcome::Ran { bytes: 0, .. }));
    assert!(!run.summary.succeeded());
    assert!(!run.summary.was_cancelled());
    assert_eq!(world.read("saved"), "x");
}

#[test]
fn an_error_is_not_cached() {
    let world = World::new();
    let graph = Sketch::default()
        .node("broken", Fail { error: "no".into() }, &[])
        .node("same", Fail { error: "no".into() }, &[])
        .node("save", save("lost"), &["broken", "same"])
        .graph();
    for _ in 0..2 {
        let run = world.run(&graph);
        let log = ["start broken", "fail broken: it was to fail: no", "skip same because of broken"];
        assert_eq!(run.log()[1..4], log);
    }
    assert_eq!(world.store.memory().bytes(), 0);
}

#[test]
fn a_run_is_cancelled_at_the_next_step() {
    let world = World::at_steps(|step, cancel| {
        if step == 2 {
            cancel.cancel();
        }
    });
    let graph = Sketch::default()
        .node("a", make("x"), &[])
        .node("work", Steps { of: 5 }, &["a"])
        .node("save", save("out"), &["work"])
        .node("other", make("y"), &[])
        .node("copy", make("y"), &[])
        .node("sink", Sink { id: 1 }, &["other", "copy"])
        .graph();
    let run = world.run(&graph);
    assert_eq!(
        run.log()[3..],
        [
            "start work",
            "step work 1/5",
            "step work 2/5",
            "cancel work",
            "cancel save",
            "cancel other",
            "cancel copy",
            "cancel sink",
            "not done"
        ]
    );
    assert!(run.summary.was_cancelled());
    assert!(!run.summary.succeeded());
    // The nodes that ran before the cancellation are cached, the others are not.
    let plan = world.plan(&graph).unwrap();
    assert_eq!((plan.counts().run, plan.counts().cached), (4, 1));
}

#[test]
fn a_run_that_is_cancelled_before_it_starts_executes_nothing() {
    let world = World::new();
    world.cancel.cancel();
    let graph = Sketch::default().node("a", make("x"), &[]).node("save", save("out"), &["a"]).graph();
    let run = world.run(&graph);
    assert_eq!(run.log(), ["plan: 2 run, 0 cached, 0 shared, 0 skipped", "cancel a", "cancel save", "not done"]);
    assert!(!world.path("out").exists());
}

#[test]
fn cancelling_a_finished_run_changes_nothing() {
    let world = World::new();
    let graph = Sketch::default().node("a", make("x"), &[]).node("save", save("out"), &["a"]).graph();
    world.run(&graph);
    world.cancel.cancel();
    assert!(world.run(&graph).summary.succeeded());
}

#[test]
fn a_panic_is_a_failure_that_names_the_node() {
    let world = World::new();
    let graph = Sketch::default()
        .node("bad", Panic { place: "run".into() }, &[])
        .node("sink", Sink { id: 1 }, &["bad"])
        .node("fine", make("x"), &[])
        .node("save", save("out"), &["fine"])
        .graph();
    let run = world.run(&graph);
    let log = run.log();
    assert!(log[2].starts_with("fail bad: it panicked: "), "{}", log[2]);
    assert!(log[2].contains("out of paint"), "{}", log[2]);
    assert!(log[2].ends_with("(this is a bug of the node type `Panic`, not of the graph)"), "{}", log[2]);
    assert_eq!(log[3], "skip sink because of bad");
    assert_eq!(world.read("out"), "x");
}

#[test]
fn a_panic_while_planning_is_an_error_of_the_plan() {
    let world = World::new();
    let graph = |place: &str| Sketch::default().node("bad", Panic { place: place.into() }, &[]).graph();
    let errors = world.plan(&graph("files")).err().unwrap();
    assert!(errors[0].to_string().starts_with("node `bad`: it panicked: "), "{}", errors[0]);
    // Its result is cached, but the node cannot tell whether its effect is intact.
    let graph = graph("stands");
    assert!(world.run(&graph).summary.succeeded());
    let errors = world.plan(&graph).err().unwrap();
    assert!(errors[0].to_string().starts_with("node `bad`: it panicked: no leg to stand on"), "{}", errors[0]);
}

#[test]
fn outputs_that_are_not_as_declared_are_a_bug_of_the_node() {
    let world = World::new();
    let lying = NodeType { outputs: NodeType::of::<Split>().outputs, ..NodeType::of::<Make>() };
    let graph = Sketch::default().typed("liar", lying, make("x"), &[]).node("save", save("out"), &["liar.1"]).graph();
    assert_eq!(
        world.run(&graph).log()[2],
        "fail liar: it returned [Text], but declares [Text, Text] (this is a bug of the node type `Make`)"
    );
}

#[test]
fn a_link_to_no_output_is_an_error_of_the_plan() {
    let world = World::new();
    let graph = Sketch::default().node("a", make("x"), &[]).node("save", save("out"), &["a.7"]).graph();
    let errors = world.plan(&graph).err().unwrap();
    assert_eq!(errors[0].to_string(), "node `save`: it is linked to output 7 of `a`, which does not exist");
}

#[test]
fn values_live_until_their_last_reader() {
    // A store without room.
    let world = World::new().with_store(0);
    let graph = Sketch::default()
        .node("a", make("xyz"), &[])
        .node("b", Split {}, &["a"])
        .node("c", join(""), &["b.1"])
        .node("d", join(""), &["c", "a"])
        .node("save", save("out"), &["d"])
        .graph();
    let run = world.run(&graph);
    assert_eq!(
        run.log_with_texts(),
        [
            "plan: 5 run, 0 cached, 0 shared, 0 skipped (0)",
            "start a (0)",
            "finish a: 3 bytes (1)",
            "start b (1)",
            // The first output of b has no reader, and is dropped after the event.
            "finish b: 3 bytes (3)",
            "start c (2)",
            "finish c: 2 bytes (2)",
            "start d (2)",
            "finish d: 5 bytes (1)",
            "start save (1)",
            "finish save: 0 bytes (0)",
            "done (0)",
        ]
    );
}

#[test]
fn values_that_no_one_will_read_are_let_go() {
    let world = World::new().with_store(0);
    let graph = Sketch::default()
        .node("a", make("x"), &[])
        .node("broken", Fail { error: "no".into() }, &[])
        .node("never", join(""), &["broken", "a"])
        .node("lost", save("lost"), &["never"])
        .node("b", make("y"), &[])
        .node("save", save("out"), &["b"])
        .graph();
    let log = world.run(&graph).log_with_texts();
    assert!(log.contains(&"fail broken: it was to fail: no (1)".into()), "{log:?}");
    assert!(log.contains(&"start b (0)".into()), "{log:?}");
}

#[test]
fn the_store_keeps_what_it_has_room_for() {
    let world = World::new();
    let graph = Sketch::default().node("a", make("x"), &[]).node("save", save("out"), &["a"]).graph();
    world.run(&graph);
    assert_eq!(world.texts_alive(), 1);
}

#[test]
fn a_plan_holds_the_results_it_builds_on() {
    let world = World::new().with_store(1000);
    let graph = |id| Sketch::default().node("a", make("x"), &[]).node("sink", Sink { id }, &["a"]).graph();
    world.run(&graph(1));
    let second = graph(2);
    let plan = world.plan(&second).unwrap();
    // Evicts `a` from the store between plan and run.
    world.run(&Sketch::default().node("b", make(&"y".repeat(700)), &[]).node("sink", Sink { id: 3 }, &["b"]).graph());
    let run = world.execute(&second, plan);
    assert_eq!(run.cached(), ["a"]);
    assert_eq!(run.ran(), ["sink"]);
    assert!(run.summary.succeeded());
}

#[test]
fn depth_costs_no_stack_and_only_linear_time() {
    let chain = |length: usize| {
        let mut sketch = Sketch::default().node("0", make("x"), &[]);
        for i in 1..length {
            sketch = sketch.linked(&i.to_string(), join(""), i - 1);
        }
        sketch.linked("sink", Sink { id: 0 }, length - 1).graph()
    };
    let world = World::new();
    let graph = chain(50_000);
    let start = Instant::now();
    let run = world.run(&graph);
    assert!(run.summary.succeeded());
    assert_eq!(run.ran().len(), 50_001);
    assert_eq!(world.run(&graph).cached(), ["sink"]);
    // Quadratic time would take minutes.
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
}
