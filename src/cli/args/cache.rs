//! The cache on disk.

use std::path::PathBuf;
use std::sync::Arc;

use bytesize::ByteSize;
use clap::Args;
use etcetera::BaseStrategy;
use lsregen_engine::{DiskStore, MemoryStore, Store};

use crate::cli::{Exit, terminal, usage};

/// The folder of the cache, and its size limit.
#[derive(Args)]
pub struct CacheFolderArgs {
    /// Folder of the cache [default: `lsregen` in the platform's cache folder]
    #[arg(long, value_name = "DIR", env = "LSREGEN_CACHE_DIR", hide_env_values = true)]
    cache_dir: Option<PathBuf>,

    /// Size limit of the cache, such as 500MB or 10GiB. Beyond it the least recently used results are removed
    #[arg(long, value_name = "SIZE", env = "LSREGEN_CACHE_SIZE", hide_env_values = true, default_value = "10GiB")]
    cache_size: ByteSize,
}

/// Whether results are cached on disk, and where.
#[derive(Args)]
pub struct CacheArgs {
    #[command(flatten)]
    folder: CacheFolderArgs,

    /// Do not read or write the cache on disk
    #[arg(long)]
    no_cache: bool,
}

impl CacheFolderArgs {
    /// The store on disk.
    ///
    /// # Errors
    /// When the platform has no cache folder and none is given.
    pub fn open(&self) -> Result<DiskStore, Exit> {
        let named = self.cache_dir.clone().filter(|folder| !folder.as_os_str().is_empty());
        let folder = match named {
            Some(folder) => folder,
            None => etcetera::choose_base_strategy()
                .map_err(|error| usage(format!("no cache folder was found: {error}; name one with --cache-dir")))?
                .cache_dir()
                .join("lsregen"),
        };
        let warn = Arc::new(|text: &str| terminal::complain(format_args!("warning: {text}")));
        Ok(DiskStore::new(folder, self.cache_size.as_u64(), warn))
    }
}

impl CacheArgs {
    /// The store of a process: `memory`, and the cache on disk unless it is disabled. If no cache folder can be found,
    /// the process runs without the disk.
    pub fn store(&self, memory: MemoryStore) -> Store {
        let disk = if self.no_cache { None } else { self.folder.open().ok() };
        Store::new(memory, disk)
    }
}
