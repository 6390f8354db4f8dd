//! Where results outlive the process: the options that say so, and the store they mean.

use std::path::PathBuf;
use std::sync::Arc;

use bytesize::ByteSize;
use clap::Args;
use etcetera::BaseStrategy;
use lsregen_engine::{DiskStore, MemoryStore, Store};

use super::{Exit, console, usage};

/// The folder of the cache, and its bound.
#[derive(Args)]
pub struct CacheFolder {
    /// Folder of the cache; by default `lsregen` in the platform's folder for caches
    #[arg(long, value_name = "DIR", env = "LSREGEN_CACHE_DIR")]
    cache_dir: Option<PathBuf>,

    /// Bound of the cache, such as 500MB or 10GiB; what was used longest ago goes first
    #[arg(long, value_name = "SIZE", env = "LSREGEN_CACHE_SIZE", default_value = "10GiB")]
    cache_size: ByteSize,
}

/// Whether results are kept on disk, and where.
#[derive(Args)]
pub struct Cache {
    #[command(flatten)]
    folder: CacheFolder,

    /// Neither look results up on disk nor keep them there
    #[arg(long)]
    no_cache: bool,
}

impl CacheFolder {
    /// The store on disk.
    ///
    /// # Errors
    /// When the system names no folder for caches.
    pub fn open(&self) -> Result<DiskStore, Exit> {
        let named = self.cache_dir.clone().filter(|folder| !folder.as_os_str().is_empty());
        let folder = match named {
            Some(folder) => folder,
            None => etcetera::choose_base_strategy()
                .map_err(|error| usage(format!("there is no folder for caches: {error}; give one with --cache-dir")))?
                .cache_dir()
                .join("lsregen"),
        };
        let warn = Arc::new(|text: &str| console::complain(format_args!("warning: {text}")));
        Ok(DiskStore::new(folder, self.cache_size.as_u64(), warn))
    }
}

impl Cache {
    /// The results that a process knows: those of `memory`, and those on disk, unless they are not wanted. Without a
    /// folder the process does without.
    pub fn store(&self, memory: MemoryStore) -> Store {
        let disk = if self.no_cache { None } else { self.folder.open().ok() };
        Store::new(memory, disk)
    }
}
