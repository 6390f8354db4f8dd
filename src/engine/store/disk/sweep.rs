//! What is done to the store as a whole: keeping its bound, looking it over, clearing it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::folder::{Lock, StoredFile, age};
use super::{DiskStore, Manifest, Miss, Trouble};
use crate::digest::Digest;
use crate::key::Key;
use crate::panic::guarded;
use crate::value::AnyCodec;

/// Of the limit, so much is left in percent once it was passed: room for what comes next.
const LEAVE: u64 = 90;

/// The digest of a file that was written down so long ago is taken anew when the file is next needed.
const FILES_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Results, or records of results.
    pub entries: usize,
    pub blobs: usize,
    /// Files that a dead process left half written.
    pub temporary: usize,
    /// Bytes of all that.
    pub bytes: u64,
    /// Bytes that are left.
    pub left: u64,
}

/// What the store holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CacheStatus {
    /// By node type.
    pub by_type: BTreeMap<String, TypeUsage>,
    /// Manifests that are not whole.
    pub damaged: usize,
    /// Digests of files.
    pub files: usize,
    /// Bytes of everything but what is in the making.
    pub bytes: u64,
    /// Files in the making, or left by processes that died.
    pub temporary: usize,
    pub temporary_bytes: u64,
    /// Whether someone writes or removes at this moment.
    pub busy: bool,
}

/// The results of one node type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypeUsage {
    pub results: usize,
    /// Results whose values are not on disk.
    pub records: usize,
    /// Bytes of their values; what two results share is counted for both.
    pub bytes: u64,
}

/// Something in the store that was not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    pub path: PathBuf,
    pub what: String,
}

/// The entries that are whole, and how many of them name each blob.
type Survey = (Vec<(StoredFile, Manifest)>, HashMap<BlobName, usize>);

impl DiskStore {
    /// The bytes of everything that counts towards the limit.
    pub fn bytes(&self) -> u64 {
        let found = self.folder.entries().chain(self.folder.blobs()).chain(self.folder.files());
        found.map(|found| found.metadata.len()).sum()
    }

    /// Everything that is known of results, in no order.
    pub fn manifests(&self) -> impl Iterator<Item = Manifest> {
        self.folder.entries().filter_map(|found| manifest(&found))
    }

    pub fn status(&self) -> CacheStatus {
        let mut status = CacheStatus { bytes: self.bytes(), busy: self.folder.is_busy(), ..CacheStatus::default() };
        for found in self.folder.entries() {
            let Some(manifest) = manifest(&found) else {
                status.damaged += 1;
                continue;
            };
            let kind = status.by_type.entry(manifest.material.node_type.to_string()).or_default();
            match &manifest.outputs {
                Some(blobs) => {
                    kind.results += 1;
                    kind.bytes += blobs.iter().map(|blob| blob.bytes).sum::<u64>();
                }
                None => kind.records += 1,
            }
        }
        for (_, metadata) in self.folder.temporary() {
            status.temporary += 1;
            status.temporary_bytes += metadata.len();
        }
        status.files = self.folder.files().count();
        status
    }

    /// Removes what dead processes left, blobs that no manifest names, and, where the limit is passed, what was used
    /// longest ago.
    ///
    /// # Errors
    /// When the folder cannot be locked or something cannot be removed.
    pub fn gc(&self) -> io::Result<SweepReport> {
        if !self.folder.path().exists() {
            return Ok(SweepReport::default());
        }
        let lock = self.folder.claim()?;
        self.sweep(&lock)
    }

    /// Removes everything.
    ///
    /// # Errors
    /// As those of [`gc`](DiskStore::gc).
    pub fn clear(&self) -> io::Result<SweepReport> {
        let mut swept = SweepReport::default();
        if !self.folder.path().exists() {
            return Ok(swept);
        }
        let lock = self.folder.claim()?;
        self.sweep_temporary(&lock, &mut swept)?;
        for entry in self.folder.entries() {
            swept.entries += swept.remove(&entry.path, entry.metadata.len())?;
        }
        for blob in self.folder.blobs() {
            swept.blobs += swept.remove(&blob.path, blob.metadata.len())?;
        }
        for file in self.folder.files() {
            swept.remove(&file.path, file.metadata.len())?;
        }
        Ok(swept)
    }

    /// Reads everything, and removes what is not as it was written. `codecs`, by payload type, try whether values can
    /// still be decoded; without one only the digest is looked at.
    pub fn verify(&self, codecs: &HashMap<&'static str, AnyCodec>) -> Vec<Damaged> {
        let mut damaged = vec![];
        let mut whole = HashSet::new();
        for entry in self.folder.entries() {
            let key = Key(entry.digest);
            let judged = self.whole_manifest(&key).and_then(|manifest| {
                self.check(&manifest, codecs)?;
                whole.extend(manifest.blobs().map(|blob| blob.digest));
                Ok(())
            });
            if let Err(Miss::Damaged(_)) = judged
                && let Some(what) = self.discard(&key, |manifest| self.check(manifest, codecs))
            {
                damaged.push(Damaged { path: entry.path, what });
            }
        }
        for blob in self.folder.blobs().filter(|blob| !whole.contains(&blob.digest)) {
            let spoilt = || fs::read(&blob.path).is_ok_and(|bytes| Digest::of(&bytes) != blob.digest);
            if spoilt()
                && let Ok(_lock) = self.folder.claim()
                && spoilt()
            {
                let _ = fs::remove_file(&blob.path);
                damaged.push(Damaged { path: blob.path.clone(), what: "its data is damaged".into() });
            }
        }
        damaged
    }

