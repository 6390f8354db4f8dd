//! Streams. Their work runs when the host waits for it, and not before.
//!
//! A host that frees or changes something too early is found that way. Of several streams, another one runs only as far as
//! an event asks for.

use std::collections::{HashMap, VecDeque};
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Instant;

use crate::capture::{Capture, CaptureId};
use crate::code::{Code, Outcome};
use crate::count::{Amount, Counted, add};
use crate::fault;
use crate::mode::{null, settings};

/// A stream, as `CUstream` names it. Null is the default stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct StreamHandle(pub *mut c_void);

// SAFETY: a handle is a number here. Nothing is read through it.
unsafe impl Send for StreamHandle {}
unsafe impl Sync for StreamHandle {}

impl StreamHandle {
    pub const DEFAULT: StreamHandle = StreamHandle(std::ptr::null_mut());

    /// Returns the one handle of the default stream, which has several.
    fn plain(self) -> StreamHandle {
        if self.0 as usize == 1 { StreamHandle::DEFAULT } else { self }
    }
}

/// A description of work, for reports and counts.
#[derive(Clone, Debug)]
pub struct Work {
    /// Its group in the counts.
    pub group: Counted,
    /// Its name in counts and reports, for example `gemm f16 NT m64 n64 k320 b8`.
    pub name: String,
    /// Bytes read and written.
    pub bytes: u64,
    pub flops: f64,
}

/// Work of a stream, or a node of a graph.
pub struct Node {
    pub work: Work,
    pub threads: u64,
    pub run: Box<dyn Fn() + Send + Sync>,
}

impl Node {
    fn count(&self) {
        let Work { group, name, bytes, flops } = &self.work;
        add(
            *group,
            name,
            Amount { count: 1, bytes: *bytes, flops: *flops, threads: self.threads, ..Amount::default() },
        );
    }
}

enum Item {
    Work(Arc<Node>),
    /// Notes the time for an event.
    Record(usize),
    /// Waits until a stream has done this many items.
    Wait(StreamHandle, u64),
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    enqueued: u64,
    done: u64,
    /// Whether it waits for the default stream and the default stream for it.
    blocking: bool,
    destroyed: bool,
    capture: Option<CaptureId>,
}

/// An event.
#[derive(Clone, Debug, Default)]
struct Event {
    timing: bool,
    /// The stream and the place of its last record.
    recorded: Option<(StreamHandle, u64)>,
    time: Option<Instant>,
    /// The capture in which it was recorded last.
    captured: Option<(CaptureId, StreamHandle)>,
}

/// All streams and events.
#[derive(Default)]
pub(crate) struct Streams {
    queues: HashMap<StreamHandle, Queue>,
    events: HashMap<usize, Event>,
    pub(crate) captures: HashMap<CaptureId, Capture>,
    last: usize,
}

fn streams() -> MutexGuard<'static, Streams> {
    static STREAMS: OnceLock<Mutex<Streams>> = OnceLock::new();
    let create = || {
        let mut streams = Streams::default();
        let blocking = Queue { blocking: true, ..Queue::default() };
        streams.queues.insert(StreamHandle::DEFAULT, blocking);
        // CU_STREAM_PER_THREAD; the threads share it here.
        streams.queues.insert(StreamHandle(2 as *mut c_void), Queue { blocking: true, ..Queue::default() });
        Mutex::new(streams)
    };
    STREAMS.get_or_init(create).lock().unwrap_or_else(|e| e.into_inner())
}

/// Calls a function with all streams, locked.
pub(crate) fn with<T>(function: impl FnOnce(&mut Streams) -> T) -> T {
    function(&mut streams())
}

/// Held by the thread that runs work.
static RUN: Mutex<()> = Mutex::new(());

/// Returns the threads that run blocks and matrix products.
pub fn pool() -> &'static rayon::ThreadPool {
    static POOL: OnceLock<rayon::ThreadPool> = OnceLock::new();
    POOL.get_or_init(|| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(settings().threads)
            .thread_name(|i| format!("cuda-device-{i}"))
            .stack_size(8 << 20)
            .start_handler(|_| crate::signal::prepare_thread());
        match pool.build() {
            Ok(pool) => pool,
            Err(error) => fault::fault(fault::Fault::Internal, format!("cannot start threads: {error}")),
        }
    })
}

