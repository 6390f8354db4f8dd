//! Records what the program asks of CUDA, for [`crate::profile`].
//!
//! Every function of CUDA that the program calls passes through [`lazy`](super::lazy). While a profile is recorded, each
//! call is counted there, and those that [`wrappers`] knows go to a wrapper, which measures and calls on. Calls that CUDA's
//! libraries make among themselves are not seen: a matrix product of cuBLAS is one, whatever kernels it launches.

mod clock;
mod descriptors;
mod state;
mod timeline;
mod wrappers;

use std::cell::Cell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::state::STATE;
use self::timeline::TIMELINE;
use super::lazy;
use crate::counts::{Counts, Drained, Group, Tally};

thread_local! {
    /// The task of this thread; 0 for none.
    static TASK: Cell<u64> = const { Cell::new(0) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn start(limit: u64) -> bool {
    lock(&TIMELINE).begin(limit);
    lazy::count(lazy::Counter { called, wrapper: wrappers::of });
    true
}

pub(crate) fn enter(task: u64) {
    TASK.set(task);
    change(task, task);
}

pub(crate) fn change(task: u64, scope: u64) {
    lock(&STATE).open(task, scope);
}

pub(crate) fn leave(task: u64) {
    if TASK.get() == task {
        TASK.set(0);
    }
    lock(&STATE).close(task);
}

pub(crate) fn take(scope: u64) -> Counts {
    let launched = lock(&TIMELINE).launched();
    Counts { launched, ..lock(&STATE).take(scope) }
}

pub(crate) fn drain(wait: bool) -> Drained {
    let drained = lock(&TIMELINE).drain(wait);
    Drained { memory: lock(&STATE).samples(), ..drained }
}

/// Counts a call of the function `name`.
fn called(name: &Arc<str>) {
    let mut state = lock(&STATE);
    let scope = state.scope(own_task());
    state.count(scope, Group::Calls, name, Tally { count: 1, ..Tally::default() });
}

/// The task of this thread. 0 while the thread ends.
fn own_task() -> u64 {
    TASK.try_with(Cell::get).unwrap_or(0)
}

#[cfg(test)]
mod tests;
