//! The content of a file of weights.

use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::Path;

use lsregen_files::RangeFile;

/// A file on disk, of which only parts are read, or its bytes.
pub(crate) enum Content {
    File(RangeFile),
    Memory(Cow<'static, [u8]>),
}

impl Content {
    pub fn len(&self) -> usize {
        match self {
            Content::File(file) => file.len(),
            Content::Memory(bytes) => bytes.len(),
        }
    }

    /// Reads a range that lies in the file.
    pub fn read(&self, range: Range<usize>) -> io::Result<Cow<'_, [u8]>> {
        match self {
            Content::File(file) => file.read(range).map(Cow::Owned),
            Content::Memory(bytes) => {
                bytes.get(range).map(Cow::Borrowed).ok_or_else(|| io::Error::from(ErrorKind::UnexpectedEof))
            }
        }
    }

    /// Fills `to` with the bytes from `start` on, which lie in the file.
    #[cfg(feature = "cuda")]
    pub fn fill(&self, start: usize, to: &mut [u8]) -> io::Result<()> {
        match self {
            Content::File(file) => file.fill(start, to),
            Content::Memory(bytes) => {
                let from = bytes.get(start..).and_then(|bytes| bytes.get(..to.len()));
                to.copy_from_slice(from.ok_or_else(|| io::Error::from(ErrorKind::UnexpectedEof))?);
                Ok(())
            }
        }
    }

    /// Reads the beginning: at most `length` bytes.
    pub fn start(&self, length: usize) -> io::Result<Cow<'_, [u8]>> {
        self.read(0..length.min(self.len()))
    }

    pub fn path(&self) -> Option<&Path> {
        match self {
            Content::File(file) => Some(file.path()),
            Content::Memory(_) => None,
        }
    }
}
