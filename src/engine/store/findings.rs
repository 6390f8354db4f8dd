//! What nodes found out beside their results and keep for other processes, such as that the gradient of a network is right.

use lsregen_files::Kind;
use serde::{Deserialize, Serialize};

use super::CacheFolder;
use super::disk::sealed;
use crate::key::Digest;
use crate::node::Findings;

/// A finding, as it is kept on disk. The name of its file is the digest of `about`.
#[derive(Serialize, Deserialize)]
struct FindingRecord {
    about: String,
    found: String,
}

impl Findings for CacheFolder {
    fn recall(&self, about: &str) -> Option<String> {
        let path = self.finding(&Digest::of(about.as_bytes()));
        let bytes = lsregen_files::read(&path, Kind::CACHE_ENTRY).ok()?;
        let record: FindingRecord = sealed::open(&bytes)?;
        (record.about == about).then_some(record.found)
    }

    /// If the folder cannot be written, the finding is not kept.
    fn keep(&self, about: &str, found: &str) {
        let write = || -> Option<()> {
            let text = sealed::seal(&FindingRecord { about: about.into(), found: found.into() }).ok()?;
            self.write(&self.share().ok()?, &self.finding(&Digest::of(about.as_bytes())), text.as_bytes()).ok()
        };
        write();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever exchanges a folder for a link, even between two steps of a removal, loses nothing outside.
    #[cfg(unix)]
    #[test]
    fn nothing_is_removed_through_a_link() {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let kept = outside.path().join("kept.json");
        std::fs::write(&kept, "1").unwrap();
        let cache = CacheFolder::new(folder.path());
        std::os::unix::fs::symlink(outside.path(), folder.path().join("v1")).unwrap();
        let at = CacheFolder::new(folder.path()).finding(&Digest::of(b"a"));
        let through = at.with_file_name("../kept.json");
        assert!(cache.remove(&through).is_err() && kept.is_file());
    }

    #[test]
    fn findings_are_kept_for_other_processes() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CacheFolder::new(folder.path());
        assert_eq!(cache.recall("a network"), None);
        cache.keep("a network", "1e-6");
        let later = CacheFolder::new(folder.path());
        assert_eq!((later.recall("a network").as_deref(), later.recall("another")), (Some("1e-6"), None));
        // A damaged finding is none.
        let path = cache.findings().next().unwrap().path;
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap().replace("1e-6", "1e-7")).unwrap();
        assert_eq!(cache.recall("a network"), None);
        // Without a writable folder nothing is kept.
        let blocked = folder.path().join("blocked");
        std::fs::write(&blocked, "a file in place of a folder").unwrap();
        let blocked = CacheFolder::new(blocked);
        blocked.keep("a network", "1e-6");
        assert_eq!(blocked.recall("a network"), None);
    }
}
