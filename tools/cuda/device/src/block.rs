//! Runs the threads of a block, also those that wait for each other.
//!
//! Such a thread is a coroutine, which stops at barriers and shuffles. One operating-system thread runs a block: the lanes
//! of a warp until all wait, then what the warp waits for, and last the barrier of the block.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::num::NonZeroUsize;

use corosensei::stack::{Stack, StackPointer};
use corosensei::{Coroutine, CoroutineResult, Yielder};

use crate::fault::{Fault, fault};
use crate::kernel::{Block, Context, Kernel, SharedByte, bad, request};
use crate::memory::{Access, explain};
use crate::warp;

/// A stack inside of the stacks of a worker.
struct Slice {
    base: NonZeroUsize,
    limit: NonZeroUsize,
}

// SAFETY: the stacks are as large as the translator's frames need. Reports run on the stack of the worker.
unsafe impl Stack for Slice {
    fn base(&self) -> StackPointer {
        self.base
    }
    fn limit(&self) -> StackPointer {
        self.limit
    }
}

type Fiber = Coroutine<(), (), (), Slice>;

/// What a thread of a block does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Ready,
    /// It waits for what its context asks for.
    Waits,
    Done,
}

/// What one operating-system thread needs to run blocks. It is kept between launches.
pub struct Worker {
    stacks: Vec<u8>,
    pub contexts: Vec<Context>,
    fibers: Vec<Option<Fiber>>,
    pub states: Vec<State>,
    shared: Vec<u128>,
    bytes: Vec<SharedByte>,
    pub block: Box<Block>,
}

thread_local!(static WORKER: RefCell<Worker> = RefCell::new(Worker::new()));

/// A launch, as the workers see it.
pub struct Grid<'a> {
    pub kernel: &'a Kernel,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Bytes of shared memory that the launch adds.
    pub dynamic: u32,
    pub params: &'a [u8],
}

impl Grid<'_> {
    pub fn blocks(&self) -> u64 {
        self.grid.iter().map(|n| u64::from(*n)).product()
    }

    pub fn threads(&self) -> usize {
        self.block.iter().map(|n| *n as usize).product()
    }

    fn context(&self, block: *mut Block) -> Context {
        Context {
            tid: [0; 3],
            ntid: self.block,
            ctaid: [0; 3],
            nctaid: self.grid,
            thread: 0,
            params: self.params.as_ptr(),
            block,
            read: 0,
            written: 0,
            kind: 0,
            mode: 0,
            mask: 0,
            a: 0,
            b: 0,
            clamp: 0,
            line: 0,
            reply: 0,
            reply_pred: 0,
            copy_group: 1,
            last_copy: 0,
            input: std::ptr::null(),
            output: std::ptr::null_mut(),
            suspend,
            bad: failed_check,
            trap,
            kernel: self.kernel,
            scheduler: std::ptr::null(),
        }
    }

    fn place(&self, block: u64) -> [u32; 3] {
        let [x, y, _] = self.grid.map(u64::from);
        [(block % x) as u32, (block / x % y) as u32, (block / x / y) as u32]
    }
}

/// Runs some blocks of a launch on this thread. Returns bytes read and written in global memory.
pub fn run(grid: &Grid<'_>, blocks: std::ops::Range<u64>) -> (u64, u64) {
    crate::signal::prepare_thread();
    WORKER.with(|worker| {
        let mut worker = worker.borrow_mut();
        worker.prepare(grid);
        let mut total = (0, 0);
        match grid.kernel.block {
            Some(function) => {
                let mut context = grid.context(&mut *worker.block);
                for block in blocks {
                    context.ctaid = grid.place(block);
                    worker.start_block();
                    // SAFETY: the translator wrote the function for this structure.
                    unsafe { function(&mut context) };
                }
                total = (context.read, context.written);
            }
            None => {
                for block in blocks {
                    worker.run_block(grid, block);
                    for context in &worker.contexts[..grid.threads()] {
                        total = (total.0 + context.read, total.1 + context.written);
                    }
                }
            }
        }
        total
    })
}

