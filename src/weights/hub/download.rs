//! Downloads one file from the hub into the cache, with resumption and checks.
//!
//! A file gets its final name only when it is complete and matches its checksum. Until then it is a partial file, which
//! the next attempt resumes, also one of another process.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use sha1::Sha1;
use sha2::{Digest, Sha256};
use ureq::http::StatusCode;

use super::address::masked;
use super::cache::{Cache, create_parent};
use super::client::{Client, Failure, RemoteFile};
use super::{Hub, HubRef};
use crate::{Error, Result};

/// Failed attempts in a row before the download fails.
const ATTEMPTS: u32 = 5;

/// The least bytes a second of a download, over [`WINDOW`] times the timeout. A slower server counts as a silent one.
const SLOWEST: u64 = 1024;
const WINDOW: u32 = 3;

/// An attempt that brings fewer bytes is one in vain.
const LITTLE: u64 = 1 << 16;

/// How often a waiting download checks whether it was cancelled.
const PAUSE: Duration = Duration::from_millis(100);

/// A file to download, with its known size and ETag.
pub(super) struct Download<'a> {
    pub hub: &'a Hub,
    pub of: &'a HubRef,
    pub client: &'a Client<'a>,
    pub cache: &'a Cache,
    pub commit: &'a str,
    pub file: &'a RemoteFile,
    pub etag: &'a str,
    pub size: u64,
}

impl Download<'_> {
    /// Downloads the missing bytes. Calls `progress` with the number of bytes so far; its error ends the download.
    pub fn run(&self, progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        progress(0)?;
        let lock = self.cache.lock(self.etag)?;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => sleep(PAUSE),
                // A file system without locks: two downloads of one content at worst corrupt it, which the checksum detects.
                Err(TryLockError::Error(_)) => break,
            }
            progress(0)?;
        }
        let blob = self.cache.blob(self.etag);
        match fs::metadata(&blob) {
            Ok(known) if known.len() == self.size => return progress(self.size),
            Ok(_) => fs::remove_file(&blob).map_err(Error::io(&blob))?,
            Err(_) => create_parent(&blob)?,
        }
        let partial = self.cache.partial(self.etag);
        let resumed = fs::metadata(&partial).is_ok_and(|known| known.len() > 0);
        let mut whole = self.fill(&partial, progress)?;
        if resumed && whole.is_err() {
            // The earlier partial file was not the beginning of it: start again.
            fs::remove_file(&partial).map_err(Error::io(&partial))?;
            whole = self.fill(&partial, progress)?;
        }
        if let Err(differs) = whole {
            fs::remove_file(&partial).map_err(Error::io(&partial))?;
            return Err(Error::input(format!(
                "{}: the downloaded `{}` does not match the hub's description ({differs} differs), and was \
                 deleted; try again, and if that does not help, ask the operator of the proxy or mirror",
                self.of, self.file.path
            )));
        }
        fs::rename(&partial, &blob).map_err(Error::io(blob))
    }

    /// Completes the partial file. The inner error describes a mismatch with the checksum.
    fn fill(&self, path: &Path, progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<Result<(), &'static str>> {
        let mut partial = Partial::open(path, self)?;
        partial.read(progress)?;
        let mut vain = 0;
        while partial.have < self.size {
            progress(partial.have)?;
            let before = partial.have;
            let failure = match self.client.content(self.file, self.commit, partial.have) {
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(error)) => error,
                Ok(answer) => {
                    let range = answer.headers().get("content-range").and_then(|range| range.to_str().ok());
                    let goes_on = answer.status() == StatusCode::PARTIAL_CONTENT
                        && range.is_some_and(|range| range.starts_with(&format!("bytes {}-", partial.have)));
                    if partial.have > 0 && !goes_on {
                        partial.clear()?;
                    }
                    if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
                        self.cut("the server does not have this part of it")
                    } else {
                        match self.receive(&mut partial, answer.into_body().into_reader(), progress)? {
                            Ok(()) => self.cut("the connection was closed"),
                            Err(error) => self.cut(&error.to_string()),
                        }
                    }
                }
            };
            if partial.have >= self.size {
                break;
            }
            vain = if partial.have.saturating_sub(before) >= LITTLE { 0 } else { vain + 1 };
            if vain == ATTEMPTS {
                return Err(failure);
            }
            self.wait(vain, partial.have, progress)?;
        }
        partial.file.sync_data().map_err(|error| self.disk(path, partial.have, error))?;
        Ok(partial.sum.compare(self.etag))
    }

    /// Writes the response. The outer error ends the download, the inner one only the connection.
    fn receive(
        &self,
        partial: &mut Partial,
        mut body: impl Read,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<io::Result<()>> {
        let mut buffer = vec![0; 1 << 18];
        let window = self.hub.timeout * WINDOW;
        let (mut since, mut before) = (Instant::now(), partial.have);
        loop {
            if since.elapsed() >= window {
                let least = window.as_secs().max(1) * SLOWEST;
                if partial.have.saturating_sub(before) < least {
                    let seconds = window.as_secs();
                    return Ok(Err(io::Error::new(
                        ErrorKind::TimedOut,
                        format!("fewer than {least} bytes came in {seconds} s"),
                    )));
                }
                (since, before) = (Instant::now(), partial.have);
            }
            let count = match body.read(&mut buffer) {
                Ok(0) => return Ok(Ok(())),
                // More bytes than expected: the checksum of the expected ones decides.
                Ok(_) if partial.have == self.size => return Ok(Ok(())),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Err(error)),
            };
            let count = count.min((self.size - partial.have) as usize);
            partial.write(&buffer[..count]).map_err(|error| self.disk(partial.path, partial.have, error))?;
            progress(partial.have)?;
        }
    }

    fn wait(&self, vain: u32, have: u64, progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        let mut left = self.hub.patience * if vain == 0 { 0 } else { 1 << (vain - 1) };
        while !left.is_zero() {
            progress(have)?;
            let pause = left.min(PAUSE);
            sleep(pause);
            left -= pause;
        }
        Ok(())
    }

    fn cut(&self, why: &str) -> Error {
        Error::Input(masked(&format!(
            "{}: the download of `{}` was interrupted several times ({why}); the partial file is kept: try again to continue",
            self.of, self.file.path
        )))
    }

    fn disk(&self, path: &Path, have: u64, error: io::Error) -> Error {
        unwritable(self.of, &self.file.path, path, self.size - have, error)
    }
}

