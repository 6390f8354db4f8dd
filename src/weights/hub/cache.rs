//! The cache of a repository's downloads, in the layout that all clients of the hub share.
//!
//! ```text
//! models--owner--name/blobs/ETAG                  the content of a file, named by its ETag
//! models--owner--name/blobs/ETAG.incomplete       a partial download
//! models--owner--name/snapshots/COMMIT/path/file  a link to the content
//! models--owner--name/refs/BRANCH                 the commit that the branch was at
//! .locks/models--owner--name/ETAG.lock            locked during its download
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use lsregen_files::Kind;

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

    /// The commit of a revision at its last download.
    pub fn commit(&self, revision: &str) -> Option<String> {
        if self.snapshot(revision).is_dir() && is_commit(revision) {
            return Some(revision.into());
        }
        let commit = lsregen_files::read_text(&self.folder.join("refs").join(revision), Kind::SETTINGS).ok()?;
        let commit = commit.trim();
        is_commit(commit).then(|| commit.to_string())
    }

    /// The folder of a commit's files, which may not exist.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    pub fn partial(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// The lock file of a download.
    pub fn lock(&self, etag: &str) -> Result<File> {
        let path = self.locks.join(format!("{etag}.lock"));
        create_parent(&path)?;
        lsregen_files::open_with(&path, File::options().create(true).truncate(false).write(true))
            .map_err(Error::io(path))
    }

    /// Links a content into the folder of a commit.
    pub fn link(&self, commit: &str, path: &str, etag: &str) -> Result<()> {
        let link = self.snapshot(commit).join(path);
        create_parent(&link)?;
        // A link whose content was deleted.
        if link.is_symlink() && !link.exists() {
            fs::remove_file(&link).map_err(Error::io(&link))?;
        }
        let up = "../".repeat(2 + path.matches('/').count());
        match symlink(&self.blob(etag), Path::new(&format!("{up}blobs/{etag}")), &link) {
            Err(_) if link.exists() => Ok(()),
            done => done.map_err(Error::io(link)),
        }
    }

    /// Records the commit of a branch or tag.
    pub fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        create_parent(&path)?;
        if lsregen_files::read_text(&path, Kind::SETTINGS).is_ok_and(|known| known == commit) {
            return Ok(());
        }
        let new = self.folder.join(format!(".{}.new", std::process::id()));
        fs::write(&new, commit).and_then(|()| fs::rename(&new, &path)).map_err(Error::io(path))
    }
}

/// Creates the folder of a file.
pub(super) fn create_parent(file: &Path) -> Result<()> {
    let folder = file.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder).map_err(Error::io(folder))
}

/// Whether a text is a git commit, which is a valid path component.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(unix)]
fn symlink(_content: &Path, relative: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(relative, link)
}

/// On Windows not every user may create links. Then the content itself moves there, as in other clients.
#[cfg(windows)]
fn symlink(content: &Path, relative: &Path, link: &Path) -> io::Result<()> {
    let relative = PathBuf::from(relative.to_string_lossy().replace('/', "\\"));
    std::os::windows::fs::symlink_file(relative, link).or_else(|_| fs::rename(content, link))
}
