//! Collects the events of the file system until the watcher reads them.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use notify::EventKind;
use notify::event::{AccessKind, AccessMode, ModifyKind};
use tokio::sync::Notify;

/// The changes that have not been reported yet.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<InboxState>,
    /// Notified of each change.
    pub changed: Notify,
}

#[derive(Default)]
pub(super) struct InboxState {
    /// The watched files that depend on each place.
    pub places: HashMap<PathBuf, BTreeSet<PathBuf>>,
    /// The files that may have changed.
    pub touched: BTreeSet<PathBuf>,
    /// Watched folders that were removed or moved. Their watches may be gone.
    pub lost: BTreeSet<PathBuf>,
    /// Events were lost: every file may have changed.
    pub everything: bool,
    /// When the first and the last event of this change came.
    pub span: Option<(Instant, Instant)>,
    /// When the first event came, as system time.
    pub since: Option<SystemTime>,
}

impl Inbox {
    pub fn lock(&self) -> MutexGuard<'_, InboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Receives an event. Called from the thread of the system's watcher.
    pub fn event(&self, event: notify::Result<notify::Event>) {
        let mut state = self.lock();
        match event {
            Ok(event) if event.need_rescan() => state.everything = true,
            // Reading a file does not change it.
            Ok(event) if matches!(event.kind, EventKind::Access(kind) if kind != WRITTEN) => return,
            Ok(event) => {
                let moves = matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)));
                let mut is_relevant = false;
                for path in &event.paths {
                    let InboxState { places, touched, lost, .. } = &mut *state;
                    if let Some(files) = places.get(path) {
                        touched.extend(files.iter().cloned());
                        is_relevant = true;
                    }
                    if moves {
                        let mut inside = places.iter().filter(|(place, _)| place.parent() == Some(path)).peekable();
                        if inside.peek().is_some() {
                            lost.insert(path.clone());
                            touched.extend(inside.flat_map(|(_, files)| files.iter().cloned()));
                            is_relevant = true;
                        }
                    }
                }
                if !is_relevant {
                    return;
                }
            }
            // Events were lost, and it is not known which.
            Err(_) => state.everything = true,
        }
        state.notify();
        drop(state);
        self.changed.notify_one();
    }
}

/// A file was closed after writing.
const WRITTEN: AccessKind = AccessKind::Close(AccessMode::Write);

impl InboxState {
    /// Notes the time of an event.
    pub fn notify(&mut self) {
        let now = Instant::now();
        let first = self.span.map_or(now, |(first, _)| first);
        self.span = Some((first, now));
        self.since.get_or_insert_with(SystemTime::now);
    }
}
