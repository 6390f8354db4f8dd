//! Values given from outside the file, on the command line.
//!
//! Each is a text of its own, so that its faults point at what the user typed. Knows no document.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Label};
use crate::document::is_name;
use crate::source::{Source, Span};
use crate::yaml::{self, Data, Item, Place};

/// A value from outside the file: `--set name=value`.
#[derive(Clone)]
pub struct Override {
    pub(crate) name: String,
    pub(crate) source: Arc<Source>,
    pub(crate) value: Item,
    /// The value as it was written, where it was neither quoted nor bracketed.
    pub(crate) plain: Option<String>,
}

impl Override {
    /// Reads `name=value`. A value in quotes, `[…]` or `{…}` is read as YAML; any other is a number, `true`, `false`,
    /// `null` or a text, as in a file, but may hold `: ` and `#` without quotes.
    ///
    /// # Errors
    /// When there is no `=`, or the value is not YAML.
    pub fn parse(arg: &str) -> Result<Override, Box<Diagnostic>> {
        let source = Source::new("--set", arg);
        let fault = |message: &str, span, help: &str| {
            Box::new(Diagnostic::error("override", message, Label::new(&source, span, "")).help(help.to_string()))
        };
        let whole = Span::new(0, arg.len());
        let Some((name, value)) = arg.split_once('=') else {
            return Err(fault("there is no `=` in it", whole, "write `--set name=value`"));
        };
        if !is_name(name) {
            let help = "write `--set name=value`, with the name of one of the file's `params`";
            return Err(fault("no name stands before the `=`", Span::new(0, name.len()), help));
        }
        let start = name.len() + 1 + (value.len() - value.trim_start().len());
        let value = value.trim();
        let span = Span::new(start, start + value.len());
        let place = Place { span, ..Place::default() };
        if !value.starts_with(['"', '\'', '[', '{']) {
            let data = match yaml::plain(value) {
                Ok(Data::Null) if value.is_empty() => Data::Text(String::new()),
                Ok(data) => data,
                Err(why) => {
                    return Err(fault(
                        &format!("`{value}` {why}"),
                        span,
                        "if it is meant as a text, put it in quotes within quotes",
                    ));
                }
            };
            return Ok(Override { name: name.into(), value: Item { place, data }, plain: Some(value.into()), source });
        }
        // Spaces in place of `name=` keep every place where it is in the argument.
        let padded = Source::new("--set", format!("{}{value}", " ".repeat(start)));
        match yaml::read(&padded, 0) {
            (Some(value), faults) if faults.list().is_empty() => {
                Ok(Override { name: name.into(), source, value, plain: None })
            }
            (_, faults) => Err(match faults.into_list().into_iter().next() {
                Some(mut fault) => {
                    for label in std::iter::once(&mut fault.primary).chain(&mut fault.secondary) {
                        label.source = source.clone();
                    }
                    Box::new(fault)
                }
                None => fault("the value is not YAML", span, "put a text in quotes within quotes"),
            }),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}
