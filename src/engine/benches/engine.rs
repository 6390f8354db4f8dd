//! The cost of the engine for each node, with nodes that do nothing: to check, plan and run it, and to find it cached.
//!
//! `cargo bench -p lsregen-engine --bench engine`; the throughput is in nodes. The cost is linear if 100,000 nodes have the
//! throughput of 10,000, except for the effect of the processor's caches.

use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lsregen_engine::{
    Cancel, Context, Event, Executor, FileDigests, Graph, GraphNode, Host, Lanes, Link, Node, NodeType, Payload, Plan,
    Registry, RunRequest, Source, Span, Store, Subscriber, check, outputs, render, sockets,
};
use petgraph::graph::NodeIndex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

struct Nothing;

impl Payload for Nothing {
    const TYPE: &'static str = "Nothing";

    fn bytes(&self) -> usize {
        0
    }
}

outputs! { pub struct Gives { pub nothing: Arc<Nothing> } }
sockets! { pub struct Takes { pub nothings: Vec<Arc<Nothing>> } }

/// A node with some parameters.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Work {
    id: usize,
    prompt: String,
    strength: f64,
}

impl Node for Work {
    const TYPE: &'static str = "Work";
    const VERSION: u32 = 1;
    type Inputs = Takes;
    type Outputs = Gives;

    fn run(&self, _: Takes, _: &Context) -> anyhow::Result<Gives> {
        Ok(Gives { nothing: Arc::new(Nothing) })
    }
}

/// The output node.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Sink {}

impl Node for Sink {
    const TYPE: &'static str = "Sink";
    const VERSION: u32 = 1;
    const OUTPUT: bool = true;
    type Inputs = Takes;
    type Outputs = ();

    fn run(&self, _: Takes, _: &Context) -> anyhow::Result<()> {
        Ok(())
    }
}

/// The nodes to which the node `id` is linked. Their ids are lower.
type Producers = Box<dyn FnMut(usize) -> Vec<usize>>;

/// A graph of `nodes` nodes, and a sink for the outputs that no other node reads.
fn graph(nodes: usize, mut producers: Producers) -> Arc<Graph> {
    let node = |name: String, node_type, node, producers: &[usize]| GraphNode {
        name: name.into(),
        span: Span::default(),
        node_type,
        node,
        folder: None,
        inputs: vec![producers.iter().map(|&i| Link { producer: NodeIndex::new(i), output: 0 }).collect()],
    };
    let mut taken = vec![false; nodes];
    let mut list = vec![];
    for id in 0..nodes {
        let producers = producers(id);
        producers.iter().for_each(|&producer| taken[producer] = true);
        let work = Work { id, prompt: "a red circle and a blue square on sand".into(), strength: 0.5 };
        list.push(node(format!("n{id}"), NodeType::of::<Work>(), Arc::new(work), &producers));
    }
    let ends: Vec<_> = (0..nodes).filter(|&id| !taken[id]).collect();
    list.push(node("sink".into(), NodeType::of::<Sink>(), Arc::new(Sink {}), &ends));
    Arc::new(Graph::assemble(Source::new("bench", ""), list).unwrap_or_else(|_| unreachable!("links lead back")))
}

/// The same graph as a workflow file.
fn text(nodes: usize, mut producers: Producers) -> String {
    let mut taken = vec![false; nodes];
    let links = |producers: &[usize]| producers.iter().map(|id| format!("n{id}")).collect::<Vec<_>>().join(", ");
    let mut text = "lsregen: 1\nnodes:\n".to_string();
    for id in 0..nodes {
        let producers = producers(id);
        producers.iter().for_each(|&producer| taken[producer] = true);
        let links = links(&producers);
        text += &format!("  n{id}: {{ type: Work, nothings: [{links}], id: {id}, prompt: a circle, strength: 0.5 }}\n");
    }
    let ends: Vec<_> = (0..nodes).filter(|&id| !taken[id]).collect();
    text + &format!("  sink: {{ type: Sink, nothings: [{}] }}\n", links(&ends))
}

fn chain() -> Producers {
    Box::new(|id| id.checked_sub(1).into_iter().collect())
}

fn fan() -> Producers {
    Box::new(|id| if id == 0 { vec![] } else { vec![0] })
}

fn random() -> Producers {
    let mut state = 7_u64;
    let mut draw = move |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    Box::new(move |id| if id == 0 { vec![] } else { (0..1 + draw(3)).map(|_| draw(id)).collect() })
}

fn engine(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let host = Arc::new(Host::new(".", "."));
    let digests = FileDigests::new();
    let fresh = || Arc::new(Store::in_memory(1 << 30));
    let silent: Arc<dyn Subscriber> = Arc::new(|_: &Event| {});
    let plan = |graph: &Graph, store: &Store| {
        Plan::new(graph, &host, store, &digests).unwrap_or_else(|errors| panic!("{errors:?}"))
    };
    let run = |graph: &Arc<Graph>, plan: Plan, store: &Arc<Store>| {
        let executor = Executor::new(Lanes::of_this_machine(), store.clone());
        let (host, subscriber) = (host.clone(), silent.clone());
        let order =
            RunRequest { graph: graph.clone(), plan, host, subscriber, cancel: Cancel::new(), fail_fast: false };
        let summary = runtime.block_on(async { executor.start(order).finished().await });
        assert!(summary.succeeded());
        summary
    };
    let registry = Registry::new(&[NodeType::of::<Work>(), NodeType::of::<Sink>()]);
    for (name, producers) in [("chain", chain as fn() -> Producers), ("fan", fan), ("random", random)] {
        // A file of at most 1 MiB cannot have more.
        for nodes in [1_000, 10_000] {
            let source = Source::new("bench.yaml", text(nodes, producers()));
            let mut group = c.benchmark_group(name);
            group.sample_size(10).throughput(Throughput::Elements(nodes as u64));
            group.bench_function(BenchmarkId::new("check", nodes), |b| {
                b.iter(|| {
                    let checked = check(source.clone(), &[], &registry, &host);
                    assert!(checked.graph.is_some(), "{}", render(&checked.diagnostics, false));
                    checked
                })
            });
        }
        for nodes in [10_000, 100_000] {
            let graph = graph(nodes, producers());
            let known = fresh();
            run(&graph, plan(&graph, &known), &known);
            let id = |what: &str| BenchmarkId::new(what, nodes);
            let mut group = c.benchmark_group(name);
            group.sample_size(10).throughput(Throughput::Elements(nodes as u64));
            group.bench_function(id("plan"), |b| {
                b.iter_batched(fresh, |store| plan(&graph, &store), BatchSize::PerIteration)
            });
            group.bench_function(id("run"), |b| {
                let setup = || {
                    let store = fresh();
                    (plan(&graph, &store), store)
                };
                b.iter_batched(setup, |(plan, store)| run(&graph, plan, &store), BatchSize::PerIteration)
            });
            group.bench_function(id("plan and run, all cached"), |b| {
                b.iter(|| run(&graph, plan(&graph, &known), &known))
            });
        }
    }
}

criterion_group!(benches, engine);
criterion_main!(benches);
