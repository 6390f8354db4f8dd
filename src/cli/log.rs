//! The log on stderr: `-v`, `-vv` and `RUST_LOG`.

use std::env::VarError;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt::time::uptime;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::profile::spans;
use super::{Exit, terminal, usage};

/// Whether a log is written.
static IS_ON: AtomicBool = AtomicBool::new(false);

/// Whether a log is written to stderr.
pub fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// The variable that replaces `-v`, with the syntax of `tracing-subscriber`: `lsregen_engine=debug,warn`.
const VARIABLE: &str = "RUST_LOG";

/// Starts the log, if it is requested, and the spans of a profile. Otherwise nothing is installed, and a log statement costs
/// one comparison.
///
/// # Errors
/// If `RUST_LOG` is malformed; the reason is printed.
pub fn start(verbose: u8, is_profiled: bool) -> Result<(), Exit> {
    let variable = match std::env::var(VARIABLE) {
        Ok(directives) => Some(directives).filter(|directives| !directives.is_empty()),
        Err(VarError::NotPresent) => None,
        Err(error @ VarError::NotUnicode(_)) => return Err(usage(format!("{VARIABLE}: {error}"))),
    };
    // A directive names the beginning of a target: all crates of this workspace.
    let directives = match (variable, verbose) {
        (Some(directives), _) => Some(directives),
        (None, 0) => None,
        (None, 1) => Some("lsregen=info".into()),
        (None, _) => Some("lsregen=debug".into()),
    };
    let filter = |directives: String| {
        EnvFilter::try_new(&directives).map_err(|error| usage(format!("{VARIABLE}={directives}: {error}")))
    };
    let filter = directives.map(filter).transpose()?;
    IS_ON.store(filter.is_some(), Ordering::Relaxed);
    let log = filter.map(|filter| {
        let lines = tracing_subscriber::fmt::layer().with_writer(|| Lines).with_ansi(false).with_timer(uptime());
        // A closed or full stderr does not stop a run.
        lines.log_internal_errors(false).with_filter(filter)
    });
    let wanted = filter_fn(spans::is_wanted).with_max_level_hint(LevelFilter::DEBUG);
    let spans = is_profiled.then(|| spans::Spans.with_filter(wanted));
    if log.is_some() || spans.is_some() {
        tracing_subscriber::registry().with(log).with(spans).init();
    }
    Ok(())
}

/// Writes the lines of the log as messages.
struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        terminal::say(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
