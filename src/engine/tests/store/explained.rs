//! Explains why a result is not cached by the part of the key that changed.

use std::sync::Arc;

use lsregen_engine::{
    Cancel, CheckContext, Context, Executor, Explanation, FileDigests, FileRef, Graph, GraphNode, Host, Lanes, Link,
    Node, NodeIndex, NodeType, Plan, RunRequest, Source, Span, Store, outputs, sockets,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::world::*;

outputs! { pub struct OneNote { pub note: Arc<Note> } }
sockets! { pub struct Takes { pub notes: Vec<Arc<Note>> } }

/// Appends a text to its inputs.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Pen {
    text: String,
    sizes: Vec<u32>,
    #[serde(skip)]
    file: Option<String>,
    #[serde(skip)]
    ink: Option<String>,
}

impl Node for Pen {
    const TYPE: &'static str = "Pen";
    const VERSION: u32 = 1;
    const OUTPUT: bool = true;
    type Inputs = Takes;
    type Outputs = OneNote;

    fn files(&self, cx: &CheckContext) -> Vec<FileRef> {
        self.file.iter().map(|file| FileRef::new("file", cx.resolve(file.as_ref()))).collect()
    }

    fn fingerprint(&self) -> Option<String> {
        self.ink.clone()
    }

    fn run(&self, inputs: Takes, _: &Context) -> anyhow::Result<OneNote> {
        let before: String = inputs.notes.iter().map(|note| note.0.as_str()).collect();
        Ok(OneNote { note: Arc::new(Note(before + &self.text)) })
    }
}

fn pen(text: &str) -> Pen {
    Pen { text: text.into(), sizes: vec![1, 2], file: None, ink: None }
}

/// A graph of pens, each with the indices of the pens that it is linked to.
fn graph(pens: &[(&str, Pen, &[usize])]) -> Arc<Graph> {
    typed(pens, NodeType::of::<Pen>())
}

fn typed(pens: &[(&str, Pen, &[usize])], node_type: NodeType) -> Arc<Graph> {
    let node = |(name, pen, before): &(&str, Pen, &[usize])| GraphNode {
        name: (*name).into(),
        span: Span::default(),
        node_type,
        node: Arc::new(pen.clone()),
        folder: None,
        inputs: vec![before.iter().map(|i| Link { producer: NodeIndex::new(*i), output: 0 }).collect()],
    };
    Arc::new(Graph::assemble(Source::new("sketch", ""), pens.iter().map(node).collect()).unwrap())
}

fn host(world: &World, fingerprint: &str) -> Arc<Host> {
    std::fs::create_dir_all(world.root()).unwrap();
    Arc::new(Host::new(world.root(), world.root()).with_fingerprint(fingerprint))
}