/// The error of a partial file that cannot be written, of which `missing` bytes are missing.
fn unwritable(of: &HubRef, file: &str, path: &Path, missing: u64, error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::input(format!(
            "{of}: the disk is full at {}: {missing} more bytes are needed for `{file}`; free some space and try again to \
             continue, or set HF_HUB_CACHE to a folder on another disk",
            path.parent().unwrap_or(path).display(),
        )),
        _ => Error::io(path)(error),
    }
}

/// A partial download.
struct Partial<'a> {
    path: &'a Path,
    file: File,
    have: u64,
    of: &'a Download<'a>,
    sum: Sum,
}

impl<'a> Partial<'a> {
    fn open(path: &'a Path, of: &'a Download) -> Result<Partial<'a>> {
        let file = lsregen_files::open_with(path, File::options().read(true).write(true).create(true).truncate(false))
            .map_err(Error::io(path))?;
        let have = file.metadata().map_err(Error::io(path))?.len();
        let mut partial = Partial { path, file, have, of, sum: Sum::new(of.etag, of.size) };
        if have > of.size {
            partial.clear()?;
        }
        Ok(partial)
    }

    /// Reads the existing bytes for the checksum.
    fn read(&mut self, progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        let mut buffer = vec![0; 1 << 18];
        let mut left = self.have;
        while left > 0 {
            let most = left.min(buffer.len() as u64) as usize;
            self.file.read_exact(&mut buffer[..most]).map_err(Error::io(self.path))?;
            self.sum.add(&buffer[..most]);
            left -= most as u64;
            progress(self.have - left)?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.sum.add(bytes);
        self.have += bytes.len() as u64;
        Ok(())
    }

    fn clear(&mut self) -> Result<()> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(Error::io(self.path))?;
        (self.have, self.sum) = (0, Sum::new(self.of.etag, self.of.size));
        Ok(())
    }
}

/// The checksum in an ETag: the SHA-256 of large files, the git object of small ones.
enum Sum {
    Sha256(Sha256),
    Git(Sha1),
}

impl Sum {
    fn new(etag: &str, size: u64) -> Sum {
        match etag.len() {
            40 => Sum::Git(Sha1::new().chain_update(format!("blob {size}\0"))),
            _ => Sum::Sha256(Sha256::new()),
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        match self {
            Sum::Sha256(sum) => sum.update(bytes),
            Sum::Git(sum) => sum.update(bytes),
        }
    }

    /// Compares the checksum. The error names the one that differs.
    fn compare(self, etag: &str) -> Result<(), &'static str> {
        let (sum, name) = match self {
            Sum::Sha256(sum) => (format!("{:x}", sum.finalize()), "its SHA-256"),
            Sum::Git(sum) => (format!("{:x}", sum.finalize()), "its git object"),
        };
        if sum == etag.to_lowercase() { Ok(()) } else { Err(name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_said() {
        let of = HubRef::parse("hf:owner/name").unwrap().unwrap();
        let path = Path::new("hub/blobs/x.incomplete");
        let error = |kind: ErrorKind| unwritable(&of, "unet/x", path, 3_000_000, kind.into()).to_string();
        let full = error(ErrorKind::StorageFull);
        assert!(full.contains("disk is full at hub/blobs") && full.contains("3000000 more bytes"), "{full}");
        assert!(!error(ErrorKind::PermissionDenied).contains("full"));
    }
}
