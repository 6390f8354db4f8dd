//! Turns an access to memory that is not there into a report.

use std::cell::Cell;
use std::sync::OnceLock;

use crate::fault::{Fault, fault};
use crate::memory::{Access, BASE, SIZE, explain};

static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the handler. The handler of the program stays in charge of the program's own addresses.
pub fn install() {
    // SAFETY: plain calls of the system with whole structures.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let mut before: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&mut action.sa_mask);
        if libc::sigaction(libc::SIGSEGV, &action, &mut before) == 0 {
            let _ = BEFORE.set(before);
        }
    }
}

extern "C" fn handler(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the system gives a whole structure.
    let address = unsafe { (*info).si_addr() } as u64;
    if (BASE..BASE + 2 * SIZE).contains(&address) {
        let address = if address >= BASE + SIZE { address - SIZE } else { address };
        let (kind, text) = explain(address, 1, Access::Read);
        let kind = if kind == Fault::Uninitialised { Fault::OutOfBounds } else { kind };
        fault(kind, format!("stray access on the host or in a library: {text}"));
    }
    // Not of the device: the former handler sees it when the instruction runs again.
    // SAFETY: the structure is what the system gave.
    unsafe {
        match BEFORE.get() {
            Some(before) => libc::sigaction(libc::SIGSEGV, before, std::ptr::null_mut()),
            None => libc::signal(libc::SIGSEGV, libc::SIG_DFL) as i32,
        };
    }
}

/// Prepares a worker thread: a stack for the handler, and no other signals on the small stacks of kernels.
pub fn prepare_thread() {
    const BYTES: usize = 256 << 10;
    thread_local!(static DONE: Cell<bool> = const { Cell::new(false) });
    if DONE.replace(true) {
        return;
    }
    // SAFETY: the stack is never freed, as its thread lives as long as the process.
    unsafe {
        let stack = libc::stack_t {
            ss_sp: Box::leak(vec![0u8; BYTES].into_boxed_slice()).as_mut_ptr().cast(),
            ss_flags: 0,
            ss_size: BYTES,
        };
        libc::sigaltstack(&stack, std::ptr::null_mut());
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT] {
            libc::sigdelset(&mut all, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &all, std::ptr::null_mut());
    }
}
