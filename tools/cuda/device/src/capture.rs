//! Capture of streams into graphs, and launches of graphs.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock};

use crate::code::{Code, Outcome};
use crate::count::{Counted, count};
use crate::memory;
use crate::stream::{Node, StreamHandle, Work, with};

/// The number of a capture.
pub type CaptureId = usize;

/// Nodes of a graph, in the order of the host's calls. They run in that order.
#[derive(Clone, Default)]
pub struct Graph {
    nodes: Arc<Vec<Arc<Node>>>,
    /// Allocations of the graph that the graph does not free.
    left: Arc<BTreeSet<u64>>,
}

/// A capture that has begun.
pub struct Capture {
    origin: StreamHandle,
    /// CU_STREAM_CAPTURE_MODE_GLOBAL: calls that might wait are forbidden everywhere.
    global: bool,
    valid: bool,
    nodes: Vec<Arc<Node>>,
    allocated: BTreeSet<u64>,
    freed: BTreeSet<u64>,
    /// Streams with nodes that the origin does not wait for.
    unjoined: BTreeSet<StreamHandle>,
}

impl Capture {
    pub fn push(&mut self, stream: StreamHandle, node: Arc<Node>) -> Outcome {
        if !self.valid {
            return Err(Code::STREAM_CAPTURE_INVALIDATED);
        }
        self.nodes.push(node);
        if stream != self.origin {
            self.unjoined.insert(stream);
        }
        Ok(())
    }

    /// A stream waits for another one.
    pub fn join(&mut self, stream: StreamHandle, other: StreamHandle) -> Outcome {
        if !self.valid {
            return Err(Code::STREAM_CAPTURE_INVALIDATED);
        }
        self.unjoined.remove(&other);
        if stream != self.origin {
            self.unjoined.insert(stream);
        }
        Ok(())
    }

    pub fn forbids(&self) -> bool {
        self.global
    }

    pub fn invalidate(&mut self) {
        self.valid = false;
    }
}

/// Graphs, and graphs that can be launched.
#[derive(Default)]
struct Graphs {
    graphs: HashMap<usize, Graph>,
    ready: HashMap<usize, (Graph, bool)>,
}

fn graphs() -> std::sync::MutexGuard<'static, Graphs> {
    static GRAPHS: OnceLock<Mutex<Graphs>> = OnceLock::new();
    GRAPHS.get_or_init(Mutex::default).lock().unwrap_or_else(|e| e.into_inner())
}

/// Begins a capture.
pub fn begin(stream: StreamHandle, global: bool) -> Outcome {
    // The default stream cannot be captured.
    if stream.0 as usize <= 1 {
        return Err(Code::STREAM_CAPTURE_UNSUPPORTED);
    }
    with(|streams| {
        if streams.capture_of(stream)?.is_some() {
            return Err(Code::ILLEGAL_STATE);
        }
        let id = streams.handle();
        streams.set_capture(stream, Some(id))?;
        let capture = Capture {
            origin: stream,
            global,
            valid: true,
            nodes: Vec::new(),
            allocated: BTreeSet::new(),
            freed: BTreeSet::new(),
            unjoined: BTreeSet::new(),
        };
        streams.captures.insert(id, capture);
        Ok(())
    })
}

/// Ends a capture. Returns the handle of its graph.
pub fn end(stream: StreamHandle) -> Result<usize, Code> {
    let (graph, handle) = with(|streams| {
        let id = streams.capture_of(stream)?.ok_or(Code::ILLEGAL_STATE)?;
        if streams.captures.get(&id).is_some_and(|c| c.origin != stream) {
            return Err(Code::STREAM_CAPTURE_UNMATCHED);
        }
        let capture = streams.captures.remove(&id).ok_or(Code::ILLEGAL_STATE)?;
        streams.leave_capture(id);
        if !capture.valid {
            return Err(Code::STREAM_CAPTURE_INVALIDATED);
        }
        if !capture.unjoined.is_empty() {
            return Err(Code::STREAM_CAPTURE_UNJOINED);
        }
        let left = capture.allocated.difference(&capture.freed).copied().collect();
        let graph = Graph { nodes: Arc::new(capture.nodes), left: Arc::new(left) };
        Ok((graph, streams.handle()))
    })?;
    graphs().graphs.insert(handle, graph);
    Ok(handle)
}

