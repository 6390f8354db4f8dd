//! Opens regular files, and reads them up to the size that their kind allows.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// A kind of file, by the most bytes that a file of it has.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its name with an article, for messages: `a graph`.
    name: &'static str,
    most: u64,
}

const MIB: u64 = 1 << 20;

impl Kind {
    /// A graph.
    pub const GRAPH: Kind = Kind { name: "a graph", most: MIB };
    /// An image, also one that holds a graph.
    pub const IMAGE: Kind = Kind { name: "an image", most: 512 * MIB };
    /// A latent.
    pub const LATENT: Kind = Kind { name: "a latent", most: 1024 * MIB };
    /// A layout. COCO's annotations of its training images have 450 MB.
    pub const LAYOUT: Kind = Kind { name: "a layout", most: 1024 * MIB };
    /// Annotations or captions of a dataset. They are read in pieces: those of LVIS have 1 GB, others several.
    pub const ANNOTATIONS: Kind = Kind { name: "a file of annotations", most: 16384 * MIB };
    /// A configuration or a vocabulary of a model.
    pub const CONFIG: Kind = Kind { name: "a configuration", most: 64 * MIB };
    /// The settings of a program.
    pub const SETTINGS: Kind = Kind { name: "a file of settings", most: MIB };
    /// Weights. Their size has no bound: only the parts that are used are read.
    pub const WEIGHTS: Kind = Kind { name: "weights", most: u64::MAX };
    /// An ONNX file: what a message of protobuf may have.
    pub const ONNX: Kind = Kind { name: "an ONNX file", most: 2048 * MIB };
    /// The rows of a bulk run, and the record of such a run.
    pub const ROWS: Kind = Kind { name: "a file of rows", most: 1024 * MIB };
    /// A manifest of the cache, or the digest of a file.
    pub const CACHE_ENTRY: Kind = Kind { name: "an entry of the cache", most: 64 * MIB };
    /// A value in the cache. Its manifest states its size.
    pub const CACHE_VALUE: Kind = Kind { name: "a value of the cache", most: u64::MAX };
    /// A file that a node names, for its digest. It is read in pieces.
    pub const ANY: Kind = Kind { name: "a file", most: u64::MAX };

    /// The most bytes of such a file.
    pub const fn most(self) -> u64 {
        self.most
    }

    /// The same kind with another bound.
    pub const fn at_most(self, most: u64) -> Kind {
        Kind { most, ..self }
    }

    fn too_large(self) -> io::Error {
        io::Error::new(
            ErrorKind::FileTooLarge,
            format!("it has more than {} bytes, the limit for {}", self.most, self.name),
        )
    }
}

/// Opens a regular file for reading.
///
/// # Errors
/// If it does not exist, cannot be opened, is a folder, a pipe or a device, or is too large for its kind.
pub fn open(path: &Path, kind: Kind) -> io::Result<File> {
    let file = open_with(path, OpenOptions::new().read(true))?;
    if file.metadata()?.len() > kind.most { Err(kind.too_large()) } else { Ok(file) }
}

/// Opens a regular file with other options than for reading, such as a lock.
///
/// # Errors
/// As [`open`], except for the size.
pub fn open_with(path: &Path, options: &OpenOptions) -> io::Result<File> {
    // Opening a device may have an effect of its own, so it is not opened to find out what it is.
    match fs::metadata(path) {
        Ok(found) => regular(&found)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut options = options.clone();
    // A pipe that takes the place of the file now is opened without a wait, and refused below.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path)?;
    regular(&file.metadata()?)?;
    Ok(file)
}

fn regular(found: &Metadata) -> io::Result<()> {
    if found.is_file() {
        Ok(())
    } else if found.is_dir() {
        Err(io::Error::new(ErrorKind::IsADirectory, "it is a folder, but a file is needed"))
    } else {
        Err(io::Error::new(ErrorKind::InvalidInput, "it is a pipe or a device, but a file is needed"))
    }
}

/// Reads a regular file.
///
/// # Errors
/// As [`open`], or if it cannot be read.
pub fn read(path: &Path, kind: Kind) -> io::Result<Vec<u8>> {
    let file = open(path, kind)?;
    let length = file.metadata()?.len();
    all(file, length, kind)
}

/// Reads a regular file as UTF-8.
///
/// # Errors
/// As [`read`], or if it is not UTF-8.
pub fn read_text(path: &Path, kind: Kind) -> io::Result<String> {
    String::from_utf8(read(path, kind)?)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not a text in UTF-8"))
}

/// Reads a regular file, or stdin if the path is `-`.
///
/// # Errors
/// As [`read`].
pub fn read_or_stdin(path: &Path, kind: Kind) -> io::Result<Vec<u8>> {
    if path == Path::new("-") { all(io::stdin().lock(), 0, kind) } else { read(path, kind) }
}

/// Reads to the end. `expected` is the length as far as it is known: the file may grow meanwhile.
fn all(from: impl Read, expected: u64, kind: Kind) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    bytes.try_reserve_exact(usize::try_from(expected).unwrap_or(usize::MAX))?;
    from.take(kind.most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > kind.most { Err(kind.too_large()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_a_fitting_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("graph");
        fs::write(&path, "lsregen: 1").unwrap();
        assert_eq!(read_text(&path, Kind::GRAPH).unwrap(), "lsregen: 1");
        fs::write(&path, [0xff]).unwrap();
        assert_eq!(read_text(&path, Kind::GRAPH).unwrap_err().kind(), ErrorKind::InvalidData);
        // Sparse, so that it takes no place on the disk.
        File::create(&path).unwrap().set_len(MIB + 1).unwrap();
        let error = read(&path, Kind::GRAPH).unwrap_err();
        assert_eq!(error.to_string(), "it has more than 1048576 bytes, the limit for a graph");
        assert_eq!(read(&path, Kind::CONFIG).unwrap().len(), 1 << 20 | 1);
        assert_eq!(read(folder.path(), Kind::GRAPH).unwrap_err().kind(), ErrorKind::IsADirectory);
        assert_eq!(read(&folder.path().join("none"), Kind::GRAPH).unwrap_err().kind(), ErrorKind::NotFound);
    }

    /// Neither waits for the other end of a pipe, nor reads a device without end.
    #[cfg(unix)]
    #[test]
    fn pipes_and_devices_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [&pipe, Path::new("/dev/zero"), Path::new("/dev/null")] {
            for error in [
                read(path, Kind::ANY).unwrap_err(),
                open_with(path, OpenOptions::new().write(true).create(true)).unwrap_err(),
            ] {
                assert_eq!(error.to_string(), "it is a pipe or a device, but a file is needed", "{}", path.display());
            }
        }
    }
}