/// Runs a graph as a new process would.
fn run(world: &World, graph: &Arc<Graph>) {
    let (host, store) =
        (host(world, "cpu"), Arc::new(Store::new(lsregen_engine::MemoryStore::new(0), Some(world.store()))));
    let plan = Plan::new(graph, &host, &store, &FileDigests::new()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let silent = Arc::new(|_: &lsregen_engine::Event| {});
    let executor = Executor::new(Lanes::NARROW, store);
    let (graph, cancel) = (graph.clone(), Cancel::new());
    let request = RunRequest { graph, plan, host, subscriber: silent, cancel, fail_fast: false };
    let summary = runtime.block_on(async { executor.start(request).finished().await });
    assert!(summary.succeeded());
}

/// The explanation of the last node, without keys and times.
fn explain(world: &World, graph: &Graph, fingerprint: &str) -> String {
    let plan = Plan::new(graph, &host(world, fingerprint), &Store::in_memory(0), &FileDigests::new()).unwrap();
    let last = *graph.order().last().unwrap();
    let text = Explanation::new(graph, &plan, last, &world.store()).unwrap().describe(graph);
    let (first, rest) = text.split_once('\n').unwrap();
    let (_, state) = first.split_once(": ").unwrap();
    let lines = rest.lines().filter(|line| !line.starts_with("the most similar result is"));
    [state].into_iter().chain(lines).collect::<Vec<_>>().join("\n")
}

#[test]
fn cached_and_uncached_nodes() {
    let world = World::new();
    let one = graph(&[("a", pen("x"), &[])]);
    assert_eq!(explain(&world, &one, "cpu"), "no result is cached, nor any other result of Pen");
    run(&world, &one);
    assert_eq!(explain(&world, &one, "cpu"), "its result is cached");
    let unkept = graph(&[("a", pen("not to be kept"), &[])]);
    run(&world, &unkept);
    assert!(explain(&world, &unkept, "cpu").ends_with("it has no format on disk, or is larger than the cache"));
}

#[test]
fn each_part_of_the_key_is_named() {
    let world = World::new();
    std::fs::create_dir_all(world.root()).unwrap();
    std::fs::write(world.root().join("in"), "one").unwrap();
    let pen = Pen { file: Some("in".into()), ink: Some("blue".into()), ..pen("x") };
    let one = |pen: Pen| graph(&[("a", pen, &[])]);
    run(&world, &one(pen.clone()));
    let other = Pen { text: "y".into(), sizes: vec![1, 3], ..pen.clone() };
    assert_eq!(
        explain(&world, &one(other), "cpu"),
        "no result is cached\n  `sizes[1]` was 2, is 3\n  `text` was \"x\", is \"y\""
    );
    let other = Pen { sizes: vec![], ..pen.clone() };
    assert_eq!(explain(&world, &one(other), "cpu"), "no result is cached\n  `sizes` was [1,2], is []");
    let other = Pen { ink: Some("red".into()), ..pen.clone() };
    assert!(explain(&world, &one(other), "cpu").ends_with("the node's built-in data, such as weights"));
    assert!(explain(&world, &one(pen.clone()), "cuda").ends_with("the host was cpu; is cuda"));
    let newer = typed(&[("a", pen.clone(), &[])], NodeType { version: 2, ..NodeType::of::<Pen>() });
    assert!(explain(&world, &newer, "cpu").ends_with("the version of the node type was 1, is 2"));
    std::fs::write(world.root().join("in"), "two").unwrap();
    assert!(explain(&world, &one(pen), "cpu").ends_with("the content of the file in `file`"));
}

#[test]
fn the_most_similar_result_has_the_fewest_differences() {
    let world = World::new();
    for (text, sizes) in [("far", vec![7]), ("near", vec![1, 2]), ("far too", vec![8])] {
        run(&world, &graph(&[("a", Pen { sizes, ..pen(text) }, &[])]));
    }
    let text = explain(&world, &graph(&[("a", pen("new"), &[])]), "cpu");
    assert_eq!(text, "no result is cached\n  `text` was \"near\", is \"new\"");
}

#[test]
fn a_changed_input_is_followed_to_its_cause() {
    let world = World::new();
    let chain = |first: Pen| {
        graph(&[("a", first, &[]), ("b", pen("b"), &[0]), ("c", pen("c"), &[0, 1]), ("d", pen("d"), &[2, 1])])
    };
    run(&world, &chain(pen("x")));
    let expected = "no result is cached
  `notes[0]`, from c (Pen):
    `notes[0]`, from a (Pen):
      `text` was \"x\", is \"y\"
    `notes[1]`, from b (Pen):
      `notes`, from a (Pen): see above
  `notes[1]`, from b (Pen): see above";
    assert_eq!(explain(&world, &chain(pen("y")), "cpu"), expected);
    // Names are not part of a key; the order and number of links are.
    let renamed = graph(&[("p", pen("x"), &[]), ("q", pen("b"), &[0])]);
    assert_eq!(explain(&world, &renamed, "cpu"), "its result is cached");
    let more = graph(&[("p", pen("x"), &[]), ("q", pen("b"), &[0, 0])]);
    assert_eq!(explain(&world, &more, "cpu"), "no result is cached\n  `notes[1]` is linked, but was not");
}

#[test]
fn a_cause_without_a_record_is_reported_as_such() {
    let world = World::new();
    run(&world, &graph(&[("a", pen("x"), &[]), ("b", pen("b"), &[0])]));
    let after = graph(&[("a", pen("y"), &[]), ("b", pen("b"), &[0])]);
    let before = graph(&[("a", pen("x"), &[])]);
    let plan = Plan::new(&before, &host(&world, "cpu"), &Store::in_memory(0), &FileDigests::new()).unwrap();
    let key = plan.steps()[0].key.to_string();
    std::fs::remove_file(world.folder("entries").join(&key[..2]).join(format!("{key}.json"))).unwrap();
    let text = explain(&world, &after, "cpu");
    assert_eq!(text, "no result is cached\n  `notes`, from a (Pen): there is no record of its former key");
}

#[test]
fn a_cause_that_is_too_far_up_is_not_reported() {
    let world = World::new();
    let names: Vec<_> = (0..2000).map(|i| format!("n{i}")).collect();
    let before: Vec<Vec<usize>> = (0..2000usize).map(|i| i.checked_sub(1).into_iter().collect()).collect();
    let chain = |first: &str| {
        let pens = names
            .iter()
            .zip(&before)
            .map(|(name, before)| (&**name, pen(if before.is_empty() { first } else { name }), &**before));
        graph(&pens.collect::<Vec<_>>())
    };
    run(&world, &chain("x"));
    let text = explain(&world, &chain("y"), "cpu");
    assert!(text.ends_with("the cause is further up; explain that node"), "{text}");
}
