//! Operations on the whole store: keeping its limit, reporting its contents, verifying and clearing it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lsregen_files::Kind;

use super::folder::{CacheFolder, Damaged, Lock, StoredFile, age};
use super::manifest::Manifest;
use super::{DiskStore, Miss, Operation, sealed};
use crate::key::{Digest, Key};
use crate::node::{AnyCodec, guarded};

/// When the limit is exceeded, results are removed until this percentage of it is used, to make room for the next ones.
const TARGET_PERCENT: u64 = 90;

/// The digest of a file, or a finding, is removed at this age, and computed again when it is needed.
const MAX_DIGEST_AGE: Duration = Duration::from_secs(90 * 24 * 3600);

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Results, including records of results.
    pub entries: usize,
    /// Values.
    pub blobs: usize,
    /// Incomplete files of dead processes.
    pub temporary: usize,
    /// The size of the removed files, in bytes.
    pub bytes: u64,
    /// The size of the remaining files, in bytes.
    pub left: u64,
}

/// The contents of the store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CacheStatus {
    /// The results of each node type.
    pub by_type: BTreeMap<String, TypeUsage>,
    /// Damaged manifests.
    pub damaged: usize,
    /// Cached digests of files.
    pub files: usize,
    /// The size of all files except temporary ones, in bytes.
    pub bytes: u64,
    /// Files that are being written, or were when their process died.
    pub temporary: usize,
    /// The size of these files, in bytes.
    pub temporary_bytes: u64,
    /// Whether a process is writing or removing now.
    pub busy: bool,
}

/// The results of one node type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypeUsage {
    /// Results with their values.
    pub results: usize,
    /// Results whose values are not on disk.
    pub records: usize,
    /// The size of their values, in bytes. A value that two results share counts twice.
    pub bytes: u64,
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// What was damaged, and has been removed.
    pub removed: Vec<Damaged>,
    /// What cannot be read, or is damaged and cannot be removed.
    pub failed: Vec<Damaged>,
}

/// The undamaged results, and how many of them name each blob.
type Survey = (Vec<(StoredFile, Manifest)>, HashMap<BlobName, usize>);

impl DiskStore {
    /// The size of everything that counts towards the limit, in bytes.
    pub fn bytes(&self) -> u64 {
        let records = self.folder.files().chain(self.folder.findings());
        let found = self.folder.entries().chain(self.folder.blobs()).chain(records);
        found.map(|found| found.metadata.len()).sum()
    }

    /// The manifests of all results, in no particular order.
    pub fn manifests(&self) -> impl Iterator<Item = Manifest> {
        self.folder.entries().filter_map(|found| manifest(&found))
    }

    /// Counts the contents of the store.
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

    /// Removes the files that dead processes left, blobs that no manifest names, and, if the limit is exceeded, the least
    /// recently used results.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be locked or a file cannot be removed.
    pub fn gc(&self) -> io::Result<SweepReport> {
        if !self.folder.path().exists() {
            return Ok(SweepReport::default());
        }
        let lock = self.folder.claim_patiently()?;
        self.sweep(&lock)
    }

    /// Removes everything.
    ///
    /// # Errors
    /// As for [`gc`](DiskStore::gc).
    pub fn clear(&self) -> io::Result<SweepReport> {
        let mut swept = SweepReport::default();
        if !self.folder.path().exists() {
            return Ok(swept);
        }
        let lock = self.folder.claim_patiently()?;
        self.sweep_temporary(&lock, &mut swept)?;
        for entry in self.folder.entries() {
            swept.entries += swept.remove(&self.folder, &entry.path, entry.metadata.len())?;
        }
        for blob in self.folder.blobs() {
            swept.blobs += swept.remove(&self.folder, &blob.path, blob.metadata.len())?;
        }
        for file in self.folder.files().chain(self.folder.findings()) {
            swept.remove(&self.folder, &file.path, file.metadata.len())?;
        }
        Ok(swept)
    }

    /// Reads everything, and removes damaged files. `codecs`, by payload type, decode the values; values without a codec are
    /// only compared with their digest.
    pub fn verify(&self, codecs: &HashMap<&'static str, AnyCodec>) -> Verified {
        let mut verified = Verified { failed: self.folder.unreadable(), ..Verified::default() };
        let mut whole = HashSet::new();
        for entry in self.folder.entries() {
            let key = Key(entry.digest);
            let checked = self.read_manifest(&key).and_then(|manifest| {
                self.check(&manifest, codecs)?;
                whole.extend(manifest.blobs().map(|blob| blob.digest));
                Ok(())
            });
            match checked {
                Err(Miss::Damaged(damage)) => {
                    let removed = self.discard(&key, |manifest| self.check(manifest, codecs));
                    verified.add(entry.path, &damage.what, removed);
                }
                Err(Miss::Unreadable(error)) => verified.fail(entry.path, &format!("it cannot be read: {error}")),
                Ok(()) | Err(Miss::Missing) => {}
            }
        }
        let is_whole = |blob: &StoredFile, bytes: &[u8]| Digest::of(bytes) == blob.digest;
        for blob in self.folder.blobs().filter(|blob| !whole.contains(&blob.digest)) {
            self.verify_file(blob, Kind::CACHE_VALUE, is_whole, &mut verified);
        }
        let is_sealed = |_: &StoredFile, bytes: &[u8]| sealed::open::<serde_json::Value>(bytes).is_some();
        for file in self.folder.files().chain(self.folder.findings()) {
            self.verify_file(file, Kind::CACHE_ENTRY, is_sealed, &mut verified);
        }
        verified
    }

