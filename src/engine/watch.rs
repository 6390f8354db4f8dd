//! Tells when files may have changed, so that someone looks at them again.
//!
//! What is told is a hint: only the content says whether there is a change. Events of the system are taken where there
//! are any, on the folders (editors put new files in the place of old ones) of the file and of each link on the way to
//! it. Beside them the files' stamps are looked at now and then, often where events do not come: no watcher can be had,
//! a folder cannot be watched, polling was asked for; rarely elsewhere, for network file systems and folders that are
//! exchanged. Knows no graph and reads no file.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::sleep_until;

use crate::files::{SETTLED, Stamp};

/// A change is told when nothing has come for so long …
const QUIET: Duration = Duration::from_millis(20);

/// … or, where events keep coming, this long after the first.
const AT_MOST: Duration = Duration::from_millis(100);

/// A file that is gone or empty may be about to be written: so much longer it is waited for.
const HOLLOW: Duration = Duration::from_millis(100);

/// How often stamps are looked at where events come too.
const RARELY: Duration = Duration::from_secs(2);

/// How often where events do not come and nothing else was asked for.
const OFTEN: Duration = Duration::from_millis(250);

/// Links on the way to a file; more are taken for a loop.
const MAX_LINKS: usize = 40;

/// How often places are looked up again that change meanwhile.
const ATTEMPTS: usize = 5;

/// Watches a set of files.
pub struct Watcher {
    /// Events of the system.
    system: Option<RecommendedWatcher>,
    inbox: Arc<Inbox>,
    /// The files, as they looked when they were last told of; `None` where there is no file.
    files: BTreeMap<PathBuf, Option<Stamp>>,
    /// Folders whose events come, with their identities: another folder of that name has to be watched anew.
    folders: HashMap<PathBuf, FolderId>,
    /// Why events do not come, or not of all files.
    blind: Option<String>,
    poll: Option<Duration>,
    next_look: Instant,
    /// When a stamp that was too young to be trusted is.
    recheck: Option<Instant>,
}

/// Files that may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// As they were given to [`Watcher::watch`]. None, where nothing was seen, but the last change is so young that
    /// another might hide behind it.
    pub paths: Vec<PathBuf>,
    /// When the first sign of it came.
    pub since: SystemTime,
}

#[derive(Default)]
struct Inbox {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    /// The watched files that each place decides on.
    places: HashMap<PathBuf, BTreeSet<PathBuf>>,
    touched: BTreeSet<PathBuf>,
    /// Watched folders that went or were moved; their watches may be gone with them.
    lost: BTreeSet<PathBuf>,
    /// Events were lost.
    everything: bool,
    /// When the first and the last news of this change came.
    span: Option<(Instant, Instant)>,
    since: Option<SystemTime>,
}

impl Watcher {
    /// Watches nothing yet. `poll`: look at stamps that often and do without events.
    pub fn new(poll: Option<Duration>) -> Watcher {
        let inbox = Arc::new(Inbox::default());
        let (mut system, mut blind) = (None, None);
        if poll.is_none() {
            let events = inbox.clone();
            match notify::recommended_watcher(move |event| events.event(event)) {
                Ok(watcher) => system = Some(watcher),
                Err(error) => blind = Some(format!("the system tells of no changes: {error}")),
            }
        }
        Watcher {
            system,
            inbox,
            files: BTreeMap::new(),
            folders: HashMap::new(),
            blind,
            poll,
            next_look: Instant::now(),
            recheck: None,
        }
    }

    /// Watches these files, there or not, and no others. Whether any of them was not watched before: it may have
    /// changed between someone's reading it and this call.
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

    /// The files that are watched.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }

    /// Why files are polled that were to be watched by events, if they are.
    pub fn blind(&self) -> Option<&str> {
        self.blind.as_deref()
    }