impl Worker {
    fn new() -> Self {
        Self {
            stacks: Vec::new(),
            contexts: Vec::new(),
            fibers: Vec::new(),
            states: Vec::new(),
            shared: Vec::new(),
            bytes: Vec::new(),
            block: Box::new(Block {
                shared: std::ptr::null_mut(),
                bytes: std::ptr::null_mut(),
                size: 0,
                start: 1,
                time: 1,
                last_barrier: 1,
                last_sync: [0; 32],
            }),
        }
    }

    /// Makes room for the shared memory and the stacks of a launch.
    fn prepare(&mut self, grid: &Grid<'_>) {
        let kernel = grid.kernel;
        let dynamic_end = if grid.dynamic > 0 { kernel.dynamic + grid.dynamic as usize } else { 0 };
        let size = kernel.shared.max(dynamic_end);
        if self.bytes.len() < size {
            self.bytes.resize(size, SharedByte::default());
            self.shared.resize(size.div_ceil(16), u128::MAX);
        }
        self.block.shared = self.shared.as_mut_ptr().cast();
        self.block.bytes = self.bytes.as_mut_ptr();
        self.block.size = size as u32;
        if kernel.block.is_some() {
            return;
        }
        let threads = grid.threads();
        let needed = threads * stack_bytes(kernel) + 64;
        if self.stacks.len() < needed {
            self.stacks = vec![0; needed];
        }
        self.fibers.resize_with(threads.max(self.fibers.len()), || None);
        self.states.resize(threads.max(self.states.len()), State::Done);
        self.contexts.clear();
        self.contexts.resize(threads, grid.context(&mut *self.block));
    }

    fn start_block(&mut self) {
        // Times wrap after weeks. Then all bytes are as before the first block.
        if self.block.time > u32::MAX / 2 {
            self.bytes.fill(SharedByte::default());
            self.block.time = 1;
        }
        let block = &mut self.block;
        block.time += 1;
        block.start = block.time;
        block.last_barrier = block.time;
        block.last_sync = [block.time; 32];
    }

    fn run_block(&mut self, grid: &Grid<'_>, block: u64) {
        self.start_block();
        let threads = grid.threads();
        let [x, y, _] = grid.block;
        let first = grid.context(&mut *self.block);
        let (size, base) = (stack_bytes(grid.kernel), self.stacks.as_ptr() as usize);
        for i in 0..threads {
            let thread = i as u32;
            let context = &mut self.contexts[i];
            context.clone_from(&first);
            context.ctaid = grid.place(block);
            context.tid = [thread % x, thread / x % y, thread / x / y];
            context.thread = thread;
            let limit = base.next_multiple_of(64) + i * size;
            let slice = NonZeroUsize::new(limit).zip(NonZeroUsize::new(limit + size));
            let Some((limit, base)) = slice else { return };
            let pointer = context as *mut Context as usize;
            let function = grid.kernel.thread;
            self.fibers[i] = Some(Fiber::with_stack(Slice { base, limit }, move |yielder, ()| {
                let context = pointer as *mut Context;
                // SAFETY: the context lives as long as the block, and only this fiber uses it while it runs.
                unsafe {
                    (*context).scheduler = (yielder as *const Yielder<(), ()>).cast();
                    function(context);
                }
            }));
            self.states[i] = State::Ready;
        }
        while !self.round(grid, threads) {}
    }

