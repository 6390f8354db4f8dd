//! Cached nodes do not run again; nodes that depend on an edit do.

use lsregen_engine::{Action, NodeType};

use crate::fake::*;

/// Joins `a` and `b`, and saves the result.
fn joined(a: &str, b: &str, by: &str) -> Sketch {
    Sketch::default().node("a", make(a), &[]).node("b", make(b), &[]).node("ab", join(by), &["a", "b"]).node(
        "save",
        save("ab"),
        &["ab"],
    )
}

#[test]
fn a_second_run_executes_nothing() {
    let world = World::new();
    let graph = joined("x", "y", "-").graph();
    assert_eq!(world.run(&graph).ran(), ["a", "b", "ab", "save"]);
    let again = world.run(&graph);
    assert_eq!(again.log(), ["plan: 0 run, 1 cached, 0 shared, 3 skipped", "hit save", "done"]);
    assert!(again.summary.succeeded());
}

#[test]
fn an_edited_parameter_runs_only_the_nodes_that_depend_on_it() {
    let world = World::new();
    world.run(&joined("x", "y", "-").graph());
    let run = world.run(&joined("x", "z", "-").graph());
    assert_eq!(run.ran(), ["b", "ab", "save"]);
    assert_eq!(run.cached(), ["a"]);
    assert_eq!(world.read("ab"), "x-z");
    let run = world.run(&joined("x", "z", "+").graph());
    assert_eq!(run.ran(), ["ab", "save"]);
    assert_eq!(run.cached(), ["a", "b"]);
    // Back to the first value: cached.
    assert_eq!(world.run(&joined("x", "z", "-").graph()).ran(), [""; 0]);
}

#[test]
fn names_and_order_of_the_document_do_not_matter() {
    let world = World::new();
    world.run(&joined("x", "y", "-").graph());
    let renamed = Sketch::default()
        .node("two", make("y"), &[])
        .node("one", make("x"), &[])
        .node("both", join("-"), &["one", "two"])
        .node("keep", save("ab"), &["both"]);
    assert_eq!(world.run(&renamed.graph()).cached(), ["keep"]);
}

#[test]
fn the_order_of_links_matters() {
    let world = World::new();
    world.run(&joined("x", "y", "-").graph());
    let swapped = Sketch::default()
        .node("a", make("x"), &[])
        .node("b", make("y"), &[])
        .node("ab", join("-"), &["b", "a"])
        .node("save", save("ab"), &["ab"]);
    assert_eq!(world.run(&swapped.graph()).ran(), ["ab", "save"]);
    assert_eq!(world.read("ab"), "y-x");
}

#[test]
fn equal_keys_run_once() {
    let world = World::new();
    let graph = Sketch::default()
        .node("a", make("x"), &[])
        .node("b", make("x"), &[])
        .node("aa", join("-"), &["a", "a"])
        .node("ab", join("-"), &["a", "b"])
        .node("first", save("first"), &["aa"])
        .node("second", save("second"), &["ab"])
        .graph();
    let run = world.run(&graph);
    assert_eq!(run.ran(), ["a", "aa", "first", "second"]);
    assert_eq!(run.log()[0], "plan: 4 run, 0 cached, 2 shared, 0 skipped");
    assert!(run.log().contains(&"share b with a".to_string()));
    assert!(run.log().contains(&"share ab with aa".to_string()));
    assert_eq!(world.read("second"), "x-x");
}

#[test]
fn two_outputs_of_a_node_have_different_keys() {
    let world = World::new();
    let graph = |output: &str| {
        Sketch::default()
            .node("word", make("word"), &[])
            .node("split", Split {}, &["word"])
            .node("save", save("part"), &[output])
            .graph()
    };
    world.run(&graph("split.0"));
    assert_eq!(world.read("part"), "w");
    assert_eq!(world.run(&graph("split.1")).ran(), ["save"]);
    assert_eq!(world.read("part"), "ord");
}

#[test]
fn a_file_counts_by_its_content() {
    let world = World::new();
    world.write("in", "one");
    let graph =
        Sketch::default().node("read", Read { path: "in".into() }, &[]).node("save", save("out"), &["read"]).graph();
    world.run(&graph);
    world.write("in", "one");
    assert_eq!(world.run(&graph).ran(), [""; 0], "touched, not changed");
    world.write("in", "two");
    assert_eq!(world.run(&graph).ran(), ["read", "save"]);
    assert_eq!(world.read("out"), "two");
}

#[test]
fn a_file_that_cannot_be_read_stops_the_plan() {
    let world = World::new();
    let graph = Sketch::default()
        .node("one", Read { path: "missing".into() }, &[])
        .node("two", Read { path: ".".into() }, &[])
        .node("save", save("out"), &["one", "two"])
        .graph();
    let errors = world.plan(&graph).err().unwrap();
    let text: Vec<_> = errors.iter().map(|error| error.to_string()).collect();
    assert_eq!(text.len(), 2, "{text:?}");
    assert!(text[0].starts_with("node `one`: cannot read `") && text[0].contains("missing`: "), "{}", text[0]);
    assert!(text[1].starts_with("node `two`: ") && text[1].ends_with("it is not a file"), "{}", text[1]);
    assert_eq!(errors[0].cause.path, "path");
}

