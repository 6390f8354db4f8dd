//! The only way to stdout and stderr: everything that the command prints passes through this file.
//!
//! Data goes to stdout, messages for a person to stderr. Whatever may come from a stranger, such as the name of a file or
//! of a tensor, is made [`visible`] here, so that it cannot control a terminal.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write, stderr, stdout};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ColorChoice;
use lsregen_engine::{Diagnostic, filled, render_within, visible};
use serde_json::Value as Json;
use terminal_size::{Width, terminal_size_of};

/// Whether output was lost: see [`lost`].
static LOST: AtomicBool = AtomicBool::new(false);

/// Writes a message. A closed stderr is not an error.
pub fn say(text: &str) {
    to_stderr(&visible(text));
}

/// What the first word of a message says of the rest, as its colour.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Good,
    Warning,
    Bad,
}

/// Writes a message whose first word is coloured.
pub fn say_headed(tone: Tone, head: &str, rest: &str) {
    let (start, end) = match (colours(), tone) {
        (false, _) => ("", ""),
        (true, Tone::Good) => ("\x1b[1;32m", "\x1b[0m"),
        (true, Tone::Warning) => ("\x1b[1;33m", "\x1b[0m"),
        (true, Tone::Bad) => ("\x1b[1;31m", "\x1b[0m"),
    };
    to_stderr(&format!("{start}{}{end}{}", visible(head), visible(rest)));
}

/// Writes an error. Further lines are indented, so that no text from elsewhere can pretend to be another message.
pub fn complain(message: impl Display) {
    let message = message.to_string();
    let tone = if message.starts_with("warning: ") { Tone::Warning } else { Tone::Bad };
    say_headed(tone, "lsregen", &format!(": {}\n", message.trim_end().replace('\n', "\n  ")));
}

/// Writes diagnostics.
pub fn report(diagnostics: &[Diagnostic]) {
    to_stderr(&rendered(diagnostics));
}

/// The diagnostics as [`report`] writes them.
pub fn rendered(diagnostics: &[Diagnostic]) -> String {
    render_within(diagnostics, colours(), columns())
}

/// Writes a text that [`rendered`] or clap has made, with its colours.
pub fn to_stderr(text: &str) {
    let _ = stderr().lock().write_all(text.as_bytes());
}

/// Writes data to stdout. Another program gets the exact bytes, a terminal a [`visible`] text.
pub fn print(text: &str) {
    print_bytes(text.as_bytes());
}

/// Writes paths to stdout, one a line.
pub fn print_paths<'a>(paths: impl IntoIterator<Item = &'a Path>) {
    let line = |path: &'a Path| [path.as_os_str().as_encoded_bytes(), b"\n"].concat();
    print_bytes(&paths.into_iter().flat_map(line).collect::<Vec<_>>());
}

fn print_bytes(bytes: &[u8]) {
    let bytes = match stdout().is_terminal() {
        true => Cow::Owned(visible(&String::from_utf8_lossy(bytes)).into_owned().into_bytes()),
        false => Cow::Borrowed(bytes),
    };
    to_stdout(&bytes);
}

fn to_stdout(bytes: &[u8]) {
    /// A write failed. Nothing more is written, so that what comes later does not follow a gap.
    static HAS_ENDED: AtomicBool = AtomicBool::new(false);
    if HAS_ENDED.load(Ordering::Relaxed) {
        return;
    }
    let mut stdout = stdout().lock();
    let is_written = written("stdout", stdout.write_all(bytes).and_then(|()| stdout.flush()));
    HAS_ENDED.store(!is_written, Ordering::Relaxed);
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

/// Columns for messages and tables: COLUMNS, or else those of the terminal, but at most 120, because longer lines are hard
/// to read. Without either, lines are not broken.
pub fn columns() -> usize {
    const MOST: usize = 120;
    let terminal =
        terminal_size_of(stderr()).or_else(|| terminal_size_of(stdout())).map(|(Width(width), _)| width.into());
    let variable = || std::env::var("COLUMNS").ok().and_then(|columns| columns.parse::<usize>().ok());
    variable().or(terminal).filter(|columns| *columns >= 40).map_or(usize::MAX, |columns| columns.min(MOST))
}

/// Writes a row of a table to stdout: `head`, and a text that is broken into as many lines as it needs beside it.
pub fn print_row(head: &str, text: &str) {
    let margin = " ".repeat(head.chars().count() + 2);
    let text = filled(text, &margin, &margin, columns());
    print(&format!("{head}  {}\n", text.trim_start()));
}

/// When to use colours, as `--color` says.
static COLOURS: OnceLock<ColorChoice> = OnceLock::new();

/// Sets when to use colours.
pub fn set_colours(choice: ColorChoice) {
    let _ = COLOURS.set(choice);
}

/// Whether to use colours on stderr.
pub fn colours() -> bool {
    colours_if(stderr().is_terminal())
}

/// Whether to use colours on a stream. By default on a terminal, unless NO_COLOR is set (no-color.org); CLICOLOR_FORCE
/// asks for them everywhere (bixense.com/clicolors).
fn colours_if(is_terminal: bool) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
    match COLOURS.get() {
        Some(ColorChoice::Always) => true,
        Some(ColorChoice::Never) => false,
        Some(ColorChoice::Auto) | None => match () {
            () if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) => false,
            () if is_set("CLICOLOR_FORCE") => true,
            () => is_terminal && std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
        },
    }
}

/// Writes what clap has to say: the help or version that was asked for to stdout, an error to stderr.
pub fn explain(error: &clap::Error) {
    let text = error.render();
    let plain = text.to_string();
    // A text of clap with colours is written as it is; one with the bytes of a stranger has no colours.
    let may_be_coloured = visible(&plain) == plain;
    match error.use_stderr() {
        true if colours() && may_be_coloured => to_stderr(&text.ansi().to_string()),
        true => say(&plain),
        false if colours_if(stdout().is_terminal()) && may_be_coloured => {
            to_stdout(text.ansi().to_string().as_bytes());
        }
        false => print(&plain),
    }
}

/// Paths for JSON, which has no form for one that is not Unicode.
pub fn shown<'a, P: AsRef<Path> + 'a>(paths: impl IntoIterator<Item = &'a P>) -> Vec<Cow<'a, str>> {
    paths.into_iter().map(|path| path.as_ref().to_string_lossy()).collect()
}
