//! Arguments that several verbs share.

mod cache;
mod host;
mod memory;
mod models;
mod params;

pub use self::cache::{CacheArgs, CacheFolderArgs};
pub use self::host::{HostArgs, OutputArgs, host};
pub use self::memory::MemoryArgs;
pub use self::models::ModelArgs;
pub use self::params::ParamArgs;
