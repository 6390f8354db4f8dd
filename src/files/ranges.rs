//! A file of which parts are read, some of them long after it was opened.
//!
//! Not mapped into memory: a process that touches a page of a mapped file that has become shorter is killed, whereas a read
//! is an error.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::{Kind, open};

/// An open file.
#[derive(Debug)]
pub struct RangeFile {
    file: File,
    path: PathBuf,
    length: usize,
}

impl RangeFile {
    /// Opens a regular file.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(path: &Path, kind: Kind) -> io::Result<RangeFile> {
        let file = open(path, kind)?;
        let length = file.metadata()?.len();
        let length = usize::try_from(length).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?;
        Ok(RangeFile { file, path: path.into(), length })
    }

    /// The path by which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length when it was opened.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it was empty when it was opened.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Reads a range, which should lie in the file.
    ///
    /// # Errors
    /// If the file has become shorter, or cannot be read; if there is not enough memory.
    pub fn read(&self, range: Range<usize>) -> io::Result<Vec<u8>> {
        let mut bytes = vec![];
        bytes.try_reserve_exact(range.len())?;
        bytes.resize(range.len(), 0);
        self.fill(range.start, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `to` with the bytes from `start` on, which should lie in the file.
    ///
    /// # Errors
    /// If the file has become shorter, or cannot be read.
    pub fn fill(&self, start: usize, mut to: &mut [u8]) -> io::Result<()> {
        let mut at = start as u64;
        while !to.is_empty() {
            match read_at(&self.file, to, at) {
                Ok(0) => {
                    return Err(io::Error::new(
                        ErrorKind::UnexpectedEof,
                        "the file has become shorter since it was opened; run again when it is complete",
                    ));
                }
                Ok(count) => {
                    at += count as u64;
                    to = &mut to[count..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(unix)]
fn read_at(file: &File, to: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, to, at)
}

#[cfg(windows)]
fn read_at(file: &File, to: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, to, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_becomes_shorter_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        std::fs::write(&path, "0123456789").unwrap();
        let file = RangeFile::open(&path, Kind::WEIGHTS).unwrap();
        assert_eq!((file.len(), file.read(3..6).unwrap()), (10, b"345".to_vec()));
        File::options().write(true).open(&path).unwrap().set_len(5).unwrap();
        assert_eq!(file.read(3..6).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(file.read(0..2).unwrap(), b"01");
        assert!(file.read(0..usize::MAX).is_err());
    }
}