/// Puts work at the end of a stream, and counts it. It runs when the stream is synchronised, or as a node of a graph at
/// each launch of the graph: `run` may be called never (null mode), once or often. It runs on one thread at a time and
/// may use rayon. Everything that it uses of the host's memory must be copied before.
pub fn enqueue(stream: StreamHandle, work: Work, run: impl Fn() + Send + Sync + 'static) -> Result<(), Code> {
    push(stream, Node { work, threads: 0, run: Box::new(run) })
}

/// Puts a node at the end of a stream, or into the graph that the stream captures.
pub(crate) fn push(stream: StreamHandle, node: Node) -> Outcome {
    let mut streams = streams();
    let stream = stream.plain();
    let node = Arc::new(node);
    let id = streams.queue(stream)?.capture;
    if let Some(id) = id {
        return match streams.captures.get_mut(&id) {
            Some(capture) => capture.push(stream, node),
            None => Err(Code::STREAM_CAPTURE_INVALIDATED),
        };
    }
    streams.append(stream, node)
}

impl Streams {
    fn queue(&mut self, stream: StreamHandle) -> Result<&mut Queue, Code> {
        self.queues.get_mut(&stream.plain()).filter(|q| !q.destroyed).ok_or(Code::INVALID_HANDLE)
    }

    /// Puts a node at the end of a stream that captures nothing.
    pub(crate) fn append(&mut self, stream: StreamHandle, node: Arc<Node>) -> Outcome {
        node.count();
        if null() {
            return Ok(());
        }
        self.order_with_default(stream)?;
        self.item(stream, Item::Work(node))
    }

    fn item(&mut self, stream: StreamHandle, item: Item) -> Outcome {
        let queue = self.queue(stream)?;
        queue.items.push_back(item);
        queue.enqueued += 1;
        Ok(())
    }

    /// The default stream and blocking streams wait for each other.
    fn order_with_default(&mut self, stream: StreamHandle) -> Outcome {
        let stream = stream.plain();
        if !self.queue(stream)?.blocking {
            return Ok(());
        }
        let is_default = stream == StreamHandle::DEFAULT;
        let waits: Vec<_> = self
            .queues
            .iter()
            .filter(|(s, q)| **s != stream && q.blocking && (is_default || **s == StreamHandle::DEFAULT))
            .filter(|(_, q)| !q.items.is_empty())
            .map(|(s, q)| (*s, q.enqueued))
            .collect();
        for (other, place) in waits {
            self.item(stream, Item::Wait(other, place))?;
        }
        Ok(())
    }

    /// Returns the capture of a stream, if it captures.
    pub(crate) fn capture_of(&mut self, stream: StreamHandle) -> Result<Option<CaptureId>, Code> {
        Ok(self.queue(stream)?.capture)
    }

    pub(crate) fn set_capture(&mut self, stream: StreamHandle, capture: Option<CaptureId>) -> Outcome {
        self.queue(stream)?.capture = capture;
        Ok(())
    }

    /// Ends a capture on all its streams.
    pub(crate) fn leave_capture(&mut self, id: CaptureId) {
        for queue in self.queues.values_mut().filter(|q| q.capture == Some(id)) {
            queue.capture = None;
        }
    }

    /// Returns a number that nothing else has, as a handle.
    pub(crate) fn handle(&mut self) -> usize {
        self.last += 16;
        0x0a00_0000 + self.last
    }
}

/// Creates a stream.
pub fn create(blocking: bool) -> StreamHandle {
    let mut streams = streams();
    let stream = StreamHandle(streams.handle() as *mut c_void);
    streams.queues.insert(stream, Queue { blocking, ..Queue::default() });
    stream
}

/// Destroys a stream. Its work still runs when the context is synchronised.
pub fn destroy(stream: StreamHandle) -> Outcome {
    if stream.0 as usize <= 2 {
        return Err(Code::INVALID_HANDLE);
    }
    streams().queue(stream)?.destroyed = true;
    Ok(())
}

/// Returns whether the handle is of a stream.
pub fn exists(stream: StreamHandle) -> bool {
    streams().queue(stream).is_ok()
}