    /// Runs every thread as far as it goes. Returns whether the block is done.
    fn round(&mut self, grid: &Grid<'_>, threads: usize) -> bool {
        let mut progress = false;
        for first in (0..threads).step_by(32) {
            let lanes = first..threads.min(first + 32);
            loop {
                for i in lanes.clone() {
                    if self.states[i] == State::Ready {
                        self.resume(i);
                        progress = true;
                    }
                }
                if !warp::answer(self, lanes.clone(), grid) {
                    break;
                }
            }
        }
        if self.states[..threads].iter().all(|state| *state == State::Done) {
            return true;
        }
        if !self.barrier(grid, threads) && !progress {
            let waiting = (0..threads).find(|i| self.states[*i] == State::Waits).unwrap_or(0);
            let line = self.contexts[waiting].line;
            let text = format!("the threads of the block wait for each other forever; thread {waiting} at line {line}");
            stop(grid, &self.contexts[waiting], Fault::DivergentBarrier, &text);
        }
        false
    }

    fn resume(&mut self, i: usize) {
        let Some(fiber) = self.fibers[i].as_mut() else { return };
        match fiber.resume(()) {
            CoroutineResult::Yield(()) => {
                self.states[i] = State::Waits;
            }
            CoroutineResult::Return(()) => {
                self.states[i] = State::Done;
                self.fibers[i] = None;
            }
        }
    }

    /// Opens a barrier of the block if all its threads wait there.
    fn barrier(&mut self, grid: &Grid<'_>, threads: usize) -> bool {
        let waits = |w: &Self, i: usize| w.states[i] == State::Waits && w.contexts[i].kind == request::BARRIER;
        let Some(first) = (0..threads).find(|i| waits(self, *i)) else { return false };
        let (name, count) = (self.contexts[first].a, self.contexts[first].b as usize);
        let here: Vec<usize> = (0..threads).filter(|i| waits(self, *i) && self.contexts[*i].a == name).collect();
        let expected = if count == 0 { threads } else { count };
        if here.len() < expected {
            let absent = (0..threads).find(|i| self.states[*i] == State::Done);
            let elsewhere = (0..threads).find(|i| waits(self, *i) && self.contexts[*i].a != name);
            let line = self.contexts[first].line;
            let all_stopped = (0..threads).all(|i| waits(self, i) || self.states[i] == State::Done);
            if let (Some(absent), None, true) = (absent, elsewhere, all_stopped) {
                let text = format!(
                    "{} of {expected} threads wait at the barrier in line {line}, but thread {absent} has ended",
                    here.len()
                );
                stop(grid, &self.contexts[first], Fault::DivergentBarrier, &text);
            }
            return false;
        }
        let votes = here.iter().filter(|i| self.contexts[**i].clamp != 0).count();
        for i in &here {
            let context = &mut self.contexts[*i];
            context.reply = match context.mode {
                1 => votes as u32,
                2 => u32::from(votes == here.len()),
                _ => u32::from(votes > 0),
            };
            self.states[*i] = State::Ready;
        }
        self.block.time += 1;
        self.block.last_barrier = self.block.time;
        true
    }
}

/// Returns the size of a thread's stack. It is no multiple of a page: the stacks then lie in different sets of the cache.
fn stack_bytes(kernel: &Kernel) -> usize {
    (8 << 10) + 192 + (2 * kernel.local).next_multiple_of(64)
}

/// Reports a fault of a block.
pub fn stop(grid: &Grid<'_>, context: &Context, kind: Fault, text: &str) -> ! {
    fault(kind, format!("{text}\n  kernel {}, block {:?}", grid.kernel.name, context.ctaid))
}

unsafe extern "C" fn suspend(context: *mut Context) {
    // SAFETY: the fiber set its yielder before the kernel started.
    unsafe {
        let yielder = (*context).scheduler.cast::<Yielder<(), ()>>();
        (*yielder).suspend(());
    }
}

/// What is sent to the stack of the worker, which waits for this fiber meanwhile.
struct Sent<T>(T);

// SAFETY: the same operating-system thread uses it.
unsafe impl<T> Send for Sent<T> {}

impl<T> Sent<T> {
    fn take(self) -> T {
        self.0
    }
}

