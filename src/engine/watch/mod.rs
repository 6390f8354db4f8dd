//! Reports when files may have changed.
//!
//! A report is a hint: only the content of a file shows whether it has changed. The watcher uses the events of the file
//! system for the folder of each file and of each link on the way to it, because editors replace files. In addition it
//! polls the files' stamps: often if there are no events (the system has none, a folder cannot be watched, or the
//! caller asks for polling), otherwise rarely, for network file systems and for folders that are replaced. Reads no
//! file, and is independent of graphs.

mod inbox;
mod places;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::time::sleep_until;

use self::inbox::Inbox;
use self::places::{FolderId, places};
use crate::store::{SETTLED, Stamp};

/// A change is reported when there was no event for this time …
const QUIET: Duration = Duration::from_millis(20);

/// … or, if events go on, this long after the first one.
const MAX_DELAY: Duration = Duration::from_millis(100);

/// A missing or empty file may be about to be written: it is waited for this much longer.
const EMPTY_DELAY: Duration = Duration::from_millis(100);

/// How often stamps are polled if there are events.
const POLL_WITH_EVENTS: Duration = Duration::from_secs(2);

/// How often stamps are polled by default if there are no events.
const POLL_WITHOUT_EVENTS: Duration = Duration::from_millis(250);

/// How often places are looked up again if they change at the same time.
const ATTEMPTS: usize = 5;

/// Watches a set of files.
pub struct Watcher {
    /// Gives the events of the file system, if there are any.
    system: Option<RecommendedWatcher>,
    inbox: Arc<Inbox>,
    /// The stamp of each file when it was last reported; `None` if the file does not exist.
    files: BTreeMap<PathBuf, Option<Stamp>>,
    /// The watched folders with their identities. A folder that has been replaced must be watched anew.
    folders: HashMap<PathBuf, FolderId>,
    /// Why there are no events for some files.
    blind: Option<String>,
    poll: Option<Duration>,
    next_poll: Instant,
    /// When to report again because a stamp was too recent to be reliable.
    recheck: Option<Instant>,
}

/// Files that may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The files, as they were given to [`Watcher::watch`]. Empty if no change was noticed, but the last one is so recent that
    /// a second change could have gone unnoticed.
    pub paths: Vec<PathBuf>,
    /// When the first event came.
    pub since: SystemTime,
}

impl Watcher {
    /// A watcher of no files. If `poll` is given, it polls stamps at this interval and uses no events.
    pub fn new(poll: Option<Duration>) -> Watcher {
        let inbox = Arc::new(Inbox::default());
        let (mut system, mut blind) = (None, None);
        if poll.is_none() {
            let events = inbox.clone();
            match notify::recommended_watcher(move |event| events.event(event)) {
                Ok(watcher) => system = Some(watcher),
                Err(error) => blind = Some(format!("the system reports no changes: {error}")),
            }
        }
        Watcher {
            system,
            inbox,
            files: BTreeMap::new(),
            folders: HashMap::new(),
            blind,
            poll,
            next_poll: Instant::now(),
            recheck: None,
        }
    }

    /// Watches these files, whether or not they exist, and no others. Returns whether any of them was not watched before:
    /// it may have changed since the caller read it.
    pub fn watch(&mut self, paths: impl IntoIterator<Item = PathBuf>) -> bool {
        let mut known = std::mem::take(&mut self.files);
        let mut new = false;
        for path in paths {
            let stamp = known.remove(&path).unwrap_or_else(|| {
                new = true;
                Stamp::of(&path).ok()
            });
            self.files.insert(path, stamp);
        }
        if new || !known.is_empty() {
            self.find_places();
        }
        new
    }

    /// The watched files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }

    /// Why files are polled instead of watched by events, if they are.
    pub fn blind(&self) -> Option<&str> {
        self.blind.as_deref()
    }

    /// Waits for a change and until it is complete. Cancel safe: no change is lost if the future is dropped.
    pub async fn changed(&mut self) -> Changed {
        loop {
            let now = Instant::now();
            let due = self.inbox.lock().span.map(|(first, last)| (last + QUIET).min(first + MAX_DELAY));
            match due {
                Some(due) if due <= now && !self.may_be_incomplete(now) => {
                    if let Some(changed) = self.take() {
                        return changed;
                    }
                    continue;
                }
                None if self.recheck.is_some_and(|at| at <= now) => {
                    self.recheck = None;
                    return Changed { paths: vec![], since: SystemTime::now() };
                }
                None if self.next_poll <= now => {
                    self.poll_stamps();
                    continue;
                }
                _ => {}
            }
            let wake = match due {
                Some(due) => due.max(now + QUIET / 4),
                None => self.recheck.map_or(self.next_poll, |at| at.min(self.next_poll)),
            };
            tokio::select! {
                () = self.inbox.changed.notified() => {}
                () = sleep_until(wake.into()) => {}
            }
        }
    }

