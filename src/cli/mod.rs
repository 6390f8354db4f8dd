//! The verbs of the command, one module each, and the exit codes.

mod args;
mod cache;
mod check;
mod completions;
mod console;
mod explain;
mod fetch;
mod graph;
mod hints;
mod inspect;
mod log;
mod man;
mod models;
mod nodes;
mod open;
mod plan;
mod profile;
mod record;
mod rows;
mod run;
mod schema;
mod session;
mod show;
mod terminal;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgAction, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

/// Generate large images that follow a layout of boxes, by running node graphs written in YAML.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Arguments {
    /// Log nodes and the loading of weights to stderr; with -vv also every sampling step. RUST_LOG takes precedence
    #[arg(long, short, global = true, action = ArgAction::Count)]
    verbose: u8,

    /// Colour messages: `auto` does on a terminal, unless NO_COLOR is set; CLICOLOR_FORCE does everywhere
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Run(run::Run),
    Watch(watch::Watch),
    Rows(rows::RowsCommand),
    Check(check::Check),
    Plan(plan::Plan),
    Nodes(nodes::Nodes),
    Models(models::Models),
    Fetch(fetch::Fetch),
    Graph(graph::Graph),
    Cache(cache::Cache),
    Inspect(inspect::Inspect),
    Explain(explain::Explain),
    Schema(schema::Schema),
    Show(show::Show),
    Completions(completions::Completions),
    Man(man::Man),
}

/// The outcome of a command, as its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Success.
    Done = 0,
    /// The graph is valid, but the run failed or was cancelled, or output could not be written.
    Failed = 1,
    /// The command line is invalid. clap uses the same code for unknown arguments.
    Usage = 2,
    /// The graph has errors: EX_CONFIG of sysexits.h.
    BadGraph = 78,
    /// Ctrl-C stopped the command before it was done: 128 + SIGINT, as shells report it.
    Interrupted = 130,
    /// SIGTERM stopped it: 128 + SIGTERM.
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Parses the arguments and runs the verb.
pub fn main() -> Exit {
    let Arguments { verbose, color, verb } = match parsed() {
        Ok(arguments) => arguments,
        Err(mut error) => {
            let verb = std::env::args_os().nth(1).and_then(|verb| verb.into_string().ok());
            hints::improve(&mut error, verb.as_deref());
            terminal::set_colours(wanted_colours(std::env::args_os()));
            terminal::explain(&error);
            return if error.use_stderr() { Exit::Usage } else { finished(Exit::Done) };
        }
    };
    terminal::set_colours(color);
    let is_profiled = matches!(&verb, Verb::Run(run) if run.is_profiled());
    if let Err(exit) = log::start(verbose, is_profiled) {
        return exit;
    }
    let result = match verb {
        Verb::Run(verb) => verb.main(),
        Verb::Watch(verb) => verb.main(),
        Verb::Rows(verb) => verb.main(),
        Verb::Check(verb) => verb.main(),
        Verb::Plan(verb) => verb.main(),
        Verb::Nodes(verb) => verb.main(),
        Verb::Models(verb) => verb.main(),
        Verb::Fetch(verb) => verb.main(),
        Verb::Graph(verb) => verb.main(),
        Verb::Cache(verb) => verb.main(),
        Verb::Inspect(verb) => verb.main(),
        Verb::Explain(verb) => verb.main(),
        Verb::Schema(verb) => verb.main(),
        Verb::Show(verb) => verb.main(),
        Verb::Completions(verb) => verb.main(),
        Verb::Man(verb) => verb.main(),
    };
    finished(result.unwrap_or_else(|exit| exit))
}

/// The arguments. The help fits the terminal.
fn parsed() -> clap::error::Result<Arguments> {
    let command = Arguments::command().term_width(terminal::columns().min(120));
    Arguments::from_arg_matches(&command.try_get_matches()?)
}

/// What `--color` says in arguments that could not be parsed.
fn wanted_colours(arguments: impl Iterator<Item = OsString>) -> ColorChoice {
    let arguments: Vec<_> = arguments.filter_map(|argument| argument.into_string().ok()).collect();
    let pairs = arguments.iter().zip(arguments.iter().skip(1).map(Some).chain([None]));
    let values = pairs.filter_map(|(argument, next)| match argument.strip_prefix("--color")? {
        "" => ColorChoice::from_str(next?, true).ok(),
        value => ColorChoice::from_str(value.strip_prefix('=')?, true).ok(),
    });
    values.last().unwrap_or_default()
}

/// The outcome of a command, which has failed if output was lost.
fn finished(exit: Exit) -> Exit {
    if exit == Exit::Done && terminal::has_lost_output() { Exit::Failed } else { exit }
}

/// Prints an error of the command line.
fn usage(message: impl std::fmt::Display) -> Exit {
    terminal::complain(message);
    Exit::Usage
}
