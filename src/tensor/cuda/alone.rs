//! While a thread records a CUDA graph, others wait with what they would submit.
//!
//! A capture belongs to its stream, not to its thread: what another thread submits to the stream meanwhile would become a part
//! of the graph, or end the capture with an error. Other threads have reasons to: nodes that load, save and convert tensors run
//! beside the one that samples, and a tensor is freed on the stream by whichever thread drops it last.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The longest wait. A recording takes far less; if it waits for a lock that a waiting thread holds, it fails, and the U-Net
/// computes without it.
const LONGEST: Duration = Duration::from_secs(10);

/// The thread that records.
static RECORDER: Mutex<Option<libc::pthread_t>> = Mutex::new(None);
static ENDED: Condvar = Condvar::new();

/// Whether a thread records: what is seen without the lock.
static RECORDING: AtomicBool = AtomicBool::new(false);

fn recorder() -> MutexGuard<'static, Option<libc::pthread_t>> {
    RECORDER.lock().unwrap_or_else(PoisonError::into_inner)
}

fn this_thread() -> libc::pthread_t {
    // SAFETY: has no conditions.
    unsafe { libc::pthread_self() }
}

pub(super) fn is_recording() -> bool {
    RECORDING.load(Ordering::SeqCst)
}

/// Runs `f`, which records. Other threads that call [`wait`] meanwhile wait for its end: see
/// [`lazy::alone`](super::lazy::alone), which makes them.
pub(super) fn alone<R>(f: impl FnOnce() -> R) -> R {
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            *recorder() = None;
            RECORDING.store(false, Ordering::SeqCst);
            ENDED.notify_all();
        }
    }
    let mut recorder = ENDED.wait_while(recorder(), |r| r.is_some()).unwrap_or_else(PoisonError::into_inner);
    *recorder = Some(this_thread());
    RECORDING.store(true, Ordering::SeqCst);
    drop(recorder);
    let _end = End;
    f()
}

/// Waits while another thread records, before the function `name` of CUDA is called.
pub(super) fn wait(name: &[u8]) {
    if is_recording() && submits(name) {
        let others = |r: &mut Option<libc::pthread_t>| r.is_some_and(|r| r != this_thread());
        drop(ENDED.wait_timeout_while(recorder(), LONGEST, others));
    }
}

/// Whether a function submits work to a stream, or waits for it. Those that make and describe things are not among them: they
/// may be called while a lock is held that the recording needs.
fn submits(name: &[u8]) -> bool {
    const STARTS: [&[u8]; 19] = [
        b"cuLaunch",
        b"cuMemcpy",
        b"cuMemset",
        b"cuMemPrefetch",
        b"cuMemAllocAsync",
        b"cuMemAllocFromPoolAsync",
        b"cuMemFreeAsync",
        b"cuStreamSynchronize",
        b"cuStreamWait",
        b"cuStreamQuery",
        b"cuCtxSynchronize",
        b"cuEventRecord",
        b"cuGraphLaunch",
        b"cublasGemm",
        b"cublasSgemm",
        b"cudnnConvolution",
        b"cudnnBackendExecute",
        b"curandGenerate",
        b"cudaLaunch",
    ];
    name == b"cublasLtMatmul" || STARTS.iter().any(|start| name.starts_with(start))
}