/// Fails if a stream captures, and ends the capture with an error.
pub fn not_capturing(stream: Option<StreamHandle>) -> Outcome {
    let mut streams = streams();
    let id = match stream {
        Some(stream) => streams.capture_of(stream)?,
        // A thread-local or relaxed capture forbids only its own stream to wait.
        None => streams.captures.iter().find(|(_, c)| c.forbids()).map(|(id, _)| *id),
    };
    let Some(id) = id else { return Ok(()) };
    if let Some(capture) = streams.captures.get_mut(&id) {
        capture.invalidate();
    }
    Err(Code::STREAM_CAPTURE_UNSUPPORTED)
}

/// Runs all work of a stream.
pub fn synchronise(stream: StreamHandle) -> Outcome {
    not_capturing(Some(stream))?;
    let place = streams().queue(stream)?.enqueued;
    run_to(stream.plain(), place, u64::MAX);
    if stream.plain() == StreamHandle::DEFAULT {
        // The default stream waits for all blocking streams.
        let blocking: Vec<_> = {
            let streams = streams();
            streams.queues.iter().filter(|(_, q)| q.blocking).map(|(s, q)| (*s, q.enqueued)).collect()
        };
        blocking.into_iter().for_each(|(stream, place)| run_to(stream, place, u64::MAX));
    }
    Ok(())
}

/// Runs the work of all streams.
pub fn synchronise_all() -> Outcome {
    not_capturing(None)?;
    run_all();
    Ok(())
}

fn run_all() {
    let mut goals: Vec<_> = streams().queues.iter().map(|(s, q)| (*s, q.enqueued)).collect();
    goals.sort();
    goals.into_iter().for_each(|(stream, place)| run_to(stream, place, u64::MAX));
    streams().queues.retain(|_, q| !q.destroyed || !q.items.is_empty());
}

/// Returns whether a stream has work left. Each question runs a piece of it, so that a host that asks comes to an end.
pub fn query(stream: StreamHandle) -> Result<bool, Code> {
    not_capturing(Some(stream))?;
    let place = streams().queue(stream)?.enqueued;
    Ok(poll(stream.plain(), place))
}

fn poll(stream: StreamHandle, place: u64) -> bool {
    let left = |streams: &Streams| streams.queues.get(&stream).is_some_and(|q| q.done < place);
    if !left(&streams()) {
        return true;
    }
    run_to(stream, place, 1);
    false
}

/// Runs a stream until it has done as many items, but at most `limit` items.
fn run_to(stream: StreamHandle, place: u64, limit: u64) {
    let pending = |s: &Streams| s.queues.get(&stream).is_some_and(|q| q.done < place);
    if !pending(&streams()) {
        return;
    }
    let _running = RUN.lock().unwrap_or_else(|e| e.into_inner());
    pool().install(|| {
        let mut goals = vec![(stream, place)];
        let mut left = limit;
        while let Some((stream, place)) = goals.last().copied() {
            let node = match next(stream, place) {
                Next::Done => {
                    goals.pop();
                    continue;
                }
                Next::First(stream, place) => {
                    goals.push((stream, place));
                    continue;
                }
                Next::Item(node) => node,
            };
            if let Some(node) = node {
                fault::running(&node.work.name);
                (node.run)();
                fault::running("");
            }
            if let Some(queue) = streams().queues.get_mut(&stream) {
                queue.done += 1;
            }
            left -= 1;
            if left == 0 {
                return;
            }
        }
    });
}

enum Next {
    /// The stream has come to its goal.
    Done,
    /// Another stream runs first.
    First(StreamHandle, u64),
    /// An item, with work or without.
    Item(Option<Arc<Node>>),
}

fn next(stream: StreamHandle, place: u64) -> Next {
    let mut streams = streams();
    let Some(queue) = streams.queues.get(&stream).filter(|q| q.done < place) else { return Next::Done };
    if let Some(Item::Wait(other, place)) = queue.items.front()
        && streams.queues.get(other).is_some_and(|q| q.done < *place)
    {
        return Next::First(*other, *place);
    }
    let Some(queue) = streams.queues.get_mut(&stream) else { return Next::Done };
    match queue.items.pop_front() {
        None => Next::Done,
        Some(Item::Wait(..)) => Next::Item(None),
        Some(Item::Work(node)) => Next::Item(Some(node)),
        Some(Item::Record(event)) => {
            if let Some(event) = streams.events.get_mut(&event) {
                event.time = Some(Instant::now());
            }
            Next::Item(None)
        }
    }
}

