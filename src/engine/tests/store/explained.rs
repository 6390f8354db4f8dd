//! Why a result is not known, told by the ingredient that changed.

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

/// Writes a text after what it gets.
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

/// A graph of pens, each with the numbers of those before it.
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

/// As a process would run it.
fn run(world: &World, graph: &Arc<Graph>) {
    let (host, store) =
        (host(world, "cpu"), Arc::new(Store::new(lsregen_engine::MemoryStore::new(0), Some(world.store()))));
    let plan = Plan::new(graph, &host, &store, &FileDigests::new()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let silent = Arc::new(|_: &lsregen_engine::Event| {});
    let executor = Executor::new(Lanes::NARROW, store);
    let (graph, cancel) = (graph.clone(), Cancel::new());
    let order = RunRequest { graph, plan, host, subscriber: silent, cancel, fail_fast: false };
    let summary = runtime.block_on(async { executor.start(order).finished().await });
    assert!(summary.succeeded());
}

/// What is told of the last node, without keys and times.
fn told(world: &World, graph: &Graph, fingerprint: &str) -> String {
    let plan = Plan::new(graph, &host(world, fingerprint), &Store::in_memory(0), &FileDigests::new()).unwrap();
    let last = *graph.order().last().unwrap();
    let text = Explanation::new(graph, &plan, last, &world.store()).unwrap().describe(graph);
    let (first, rest) = text.split_once('\n').unwrap();
    let (_, state) = first.split_once(": ").unwrap();
    let lines = rest.lines().filter(|line| !line.starts_with("nearest is"));
    [state].into_iter().chain(lines).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_is_known_and_what_is_not() {
    let world = World::new();
    let one = graph(&[("a", pen("x"), &[])]);
    assert_eq!(told(&world, &one, "cpu"), "no result is known, nor any of a Pen");
    run(&world, &one);
    assert_eq!(told(&world, &one, "cpu"), "its result is known");
    let unkept = graph(&[("a", pen("not to be kept"), &[])]);
    run(&world, &unkept);
    assert!(told(&world, &unkept, "cpu").ends_with("it has no form there, or is larger than the cache"));
}

#[test]
fn each_ingredient_is_named() {
    let world = World::new();
    std::fs::create_dir_all(world.root()).unwrap();
    std::fs::write(world.root().join("in"), "one").unwrap();
    let pen = Pen { file: Some("in".into()), ink: Some("blue".into()), ..pen("x") };
    let one = |pen: Pen| graph(&[("a", pen, &[])]);
    run(&world, &one(pen.clone()));
    let other = Pen { text: "y".into(), sizes: vec![1, 3], ..pen.clone() };
    assert_eq!(
        told(&world, &one(other), "cpu"),
        "no result is known\n  `sizes[1]` was 2, is 3\n  `text` was \"x\", is \"y\""
    );
    let other = Pen { sizes: vec![], ..pen.clone() };
    assert_eq!(told(&world, &one(other), "cpu"), "no result is known\n  `sizes` was [1,2], is []");
    let other = Pen { ink: Some("red".into()), ..pen.clone() };
    assert!(told(&world, &one(other), "cpu").ends_with("what the node itself brings, such as built-in weights"));
    assert!(told(&world, &one(pen.clone()), "cuda").ends_with("where it is computed: was cpu; is cuda"));
    let newer = typed(&[("a", pen.clone(), &[])], NodeType { version: 2, ..NodeType::of::<Pen>() });
    assert!(told(&world, &newer, "cpu").ends_with("the version of the node type was 1, is 2"));
    std::fs::write(world.root().join("in"), "two").unwrap();
    assert!(told(&world, &one(pen), "cpu").ends_with("the content of the file that `file` names"));
}

#[test]
fn the_nearest_is_the_one_with_least_to_tell() {
    let world = World::new();
    for (text, sizes) in [("far", vec![7]), ("near", vec![1, 2]), ("far too", vec![8])] {
        run(&world, &graph(&[("a", Pen { sizes, ..pen(text) }, &[])]));
    }
    let text = told(&world, &graph(&[("a", pen("new"), &[])]), "cpu");
    assert_eq!(text, "no result is known\n  `text` was \"near\", is \"new\"");
}

#[test]
fn a_changed_input_is_followed_to_its_cause() {
    let world = World::new();
    let chain = |first: Pen| {
        graph(&[("a", first, &[]), ("b", pen("b"), &[0]), ("c", pen("c"), &[0, 1]), ("d", pen("d"), &[2, 1])])
    };
    run(&world, &chain(pen("x")));
    let expected = "no result is known
  `notes[0]`, by c (Pen):
    `notes[0]`, by a (Pen):
      `text` was \"x\", is \"y\"
    `notes[1]`, by b (Pen):
      `notes`, by a (Pen): see above
  `notes[1]`, by b (Pen): see above";
    assert_eq!(told(&world, &chain(pen("y")), "cpu"), expected);
    // Names are no ingredient; order and number of links are.
    let renamed = graph(&[("p", pen("x"), &[]), ("q", pen("b"), &[0])]);
    assert_eq!(told(&world, &renamed, "cpu"), "its result is known");
    let more = graph(&[("p", pen("x"), &[]), ("q", pen("b"), &[0, 0])]);
    assert_eq!(told(&world, &more, "cpu"), "no result is known\n  `notes[1]` is linked, and was not");
}

#[test]
fn a_cause_whose_record_is_gone_is_told_as_such() {
    let world = World::new();
    run(&world, &graph(&[("a", pen("x"), &[]), ("b", pen("b"), &[0])]));
    let after = graph(&[("a", pen("y"), &[]), ("b", pen("b"), &[0])]);
    let before = graph(&[("a", pen("x"), &[])]);
    let plan = Plan::new(&before, &host(&world, "cpu"), &Store::in_memory(0), &FileDigests::new()).unwrap();
    let key = plan.steps()[0].key.to_string();
    std::fs::remove_file(world.folder("entries").join(&key[..2]).join(format!("{key}.json"))).unwrap();
    let text = told(&world, &after, "cpu");
    assert_eq!(text, "no result is known\n  `notes`, by a (Pen): what it was is no longer on record");
}

#[test]
fn a_long_way_to_the_cause_is_cut_short() {
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
    let text = told(&world, &chain("y"), "cpu");
    assert!(text.ends_with("the cause lies further up; explain that node"), "{text}");
}
