//! Models from the Hugging Face hub: the local cache, and downloads.
//!
//! The caller chooses the files of a repository, by [`model_files`] or otherwise.
//!
//! Why not the crate hf-hub: version 1.0 restarts interrupted downloads, ignores `HF_HUB_OFFLINE`, checks no checksums, and
//! depends on 160 crates; 0.5 checks no checksums either, cannot be cancelled, and ignores `HF_HUB_CACHE` and `HF_TOKEN`.
//! This module uses ureq, and the layout of files and locks of hf-hub and `huggingface_hub`. So each program finds and
//! resumes the downloads of the others.

mod address;
mod cache;
mod choose;
mod client;
mod download;
mod reference;
mod settings;

use std::path::PathBuf;

pub use choose::model_files;
pub use reference::HubRef;
pub use settings::Hub;

use crate::{Error, Result};
use cache::Cache;
use client::{Client, Listing, RemoteFile};
use download::Download;

/// The progress of a download, including bytes from earlier attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The path of the current file in the repository.
    pub file: &'a str,
    /// Bytes of this file so far.
    pub done: u64,
    /// Bytes of this file.
    pub size: u64,
    /// Bytes of all files of this download so far.
    pub all_done: u64,
    /// Bytes of all files of this download.
    pub all_size: u64,
}

impl Hub {
    /// The path of an earlier download: a file, or the folder of a repository's files. Does not use the network.
    ///
    /// The folder has only those files of the repository that were chosen. After an interrupted [`Hub::fetch`] there is none,
    /// or that of an older commit.
    pub fn cached(&self, of: &HubRef) -> Option<PathBuf> {
        let cache = Cache::new(&self.cache, of);
        let snapshot = cache.snapshot(&cache.commit(of.revision())?);
        let path = of.file.as_ref().map_or(snapshot.clone(), |file| snapshot.join(file));
        path.exists().then_some(path)
    }

    /// The error of something that is not downloaded while downloads are off.
    pub fn offline_error(&self, of: &HubRef) -> Error {
        Error::input(format!(
            "{of}: HF_HUB_OFFLINE is set, and {} does not contain it; unset HF_HUB_OFFLINE to download it",
            self.cache.display()
        ))
    }

    /// Downloads the missing files of those that `wanted` chooses. Returns the path of the file or folder.
    ///
    /// `wanted` receives the paths of all files of the repository or, if `of` names a folder, of the files in that
    /// folder, relative to it. It is not called for a single file. `progress` is called at least every few seconds
    /// during the download; its error ends the download, such as [`Error::Cancelled`]. The next download resumes there.
    ///
    /// # Errors
    /// If the hub refuses, cannot be reached, or has no such file; if a checksum differs; if the disk is full.
    pub fn fetch(
        &self,
        of: &HubRef,
        wanted: &dyn Fn(&[String]) -> Vec<String>,
        progress: &mut dyn FnMut(Progress) -> Result<()>,
    ) -> Result<PathBuf> {
        if self.offline {
            return self.cached(of).ok_or_else(|| self.offline_error(of));
        }
        let client = Client::new(self, of)?;
        let listing = client.list()?;
        let cache = Cache::new(&self.cache, of);
        let (commit, snapshot) = (&listing.commit, cache.snapshot(&listing.commit));
        let mut missing = self.missing(of, wanted, &client, &listing)?;
        let all_size = missing.iter().map(|(_, _, size)| size).sum();
        let mut before = 0;
        for (file, etag, size) in &missing {
            let (hub, client, cache, size) = (self, &client, &cache, *size);
            let mut tell =
                |done| progress(Progress { file: &file.path, done, size, all_done: before + done, all_size });
            Download { hub, of, client, cache, commit, file, etag, size }.run(&mut tell)?;
            before += size;
        }
        // All files are complete before any is linked, and the index at the root is linked last, so that a visible
        // model is complete.
        missing.sort_by_key(|(file, ..)| std::cmp::Reverse(file.path.matches('/').count()));
        for (file, etag, _) in &missing {
            cache.link(commit, &file.path, etag)?;
        }
        cache.set_commit(of.revision(), commit)?;
        Ok(of.file.as_ref().map_or(snapshot.clone(), |file| snapshot.join(file)))
    }

    /// Returns the files that [`Hub::fetch`] would download, with their sizes in bytes.
    ///
    /// # Errors
    /// If the hub refuses, cannot be reached, or has no such file.
    pub fn missing_files(&self, of: &HubRef, wanted: &dyn Fn(&[String]) -> Vec<String>) -> Result<Vec<(String, u64)>> {
        if self.offline {
            return self.cached(of).map(|_| vec![]).ok_or_else(|| self.offline_error(of));
        }
        let client = Client::new(self, of)?;
        let listing = client.list()?;
        let missing = self.missing(of, wanted, &client, &listing)?;
        Ok(missing.into_iter().map(|(file, _, size)| (file.path, size)).collect())
    }

    /// Returns the files that `wanted` chooses and that are not on this machine, with their ETags and sizes.
    fn missing(
        &self,
        of: &HubRef,
        wanted: &dyn Fn(&[String]) -> Vec<String>,
        client: &Client,
        listing: &Listing,
    ) -> Result<Vec<(RemoteFile, String, u64)>> {
        let snapshot = Cache::new(&self.cache, of).snapshot(&listing.commit);
        let chosen = match &of.file {
            Some(file) if listing.files.iter().any(|known| known.path == *file) => vec![file.clone()],
            folder => {
                let prefix = folder.as_ref().map_or(String::new(), |folder| format!("{folder}/"));
                let inside = listing.files.iter().filter_map(|file| file.path.strip_prefix(&prefix));
                let inside: Vec<_> = inside.map(str::to_string).collect();
                if let (Some(folder), true) = (folder, inside.is_empty()) {
                    return Err(client.no_file(folder, listing));
                }
                let chosen = wanted(&inside);
                if chosen.is_empty() {
                    return Err(client.nothing(&inside));
                }
                chosen.into_iter().map(|path| format!("{prefix}{path}")).collect()
            }
        };
        let mut missing = Vec::new();
        for path in chosen {
            let file = listing.files.iter().find(|file| file.path == path);
            let file = file.ok_or_else(|| client.no_file(&path, listing))?;
            if !snapshot.join(&path).exists() {
                missing.push(known(client, file, &listing.commit)?);
            }
        }
        Ok(missing)
    }
}

/// A file with the ETag and the size of its content.
fn known(client: &Client, file: &RemoteFile, commit: &str) -> Result<(RemoteFile, String, u64)> {
    let (etag, size) = match (&file.etag, file.size) {
        (Some(etag), Some(size)) => (etag.clone(), size),
        _ => client.complete(file, commit)?,
    };
    Ok((file.clone(), etag, size))
}