    /// Waits for a change, and for the end of it. May be dropped and called again; nothing is lost.
    pub async fn changed(&mut self) -> Changed {
        loop {
            let now = Instant::now();
            let due = self.inbox.lock().span.map(|(first, last)| (last + QUIET).min(first + AT_MOST));
            match due {
                Some(due) if due <= now && !self.is_hollow(now) => {
                    if let Some(changed) = self.take() {
                        return changed;
                    }
                    continue;
                }
                None if self.recheck.is_some_and(|at| at <= now) => {
                    self.recheck = None;
                    return Changed { paths: vec![], since: SystemTime::now() };
                }
                None if self.next_look <= now => {
                    self.look();
                    continue;
                }
                _ => {}
            }
            let wake = match due {
                Some(due) => due.max(now + QUIET / 4),
                None => self.recheck.map_or(self.next_look, |at| at.min(self.next_look)),
            };
            tokio::select! {
                () = self.inbox.news.notified() => {}
                () = sleep_until(wake.into()) => {}
            }
        }
    }

    /// Whether a touched file is gone or empty, and there is still hope that it is being written.
    fn is_hollow(&self, now: Instant) -> bool {
        let state = self.inbox.lock();
        let Some((first, last)) = state.span else { return false };
        now < (last + HOLLOW).min(first + AT_MOST + HOLLOW)
            && state.touched.iter().any(|path| fs::metadata(path).map_or(true, |facts| facts.len() == 0))
    }

    /// What there is to tell; `None` where it turns out to be nothing of these files.
    fn take(&mut self) -> Option<Changed> {
        let (mut touched, everything, since) = {
            let mut state = self.inbox.lock();
            state.span = None;
            let everything = std::mem::take(&mut state.everything);
            (std::mem::take(&mut state.touched), everything, state.since.take())
        };
        // Links may lead elsewhere now, and folders may have come or gone.
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

    /// Looks at all stamps; a change of one is news like an event.
    fn look(&mut self) {
        let often = if self.blind.is_some() { OFTEN } else { RARELY };
        self.next_look = Instant::now() + self.poll.unwrap_or(often);
        let changed = self.restamp();
        // Two changes may hide behind one stamp, as long as it is young.
        if changed.iter().any(|path| matches!(self.files.get(path), Some(Some(stamp)) if !stamp.is_settled())) {
            self.recheck = Some(Instant::now() + SETTLED);
        }
        if !changed.is_empty() {
            let mut state = self.inbox.lock();
            state.touched.extend(changed);
            state.news();
        }
    }

    /// Takes new stamps; gives the files whose stamps are others now.
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

    /// Looks up the places that decide on the files, and has the system watch their folders.
    fn find_places(&mut self) {
        // A folder may come between the look for it and the watch on the one above: once more after each new watch.
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

    /// Whether any folder is watched that was not before. Never called with the inbox locked: the system's thread may
    /// wait for it.
    fn watch_folders(&mut self, wanted: &BTreeSet<PathBuf>, lost: &BTreeSet<PathBuf>) -> bool {
        let Some(system) = &mut self.system else { return false };
        let stays = |folder: &PathBuf, id: &FolderId| {
            wanted.contains(folder) && !lost.contains(folder) && FolderId::of(folder).as_ref() == Some(id)
        };
        self.folders.retain(|folder, id| {
            let stays = stays(folder, id);
            if !stays {
                // It may be gone with its folder.
                let _ = system.unwatch(folder);
            }
            stays
        });
        let mut new = false;
        let mut blind = None;
        for folder in wanted {
            if self.folders.contains_key(folder) {
                continue;
            }
            let Some(id) = FolderId::of(folder) else { continue };
            match system.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.folders.insert(folder.clone(), id);
                    new = true;
                }
                Err(error) => blind = Some(format!("`{}` cannot be watched: {error}", folder.display())),
            }
        }
        self.blind = blind;
        if self.blind.is_some() {
            self.next_look = self.next_look.min(Instant::now() + OFTEN);
        }
        new
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called from the system's thread.
    fn event(&self, event: notify::Result<notify::Event>) {
        let mut state = self.lock();
        match event {
            Ok(event) if event.need_rescan() => state.everything = true,
            // Whoever reads a file changes nothing.
            Ok(event) if matches!(event.kind, EventKind::Access(kind) if kind != WRITTEN) => return,
            Ok(event) => {
                let moves = matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)));
                let mut matters = false;
                for path in &event.paths {
                    let State { places, touched, lost, .. } = &mut *state;
                    if let Some(files) = places.get(path) {
                        touched.extend(files.iter().cloned());
                        matters = true;
                    }
                    if moves {
                        let mut inside = places.iter().filter(|(place, _)| place.parent() == Some(path)).peekable();
                        if inside.peek().is_some() {
                            lost.insert(path.clone());
                            touched.extend(inside.flat_map(|(_, files)| files.iter().cloned()));
                            matters = true;
                        }
                    }
                }
                if !matters {
                    return;
                }
            }
            // Something was lost, and there is no knowing what.
            Err(_) => state.everything = true,
        }
        state.news();
        drop(state);
        self.news.notify_one();
    }
}

