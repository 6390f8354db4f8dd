//! Ctrl-C and SIGTERM: the first one stops a run after its current step, the second ends the process.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use crate::cli::Exit;

/// A request to stop.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Signal {
    Interrupt,
    Terminate,
}

impl Signal {
    fn exit(self) -> Exit {
        match self {
            Signal::Interrupt => Exit::Interrupted,
            Signal::Terminate => Exit::Terminated,
        }
    }

    /// How to repeat it.
    fn again(self) -> &'static str {
        match self {
            Signal::Interrupt => "press Ctrl-C again",
            Signal::Terminate => "send SIGTERM again",
        }
    }
}

/// Whether a session was asked to stop. Clones share it.
#[derive(Clone, Default)]
pub struct Stop {
    signal: Arc<OnceLock<Signal>>,
    last: Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>,
}

impl Stop {
    /// The exit code of a command that ends with `exit`: if it was stopped before it was done, that of the signal.
    pub fn exit(&self, exit: Exit) -> Exit {
        match self.signal.get() {
            Some(signal) if exit != Exit::Done => signal.exit(),
            _ => exit,
        }
    }

    /// Lets `last` be called before the second signal ends the process. It must not wait.
    pub fn before_exit(&self, last: impl Fn() + Send + Sync + 'static) {
        let _ = self.last.set(Box::new(last));
    }

    /// Calls `stop` at the first signal, with a message for the user. The second signal ends the process.
    ///
    /// Listens from the moment of this call, and not only once the future is polled.
    pub fn on_signal<F: FnOnce(&str)>(&self, stop: F) -> impl Future<Output = ()> + use<F> {
        let (requested, last) = (self.signal.clone(), self.last.clone());
        let signals = Signals::listen();
        async move {
            let Some(mut signals) = signals else { return };
            let Some(signal) = signals.next().await else { return };
            let _ = requested.set(signal);
            stop(&format!("stopping after this step; {} to stop at once", signal.again()));
            if let Some(second) = signals.next().await {
                last.get().into_iter().for_each(|last| last());
                std::process::exit(second.exit() as i32);
            }
        }
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> Option<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        Some(Signals { interrupt: signal(interrupt).ok()?, terminate: signal(terminate).ok()? })
    }

    async fn next(&mut self) -> Option<Signal> {
        tokio::select! {
            received = self.interrupt.recv() => received.map(|()| Signal::Interrupt),
            received = self.terminate.recv() => received.map(|()| Signal::Terminate),
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> Option<Signals> {
        Some(Signals)
    }

    async fn next(&mut self) -> Option<Signal> {
        tokio::signal::ctrl_c().await.ok().map(|()| Signal::Interrupt)
    }
}