    fn check(&self, manifest: &Manifest, codecs: &HashMap<&'static str, AnyCodec>) -> Result<(), Miss> {
        for blob in manifest.blobs() {
            let bytes = self.content(blob)?;
            let fits = |codec: &&AnyCodec| (codec.format, codec.version) == (&*blob.format, blob.version);
            if let Some((name, codec)) = codecs.get_key_value(&*blob.type_name)
                && fits(&codec)
            {
                guarded(name, || (codec.decode)(&bytes))
                    .unwrap_or_else(|panicked| Err(panicked.into()))
                    .map_err(|error| Miss::damaged(format!("it cannot be decoded: {error:#}"), None))?;
            }
        }
        Ok(())
    }

    /// Keeps the bound, where it is passed.
    pub(super) fn shrink(&self) {
        self.written.store(0, std::sync::atomic::Ordering::Relaxed);
        if self.bytes() > self.limit
            && let Err(error) = self.gc()
        {
            self.tell(Trouble::Remove, &error);
        }
    }

    pub(super) fn sweep(&self, lock: &Lock) -> io::Result<SweepReport> {
        let mut swept = SweepReport::default();
        self.sweep_temporary(lock, &mut swept)?;
        let (mut entries, readers) = self.survey(&mut swept)?;
        let mut blobs = HashMap::new();
        for blob in self.folder.blobs() {
            let named = readers.contains_key(&(blob.digest, blob.format.clone()));
            if !named && lock.is_left_behind(&blob.metadata) {
                swept.blobs += swept.remove(&blob.path, blob.metadata.len())?;
            } else {
                swept.left += blob.metadata.len();
                blobs.insert((blob.digest, blob.format.clone()), blob);
            }
        }
        for file in self.folder.files() {
            if age(&file.metadata).is_some_and(|age| age > FILES_KEPT) {
                swept.remove(&file.path, file.metadata.len())?;
            } else {
                swept.left += file.metadata.len();
            }
        }
        if swept.left > self.limit {
            // The last is the one used longest ago.
            entries.sort_by_key(|(entry, _)| Reverse(entry.metadata.modified().ok()));
            self.evict(entries, readers, blobs, &mut swept)?;
        }
        Ok(swept)
    }

    fn sweep_temporary(&self, lock: &Lock, swept: &mut SweepReport) -> io::Result<()> {
        for (path, metadata) in self.folder.temporary().filter(|(_, metadata)| lock.is_left_behind(metadata)) {
            swept.temporary += swept.remove(&path, metadata.len())?;
        }
        Ok(())
    }

    /// All entries, and how many of them name each blob. What is not whole is removed: it hides what it names.
    fn survey(&self, swept: &mut SweepReport) -> io::Result<Survey> {
        let mut entries = vec![];
        let mut readers = HashMap::new();
        for entry in self.folder.entries() {
            match manifest(&entry) {
                Some(manifest) => {
                    for name in names(&manifest) {
                        *readers.entry(name).or_default() += 1;
                    }
                    swept.left += entry.metadata.len();
                    entries.push((entry, manifest));
                }
                None => swept.entries += swept.remove(&entry.path, entry.metadata.len())?,
            }
        }
        Ok((entries, readers))
    }

    /// Drops entries from the end, and the blobs that no other names, until there is room again.
    fn evict(
        &self,
        mut entries: Vec<(StoredFile, Manifest)>,
        mut readers: HashMap<BlobName, usize>,
        blobs: HashMap<BlobName, StoredFile>,
        swept: &mut SweepReport,
    ) -> io::Result<()> {
        let target = (u128::from(self.limit) * u128::from(LEAVE) / 100) as u64;
        while swept.left > target
            && let Some((entry, manifest)) = entries.pop()
        {
            // The manifest first: none may name what is gone.
            swept.entries += swept.remove(&entry.path, entry.metadata.len())?;
            swept.left = swept.left.saturating_sub(entry.metadata.len());
            for name in names(&manifest) {
                let left = readers.entry(name.clone()).or_default();
                *left = left.saturating_sub(1);
                if let (0, Some(blob)) = (*left, blobs.get(&name)) {
                    swept.blobs += swept.remove(&blob.path, blob.metadata.len())?;
                    swept.left = swept.left.saturating_sub(blob.metadata.len());
                }
            }
        }
        Ok(())
    }
}

/// A blob as its file is called.
type BlobName = (Digest, String);

/// The blobs that a manifest names, each once.
fn names(manifest: &Manifest) -> HashSet<BlobName> {
    manifest.blobs().map(|blob| (blob.digest, blob.format.clone())).collect()
}

fn manifest(found: &StoredFile) -> Option<Manifest> {
    Manifest::from_bytes(&fs::read(&found.path).ok()?, &Key(found.digest))
}

impl SweepReport {
    /// Removes a file; how many that were, for it may be gone already.
    fn remove(&mut self, path: &Path, bytes: u64) -> io::Result<usize> {
        match fs::remove_file(path) {
            Ok(()) => {
                self.bytes += bytes;
                Ok(1)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;

    /// Where nothing says who is at work, only what is old is taken for left behind.
    #[test]
    fn without_locks_young_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskStore::new(folder.path(), 0, Arc::new(|_| {}));
        let blob = |byte| store.folder.blob(&Digest([byte; 32]), "bin");
        let files = [store.folder.path().join("tmp/young"), blob(1), store.folder.path().join("tmp/old"), blob(2)];
        for path in &files {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "half").unwrap();
        }
        for path in &files[2..] {
            let then = SystemTime::now() - Duration::from_secs(2 * 3600);
            File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
        }
        let swept = store.sweep(&Lock::none()).unwrap();
        assert_eq!((swept.temporary, swept.blobs), (1, 1));
        assert_eq!(files.map(|path| path.exists()), [true, true, false, false]);
    }
}
