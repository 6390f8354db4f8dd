//! Reports of what a GPU would do silently, or late.

use std::sync::Mutex;

use crate::count;

/// The kind of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An access to bytes that belong to no live allocation.
    OutOfBounds,
    /// An access to memory that was freed.
    UseAfterFree,
    /// A read of bytes that nothing wrote.
    Uninitialised,
    /// An access whose address is no multiple of its size.
    Misaligned,
    /// Two threads of a block use the same shared memory without a barrier between.
    SharedRace,
    /// A use of shared memory that a `cp.async` may still write.
    UnfinishedCopy,
    /// A barrier that some threads of a block never reach.
    DivergentBarrier,
    /// A shuffle, vote or warp barrier with lanes that are absent.
    AbsentLane,
    /// `assert`, `trap` and unsupported instructions.
    Trap,
    /// A free of what is not allocated.
    InvalidFree,
    /// A source and a destination that overlap.
    Overlap,
    /// A call that CUDA leaves undefined.
    InvalidCall,
    /// Something this device does not know.
    Unsupported,
    /// An error of this device itself.
    Internal,
}

impl Fault {
    /// Returns the words at the start of the report.
    pub fn text(self) -> &'static str {
        match self {
            Fault::OutOfBounds => "access out of bounds",
            Fault::UseAfterFree => "use after free",
            Fault::Uninitialised => "uninitialised read",
            Fault::Misaligned => "misaligned access",
            Fault::SharedRace => "shared memory without a barrier",
            Fault::UnfinishedCopy => "unfinished copy",
            Fault::DivergentBarrier => "divergent barrier",
            Fault::AbsentLane => "absent lane",
            Fault::Trap => "trap",
            Fault::InvalidFree => "invalid free",
            Fault::Overlap => "overlapping copy",
            Fault::InvalidCall => "invalid call",
            Fault::Unsupported => "unsupported",
            Fault::Internal => "internal error",
        }
    }
}

/// The name of the work that runs now.
static CURRENT: Mutex<String> = Mutex::new(String::new());

/// Notes which work runs from now on. Reports name it.
pub fn running(name: &str) {
    let mut current = CURRENT.lock().unwrap_or_else(|e| e.into_inner());
    current.clear();
    current.push_str(name);
}

/// Prints one report, writes the counts, and aborts the process.
pub fn fault(kind: Fault, text: String) -> ! {
    // One report is enough: other threads that find the same wait here until the process ends.
    static ONCE: Mutex<()> = Mutex::new(());
    let guard = ONCE.lock();
    // A signal may have interrupted the owner of this lock.
    let current = CURRENT.try_lock().map(|name| name.clone()).unwrap_or_default();
    let place = if current.is_empty() { String::new() } else { format!("\n  in {current}") };
    eprintln!("software CUDA device: {}: {text}{place}", kind.text());
    count::write(Some(&format!("{}: {text}", kind.text())));
    std::mem::forget(guard);
    std::process::abort()
}
