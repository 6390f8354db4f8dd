//! The progress of a bulk run on stderr.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{console, terminal};

/// Failed rows that the summary names.
const NAMED: usize = 20;

/// The outcome of one row.
pub struct RowOutcome {
    pub error: Option<String>,
    /// Nodes that ran.
    pub ran: usize,
    /// Nodes whose results were cached, or came from another node or run.
    pub cached: usize,
    pub duration: Duration,
}

/// Prints a line for each row, and on a terminal a bar below the lines.
pub struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
    total: usize,
    /// Rows that an earlier run has finished.
    earlier: usize,
    finished: usize,
}

impl Progress {
    pub fn new(quiet: bool, total: usize, earlier: usize) -> Progress {
        let bar = (!quiet && console::bars()).then(|| {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed}, {eta} left");
            let bar = ProgressBar::new(total as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_position(earlier as u64);
            bar.reset_eta();
            bar
        });
        let progress = Progress { bar, quiet, total, earlier, finished: earlier };
        if earlier > 0 {
            progress.line(&format!("{earlier} of {total} rows are already done\n"));
        }
        progress
    }

    fn line(&self, text: &str) {
        if !self.quiet {
            self.above(|| terminal::say(text));
        }
    }

    /// Calls `write`, which writes above the bar.
    pub fn above(&self, write: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Prints the outcome of a row. `place` is the row in its file.
    pub fn row(&mut self, name: &str, place: Option<&str>, outcome: &RowOutcome) {
        self.finished += 1;
        let RowOutcome { error, ran, cached, duration } = outcome;
        let head = format!("[{}/{}] {name}", self.finished, self.total);
        let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
        match error {
            None => self.line(&format!("{head}: {ran} ran, {cached} cached, {:.2} s\n", duration.as_secs_f64())),
            Some(error) if self.quiet => terminal::complain(format_args!("{name}{place} failed: {error}")),
            Some(error) => self.line(&format!("{head}{place} failed: {error}\n")),
        }
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// Prints the counts of rows.
    pub fn summary(&self, done: usize, failed: &[String], all: bool, duration: Duration) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let mut names = failed.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        if failed.len() > NAMED {
            names += &format!(" and {} more", failed.len() - NAMED);
        }
        let mut text = format!("{done} done, {} already done, {} failed", self.earlier, failed.len());
        if !failed.is_empty() {
            text += &format!(" ({names})");
        }
        let left = self.total - self.finished;
        if !all || left > 0 {
            text += &format!(", {left} left: repeat the command to continue");
        }
        if !self.quiet || !failed.is_empty() {
            terminal::say(&format!("{text}; {:.2} s\n", duration.as_secs_f64()));
        }
    }
}
