//! `lsregen completions`: the completions of shells.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Arguments, Exit, terminal};

/// Print the completions of a shell for the arguments of lsregen
#[derive(Args)]
#[command(after_help = "Examples:
  lsregen completions bash > ~/.local/share/bash-completion/completions/lsregen
  lsregen completions fish > ~/.config/fish/completions/lsregen.fish")]
pub struct Completions {
    shell: Shell,
}

impl Completions {
    pub fn main(self) -> Result<Exit, Exit> {
        let mut script = vec![];
        clap_complete::generate(self.shell, &mut Arguments::command(), "lsregen", &mut script);
        terminal::print(&String::from_utf8_lossy(&script));
        Ok(Exit::Done)
    }
}
