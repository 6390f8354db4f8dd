//! The progress of downloads and runs, and the summary of a run, all on stderr.

use std::io::{IsTerminal, stderr};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use lsregen_engine::{Event, FetchProgress, Graph, Outcome, Subscriber, Summary, visible};

use super::log;
use super::terminal::{Tone, complain, say, say_headed};

/// Whether to draw progress bars: on a terminal, unless the log is written there too.
pub fn bars() -> bool {
    stderr().is_terminal() && !log::is_on()
}

/// Shows the progress of downloads: a bar on a terminal, otherwise one line a file.
pub struct Fetches {
    quiet: bool,
    bar: Option<ProgressBar>,
    file: String,
}

impl Fetches {
    pub fn new(quiet: bool) -> Fetches {
        Fetches { quiet, bar: None, file: String::new() }
    }

    pub fn show(&mut self, fetching: FetchProgress) {
        let new = self.file != fetching.file;
        if new {
            self.file = fetching.file.into();
        }
        if self.quiet || !bars() {
            if new && !self.quiet {
                say(&format!("fetching {}\n", self.file));
            }
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let style =
                ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} {msg}");
            ProgressBar::new(fetching.of).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        bar.set_length(fetching.of);
        bar.set_position(fetching.done);
        if new {
            bar.set_message(visible(&self.file).into_owned());
        }
    }

    pub fn clear(&mut self) {
        self.bar.take().inspect(ProgressBar::finish_and_clear);
    }
}

impl Drop for Fetches {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Shows the progress of a run: bars on a terminal, otherwise lines.
pub struct Progress {
    style: Style,
    run: Mutex<Counts>,
}

enum Style {
    Quiet,
    Lines,
    Bars(MultiProgress),
}

#[derive(Default)]
struct Counts {
    started: usize,
    of: usize,
    /// Bars of the nodes that are running, by name.
    bars: Vec<(String, ProgressBar)>,
    /// The run is no longer shown.
    left: bool,
}

impl Progress {
    pub fn new(quiet: bool) -> Progress {
        let style = match (quiet, bars()) {
            (true, _) => Style::Quiet,
            (false, true) => Style::Bars(MultiProgress::new()),
            (false, false) => Style::Lines,
        };
        Progress { style, run: Mutex::default() }
    }

    /// A progress for another run on the same screen.
    pub fn beside(&self) -> Progress {
        let style = match &self.style {
            Style::Quiet => Style::Quiet,
            Style::Lines => Style::Lines,
            Style::Bars(bars) => Style::Bars(bars.clone()),
        };
        Progress { style, run: Mutex::default() }
    }

    /// Stops showing the run, because another has replaced it.
    pub fn leave(&self) {
        let mut run = self.run.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        run.left = true;
        run.bars.drain(..).for_each(|(_, bar)| bar.finish_and_clear());
    }

    /// Writes text above the bars.
    pub fn line(&self, text: &str) {
        self.above(|| say(text));
    }

    /// Calls `write`, which writes above the bars.
    pub fn above(&self, write: impl FnOnce()) {
        match &self.style {
            Style::Bars(bars) => bars.suspend(write),
            _ => write(),
        }
    }