    /// Reads a file, and removes it if it is damaged: that is decided again when nobody else writes.
    fn verify_file(
        &self,
        file: StoredFile,
        kind: Kind,
        is_whole: fn(&StoredFile, &[u8]) -> bool,
        verified: &mut Verified,
    ) {
        let is_damaged = || match lsregen_files::read(&file.path, kind) {
            Ok(bytes) => Ok(!is_whole(&file, &bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        };
        let what = "its data is damaged";
        match is_damaged() {
            Ok(false) => {}
            Ok(true) => {
                let removed = self.folder.claim().and_then(|_lock| match is_damaged()? {
                    true => self.folder.remove(&file.path).map(|()| Some(what.to_string())),
                    false => Ok(None),
                });
                verified.add(file.path.clone(), what, removed);
            }
            Err(error) => verified.fail(file.path.clone(), &format!("it cannot be read: {error}")),
        }
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

    /// Removes results if the limit is exceeded.
    pub(super) fn shrink(&self) {
        self.written.store(0, std::sync::atomic::Ordering::Relaxed);
        if self.bytes() > self.limit
            && let Err(error) = self.folder.claim().and_then(|lock| self.sweep(&lock))
        {
            self.report(Operation::Remove, &error);
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
                swept.blobs += swept.remove(&self.folder, &blob.path, blob.metadata.len())?;
            } else {
                swept.left += blob.metadata.len();
                blobs.insert((blob.digest, blob.format.clone()), blob);
            }
        }
        for file in self.folder.files().chain(self.folder.findings()) {
            if age(&file.metadata).is_some_and(|age| age > MAX_DIGEST_AGE) {
                swept.remove(&self.folder, &file.path, file.metadata.len())?;
            } else {
                swept.left += file.metadata.len();
            }
        }
        if swept.left > self.limit {
            // The least recently used result comes last.
            entries.sort_by_key(|(entry, _)| Reverse(entry.metadata.modified().ok()));
            self.evict(entries, readers, blobs, &mut swept)?;
        }
        Ok(swept)
    }

    fn sweep_temporary(&self, lock: &Lock, swept: &mut SweepReport) -> io::Result<()> {
        for (path, metadata) in self.folder.temporary().filter(|(_, metadata)| lock.is_left_behind(metadata)) {
            swept.temporary += swept.remove(&self.folder, &path, metadata.len())?;
        }
        Ok(())
    }

    /// Returns all results, and how many of them name each blob. Removes damaged manifests: nobody knows what they name.
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
                None => swept.entries += swept.remove(&self.folder, &entry.path, entry.metadata.len())?,
            }
        }
        Ok((entries, readers))
    }

    /// Removes results from the end, and the blobs that no other result names, until there is enough room.
    fn evict(
        &self,
        mut entries: Vec<(StoredFile, Manifest)>,
        mut readers: HashMap<BlobName, usize>,
        blobs: HashMap<BlobName, StoredFile>,
        swept: &mut SweepReport,
    ) -> io::Result<()> {
        let target = (u128::from(self.limit) * u128::from(TARGET_PERCENT) / 100) as u64;
        while swept.left > target
            && let Some((entry, manifest)) = entries.pop()
        {
            // The manifest first, so that no manifest names a missing blob.
            swept.entries += swept.remove(&self.folder, &entry.path, entry.metadata.len())?;
            swept.left = swept.left.saturating_sub(entry.metadata.len());
            for name in names(&manifest) {
                let left = readers.entry(name.clone()).or_default();
                *left = left.saturating_sub(1);
                if let (0, Some(blob)) = (*left, blobs.get(&name)) {
                    swept.blobs += swept.remove(&self.folder, &blob.path, blob.metadata.len())?;
                    swept.left = swept.left.saturating_sub(blob.metadata.len());
                }
            }
        }
        Ok(())
    }
}

/// The file name of a blob: its digest and format.
type BlobName = (Digest, String);

/// The blobs that a manifest names, each once.
fn names(manifest: &Manifest) -> HashSet<BlobName> {
    manifest.blobs().map(|blob| (blob.digest, blob.format.clone())).collect()
}

fn manifest(found: &StoredFile) -> Option<Manifest> {
    Manifest::from_bytes(&lsregen_files::read(&found.path, Kind::CACHE_ENTRY).ok()?, &Key(found.digest))
}

impl Verified {
    /// Adds a file that was found to be damaged, and what came of its removal: `None` if it was whole by then.
    fn add(&mut self, path: PathBuf, what: &str, removed: io::Result<Option<String>>) {
        match removed {
            Ok(Some(what)) => self.removed.push(Damaged { path, what }),
            Ok(None) => {}
            Err(error) => self.fail(path, &format!("{what}, and it cannot be removed: {error}")),
        }
    }

    fn fail(&mut self, path: PathBuf, what: &str) {
        self.failed.push(Damaged { path, what: what.into() });
    }
}

impl SweepReport {
    /// Removes a file. Returns 1, or 0 if the file does not exist any more.
    fn remove(&mut self, folder: &CacheFolder, path: &Path, bytes: u64) -> io::Result<usize> {
        match folder.remove(path) {
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
    use std::fs::{self, File};
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;

    /// Without locks nobody knows which processes are alive, so only old files are considered abandoned.
    #[test]
    fn without_locks_young_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskStore::new(folder.path(), 0, Arc::new(|_| {}));
        let blob = |byte| store.folder.blob(&Digest([byte; 32]), "bin");
        let files = [
            store.folder.path().join("tmp/lsregen-young.tmp"),
            blob(1),
            store.folder.path().join("tmp/lsregen-old.tmp"),
            blob(2),
        ];
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
