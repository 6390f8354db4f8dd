//! The file of a trace, in the Trace Event Format: an object whose `traceEvents` are written one by one.

use std::fs;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lsregen_engine::visible;
use lsregen_files::{GrowingFile, Kind};
use serde_json::{Value as Json, json};

/// How each trace of ours begins.
const HEAD: &str = r#"{"program":"lsregen"#;

/// A row of the viewer: a process and a thread of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Track {
    pub process: usize,
    pub thread: usize,
}

/// A trace that is being written.
pub struct Trace {
    pub path: PathBuf,
    to: BufWriter<GrowingFile>,
    /// The first error. Nothing is written after it.
    written: io::Result<()>,
    is_first: bool,
}

impl Trace {
    /// Begins a trace.
    ///
    /// # Errors
    /// If its folder takes no files.
    pub fn begin(path: &Path) -> io::Result<Trace> {
        let mut to = BufWriter::with_capacity(1 << 16, GrowingFile::begin(path)?);
        let version = env!("CARGO_PKG_VERSION");
        write!(to, "{HEAD} {version}\",\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
        Ok(Trace { path: path.into(), to, written: Ok(()), is_first: true })
    }

    /// Writes an event.
    pub fn event(&mut self, event: &Json) {
        if self.written.is_ok() {
            let comma = if std::mem::take(&mut self.is_first) { "\n" } else { ",\n" };
            let text = event.to_string();
            self.written =
                self.to.write_all(comma.as_bytes()).and_then(|()| self.to.write_all(visible(&text).as_bytes()));
        }
    }

    /// Writes what is no event, and ends the file.
    ///
    /// # Errors
    /// If something could not be written, or another program has put its file there.
    pub fn finish(self, other: &Json) -> io::Result<()> {
        let Trace { path, mut to, written, .. } = self;
        written?;
        let text = other.to_string();
        write!(to, "\n],\"otherData\":{}}}\n", visible(&text))?;
        if !is_replaceable(&path) {
            return Err(io::Error::other("something other than a trace was put there meanwhile"));
        }
        to.into_inner().map_err(io::IntoInnerError::into_error)?.finish()
    }
}

/// Whether a trace may take this path: there is nothing, an empty file, or a trace of ours.
pub fn is_replaceable(path: &Path) -> bool {
    let Ok(metadata) = fs::metadata(path) else { return true };
    if metadata.len() == 0 || !metadata.is_file() {
        return metadata.is_file();
    }
    let mut head = vec![];
    let read =
        lsregen_files::open(path, Kind::ANY).and_then(|file| file.take(HEAD.len() as u64).read_to_end(&mut head));
    read.is_ok() && head == HEAD.as_bytes()
}

/// A time in the unit of the format.
pub fn microseconds(time: Duration) -> Json {
    json!(time.as_nanos() as f64 / 1e3)
}

/// A slice: something that took time.
pub fn slice(track: Track, category: &str, name: &str, start: Duration, duration: Duration, args: &Json) -> Json {
    json!({
        "ph": "X", "cat": category, "name": name, "ts": microseconds(start), "dur": microseconds(duration),
        "pid": track.process, "tid": track.thread, "args": args,
    })
}

/// Something that took no time.
pub fn instant(track: Track, category: &str, name: &str, at: Duration, args: &Json) -> Json {
    json!({
        "ph": "i", "s": "t", "cat": category, "name": name, "ts": microseconds(at),
        "pid": track.process, "tid": track.thread, "args": args,
    })
}

/// A number from a moment on.
pub fn counter(process: usize, name: &str, at: Duration, value: u64) -> Json {
    json!({ "ph": "C", "name": name, "ts": microseconds(at), "pid": process, "args": { "bytes": value } })
}

/// The name of a process, and its place in the viewer.
pub fn process(process: usize, name: &str) -> [Json; 2] {
    [
        json!({ "ph": "M", "name": "process_name", "pid": process, "args": { "name": name } }),
        json!({ "ph": "M", "name": "process_sort_index", "pid": process, "args": { "sort_index": process } }),
    ]
}

/// The name of a track, and its place in its process.
pub fn thread(track: Track, name: &str) -> [Json; 2] {
    let Track { process, thread } = track;
    [
        json!({ "ph": "M", "name": "thread_name", "pid": process, "tid": thread, "args": { "name": name } }),
        json!({ "ph": "M", "name": "thread_sort_index", "pid": process, "tid": thread, "args": { "sort_index": thread } }),
    ]
}
