//! The directory entries that determine which file a path leads to.

use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};
#[cfg(not(unix))]
use std::time::SystemTime;

/// How many links are followed on the way to a file. More are considered a loop.
const MAX_LINKS: usize = 40;

/// Returns the directory entries that determine which file a path leads to: each link on the way, and the file itself or, if
/// it does not exist, the first missing folder. Their folders are real paths, without links.
pub(super) fn places(path: &Path) -> Vec<PathBuf> {
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
                    // The file, or the first missing folder.
                    _ => {
                        places.push(place);
                        return places;
                    }
                }
            }
            // A root or a drive: begin again.
            Some(_) => at.push(&part),
            None => {}
        }
    }
    places
}

/// The components of a path, last first.
fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    parts.map(|part| part.as_os_str().to_os_string()).rev().collect()
}

/// Distinguishes a folder from another one with the same path.
#[derive(PartialEq, Eq)]
pub(super) struct FolderId(#[cfg(unix)] (u64, u64), #[cfg(not(unix))] Option<SystemTime>);

impl FolderId {
    /// The identity of a folder; `None` if it does not exist.
    pub fn of(folder: &Path) -> Option<FolderId> {
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
