//! A running `lsregen watch` and its events.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::lsregen;

/// Longer than anything here takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// An edit is complete when no event comes for this long, which exceeds the time for which the watcher waits for a change
/// to end.
const SILENCE: Duration = Duration::from_millis(150);

/// A running watch, in its own folder.
pub struct Live {
    pub child: Child,
    events: Receiver<(Instant, Json)>,
    pub log: Vec<Json>,
    folder: TempDir,
}

/// The result of an edit.
#[derive(Debug, Default)]
pub struct Answer {
    /// Nodes that were started or restored, sorted.
    pub started: Vec<String>,
    /// `unchanged`, `bad_graph` and `reloaded`, in the order of the events.
    pub answers: Vec<String>,
    /// From just before the write to the first `changed`.
    pub changed: Option<Duration>,
    /// From just before the write to the first `plan_made`.
    pub planned: Option<Duration>,
}

impl Live {
    /// Watches `graph.yaml`, after `fill` has written it and its files into the folder, and waits for the end of the first
    /// run.
    pub fn start(arguments: &[&str], fill: impl FnOnce(&Path)) -> Live {
        let mut live = Live::launch(arguments, fill);
        live.wait("run_finished", |_| true);
        live
    }

    /// Watches `graph.yaml` without waiting.
    pub fn launch(arguments: &[&str], fill: impl FnOnce(&Path)) -> Live {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path());
        let mut command: Command = lsregen();
        // Without the cache, which may have the results of other tests.
        command.args(["watch", "--no-cache", "graph.yaml", "--device", "cpu", "--events", "jsonl"]);
        command.current_dir(folder.path());
        let stderr = fs::File::create(folder.path().join("stderr")).unwrap();
        let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (send, events) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap();
                if send.send((Instant::now(), event)).is_err() {
                    break;
                }
            }
        });
        Live { child, events, log: vec![], folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn stderr(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap()
    }

    /// The next event, if one comes within `time`.
    fn next(&mut self, time: Duration) -> Option<(Instant, Json)> {
        match self.events.recv_timeout(time) {
            Ok((at, event)) => {
                self.log.push(event.clone());
                Some((at, event))
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("the watch has ended:\n{}", self.stderr()),
        }
    }

    /// Waits for an event and returns it.
    pub fn wait(&mut self, name: &str, is_it: impl Fn(&Json) -> bool) -> Json {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some((_, event)) = self.next(Duration::from_secs(1))
                && event["event"] == name
                && is_it(&event)
            {
                return event;
            }
        }
        let log: Vec<_> = self.log.iter().rev().take(30).rev().map(Json::to_string).collect();
        panic!("no event `{name}`:\n{}\n{}", log.join("\n"), self.stderr());
    }

    /// Edits a file and waits until the edit is complete.
    pub fn edit(&mut self, write: impl FnOnce(&Path)) -> Answer {
        let start = Instant::now();
        write(self.folder.path());
        let mut answer = Answer::default();
        let mut runs: Vec<Json> = vec![];
        let (mut changes, mut answers) = (0, 0);
        loop {
            let settled = changes > 0 && answers >= changes && runs.is_empty();
            let Some((at, event)) = self.next(if settled { SILENCE } else { Duration::from_secs(1) }) else {
                if settled {
                    break;
                }
                assert!(start.elapsed() < PATIENCE, "{answer:?}\n{}", self.stderr());
                continue;
            };
            let name = event["event"].as_str().unwrap();
            match name {
                "changed" => {
                    changes += 1;
                    answer.changed.get_or_insert(at - start);
                }
                "plan_made" => {
                    answer.planned.get_or_insert(at - start);
                }
                "unchanged" | "bad_graph" | "reloaded" => {
                    answers += 1;
                    answer.answers.push(name.into());
                    if name == "reloaded" {
                        runs.push(event["run"].clone());
                    }
                }
                "node_started" | "restored" => answer.started.push(event["node"].as_str().unwrap().into()),
                "run_finished" => runs.retain(|run| *run != event["run"]),
                _ => {}
            }
        }
        answer.started.sort();
        answer
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