    /// Whether a changed file is missing or empty, and may still be being written.
    fn may_be_incomplete(&self, now: Instant) -> bool {
        let state = self.inbox.lock();
        let Some((first, last)) = state.span else { return false };
        now < (last + EMPTY_DELAY).min(first + MAX_DELAY + EMPTY_DELAY)
            && state.touched.iter().any(|path| fs::metadata(path).map_or(true, |facts| facts.len() == 0))
    }

    /// Takes the change out of the inbox; `None` if it concerns none of the files.
    fn take(&mut self) -> Option<Changed> {
        let (mut touched, everything, since) = {
            let mut state = self.inbox.lock();
            state.span = None;
            let everything = std::mem::take(&mut state.everything);
            (std::mem::take(&mut state.touched), everything, state.since.take())
        };
        // Links and folders may have changed.
        self.find_places();
        let restamped = self.restamp();
        touched.extend(restamped);
        touched.retain(|path| everything || self.files.contains_key(path));
        if everything {
            touched.extend(self.files.keys().cloned());
        }
        let since = since.unwrap_or_else(SystemTime::now);
        (!touched.is_empty()).then(|| Changed { paths: touched.into_iter().collect(), since })
    }

    /// Polls all stamps. A change of a stamp counts like an event.
    fn poll_stamps(&mut self) {
        let interval = if self.blind.is_some() { POLL_WITHOUT_EVENTS } else { POLL_WITH_EVENTS };
        self.next_poll = Instant::now() + self.poll.unwrap_or(interval);
        let changed = self.restamp();
        // As long as a stamp is recent, a second change may not show in it.
        if changed.iter().any(|path| matches!(self.files.get(path), Some(Some(stamp)) if !stamp.is_settled())) {
            self.recheck = Some(Instant::now() + SETTLED);
        }
        if !changed.is_empty() {
            let mut state = self.inbox.lock();
            state.touched.extend(changed);
            state.notify();
        }
    }

    /// Updates all stamps. Returns the files whose stamps have changed.
    fn restamp(&mut self) -> Vec<PathBuf> {
        let mut changed = vec![];
        for (path, stamp) in &mut self.files {
            let now = Stamp::of(path).ok();
            if *stamp != now {
                *stamp = now;
                changed.push(path.clone());
            }
        }
        changed
    }

    /// Looks up the places of all files, and watches their folders.
    fn find_places(&mut self) {
        // A folder may be created before its parent is watched, so look again after each new watch.
        for _ in 0..ATTEMPTS {
            let mut found: HashMap<PathBuf, BTreeSet<PathBuf>> = HashMap::new();
            for path in self.files.keys() {
                for place in places(path) {
                    found.entry(place).or_default().insert(path.clone());
                }
            }
            let folders: BTreeSet<_> = found.keys().filter_map(|place| place.parent()).map(Path::to_path_buf).collect();
            let lost = {
                let mut state = self.inbox.lock();
                state.places = found;
                std::mem::take(&mut state.lost)
            };
            if !self.watch_folders(&folders, &lost) {
                break;
            }
        }
    }

    /// Watches these folders and no others. Returns whether any of them was not watched before. Must not be called while
    /// the inbox is locked: the thread of the system's watcher may wait for the lock.
    fn watch_folders(&mut self, needed: &BTreeSet<PathBuf>, lost: &BTreeSet<PathBuf>) -> bool {
        let Some(system) = &mut self.system else { return false };
        let stays = |folder: &PathBuf, id: &FolderId| {
            needed.contains(folder) && !lost.contains(folder) && FolderId::of(folder).as_ref() == Some(id)
        };
        self.folders.retain(|folder, id| {
            let stays = stays(folder, id);
            if !stays {
                // Fails if the folder is gone.
                let _ = system.unwatch(folder);
            }
            stays
        });
        let mut is_new = false;
        let mut blind = None;
        for folder in needed {
            if self.folders.contains_key(folder) {
                continue;
            }
            let Some(id) = FolderId::of(folder) else { continue };
            match system.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.folders.insert(folder.clone(), id);
                    is_new = true;
                }
                Err(error) => blind = Some(format!("`{}` cannot be watched: {error}", folder.display())),
            }
        }
        self.blind = blind;
        if self.blind.is_some() {
            self.next_poll = self.next_poll.min(Instant::now() + POLL_WITHOUT_EVENTS);
        }
        is_new
    }
}

#[cfg(test)]
mod tests;
