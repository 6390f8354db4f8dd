//! Where the downloads of a repository lie: the layout that all clients of the hub share.
//!
//! ```text
//! models--owner--name/blobs/ETAG                  a file's content, under what the hub calls it by
//! models--owner--name/blobs/ETAG.incomplete       as much of it as has come
//! models--owner--name/snapshots/COMMIT/path/file  a link to the content
//! models--owner--name/refs/BRANCH                 the commit that the branch was at
//! .locks/models--owner--name/ETAG.lock            locked by who downloads it
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::HubRef;
use crate::{Error, Result};

/// The folders of one repository.
pub(super) struct Cache {
    folder: PathBuf,
    locks: PathBuf,
}

impl Cache {
    pub fn new(cache: &Path, of: &HubRef) -> Cache {
        let name = format!("models--{}--{}", of.owner, of.name);
        Cache { folder: cache.join(&name), locks: cache.join(".locks").join(&name) }
    }

    /// The commit that a revision was at when it was last downloaded.
    pub fn commit(&self, revision: &str) -> Option<String> {
        if self.snapshot(revision).is_dir() && is_commit(revision) {
            return Some(revision.into());
        }
        let commit = fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        let commit = commit.trim();
        is_commit(commit).then(|| commit.to_string())
    }

    /// The folder of a commit's files, which need not be there.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    pub fn partial(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// The file that is locked while a content is downloaded.
    pub fn lock(&self, etag: &str) -> Result<File> {
        let path = self.locks.join(format!("{etag}.lock"));
        made(&path)?;
        File::options().create(true).truncate(false).write(true).open(&path).map_err(Error::io(path))
    }

    /// Puts a content in a commit's folder.
    pub fn link(&self, commit: &str, path: &str, etag: &str) -> Result<()> {
        let link = self.snapshot(commit).join(path);
        made(&link)?;
        // A link whose content was removed by hand.
        if link.is_symlink() && !link.exists() {
            fs::remove_file(&link).map_err(Error::io(&link))?;
        }
        let up = "../".repeat(2 + path.matches('/').count());
        match symlink(&self.blob(etag), Path::new(&format!("{up}blobs/{etag}")), &link) {
            Err(_) if link.exists() => Ok(()),
            done => done.map_err(Error::io(link)),
        }
    }

    /// Notes which commit a branch or tag is at.
    pub fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        made(&path)?;
        if fs::read_to_string(&path).is_ok_and(|known| known == commit) {
            return Ok(());
        }
        let new = self.folder.join(format!(".{}.new", std::process::id()));
        fs::write(&new, commit).and_then(|()| fs::rename(&new, &path)).map_err(Error::io(path))
    }
}

/// Makes the folder of a file.
pub(super) fn made(file: &Path) -> Result<()> {
    let folder = file.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder).map_err(Error::io(folder))
}

/// A git commit, and therefore one component of a path.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(unix)]
fn symlink(_content: &Path, relative: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(relative, link)
}

/// Windows lets not everyone make links: then the content itself moves there, as with other clients.
#[cfg(windows)]
fn symlink(content: &Path, relative: &Path, link: &Path) -> io::Result<()> {
    let relative = PathBuf::from(relative.to_string_lossy().replace('/', "\\"));
    std::os::windows::fs::symlink_file(relative, link).or_else(|_| fs::rename(content, link))
}