/// A file was closed after writing: it is whole.
const WRITTEN: AccessKind = AccessKind::Close(AccessMode::Write);

impl State {
    fn news(&mut self) {
        let now = Instant::now();
        let first = self.span.map_or(now, |(first, _)| first);
        self.span = Some((first, now));
        self.since.get_or_insert_with(SystemTime::now);
    }
}

/// The places in folders that decide what a path leads to: that of each link on the way and that of the file itself; or,
/// where there is none, of the first folder that is missing. Folders in them are real, without links.
fn places(path: &Path) -> Vec<PathBuf> {
    let mut places = vec![];
    let mut at = PathBuf::new();
    let Ok(absolute) = std::path::absolute(path) else { return places };
    let mut ahead: Vec<OsString> = parts(&absolute);
    let mut links = 0;
    while let Some(part) = ahead.pop() {
        match Path::new(&part).components().next() {
            Some(Component::ParentDir) => {
                at.pop();
            }
            Some(Component::Normal(_)) => {
                let place = at.join(&part);
                match fs::symlink_metadata(&place) {
                    Ok(facts) if facts.is_symlink() && links < MAX_LINKS => {
                        links += 1;
                        if let Ok(target) = fs::read_link(&place) {
                            ahead.extend(parts(&target));
                        }
                        places.push(place);
                    }
                    Ok(_) if !ahead.is_empty() => at = place,
                    // The end of the way, or as far as there is one.
                    _ => {
                        places.push(place);
                        return places;
                    }
                }
            }
            // A root or a drive: begins anew.
            Some(_) => at.push(&part),
            None => {}
        }
    }
    places
}

/// The components of a path, the last first.
fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    parts.map(|part| part.as_os_str().to_os_string()).rev().collect()
}