    /// Writes the nodes that have no result and why, and one line about the run: what was made, what was cached, and how
    /// long it took. `is_cached`: a later run finds what this one has computed.
    pub fn summary(&self, graph: &Graph, summary: &Summary, files: usize, is_cached: bool) {
        let (names, types) = widths(graph);
        for (&index, (_, outcome)) in graph.order().iter().zip(&summary.nodes) {
            let node = graph.node(index);
            let what = match outcome {
                Outcome::Failed { .. } => "failed".into(),
                Outcome::Blocked { because } => format!("skipped: {because} failed"),
                Outcome::Cancelled => "cancelled".into(),
                _ => continue,
            };
            self.line(&format!("{:names$}  {:types$}  {what}\n", node.name, node.node_type.name));
        }
        if matches!(self.style, Style::Quiet) {
            return;
        }
        let count = |counts: fn(&Outcome) -> bool| summary.nodes.iter().filter(|(_, outcome)| counts(outcome)).count();
        let ran = count(|outcome| matches!(outcome, Outcome::Ran { .. }));
        let cached = count(Outcome::has_result) - ran;
        let (tone, head) = match (summary.succeeded(), summary.was_cancelled()) {
            (true, _) => (Tone::Good, "done"),
            (false, true) => (Tone::Bad, "cancelled"),
            (false, false) => (Tone::Bad, "failed"),
        };
        let files = if files == 1 { "1 file".into() } else { format!("{files} files") };
        let next = match summary.was_cancelled() && is_cached {
            true => "; the same command goes on from what is cached",
            false => "",
        };
        let seconds = summary.duration.as_secs_f64();
        let counts = format!(": {files}; {ran} nodes ran, {cached} cached; {seconds:.2} s{next}\n");
        self.above(|| say_headed(tone, head, &counts));
    }
}

/// The widths of the columns for the names and the types of nodes.
pub fn widths(graph: &Graph) -> (usize, usize) {
    let nodes = || graph.order().iter().map(|&index| graph.node(index));
    let names = nodes().map(|node| node.name.chars().count()).max();
    let types = nodes().map(|node| node.node_type.name.chars().count()).max();
    (names.unwrap_or(0), types.unwrap_or(0))
}

impl Subscriber for Progress {
    fn event(&self, event: &Event) {
        let mut run = self.run.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if run.left {
            return;
        }
        if let Event::Failed { node, error } = event {
            self.above(|| complain(format_args!("{node} failed: {error}")));
        }
        match (&self.style, event) {
            (Style::Quiet, _) => {}
            (_, Event::PlanMade { run: of, .. }) => run.of = *of,
            (_, Event::Note { node, text }) => self.line(&format!("{node}: {text}\n")),
            (Style::Lines, Event::NodeStarted { node, .. } | Event::Joined { node, .. }) => {
                run.started += 1;
                say(&format!("[{}/{}] {node}\n", run.started, run.of));
            }
            (Style::Bars(bars), Event::NodeStarted { node, .. } | Event::Joined { node, .. }) => {
                run.started += 1;
                let bar = ProgressBar::new_spinner()
                    .with_style(style("{prefix} {msg} {elapsed}"))
                    .with_prefix(format!("[{}/{}]", run.started, run.of))
                    .with_message(node.to_string());
                let bar = bars.add(bar);
                bar.enable_steady_tick(Duration::from_millis(100));
                run.bars.push((node.to_string(), bar));
            }
            (Style::Lines, Event::Step { node, done, of, part }) => {
                // At most four lines a node.
                let quarter = |step: usize| 4 * step / (*of).max(1);
                if *of >= 4 && *done > 0 && quarter(*done) > quarter(done - 1) {
                    let image = image_of(*part);
                    say(&format!("[{}/{}] {node}: step {done} of {of}{image}\n", run.started, run.of));
                }
            }
            (Style::Bars(_), Event::Step { node, done, of, part }) => {
                if let Some((_, bar)) = run.bars.iter().find(|(name, _)| **name == **node) {
                    bar.set_message(format!("{node}{}", image_of(*part)));
                    bar.set_length(*of as u64);
                    bar.set_position(*done as u64);
                    bar.set_style(style("{prefix} {msg} {bar:30} {pos}/{len} {elapsed}, {eta} left"));
                }
            }
            (
                Style::Bars(_),
                Event::NodeFinished { node, .. } | Event::Failed { node, .. } | Event::Cancelled { node },
            ) => {
                if let Some(at) = run.bars.iter().position(|(name, _)| **name == **node) {
                    run.bars.swap_remove(at).1.finish_and_clear();
                }
            }
            _ => {}
        }
    }
}

/// Says which image of a batch a step belongs to.
fn image_of(part: Option<(usize, usize)>) -> String {
    part.map_or_else(String::new, |(image, images)| format!(" (image {image} of {images})"))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
