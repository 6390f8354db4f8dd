//! `lsregen man`: the manual pages.

use clap::{Args, CommandFactory};
use clap_mangen::Man as Page;

use super::{Arguments, Exit, terminal, usage};

/// Print the manual page of lsregen or of one of its commands
#[derive(Args)]
#[command(after_help = "Examples:
  lsregen man run | man -l -
  lsregen man > ~/.local/share/man/man1/lsregen.1")]
pub struct Man {
    /// Name of a command; without it, the page of lsregen
    command: Option<String>,
}

impl Man {
    pub fn main(self) -> Result<Exit, Exit> {
        let mut command = Arguments::command();
        command.build();
        let of = match self.command {
            Some(name) => {
                let found = command.find_subcommand(&name).cloned();
                found.ok_or_else(|| usage(format!("there is no command {name}; `lsregen --help` lists them")))?
            }
            None => command,
        };
        let mut page = vec![];
        Page::new(of).render(&mut page).map_err(|error| {
            terminal::complain(format!("the manual page cannot be written: {error}"));
            Exit::Failed
        })?;
        terminal::print(&String::from_utf8_lossy(&page));
        Ok(Exit::Done)
    }
}
