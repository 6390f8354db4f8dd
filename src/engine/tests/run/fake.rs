//! Fake nodes, short notation for graphs of them, and a world to run them in.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use lsregen_engine::{
    Cancel, CheckContext, Context, Effect, Event, Executor, FileDigests, FileRef, Graph, GraphNode, Host, Lane, Lanes,
    Link, Node, NodeType, Payload, Plan, PlanError, RunRequest, Source, Span, Store, Summary, outputs, sockets,
};
use petgraph::graph::NodeIndex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// The value between fake nodes. Its size is that of its text. Live values are counted.
pub struct Text {
    pub text: String,
    alive: Arc<AtomicUsize>,
}

impl Text {
    fn new(cx: &Context, text: impl Into<String>) -> Arc<Text> {
        let alive = cx.service::<Alive>().unwrap().0.clone();
        alive.fetch_add(1, Ordering::SeqCst);
        Arc::new(Text { text: text.into(), alive })
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Payload for Text {
    const TYPE: &'static str = "Text";

    fn bytes(&self) -> usize {
        self.text.len()
    }
}

/// How many texts exist.
#[derive(Clone, Default)]
struct Alive(Arc<AtomicUsize>);

/// Called at each step of a [`Steps`] node.
type AtStep = Box<dyn Fn(usize) + Send + Sync>;

outputs! { pub struct One { pub text: Arc<Text> } }
outputs! { pub struct Two { pub first: Arc<Text>, pub rest: Arc<Text> } }
sockets! { pub struct Takes { pub texts: Vec<Arc<Text>> } }

impl Takes {
    fn joined(&self, by: &str) -> String {
        self.texts.iter().map(|text| text.text.as_str()).collect::<Vec<_>>().join(by)
    }
}

/// Declares a fake node.
macro_rules! fake {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty),* }, $($body:tt)*) => {
        $(#[$meta])*
        #[derive(Clone, Serialize, Deserialize, JsonSchema)]
        pub struct $name { $( $(#[$field_meta])* pub $field: $type ),* }

        impl Node for $name {
            const TYPE: &'static str = stringify!($name);
            const VERSION: u32 = 1;
            $($body)*
        }
    };
}

fake! {
    /// A text.
    Make { text: String, #[serde(skip)] weights: Option<String> },
    type Inputs = ();
    type Outputs = One;

    fn fingerprint(&self) -> Option<String> {
        self.weights.clone()
    }

    fn run(&self, _: (), cx: &Context) -> anyhow::Result<One> {
        Ok(One { text: Text::new(cx, &self.text) })
    }
}

fake! {
    /// Several texts in a row.
    Join { by: String },
    type Inputs = Takes;
    type Outputs = One;

    fn run(&self, inputs: Takes, cx: &Context) -> anyhow::Result<One> {
        Ok(One { text: Text::new(cx, inputs.joined(&self.by)) })
    }
}

fake! {
    /// Splits a text into its first letter and the rest.
    Split {},
    type Inputs = Takes;
    type Outputs = Two;

    fn run(&self, inputs: Takes, cx: &Context) -> anyhow::Result<Two> {
        let text = inputs.joined("");
        let (first, rest) = text.split_at(1);
        Ok(Two { first: Text::new(cx, first), rest: Text::new(cx, rest) })
    }
}

fake! {
    /// The text of a file beside the graph.
    Read { path: PathBuf },
    type Inputs = ();
    type Outputs = One;

    fn files(&self, cx: &CheckContext) -> Vec<FileRef> {
        vec![FileRef::new("path", cx.resolve(&self.path))]
    }

    fn run(&self, _: (), cx: &Context) -> anyhow::Result<One> {
        Ok(One { text: Text::new(cx, std::fs::read_to_string(cx.resolve(&self.path))?) })
    }
}

fake! {
    /// Writes the text to a file.
    Save { path: PathBuf },
    const OUTPUT: bool = true;
    type Inputs = Takes;
    type Outputs = ();

    fn effect(&self, _: &(), cx: &Context) -> Effect {
        if cx.output_path(&self.path).exists() { Effect::Intact } else { Effect::Gone }
    }

    fn run(&self, inputs: Takes, cx: &Context) -> anyhow::Result<()> {
        Ok(std::fs::write(cx.output_path(&self.path), inputs.joined(""))?)
    }
}

fake! {
    /// An output node that takes any inputs.
    Sink { id: u32 },
    const OUTPUT: bool = true;
    type Inputs = Takes;
    type Outputs = ();

    fn run(&self, _: Takes, _: &Context) -> anyhow::Result<()> {
        Ok(())
    }
}

fake! {
    /// Reports its steps to the world.
    Steps { of: usize },
    type Inputs = Takes;
    type Outputs = One;

    fn run(&self, inputs: Takes, cx: &Context) -> anyhow::Result<One> {
        for done in 1..=self.of {
            (cx.service::<AtStep>()?)(done);
            cx.step(done, self.of).map_err(|error| anyhow::Error::new(error).context("while it was at work"))?;
        }
        Ok(One { text: Text::new(cx, inputs.joined("")) })
    }
}

fake! {
    /// Calls the world from the CPU lane.
    OnCpu { id: usize },
    type Inputs = Takes;
    type Outputs = One;

    fn run(&self, inputs: Takes, cx: &Context) -> anyhow::Result<One> {
        (cx.service::<AtStep>()?)(self.id);
        Ok(One { text: Text::new(cx, inputs.joined("")) })
    }
}

fake! {
    /// Calls the world from the device lane.
    OnDevice { id: usize },
    const LANE: Lane = Lane::Device;
    type Inputs = Takes;
    type Outputs = One;

    fn run(&self, inputs: Takes, cx: &Context) -> anyhow::Result<One> {
        (cx.service::<AtStep>()?)(self.id);
        Ok(One { text: Text::new(cx, inputs.joined("")) })
    }
}

fake! {
    /// Runs until it is cancelled. Calls the world when it starts (0) and before it stops (1).
    UntilCancelled {},
    type Inputs = Takes;
    type Outputs = One;

    fn run(&self, inputs: Takes, cx: &Context) -> anyhow::Result<One> {
        let world = cx.service::<AtStep>()?;
        world(0);
        for _ in 0..400 {
            if let Err(cancelled) = cx.cancel().check() {
                world(1);
                return Err(cancelled.into());
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Ok(One { text: Text::new(cx, inputs.joined("")) })
    }
}

fake! {
    /// Writes its input to a file, and can restore the file from its output.
    Note { path: PathBuf },
    const OUTPUT: bool = true;
    type Inputs = Takes;
    type Outputs = One;

    fn effect(&self, outputs: &One, cx: &Context) -> Effect {
        let stands = std::fs::read_to_string(cx.output_path(&self.path)).is_ok_and(|text| text == outputs.text.text);
        if stands { Effect::Intact } else { Effect::Restorable }
    }

    fn restore(&self, outputs: &One, cx: &Context) -> anyhow::Result<()> {
        Ok(std::fs::write(cx.output_path(&self.path), &outputs.text.text)?)
    }

    fn run(&self, inputs: Takes, cx: &Context) -> anyhow::Result<One> {
        let text = Text::new(cx, inputs.joined(""));
        std::fs::write(cx.output_path(&self.path), &text.text)?;
        Ok(One { text })
    }
}

fake! {
    /// Fails.
    Fail { error: String },
    type Inputs = Takes;
    type Outputs = One;

    fn run(&self, _: Takes, _: &Context) -> anyhow::Result<One> {
        Err(anyhow::anyhow!("{}", self.error).context("it was to fail"))
    }
}

fake! {
    /// Panics in the given method.
    Panic { place: String },
    const OUTPUT: bool = true;
    type Inputs = Takes;
    type Outputs = One;

    fn files(&self, _: &CheckContext) -> Vec<FileRef> {
        assert_ne!(self.place, "files");
        vec![]
    }

    fn effect(&self, _: &One, _: &Context) -> Effect {
        panic!("no leg to stand on")
    }

    fn run(&self, inputs: Takes, cx: &Context) -> anyhow::Result<One> {
        assert_ne!(self.place, "run", "out of paint");
        Ok(One { text: Text::new(cx, inputs.joined("")) })
    }
}

pub fn make(text: &str) -> Make {
    Make { text: text.into(), weights: None }
}

pub fn join(by: &str) -> Join {
    Join { by: by.into() }
}

pub fn save(path: &str) -> Save {
    Save { path: path.into() }
}

/// Builds a graph.
#[derive(Default)]
pub struct Sketch {
    nodes: Vec<GraphNode>,
}

impl Sketch {
    /// Adds a node. `links` are names of earlier nodes, with `.1` for the second output.
    pub fn node<N: Node>(self, name: &str, node: N, links: &[&str]) -> Sketch {
        self.typed(name, NodeType::of::<N>(), node, links)
    }

    /// Adds a node whose type does not match it.
    pub fn typed<N: Node>(self, name: &str, node_type: NodeType, node: N, links: &[&str]) -> Sketch {
        let links = links.iter().map(|link| {
            let (name, output) = link.split_once('.').unwrap_or((link, "0"));
            let producer = self.nodes.iter().position(|node| &*node.name == name).unwrap();
            Link { producer: NodeIndex::new(producer), output: output.parse().unwrap() }
        });
        let links = links.collect();
        self.push(name, node_type, node, links)
    }

    /// Adds a node that is linked to the first output of the node with this index.
    pub fn linked<N: Node>(self, name: &str, node: N, producer: usize) -> Sketch {
        self.push(name, NodeType::of::<N>(), node, vec![Link { producer: NodeIndex::new(producer), output: 0 }])
    }

    fn push<N: Node>(mut self, name: &str, node_type: NodeType, node: N, links: Vec<Link>) -> Sketch {
        let inputs = node_type.inputs.iter().map(|_| links.clone()).collect();
        self.nodes.push(GraphNode {
            name: name.into(),
            span: Span::default(),
            node_type,
            node: Arc::new(node),
            folder: None,
            inputs,
        });
        self
    }

    pub fn graph(self) -> Arc<Graph> {
        Arc::new(Graph::assemble(Source::new("sketch", ""), self.nodes).unwrap())
    }
}

/// Everything that a run needs besides its graph.
pub struct World {
    pub folder: TempDir,
    pub host: Arc<Host>,
    pub store: Arc<Store>,
    pub digests: FileDigests,
    pub cancel: Cancel,
    pub fail_fast: bool,
    alive: Alive,
}

impl World {
    pub fn new() -> World {
        World::at_steps(|_, _| {})
    }

    /// Calls `at_step` at each step of a [`Steps`] node, with the cancellation of the run.
    pub fn at_steps(at_step: impl Fn(usize, &Cancel) + Send + Sync + 'static) -> World {
        let folder = tempfile::tempdir().unwrap();
        let cancel = Cancel::new();
        let alive = Alive::default();
        let at_step: AtStep = Box::new({
            let cancel = cancel.clone();
            move |step| at_step(step, &cancel)
        });
        let host = Host::new(folder.path(), folder.path()).with_service(alive.clone()).with_service(at_step);
        World {
            host: Arc::new(host),
            store: Arc::new(Store::in_memory(1 << 30)),
            digests: FileDigests::new(),
            cancel,
            fail_fast: false,
            alive,
            folder,
        }
    }

    pub fn with_store(self, limit: usize) -> World {
        World { store: Arc::new(Store::in_memory(limit)), ..self }
    }

    /// The same world with another fingerprint.
    pub fn with_fingerprint(self, fingerprint: &str) -> World {
        let host = Host::new(self.folder.path(), self.folder.path()).with_service(self.alive.clone());
        World { host: Arc::new(host.with_fingerprint(fingerprint)), ..self }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn plan(&self, graph: &Graph) -> Result<Plan, Vec<PlanError>> {
        Plan::new(graph, &self.host, &self.store, &self.digests)
    }

    /// Plans and runs a graph.
    pub fn run(&self, graph: &Arc<Graph>) -> Run {
        self.execute(graph, self.plan(graph).unwrap())
    }

    pub fn execute(&self, graph: &Arc<Graph>, plan: Plan) -> Run {
        let (request, log) = self.request(graph, plan);
        let executor = Executor::new(Lanes::NARROW, self.store.clone());
        let summary = runtime().block_on(async { executor.start(request).finished().await });
        Run::new(summary, &log)
    }

    /// A run request, and the log of its events.
    pub fn request(&self, graph: &Arc<Graph>, plan: Plan) -> (RunRequest, Log) {
        let log = Log::default();
        let subscriber = Arc::new({
            let (log, alive) = (log.clone(), self.alive.clone());
            move |event: &Event| log.lock().unwrap().push((event.clone(), alive.0.load(Ordering::SeqCst)))
        });
        let (graph, host, cancel) = (graph.clone(), self.host.clone(), self.cancel.clone());
        (RunRequest { graph, plan, host, subscriber, cancel, fail_fast: self.fail_fast }, log)
    }

    /// How many texts exist, in the store or elsewhere.
    pub fn texts_alive(&self) -> usize {
        self.alive.0.load(Ordering::SeqCst)
    }
}

/// Events, and how many texts existed at each.
pub type Log = Arc<Mutex<Vec<(Event, usize)>>>;

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// The summary and the events of a run.
#[derive(Debug)]
pub struct Run {
    log: Vec<(Event, usize)>,
    pub summary: Summary,
}

impl Run {
    pub fn new(summary: Summary, log: &Log) -> Run {
        Run { log: std::mem::take(&mut *log.lock().unwrap()), summary }
    }

    /// The events, one on each line, without times and keys.
    pub fn log(&self) -> Vec<String> {
        self.log.iter().map(|(event, _)| line(event)).collect()
    }

    /// The events, and how many texts existed at each.
    pub fn log_with_texts(&self) -> Vec<String> {
        self.log.iter().map(|(event, texts)| format!("{} ({texts})", line(event))).collect()
    }

    /// The nodes that ran, by name.
    pub fn ran(&self) -> Vec<String> {
        self.named("start ")
    }

    /// The nodes whose results were cached.
    pub fn cached(&self) -> Vec<String> {
        self.named("hit ")
    }

    fn named(&self, verb: &str) -> Vec<String> {
        self.log().iter().filter_map(|line| line.strip_prefix(verb)).map(str::to_string).collect()
    }
}

fn line(event: &Event) -> String {
    match event {
        Event::PlanMade { run, cached, shared, skipped } => {
            format!("plan: {run} run, {cached} cached, {shared} shared, {skipped} skipped")
        }
        Event::Cached { node, .. } => format!("hit {node}"),
        Event::Restored { node, .. } => format!("restore {node}"),
        Event::Joined { node, .. } => format!("join {node}"),
        Event::Preview { node, done, of, .. } => format!("preview {node} {done}/{of}"),
        Event::NodeStarted { node, .. } => format!("start {node}"),
        Event::Step { node, done, of, .. } => format!("step {node} {done}/{of}"),
        Event::Saved { node, path, new } => format!("saved {node}: {} ({new})", path.display()),
        Event::Note { node, text } => format!("note {node}: {text}"),
        Event::NodeFinished { node, bytes, .. } => format!("finish {node}: {bytes} bytes"),
        Event::Shared { node, with } => format!("share {node} with {with}"),
        Event::Failed { node, error } => format!("fail {node}: {error}"),
        Event::Blocked { node, because } => format!("skip {node} because of {because}"),
        Event::Cancelled { node } => format!("cancel {node}"),
        Event::RunFinished { succeeded: true, .. } => "done".into(),
        Event::RunFinished { succeeded: false, .. } => "not done".into(),
    }
}
