//! The log on stderr: `-v`, `-vv` and `RUST_LOG`.

use std::env::VarError;
use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::uptime;

use super::{Exit, terminal, usage};

/// The variable that replaces `-v`, with the syntax of `tracing-subscriber`: `lsregen_engine=debug,warn`.
const VARIABLE: &str = "RUST_LOG";

/// Starts the log, if it is requested. Otherwise nothing is installed, and a log statement costs one comparison.
///
/// # Errors
/// If `RUST_LOG` is malformed; the reason is printed.
pub fn start(verbose: u8) -> Result<(), Exit> {
    let variable = match std::env::var(VARIABLE) {
        Ok(directives) => Some(directives).filter(|directives| !directives.is_empty()),
        Err(VarError::NotPresent) => None,
        Err(error @ VarError::NotUnicode(_)) => return Err(usage(format!("{VARIABLE}: {error}"))),
    };
    // A directive names the beginning of a target: all crates of this workspace.
    let directives = match (variable, verbose) {
        (Some(directives), _) => directives,
        (None, 0) => return Ok(()),
        (None, 1) => "lsregen=info".into(),
        (None, _) => "lsregen=debug".into(),
    };
    let filter = EnvFilter::try_new(&directives).map_err(|error| usage(format!("{VARIABLE}={directives}: {error}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Lines)
        .with_ansi(false)
        .with_timer(uptime())
        // A closed or full stderr does not stop a run.
        .log_internal_errors(false)
        .init();
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
