//! `--events`: the events of runs as JSON Lines. docs/events.md has the schema.

use std::fs;
use std::io::{self, BufRead, BufReader, LineWriter, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use lsregen_engine::{Event, Subscriber, visible};
use lsregen_files::Kind;
use serde_json::{Map, Value as Json, json};

use super::previews::Previews;
use super::saved::SavedFiles;
use crate::cli::terminal::{self, shown};
use crate::cli::{Exit, usage};

/// Version of the format: incremented when a field changes its meaning or is removed, not for new events or fields.
const VERSION: u64 = 1;

/// The output of events, one JSON object a line. Clones share it.
#[derive(Clone)]
pub struct Events(Arc<Mutex<Output>>);

struct Output {
    /// Its name in messages.
    name: String,
    /// `None` after a write failed.
    to: Option<Box<dyn Write + Send>>,
}

impl Events {
    /// Opens stdout for `jsonl` and `-`, and otherwise a file, which is truncated.
    ///
    /// # Errors
    /// When the file cannot be written, or holds something other than events; the reason is printed.
    pub fn open(to: &str) -> Result<Events, Exit> {
        let (name, to): (_, Box<dyn Write + Send>) = match to {
            to if Events::is_stdout(to) => ("stdout".into(), Box::new(LineWriter::new(io::stdout()))),
            path => {
                let name = format!("--events {path}");
                if !is_replaceable(Path::new(path)) {
                    return Err(usage(format!(
                        "{name}: this file holds something other than events; name another file, or remove it"
                    )));
                }
                let file = lsregen_files::create_log(Path::new(path))
                    .map_err(|error| usage(format!("{name}: cannot be written: {error}")))?;
                (name, Box::new(LineWriter::new(file)))
            }
        };
        Ok(Events(Arc::new(Mutex::new(Output { name, to: Some(to) }))))
    }

    /// Whether the argument of `--events` stands for stdout.
    pub fn is_stdout(to: &str) -> bool {
        matches!(to, "jsonl" | "-")
    }

    /// Writes one event.
    pub fn emit(&self, name: &str, fields: Json) {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let mut object = Map::from_iter([("v".into(), json!(VERSION)), ("event".into(), json!(name))]);
        object.insert("time".into(), json!(seconds));
        if let Json::Object(fields) = fields {
            object.extend(fields);
        }
        let line = format!("{}\n", Json::Object(object));
        let mut output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Output { name, to } = &mut *output;
        // The run goes on without its events: what it has computed is worth keeping.
        if let Some(writer) = to
            && !terminal::written(name, writer.write_all(visible(&line).as_bytes()))
        {
            *to = None;
        }
    }

    /// Returns a subscriber for the run with this number. `previews` names the files of its previews.
    pub fn of_run(&self, run: usize, previews: Option<Arc<Previews>>) -> RunEvents {
        RunEvents { events: self.clone(), run, previews, saved: SavedFiles::default() }
    }
}

/// Whether a file may be replaced by events: it does not exist, is empty or no regular file, or holds events.
fn is_replaceable(path: &Path) -> bool {
    let Ok(metadata) = fs::metadata(path) else { return true };
    if !metadata.is_file() || metadata.len() == 0 {
        return true;
    }
    const LONGEST: u64 = 1 << 20;
    let mut line = vec![];
    let read = lsregen_files::open(path, Kind::ANY)
        .and_then(|file| BufReader::new(file.take(LONGEST)).read_until(b'\n', &mut line));
    let event: Option<Json> = read.is_ok().then(|| serde_json::from_slice(&line).ok()).flatten();
    event.is_some_and(|event| event["v"].is_u64() && event["event"].is_string())
}

/// Writes the events of one run.
pub struct RunEvents {
    events: Events,
    run: usize,
    previews: Option<Arc<Previews>>,
    saved: SavedFiles,
}

impl Subscriber for RunEvents {
    fn event(&self, event: &Event) {
        let (name, mut fields) = fields(event, self.previews.as_deref());
        fields["run"] = json!(self.run);
        self.saved.event(event);
        match event {
            Event::Cached { node, .. }
            | Event::Restored { node, .. }
            | Event::NodeFinished { node, .. }
            | Event::Shared { node, .. } => {
                let files = self.saved.of(node);
                if !files.is_empty() {
                    fields["files"] = json!(shown(&files));
                }
            }
            Event::RunFinished { .. } => fields["files"] = json!(shown(&self.saved.all())),
            _ => {}
        }
        self.events.emit(name, fields);
    }
}

/// Passes every event to several subscribers, in their order.
pub struct Several(pub Vec<Arc<dyn Subscriber>>);

impl Subscriber for Several {
    fn event(&self, event: &Event) {
        self.0.iter().for_each(|subscriber| subscriber.event(event));
    }
}

/// The name and the fields of an event.
fn fields(event: &Event, previews: Option<&Previews>) -> (&'static str, Json) {
    match event {
        Event::PlanMade { run, cached, shared, skipped } => {
            ("plan_made", json!({ "to_run": run, "hits": cached, "shared": shared, "unneeded": skipped }))
        }
        Event::Cached { node, key } => ("hit", json!({ "node": node, "key": key })),
        Event::Restored { node, key } => ("restored", json!({ "node": node, "key": key })),
        Event::NodeStarted { node, key, lane } => ("node_started", json!({ "node": node, "key": key, "lane": lane })),
        Event::Joined { node, key } => ("joined", json!({ "node": node, "key": key })),
        Event::Step { node, done, of, part } => {
            let mut fields = json!({ "node": node, "done": done, "of": of });
            if let Some((image, images)) = part {
                (fields["image"], fields["images"]) = (json!(image), json!(images));
            }
            ("step", fields)
        }
        Event::Preview { node, done, of, .. } => {
            let file = previews.map(|previews| previews.path(node, *done).to_string_lossy().into_owned());
            ("preview", json!({ "node": node, "done": done, "of": of, "file": file }))
        }
        Event::Saved { node, path, new } => {
            ("saved", json!({ "node": node, "file": path.to_string_lossy(), "new": new }))
        }
        Event::Note { node, text } => ("note", json!({ "node": node, "text": text })),
        Event::NodeFinished { node, key, duration, bytes } => {
            ("node_finished", json!({ "node": node, "key": key, "seconds": duration.as_secs_f64(), "bytes": bytes }))
        }
        Event::Shared { node, with } => ("shared", json!({ "node": node, "with": with })),
        Event::Failed { node, error } => ("failed", json!({ "node": node, "error": error })),
        Event::Blocked { node, because } => ("skipped", json!({ "node": node, "because": because })),
        Event::Cancelled { node } => ("cancelled", json!({ "node": node })),
        Event::RunFinished { duration, succeeded } => {
            ("run_finished", json!({ "seconds": duration.as_secs_f64(), "succeeded": succeeded }))
        }
    }
}
