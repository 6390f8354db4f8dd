//! `lsregen explain`: what the codes of diagnostics mean.

mod codes;
#[cfg(test)]
mod tests;

use std::fmt::Write;

use clap::Args;
use lsregen_engine::nearest;

use self::codes::{Code, Example, FRAME, Form, TOPICS};
use super::{Exit, terminal, usage};

/// Width of the text on a terminal.
const COLUMNS: usize = 100;

/// Explain the code of an error or warning, or list all codes
#[derive(Args)]
#[command(after_help = "Examples:
  lsregen explain
  lsregen explain unknown-param")]
pub struct Explain {
    /// Code of a diagnostic: `unknown-type` of `error[unknown-type]: …`
    #[arg(conflicts_with = "markdown")]
    code: Option<String>,

    /// Print all codes as Markdown
    #[arg(long)]
    markdown: bool,
}

impl Explain {
    pub fn main(self) -> Result<Exit, Exit> {
        match &self.code {
            Some(name) => {
                let code = codes::all().find(|code| code.name == name).ok_or_else(|| unknown(name))?;
                terminal::print(&text(code));
            }
            None if self.markdown => terminal::print(&markdown()),
            None => terminal::print(&list()),
        }
        Ok(Exit::Done)
    }
}

fn unknown(name: &str) -> Exit {
    let help = match nearest(name, codes::all().map(|code| code.name)) {
        Some(near) => format!("did you mean {near}?"),
        None => "`lsregen explain` lists all codes".to_string(),
    };
    usage(format!("there is no code `{}`; {help}", name.escape_debug()))
}

fn list() -> String {
    let width = codes::all().map(|code| code.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for topic in &TOPICS {
        let _ = writeln!(text, "{}{}", if text.is_empty() { "" } else { "\n" }, topic.title);
        for code in topic.codes {
            let _ = writeln!(text, "  {:width$}  {}", code.name, code.summary);
        }
    }
    text
}

/// One code, for a terminal.
fn text(code: &Code) -> String {
    let mut text = format!("{}: {}\n\n{}", code.name, code.summary, wrapped(code.explanation));
    let Example { form, wrong, right } = &code.example;
    let margin = if *form == Form::Nodes { "  " } else { "    " };
    for (title, example) in [("Wrong", wrong), ("Right", right)] {
        let _ = writeln!(text, "\n{title}:\n");
        for line in example.lines() {
            let _ = writeln!(text, "{margin}{line}");
        }
    }
    text
}

/// Breaks a paragraph into lines.
fn wrapped(paragraph: &str) -> String {
    let mut text = String::new();
    let mut column = 0;
    for word in paragraph.split(' ') {
        let width = word.chars().count();
        let gap = match column {
            0 => "",
            _ if column + 1 + width > COLUMNS => "\n",
            _ => " ",
        };
        column = if gap == " " { column + 1 + width } else { width };
        text.push_str(gap);
        text.push_str(word);
    }
    text + "\n"
}

/// All codes, for docs/errors.md.
fn markdown() -> String {
    let mut text = format!(
        "# Errors\n\n<!-- Written by `lsregen explain --markdown`; do not edit. -->\n\n\
         Every error and warning about a graph has a code: `error[unknown-type]: …`, or `code` in the JSON of `lsregen \
         check --json`. `lsregen explain CODE` prints its entry.\n\n\
         Examples that show only nodes belong to this graph, in which a node of the same name is replaced:\n\n\
         ```yaml\n{FRAME}```\n"
    );
    for topic in &TOPICS {
        let _ = writeln!(text, "\n## {}\n\n| code | |\n| --- | --- |", topic.title);
        for code in topic.codes {
            let _ = writeln!(text, "| [`{0}`](#{0}) | {1} |", code.name, code.summary);
        }
        topic.codes.iter().for_each(|code| text.push_str(&section(code)));
    }
    text
}

fn section(code: &Code) -> String {
    let Example { form, wrong, right } = &code.example;
    let language = match form {
        Form::Workflow | Form::Nodes | Form::Other => "yaml",
        Form::Set => "text",
        Form::Rows => "json",
    };
    format!(
        "\n### {}\n\n{}.\n\n{}\n\nWrong:\n\n```{language}\n{wrong}```\n\nRight:\n\n```{language}\n{right}```\n",
        code.name,
        capitalised(code.summary),
        code.explanation
    )
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