/// Returns 0 of a stream that does not capture, 1 of one that does, 2 of one whose capture failed, and its number.
pub fn status(stream: StreamHandle) -> Result<(i32, u64), Code> {
    with(|streams| {
        let Some(id) = streams.capture_of(stream)? else { return Ok((0, 0)) };
        let valid = streams.captures.get(&id).is_some_and(|c| c.valid);
        Ok((if valid { 1 } else { 2 }, id as u64))
    })
}

/// Notes an allocation in the capture of a stream. Returns whether the stream captures.
pub fn allocates(stream: StreamHandle, address: u64) -> Result<bool, Code> {
    note(stream, |capture| &mut capture.allocated, address)
}

/// Notes a free in the capture of a stream. Returns whether the stream captures.
pub fn frees(stream: StreamHandle, address: u64) -> Result<bool, Code> {
    note(stream, |capture| &mut capture.freed, address)
}

fn note(stream: StreamHandle, set: fn(&mut Capture) -> &mut BTreeSet<u64>, address: u64) -> Result<bool, Code> {
    with(|streams| {
        let Some(id) = streams.capture_of(stream)? else { return Ok(false) };
        let capture = streams.captures.get_mut(&id).filter(|c| c.valid).ok_or(Code::STREAM_CAPTURE_INVALIDATED)?;
        set(capture).insert(address);
        Ok(true)
    })
}

/// Makes a graph that can be launched. With `auto_free`, a launch first frees what the launch before left.
pub fn instantiate(graph: usize, auto_free: bool) -> Result<usize, Code> {
    let handle = with(|streams| streams.handle());
    let mut graphs = graphs();
    let graph = graphs.graphs.get(&graph).cloned().ok_or(Code::INVALID_VALUE)?;
    graphs.ready.insert(handle, (graph, auto_free));
    Ok(handle)
}

pub fn destroy(graph: usize) -> Outcome {
    graphs().graphs.remove(&graph).map(|_| ()).ok_or(Code::INVALID_VALUE)
}

pub fn destroy_ready(graph: usize) -> Outcome {
    graphs().ready.remove(&graph).map(|_| ()).ok_or(Code::INVALID_VALUE)
}

/// Returns how many nodes a graph has.
pub fn nodes(graph: usize) -> Result<usize, Code> {
    graphs().graphs.get(&graph).map(|g| g.nodes.len()).ok_or(Code::INVALID_VALUE)
}

pub fn is_ready(graph: usize) -> bool {
    graphs().ready.contains_key(&graph)
}

/// Puts all nodes of a graph at the end of a stream.
pub fn launch(graph: usize, stream: StreamHandle) -> Outcome {
    let (graph, auto_free) = graphs().ready.get(&graph).cloned().ok_or(Code::INVALID_VALUE)?;
    count(Counted::Graph, &format!("graph of {} nodes", graph.nodes.len()), 0, 0.0);
    // Memory that the last launch left must be freed before the next.
    for address in graph.left.iter().copied() {
        if !memory::launch(address) {
            if !auto_free {
                return Err(Code::INVALID_VALUE);
            }
            let work = Work { group: Counted::Free, name: "graph".into(), bytes: 0, flops: 0.0 };
            crate::stream::enqueue(stream, work, move || memory::unmap(address))?;
        }
    }
    with(|streams| {
        if let Some(id) = streams.capture_of(stream)? {
            let capture = streams.captures.get_mut(&id).ok_or(Code::STREAM_CAPTURE_INVALIDATED)?;
            return graph.nodes.iter().try_for_each(|node| capture.push(stream, node.clone()));
        }
        graph.nodes.iter().try_for_each(|node| streams.append(stream, node.clone()))
    })
}
