//! What a program asks of its CUDA device: kernels, matrix products, copies, waits and memory, by name, and their times.
//!
//! Nothing is recorded before [`start`]. What a thread asks is counted in the scope of the task that it has [entered](enter).
//! In a build without CUDA, and on systems where its functions are not intercepted, all counts are empty.

pub use crate::counts::{Counts, Drained, Group, Launch, MemorySample, Tally};
#[cfg(all(feature = "cuda", target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
use crate::cuda::profile as device;

#[cfg(not(all(feature = "cuda", target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod device {
    //! Nothing is intercepted.

    use super::{Counts, Drained};

    pub(super) fn start(_: u64) -> bool {
        false
    }

    pub(super) fn enter(_: u64) {}

    pub(super) fn change(_: u64, _: u64) {}

    pub(super) fn leave(_: u64) {}

    pub(super) fn take(_: u64) -> Counts {
        Counts::default()
    }

    pub(super) fn drain(_: bool) -> Drained {
        Drained::default()
    }
}

/// Starts to record what the program asks of CUDA. At most `limit` launches are kept singly; later ones only add to the times
/// of their scopes. Call it before anything else uses CUDA.
///
/// Returns whether this build can record it.
pub fn start(limit: u64) -> bool {
    device::start(limit)
}

/// Begins a task in this thread. What the thread asks is counted in a scope, which has the number of the task at first.
/// Numbers are above 0 and used once. What threads without a task ask belongs to the only task in progress, or else to scope
/// 0.
pub fn enter(task: u64) {
    device::enter(task);
}

/// Lets what a task asks be counted in a new scope from now on.
pub fn change(task: u64, scope: u64) {
    device::change(task, scope);
}

/// Ends a task.
pub fn leave(task: u64) {
    device::leave(task);
}

/// Returns the counts of a scope, and forgets them. Times on the device are not in them: see [`drain`].
pub fn take(scope: u64) -> Counts {
    device::take(scope)
}

/// Returns what has ended on the device. `wait`: waits until everything has.
pub fn drain(wait: bool) -> Drained {
    device::drain(wait)
}