/// What tells a folder from another of its name.
#[derive(PartialEq, Eq)]
struct FolderId(#[cfg(unix)] (u64, u64), #[cfg(not(unix))] Option<SystemTime>);

impl FolderId {
    /// `None` where there is no such folder.
    fn of(folder: &Path) -> Option<FolderId> {
        let facts = fs::metadata(folder).ok().filter(fs::Metadata::is_dir)?;
        #[cfg(unix)]
        let id = {
            use std::os::unix::fs::MetadataExt;
            (facts.dev(), facts.ino())
        };
        #[cfg(not(unix))]
        let id = facts.created().ok();
        Some(FolderId(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const EVENTS: Option<Duration> = None;
    const POLLS: Option<Duration> = Some(Duration::from_millis(10));

    /// A folder and a watcher of some paths in it.
    fn watching(poll: Option<Duration>, names: &[&str], before: impl FnOnce(&Path)) -> (TempDir, Watcher) {
        let folder = tempfile::tempdir().unwrap();
        before(folder.path());
        let mut watcher = Watcher::new(poll);
        assert_eq!(watcher.watch(names.iter().map(|name| folder.path().join(name))), !names.is_empty());
        assert_eq!(watcher.blind(), None);
        (folder, watcher)
    }

    /// Names of what changed next.
    async fn next(folder: &TempDir, watcher: &mut Watcher) -> Vec<String> {
        let changed = tokio::time::timeout(Duration::from_secs(20), watcher.changed()).await.expect("it is told");
        let name = |path: &PathBuf| path.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_string();
        changed.paths.iter().map(name).collect()
    }

    #[tokio::test]
    async fn writes_renames_and_removals_are_told_and_strangers_are_not() {
        for poll in [EVENTS, POLLS] {
            let (folder, mut watcher) = watching(poll, &["a", "b"], |folder| fs::write(folder.join("a"), "1").unwrap());
            let path = |name: &str| folder.path().join(name);
            fs::write(path("stranger"), "x").unwrap();
            fs::write(path("a"), "22").unwrap();
            assert_eq!(next(&folder, &mut watcher).await, ["a"]);
            fs::write(path("temporary"), "333").unwrap();
            fs::rename(path("temporary"), path("a")).unwrap();
            assert_eq!(next(&folder, &mut watcher).await, ["a"]);
            // The new inode too.
            fs::write(path("a"), "4444").unwrap();
            assert_eq!(next(&folder, &mut watcher).await, ["a"]);
            fs::remove_file(path("a")).unwrap();
            assert_eq!(next(&folder, &mut watcher).await, ["a"]);
            fs::write(path("a"), "5").unwrap();
            fs::write(path("b"), "6").unwrap();
            let mut told = BTreeSet::new();
            while told.len() < 2 {
                told.extend(next(&folder, &mut watcher).await);
            }
        }
    }

    #[tokio::test]
    async fn a_set_can_be_replaced() {
        let (folder, mut watcher) = watching(EVENTS, &["a"], |_| {});
        let path = |name: &str| folder.path().join(name);
        assert!(watcher.watch([path("a"), path("b")]));
        assert!(!watcher.watch([path("b")]));
        fs::write(path("a"), "1").unwrap();
        fs::write(path("b"), "1").unwrap();
        assert_eq!(next(&folder, &mut watcher).await, ["b"]);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn links_are_followed_at_every_hop() {
        use std::os::unix::fs::symlink;
        for poll in [EVENTS, POLLS] {
            let (folder, mut watcher) = watching(poll, &["link"], |folder| {
                fs::create_dir_all(folder.join("far/away")).unwrap();
                fs::create_dir(folder.join("middle")).unwrap();
                fs::write(folder.join("far/away/file"), "1").unwrap();
                fs::write(folder.join("far/other"), "other").unwrap();
                symlink("../far/away/file", folder.join("middle/hop")).unwrap();
                symlink("middle/hop", folder.join("link")).unwrap();
            });
            let path = |name: &str| folder.path().join(name);
            fs::write(path("far/away/file"), "22").unwrap();
            assert_eq!(next(&folder, &mut watcher).await, ["link"]);
            // Another target, by a new link in the old one's place.
            symlink("../far/other", path("middle/new")).unwrap();
            fs::rename(path("middle/new"), path("middle/hop")).unwrap();
            assert_eq!(next(&folder, &mut watcher).await, ["link"]);
            fs::write(path("far/other"), "333").unwrap();
            assert_eq!(next(&folder, &mut watcher).await, ["link"]);
            // A loop is a file that is not there.
            fs::remove_file(path("link")).unwrap();
            symlink("link", path("link")).unwrap();
            assert_eq!(next(&folder, &mut watcher).await, ["link"]);
        }
    }

    #[tokio::test]
    async fn folders_may_come_go_and_come_again() {
        for poll in [EVENTS, POLLS] {
            let (folder, mut watcher) = watching(poll, &["new/deep/file"], |_| {});
            let path = |name: &str| folder.path().join(name);
            for text in ["1", "22", "333"] {
                fs::create_dir_all(path("new/deep")).unwrap();
                fs::write(path("new/deep/file"), text).unwrap();
                while !path("new/deep/file").exists() || next(&folder, &mut watcher).await.is_empty() {}
                fs::write(path("new/deep/file"), format!("{text}!")).unwrap();
                assert_eq!(next(&folder, &mut watcher).await, ["new/deep/file"]);
                fs::remove_dir_all(path("new")).unwrap();
                assert_eq!(next(&folder, &mut watcher).await, ["new/deep/file"]);
            }
            // Moved away and back: the same folder, whose watch went with it.
            fs::create_dir_all(path("new/deep")).unwrap();
            fs::write(path("new/deep/file"), "1").unwrap();
            next(&folder, &mut watcher).await;
            fs::rename(path("new/deep"), path("aside")).unwrap();
            assert_eq!(next(&folder, &mut watcher).await, ["new/deep/file"]);
            fs::rename(path("aside"), path("new/deep")).unwrap();
            assert_eq!(next(&folder, &mut watcher).await, ["new/deep/file"]);
            fs::write(path("new/deep/file"), "22").unwrap();
            assert_eq!(next(&folder, &mut watcher).await, ["new/deep/file"]);
        }
    }

    /// Higher folders are not watched, but looked at now and then.
    #[tokio::test]
    async fn a_folder_far_above_is_exchanged() {
        let (folder, mut watcher) = watching(EVENTS, &["a/b/c/file"], |folder| {
            for (top, text) in [("a", "old"), ("new", "other")] {
                fs::create_dir_all(folder.join(top).join("b/c")).unwrap();
                fs::write(folder.join(top).join("b/c/file"), text).unwrap();
            }
        });
        let path = |name: &str| folder.path().join(name);
        fs::rename(path("a"), path("aside")).unwrap();
        fs::rename(path("new"), path("a")).unwrap();
        assert_eq!(next(&folder, &mut watcher).await, ["a/b/c/file"]);
        fs::write(path("a/b/c/file"), "newest").unwrap();
        assert_eq!(next(&folder, &mut watcher).await, ["a/b/c/file"]);
    }

    #[tokio::test]
    async fn a_file_that_is_about_to_be_written_is_waited_for() {
        let (folder, mut watcher) = watching(EVENTS, &["a"], |folder| fs::write(folder.join("a"), "1").unwrap());
        let path = folder.path().join("a");
        fs::write(&path, "").unwrap();
        let write = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(40)).await;
            fs::write(path, "whole").unwrap();
        });
        assert_eq!(next(&folder, &mut watcher).await, ["a"]);
        write.await.unwrap();
        // One change, not two: the next is of another file.
        watcher.watch(["a", "b"].map(|name| folder.path().join(name)));
        fs::write(folder.path().join("b"), "1").unwrap();
        assert_eq!(next(&folder, &mut watcher).await, ["b"]);
    }

    #[tokio::test]
    async fn lost_events_mean_that_anything_may_have_changed() {
        let (folder, mut watcher) = watching(EVENTS, &["a", "b"], |_| {});
        watcher.inbox.event(Ok(notify::Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan)));
        assert_eq!(next(&folder, &mut watcher).await, ["a", "b"]);
        watcher.inbox.event(Err(notify::Error::generic("out of luck")));
        assert_eq!(next(&folder, &mut watcher).await, ["a", "b"]);
    }

    /// On file systems with coarse clocks a second write may leave the stamp as it is.
    #[tokio::test]
    async fn a_young_stamp_is_looked_behind_later() {
        let (folder, mut watcher) = watching(POLLS, &["a"], |_| {});
        fs::write(folder.path().join("a"), "1").unwrap();
        assert_eq!(next(&folder, &mut watcher).await, ["a"]);
        assert!(next(&folder, &mut watcher).await.is_empty());
    }

    #[test]
    fn a_folder_that_cannot_be_watched_is_polled() {
        let (folder, mut watcher) = watching(EVENTS, &[], |_| {});
        // Watches of a watcher that is gone fail as those beyond the system's limit do.
        watcher.system = None;
        watcher.blind = Some("the limit is reached".into());
        watcher.watch([folder.path().join("a")]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            fs::write(folder.path().join("a"), "1").unwrap();
            assert_eq!(next(&folder, &mut watcher).await, ["a"]);
        });
    }
}
