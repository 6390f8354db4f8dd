//! The only way to stdout and stderr: everything that the command prints passes through this file.
//!
//! Data goes to stdout, messages for a person to stderr. Whatever may come from a stranger, such as the name of a file or
//! of a tensor, is made [`visible`] here, so that it cannot control a terminal.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write, stderr, stdout};
use std::sync::atomic::{AtomicBool, Ordering};

use lsregen_engine::{Diagnostic, render, visible};
use serde_json::Value as Json;

/// Whether output was lost: see [`lost`].
static LOST: AtomicBool = AtomicBool::new(false);

/// Writes a message. A closed stderr is not an error.
pub fn say(text: &str) {
    to_stderr(&visible(text));
}

/// Writes an error. Further lines are indented, so that no text from elsewhere can pretend to be another message.
pub fn complain(message: impl Display) {
    let message = message.to_string();
    say(&format!("lsregen: {}\n", message.trim_end().replace('\n', "\n  ")));
}

/// Writes diagnostics.
pub fn report(diagnostics: &[Diagnostic]) {
    to_stderr(&rendered(diagnostics));
}

/// The diagnostics as [`report`] writes them.
pub fn rendered(diagnostics: &[Diagnostic]) -> String {
    render(diagnostics, colours())
}

/// Writes a text that [`rendered`] or clap has made, with its colours.
pub fn to_stderr(text: &str) {
    let _ = stderr().lock().write_all(text.as_bytes());
}

/// Writes data to stdout. Another program gets the exact bytes, a terminal a [`visible`] text.
pub fn print(text: &str) {
    let text = if stdout().is_terminal() { visible(text) } else { text.into() };
    let mut stdout = stdout().lock();
    written("stdout", stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()));
}

/// Writes JSON to stdout.
pub fn print_json(json: &Json) {
    print(&visible(&format!("{json:#}\n")));
}

/// Judges a write to `name`; returns whether it succeeded. A closed pipe, as `head` leaves it, is no error: whoever reads
/// has read enough. Anything else is reported, and the command [fails](has_lost_output) at its end.
pub fn written(name: &str, result: io::Result<()>) -> bool {
    match &result {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        Err(error) => lost(format_args!("{name}: cannot be written: {error}")),
    }
    result.is_ok()
}

/// Reports that output was lost. The command goes on, and fails at its end.
pub fn lost(message: impl Display) {
    LOST.store(true, Ordering::Relaxed);
    complain(message);
}

/// Whether output was lost, so that the command has failed.
pub fn has_lost_output() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// Whether to use colours: on a terminal, unless NO_COLOR is set (no-color.org).
pub fn colours() -> bool {
    stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
