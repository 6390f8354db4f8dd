//! Models from the Hugging Face hub: what was downloaded before, and what is to be downloaded.
//!
//! Knows the hub and the cache that its clients share. Knows not how a model is read: its
//! caller chooses the files, by [`model_files`] or otherwise.
//!
//! The crate hf-hub would do less than is needed: 1.0 begins a cut download anew, follows no `HF_HUB_OFFLINE`, checks
//! no sums, and brings 160 crates; 0.5 checks no sums either, cannot be stopped, and knows neither `HF_HUB_CACHE` nor
//! `HF_TOKEN`. So this speaks to the hub by ureq, and keeps hf-hub's and `huggingface_hub`'s layout of files and locks:
//! they find what this has downloaded, go on with what it began, and the other way round.

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
use client::{Client, RemoteFile};
use download::Download;

/// How far a download is. Bytes that were there from before count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file at work, by its path in the repository.
    pub file: &'a str,
    /// Bytes of this file that are there.
    pub done: u64,
    /// Bytes of this file.
    pub size: u64,
    /// Bytes that are there of all files of this download.
    pub all_done: u64,
    /// Bytes of all files of this download.
    pub all_size: u64,
}

impl Hub {
    /// What was downloaded before: a file, or for a whole repository the folder of its files. Asks no network.
    ///
    /// A folder need not hold all of the repository's files, only those that someone wanted. After a [`Hub::fetch`] that
    /// was cut off it is not there, or is that of an older commit.
    pub fn cached(&self, of: &HubRef) -> Option<PathBuf> {
        let cache = Cache::new(&self.cache, of);
        let snapshot = cache.snapshot(&cache.commit(of.revision())?);
        let path = of.file.as_ref().map_or(snapshot.clone(), |file| snapshot.join(file));
        path.exists().then_some(path)
    }

    /// Downloads what is missing of the files that `wanted` chooses, and gives the place of the file or folder.
    ///
    /// `wanted` is given the paths of all files of the repository, or of the folder that is named, relative to it; for a
    /// single file it is not asked. `progress` is called at least every few seconds while bytes come, and ends the
    /// download by an error: [`Error::Cancelled`]. What came stays, and the next download goes on there.
    ///
    /// # Errors
    /// The hub refuses, has no such thing, or cannot be reached; what came is not what it said; the disk is full.
    pub fn fetch(
        &self,
        of: &HubRef,
        wanted: &dyn Fn(&[String]) -> Vec<String>,
        progress: &mut dyn FnMut(Progress) -> Result<()>,
    ) -> Result<PathBuf> {
        if self.offline {
            return self.cached(of).ok_or_else(|| {
                Error::input(format!(
                    "{of}: HF_HUB_OFFLINE is set, and {} does not hold it; unset HF_HUB_OFFLINE to download it",
                    self.cache.display()
                ))
            });
        }
        let client = Client::new(self, of)?;
        let listing = client.list()?;
        let cache = Cache::new(&self.cache, of);
        let (commit, snapshot) = (&listing.commit, cache.snapshot(&listing.commit));

        let chosen = match &of.file {
            Some(file) if listing.files.iter().any(|known| known.path == *file) => vec![file.clone()],
            folder => {
                let prefix = folder.as_ref().map_or(String::new(), |folder| format!("{folder}/"));
                let inside = listing.files.iter().filter_map(|file| file.path.strip_prefix(&prefix));
                let inside: Vec<_> = inside.map(str::to_string).collect();
                if let (Some(folder), true) = (folder, inside.is_empty()) {
                    return Err(client.no_file(folder, &listing));
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
            let file = file.ok_or_else(|| client.no_file(&path, &listing))?;
            if !snapshot.join(&path).exists() {
                missing.push(known(&client, file, commit)?);
            }
        }

        let all_size = missing.iter().map(|(_, _, size)| size).sum();
        let mut before = 0;
        for (file, etag, size) in &missing {
            let (hub, client, cache, size) = (self, &client, &cache, *size);
            let mut tell =
                |done| progress(Progress { file: &file.path, done, size, all_done: before + done, all_size });
            Download { hub, of, client, cache, commit, file, etag, size }.run(&mut tell)?;
            before += size;
        }
        // All contents are there before any gets its place, the table of contents at the root last: a model that is
        // seen is whole.
        missing.sort_by_key(|(file, ..)| std::cmp::Reverse(file.path.matches('/').count()));
        for (file, etag, _) in &missing {
            cache.link(commit, &file.path, etag)?;
        }
        cache.set_commit(of.revision(), commit)?;
        Ok(of.file.as_ref().map_or(snapshot.clone(), |file| snapshot.join(file)))
    }
}

/// A file with the name and the size of its content.
fn known(client: &Client, file: &RemoteFile, commit: &str) -> Result<(RemoteFile, String, u64)> {
    let (etag, size) = match (&file.etag, file.size) {
        (Some(etag), Some(size)) => (etag.clone(), size),
        _ => client.complete(file, commit)?,
    };
    Ok((file.clone(), etag, size))
}
