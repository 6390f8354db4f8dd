//! Threads of the operations.

use std::error::Error;
use std::thread;

/// Starts the threads that operations are divided among, and checks that one more can be started.
///
/// An operation would otherwise panic where the system grants too few. A program calls this function once, before its
/// first network runs.
///
/// # Errors
/// If a thread cannot be started.
pub fn start_threads() -> Result<(), String> {
    let pool = match rayon::ThreadPoolBuilder::new().build_global() {
        // Without a source the error is that the threads run already.
        Err(error) => error.source().map_or(Ok(()), |source| Err(source.to_string())),
        Ok(()) => Ok(()),
    };
    // A run has a thread for its nodes, too.
    let own =
        || thread::Builder::new().spawn(|| ()).map(|thread| drop(thread.join())).map_err(|error| error.to_string());
    pool.and_then(|()| own()).map_err(|error| {
        format!(
            "a thread cannot be started: {error}; raise the limit of processes (`ulimit -u`) or of memory (`ulimit -v`)"
        )
    })
}