#[test]
fn a_file_that_changes_after_the_plan_spoils_the_result() {
    let world = World::new();
    world.write("in", "one");
    let graph =
        Sketch::default().node("read", Read { path: "in".into() }, &[]).node("save", save("out"), &["read"]).graph();
    let plan = world.plan(&graph).unwrap();
    world.write("in", "two");
    let run = world.execute(&graph, plan);
    assert!(run.log()[2].ends_with("in` changed after the run was planned; run again"), "{}", run.log()[2]);
    // The result of the new content does not get the key of the old content.
    world.write("in", "one");
    assert_eq!(world.run(&graph).ran(), ["read", "save"]);
    assert_eq!(world.read("out"), "one");
}

#[test]
fn the_fingerprint_of_the_host_changes_everything() {
    let world = World::new();
    let graph = joined("x", "y", "-").graph();
    world.run(&graph);
    let world = world.with_fingerprint("cuda f16");
    assert_eq!(world.run(&graph).ran(), ["a", "b", "ab", "save"]);
}

#[test]
fn the_fingerprint_of_a_node_changes_the_keys_that_depend_on_it() {
    let world = World::new();
    let graph = |weights: &str| {
        Sketch::default()
            .node("model", Make { weights: Some(weights.into()), ..make("m") }, &[])
            .node("other", make("o"), &[])
            .node("save", save("out"), &["model", "other"])
            .graph()
    };
    world.run(&graph("first"));
    assert_eq!(world.run(&graph("second")).ran(), ["model", "save"]);
}

#[test]
fn a_new_version_of_a_node_type_runs_again() {
    let world = World::new();
    let graph = |version| {
        let node_type = NodeType { version, ..NodeType::of::<Join>() };
        Sketch::default()
            .node("a", make("x"), &[])
            .typed("join", node_type, join(""), &["a"])
            .node("save", save("out"), &["join"])
            .graph()
    };
    world.run(&graph(1));
    assert_eq!(world.run(&graph(2)).ran(), ["join", "save"]);
}

#[test]
fn a_deleted_output_is_written_again_from_cached_results() {
    let world = World::new();
    let graph = joined("x", "y", "-").graph();
    world.run(&graph);
    std::fs::remove_file(world.path("ab")).unwrap();
    let run = world.run(&graph);
    assert_eq!(run.ran(), ["save"]);
    assert_eq!(run.cached(), ["ab"]);
    assert_eq!(world.read("ab"), "x-y");
}

#[test]
fn a_deleted_output_is_computed_again_without_cached_results() {
    let graph = joined("x", "y", &"-".repeat(10_000)).graph();
    // Enough room for the short texts, but not for the joined one.
    let world = World::new().with_store(5000);
    world.run(&graph);
    assert_eq!(world.run(&graph).ran(), [""; 0]);
    std::fs::remove_file(world.path("ab")).unwrap();
    let run = world.run(&graph);
    assert_eq!(run.ran(), ["ab", "save"]);
    assert_eq!(run.cached(), ["a", "b"]);
}

#[test]
fn only_nodes_that_outputs_need_run() {
    let world = World::new();
    let graph = joined("x", "y", "-").node("idle", make("z"), &[]).node("idler", join(""), &["idle", "ab"]).graph();
    let run = world.run(&graph);
    assert_eq!(run.ran(), ["a", "b", "ab", "save"]);
    assert_eq!(run.log()[0], "plan: 4 run, 0 cached, 0 shared, 2 skipped");
}

#[test]
fn a_node_of_an_unneeded_ones_key_runs_itself() {
    let world = World::new();
    let graph = Sketch::default()
        .node("unneeded", make("x"), &[])
        .node("needed", make("x"), &[])
        .node("save", save("out"), &["needed"])
        .graph();
    assert_eq!(world.run(&graph).ran(), ["needed", "save"]);
}

#[test]
fn a_plan_says_why() {
    let world = World::new();
    world.run(&joined("x", "y", "-").graph());
    std::fs::remove_file(world.path("ab")).unwrap();
    let graph = joined("x", "y", "-")
        .node("idle", make("idle"), &[])
        .node("new", make("new"), &[])
        .node("copy", make("new"), &[])
        .node("sink", Sink { id: 1 }, &["new", "copy"])
        .graph();
    let plan = world.plan(&graph).unwrap();
    let lines = plan.steps().iter().map(|step| format!("{}: {}", graph.node(step.node).name, step.describe(&graph)));
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
    assert!(matches!(plan.steps()[2].action, Action::Cached { .. }));
}
