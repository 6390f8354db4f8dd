//! What can go wrong in this crate, said so that a person can act on it.

use std::path::PathBuf;

/// Every error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor operation failed (shape, dtype, device).
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A checkpoint does not hold what its configuration asks for, or cannot be read.
    #[error("{0}")]
    Weights(String),
    /// A configuration file asks for something unknown, or is malformed.
    #[error("{0}")]
    Config(String),
    /// What was asked for cannot be done.
    #[error("{0}")]
    Input(String),
    /// A sampling run was stopped from outside.
    #[error("cancelled")]
    Cancelled,
}

/// For what candle calls back: its own errors as they are.
impl From<Error> for candle_core::Error {
    fn from(e: Error) -> Self {
        match e {
            Error::Tensor(e) => e,
            e => candle_core::Error::wrap(e),
        }
    }
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Input`].
    pub fn input(message: impl std::fmt::Display) -> Self {
        Error::Input(message.to_string())
    }

    /// Adapts an I/O error of `path`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Error::Io { path, source }
    }
}