/// Reports a fault of a thread. A fiber's own stack is too small for that: the worker's stack is used.
fn report(context: &Context, describe: impl Fn(&Context) -> (Fault, String)) -> ! {
    let sent = Sent((context, describe));
    let report = move || {
        let (context, describe) = sent.take();
        let (kind, text) = describe(context);
        fault(kind, text)
    };
    if context.scheduler.is_null() {
        report();
    }
    let yielder = context.scheduler.cast::<Yielder<(), ()>>();
    // SAFETY: the fiber set its yielder before the kernel started.
    unsafe { (*yielder).on_parent_stack(report) }
}

fn place(context: &Context, line: u32) -> String {
    // SAFETY: the kernel lives as long as its launch.
    let name = unsafe { &(*context.kernel).name };
    format!("\n  kernel {name}, line {line} of its PTX, block {:?}, thread {:?}", context.ctaid, context.tid)
}

unsafe extern "C" fn failed_check(context: *mut Context, kind: u32, address: u64, bytes: u32, line: u32) {
    // SAFETY: kernels pass their own context.
    let context = unsafe { &*context };
    let width = u64::from(bytes);
    // SAFETY: the kernel lives as long as its launch.
    if kind == bad::READ && unsafe { (*context.kernel).constant(address, width) } {
        return;
    }
    report(context, |context| {
        let misaligned = !address.is_multiple_of(width.max(1));
        let (fault, text) = match kind {
            bad::READ | bad::WRITE if misaligned => {
                (Fault::Misaligned, format!("{address:#x} is no multiple of {bytes} bytes"))
            }
            bad::READ => explain(address, width, Access::Read),
            bad::WRITE => explain(address, width, Access::Write),
            _ => shared_text(context, kind, address, bytes),
        };
        (fault, text + &place(context, line))
    })
}

fn shared_text(context: &Context, kind: u32, address: u64, bytes: u32) -> (Fault, String) {
    // SAFETY: a kernel with shared memory has a block.
    let block = unsafe { &*context.block };
    let at = |verb: &str| format!("{verb} {bytes} bytes at byte {address} of shared memory");
    match kind {
        bad::SHARED_BOUNDS => (Fault::OutOfBounds, format!("{}, which has {}", at("uses"), block.size)),
        bad::SHARED_UNWRITTEN => {
            let text = format!("{}, which no thread has written yet; a barrier may be missing", at("reads"));
            (Fault::Uninitialised, text)
        }
        bad::SHARED_COPY => {
            // SAFETY: the bounds were checked before.
            let writer = unsafe { (*block.bytes.add(address as usize)).writer };
            let text = format!("{}, but thread {writer} has not waited for its cp.async to it", at("uses"));
            (Fault::UnfinishedCopy, text)
        }
        bad::SHARED_ALIGN => (Fault::Misaligned, at("uses")),
        bad::LOCAL => (Fault::OutOfBounds, format!("uses {bytes} bytes of local memory at {address:#x}")),
        _ => {
            // SAFETY: the bounds were checked before.
            let byte = unsafe { *block.bytes.add(address as usize) };
            let text = format!(
                "{}, which thread {} also uses (last write: thread {}), without a barrier between",
                at("uses"),
                byte.reader,
                byte.writer
            );
            (Fault::SharedRace, text)
        }
    }
}

unsafe extern "C" fn trap(context: *mut Context, line: u32, text: *const c_char, file: *const c_char, file_line: u32) {
    // SAFETY: kernels pass their own context.
    let context = unsafe { &*context };
    report(context, |context| {
        // SAFETY: texts of the module, which end with 0.
        let read = |text: *const c_char| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
        let from = if file.is_null() { String::new() } else { format!(", {}:{file_line}", read(file)) };
        (Fault::Trap, format!("{}{from}{}", read(text), place(context, line)))
    })
}

/// The pointer type of the C side, so that a change of the structures is noticed.
const _: () = assert!(std::mem::size_of::<SharedByte>() == 20 && std::mem::size_of::<*const c_void>() == 8);