/// Creates an event.
pub fn create_event(timing: bool) -> usize {
    let mut streams = streams();
    let handle = streams.handle();
    streams.events.insert(handle, Event { timing, ..Event::default() });
    handle
}

pub fn destroy_event(event: usize) -> Outcome {
    streams().events.remove(&event).map(|_| ()).ok_or(Code::INVALID_HANDLE)
}

/// Records an event at the end of a stream.
pub fn record(event: usize, stream: StreamHandle) -> Outcome {
    let mut streams = streams();
    let stream = stream.plain();
    if !streams.events.contains_key(&event) {
        return Err(Code::INVALID_HANDLE);
    }
    let capture = streams.capture_of(stream)?;
    if let Some(id) = capture {
        if let Some(event) = streams.events.get_mut(&event) {
            event.captured = Some((id, stream));
        }
        return Ok(());
    }
    streams.order_with_default(stream)?;
    let timing = streams.events.get(&event).is_some_and(|e| e.timing);
    if timing {
        streams.item(stream, Item::Record(event))?;
    }
    let place = streams.queue(stream)?.enqueued;
    if let Some(event) = streams.events.get_mut(&event) {
        event.recorded = Some((stream, place));
        event.time = None;
        event.captured = None;
    }
    Ok(())
}

/// Makes a stream wait for an event.
pub fn wait(stream: StreamHandle, event: usize) -> Outcome {
    let mut streams = streams();
    let stream = stream.plain();
    let found = streams.events.get(&event).cloned().ok_or(Code::INVALID_HANDLE)?;
    let capture = streams.capture_of(stream)?;
    match (capture, found.captured) {
        (None, Some((id, origin))) => {
            // The stream joins the capture of the event.
            streams.set_capture(stream, Some(id))?;
            return match streams.captures.get_mut(&id) {
                Some(capture) => capture.join(stream, origin),
                None => Err(Code::STREAM_CAPTURE_INVALIDATED),
            };
        }
        (Some(mine), Some((id, origin))) if mine == id => {
            return match streams.captures.get_mut(&id) {
                Some(capture) => capture.join(stream, origin),
                None => Err(Code::STREAM_CAPTURE_INVALIDATED),
            };
        }
        (Some(_), Some(_)) => return Err(Code::STREAM_CAPTURE_MERGE),
        // What ran before the capture is no part of it.
        (Some(_), None) if found.recorded.is_some() => return Err(Code::STREAM_CAPTURE_ISOLATION),
        _ => {}
    }
    match found.recorded {
        Some((other, place)) if other != stream => {
            if streams.queues.get(&other).is_some_and(|q| q.done < place) {
                streams.item(stream, Item::Wait(other, place))?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn recorded(event: usize) -> Result<Option<(StreamHandle, u64)>, Code> {
    let mut streams = streams();
    let found = streams.events.get(&event).cloned().ok_or(Code::INVALID_HANDLE)?;
    if let Some((id, _)) = found.captured {
        if let Some(capture) = streams.captures.get_mut(&id) {
            capture.invalidate();
        }
        return Err(Code::CAPTURED_EVENT);
    }
    Ok(found.recorded)
}

/// Runs everything before the record of an event.
pub fn synchronise_event(event: usize) -> Outcome {
    if let Some((stream, place)) = recorded(event)? {
        run_to(stream, place, u64::MAX);
    }
    Ok(())
}

/// Returns whether everything before the record of an event is done.
pub fn query_event(event: usize) -> Result<bool, Code> {
    Ok(recorded(event)?.is_none_or(|(stream, place)| poll(stream, place)))
}

/// Returns the time between two events in milliseconds.
pub fn elapsed(start: usize, end: usize) -> Result<f32, Code> {
    let streams = streams();
    let of = |event: usize| streams.events.get(&event).filter(|e| e.timing && e.recorded.is_some());
    let (start, end) = (of(start).ok_or(Code::INVALID_HANDLE)?, of(end).ok_or(Code::INVALID_HANDLE)?);
    if null() {
        return Ok(0.0);
    }
    let (start, end) = (start.time.ok_or(Code::NOT_READY)?, end.time.ok_or(Code::NOT_READY)?);
    let milliseconds = |d: std::time::Duration| d.as_secs_f64() * 1e3;
    Ok(match end.checked_duration_since(start) {
        Some(after) => milliseconds(after) as f32,
        None => -milliseconds(start - end) as f32,
    })
}
