//! The error type of the numeric crates. Messages say what is wrong, where, and what to do.

use std::path::PathBuf;

/// An error of the numeric crates, by category.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor operation failed (shape, dtype, device).
    #[error("{}", described(.0))]
    Tensor(candle_core::Error),
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

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Error::Tensor(error)
    }
}

/// Describes an error of candle for a user: without a backtrace, and without the shapes of an operation that no check of
/// ours foresaw. [`Debug`](std::fmt::Debug) has all of it.
fn described(error: &candle_core::Error) -> String {
    use candle_core::Error as Candle;
    match error {
        Candle::WithBacktrace { inner, .. } => described(inner),
        Candle::Context { inner, context } => format!("{context}: {}", described(inner)),
        Candle::Msg(text) => text.clone(),
        // Ours, on the way through candle.
        Candle::Wrapped(error) => error.to_string(),
        Candle::Cuda(_) | Candle::Io(_) => error.to_string(),
        _ => "a mistake in lsregen: a tensor operation failed; please report it, with the graph and the lines that \
              `-vv` logs"
            .into(),
    }
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

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn shapes_and_backtraces_of_candle_are_not_shown() {
        let zeros = |n: usize| Tensor::zeros(n, candle_core::DType::F32, &Device::Cpu).unwrap();
        let error = Error::from((zeros(2) - zeros(3)).unwrap_err());
        let text = error.to_string();
        assert!(text.starts_with("a mistake in lsregen") && !text.contains("shape mismatch"), "{text}");
        assert!(format!("{error:?}").contains("sub"));

        let own = Error::from(candle_core::Error::from(Error::input("`x` is odd")).bt());
        assert_eq!(own.to_string(), "`x` is odd");
        let own = Error::from(candle_core::Error::Msg("group norm: 3 channels".into()).bt());
        assert_eq!(own.to_string(), "group norm: 3 channels");
    }
}
