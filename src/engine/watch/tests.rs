use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::EventKind;
use tempfile::TempDir;

use super::*;

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

/// Returns the names of the files in the next reported change.
async fn next(folder: &TempDir, watcher: &mut Watcher) -> Vec<String> {
    let changed = tokio::time::timeout(Duration::from_secs(20), watcher.changed()).await.expect("a report");
    let name = |path: &PathBuf| path.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_string();
    changed.paths.iter().map(name).collect()
}

#[tokio::test]
async fn writes_renames_and_removals_are_reported_and_other_files_are_not() {
    for poll in [EVENTS, POLLS] {
        let (folder, mut watcher) = watching(poll, &["a", "b"], |folder| fs::write(folder.join("a"), "1").unwrap());
        let path = |name: &str| folder.path().join(name);
        fs::write(path("stranger"), "x").unwrap();
        fs::write(path("a"), "22").unwrap();
        assert_eq!(next(&folder, &mut watcher).await, ["a"]);
        fs::write(path("temporary"), "333").unwrap();
        fs::rename(path("temporary"), path("a")).unwrap();
        assert_eq!(next(&folder, &mut watcher).await, ["a"]);
        // A change of the new inode is reported too.
        fs::write(path("a"), "4444").unwrap();
        assert_eq!(next(&folder, &mut watcher).await, ["a"]);
        fs::remove_file(path("a")).unwrap();
        assert_eq!(next(&folder, &mut watcher).await, ["a"]);
        fs::write(path("a"), "5").unwrap();
        fs::write(path("b"), "6").unwrap();
        let mut reported = BTreeSet::new();
        while reported.len() < 2 {
            reported.extend(next(&folder, &mut watcher).await);
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
        // A new link with another target replaces the old one.
        symlink("../far/other", path("middle/new")).unwrap();
        fs::rename(path("middle/new"), path("middle/hop")).unwrap();
        assert_eq!(next(&folder, &mut watcher).await, ["link"]);
        fs::write(path("far/other"), "333").unwrap();
        assert_eq!(next(&folder, &mut watcher).await, ["link"]);
        // A loop counts as a missing file.
        fs::remove_file(path("link")).unwrap();
        symlink("link", path("link")).unwrap();
        assert_eq!(next(&folder, &mut watcher).await, ["link"]);
    }
}

#[tokio::test]
async fn folders_may_be_created_removed_and_created_again() {
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
        // The folder is moved away and back. Its watch moved with it.
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

/// Parent folders are not watched, but polled.
#[tokio::test]
async fn a_parent_folder_is_replaced() {
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
    // There was only one change: the next one is of another file.
    watcher.watch(["a", "b"].map(|name| folder.path().join(name)));
    fs::write(folder.path().join("b"), "1").unwrap();
    assert_eq!(next(&folder, &mut watcher).await, ["b"]);
}

#[tokio::test]
async fn after_lost_events_every_file_may_have_changed() {
    let (folder, mut watcher) = watching(EVENTS, &["a", "b"], |_| {});
    watcher.inbox.event(Ok(notify::Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan)));
    assert_eq!(next(&folder, &mut watcher).await, ["a", "b"]);
    watcher.inbox.event(Err(notify::Error::generic("out of luck")));
    assert_eq!(next(&folder, &mut watcher).await, ["a", "b"]);
}

/// On file systems with coarse clocks, a second write may not change the stamp.
#[tokio::test]
async fn a_recent_stamp_is_reported_again() {
    let (folder, mut watcher) = watching(POLLS, &["a"], |_| {});
    fs::write(folder.path().join("a"), "1").unwrap();
    assert_eq!(next(&folder, &mut watcher).await, ["a"]);
    assert!(next(&folder, &mut watcher).await.is_empty());
}

#[test]
fn a_folder_that_cannot_be_watched_is_polled() {
    let (folder, mut watcher) = watching(EVENTS, &[], |_| {});
    // Without a system watcher, watching a folder fails as it does beyond the system's limit.
    watcher.system = None;
    watcher.blind = Some("the limit is reached".into());
    watcher.watch([folder.path().join("a")]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        fs::write(folder.path().join("a"), "1").unwrap();
        assert_eq!(next(&folder, &mut watcher).await, ["a"]);
    });
}
