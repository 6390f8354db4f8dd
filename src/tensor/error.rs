//! The error type of the numeric crates. Messages say what is wrong, where, and what to do.

use std::path::PathBuf;

/// An error of the numeric crates, by category.
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
    /// A checkpoint cannot be read, or lacks what its configuration names.
    #[error("{0}")]
    Weights(String),
    /// A configuration file is malformed, or names something that is not supported.
    #[error("{0}")]
    Config(String),
    /// An argument is invalid.
    #[error("{0}")]
    Input(String),
    /// The caller cancelled the computation.
    #[error("cancelled")]
    Cancelled,
}

/// For functions that candle calls. Returns candle's own errors unchanged.
impl From<Error> for candle_core::Error {
    fn from(e: Error) -> Self {
        match e {
            Error::Tensor(e) => e,
            e => candle_core::Error::wrap(e),
        }
    }
}

/// A result of the numeric crates.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes an [`Error::Input`].
    pub fn input(message: impl std::fmt::Display) -> Self {
        Error::Input(message.to_string())
    }

    /// Makes an [`Error::Io`] for `path`, for use with `map_err`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Error::Io { path, source }
    }
}
