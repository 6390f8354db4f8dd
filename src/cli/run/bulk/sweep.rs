//! `--sweep name=a,b,c`: every combination of the values of some parameters, and their contact sheet.

use std::path::{Path, PathBuf};

use lsregen_engine::{Diagnostic, Label, Override, Source, Span};
use lsregen_nodes::sheet::{self, Sheet};

use crate::cli::{Exit, terminal, usage};

/// Rows that a sweep may have; more are most likely a mistake.
const MAX_ROWS: usize = 100_000;

/// The axes of a sweep. The values of the last one change fastest.
pub struct Sweep(Vec<Axis>);

/// A parameter and its values.
struct Axis {
    name: String,
    values: Vec<AxisValue>,
}

struct AxisValue {
    given: Override,
    /// The value as it was written.
    text: String,
    /// `name=value`, in characters that the name of a folder may contain.
    slug: String,
}

impl Sweep {
    /// Parses the arguments of `--sweep`.
    ///
    /// # Errors
    /// When one is malformed, or there are too many combinations; the reason is printed.
    pub fn parse(arguments: &[String]) -> Result<Sweep, Exit> {
        let axes = arguments.iter().map(|argument| {
            Axis::parse(argument).map_err(|error| {
                terminal::report(&[*error]);
                Exit::Usage
            })
        });
        let axes: Vec<Axis> = axes.collect::<Result<_, _>>()?;
        for (i, axis) in axes.iter().enumerate() {
            if axes[..i].iter().any(|other| other.name == axis.name) {
                return Err(usage(format!(
                    "--sweep {}: the parameter is swept twice; write all its values in one --sweep",
                    axis.name
                )));
            }
        }
        let count = axes.iter().try_fold(1usize, |count, axis| count.checked_mul(axis.values.len()));
        match count {
            Some(count) if count <= MAX_ROWS => Ok(Sweep(axes)),
            _ => Err(usage(format!("--sweep: there are more than {MAX_ROWS} combinations; sweep fewer values"))),
        }
    }

    pub fn count(&self) -> usize {
        self.0.iter().map(|axis| axis.values.len()).product()
    }

    /// The value of each axis in a row.
    fn values(&self, index: usize) -> Vec<(&Axis, &AxisValue)> {
        let mut rest = index;
        let mut values: Vec<_> = self
            .0
            .iter()
            .rev()
            .map(|axis| {
                let value = &axis.values[rest % axis.values.len()];
                rest /= axis.values.len();
                (axis, value)
            })
            .collect();
        values.reverse();
        values
    }

    pub fn overrides(&self, index: usize) -> Vec<Override> {
        self.values(index).into_iter().map(|(_, value)| value.given.clone()).collect()
    }

    /// The name of a row: `seed=1,cfg=2`, or its number if that is too long.
    pub fn name(&self, index: usize) -> String {
        let slugs: Vec<_> = self.values(index).into_iter().map(|(_, value)| value.slug.as_str()).collect();
        let name = slugs.join(",");
        if name.len() <= 100 { name } else { format!("{:04}", index + 1) }
    }

    /// The label of a row: `seed = 1, cfg = 2`.
    fn label(&self, index: usize) -> String {
        let parts = self.values(index).into_iter().map(|(axis, value)| format!("{} = {}", axis.name, value.text));
        parts.collect::<Vec<_>>().join(", ")
    }

    /// The contact sheet of all rows, as a PNG file. `image` returns the image file of a row, if it has one.
    ///
    /// # Errors
    /// When an image cannot be read.
    pub fn sheet(&self, image: impl FnMut(usize) -> Option<PathBuf>) -> Result<Vec<u8>, String> {
        let count = self.count();
        let pictures: Vec<_> = (0..count).map(image).collect();
        let pictures: Vec<Option<&Path>> = pictures.iter().map(Option::as_deref).collect();
        let titles = |axis: &Axis| {
            let titles = axis.values.iter().map(|value| format!("{} = {}", axis.name, value.text));
            titles.collect::<Vec<_>>()
        };
        sheet::png(match self.0.as_slice() {
            [down, across] => Sheet::Table { pictures: &pictures, rows: titles(down), columns: titles(across) },
            _ => Sheet::Cells { pictures: &pictures, labels: (0..count).map(|index| self.label(index)).collect() },
        })
        .map_err(|error| format!("{error:#}"))
    }
}

impl Axis {
    fn parse(argument: &str) -> Result<Axis, Box<Diagnostic>> {
        let source = Source::new("--sweep", argument);
        let error = |message: String, span: Span| {
            let help = "write `--sweep name=a,b,c`; a comma inside brackets or quotes does not separate values";
            Box::new(Diagnostic::error("override", message, Label::new(&source, span, "")).help(help.to_string()))
        };
        let whole = Span::new(0, argument.len());
        let Some((name, list)) = argument.split_once('=').filter(|(name, _)| !name.trim().is_empty()) else {
            return Err(error("the argument has no name and `=`".into(), whole));
        };
        let mut values: Vec<AxisValue> = vec![];
        for span in split(list) {
            let span = Span::new(name.len() + 1 + span.start, name.len() + 1 + span.end);
            let written = source.slice(span);
            let start = span.start + (written.len() - written.trim_start().len());
            let text = written.trim();
            let span = Span::new(start, start + text.len());
            if text.is_empty() {
                return Err(error("a value is missing".into(), span));
            }
            // Quotes keep commas together; they are not part of the value.
            let is_quoted = text.starts_with(['"', '\'']);
            let unquoted = is_quoted.then(|| serde_yaml::from_str::<String>(text).ok()).flatten();
            let value = unquoted.as_deref().unwrap_or(text);
            let given = Override::read(&source, (name, Span::new(0, name.len())), (value, span));
            if values.iter().any(|value| value.text == text) {
                return Err(error(format!("`{text}` occurs twice"), span));
            }
            let slug = slug(name, text);
            let same = |slug: &str| values.iter().any(|value| value.slug.eq_ignore_ascii_case(slug));
            let slug = match same(&slug) {
                true => (2..).map(|n| format!("{slug}~{n}")).find(|slug| !same(slug)).unwrap_or_default(),
                false => slug,
            };
            values.push(AxisValue { given, text: text.into(), slug });
        }
        Ok(Axis { name: name.into(), values })
    }
}

/// `name=value` in characters that every file system accepts.
fn slug(name: &str, value: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "-+._".contains(c) { c } else { '_' };
    let value: String = value.chars().map(plain).take(32).collect();
    format!("{name}={}", value.trim_end_matches('.'))
}

/// Splits a list at its commas, except inside brackets and quotes.
fn split(list: &str) -> Vec<Span> {
    let (mut parts, mut start, mut depth, mut quote) = (vec![], 0, 0usize, None);
    for (at, c) in list.char_indices() {
        // An apostrophe inside a word is not a quote.
        let opens = depth > 0 || list[start..at].trim().is_empty();
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') if opens => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                parts.push(Span::new(start, at));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(Span::new(start, list.len()));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_brackets_and_quotes_do_not_separate() {
        let parts = |list: &'static str| split(list).into_iter().map(|s| &list[s.range()]).collect::<Vec<_>>();
        assert_eq!(parts("1,2,3"), ["1", "2", "3"]);
        assert_eq!(parts("[1, 2],[{a: [3, 4]}]"), ["[1, 2]", "[{a: [3, 4]}]"]);
        assert_eq!(parts("\"red, blue\",'a, b',c"), ["\"red, blue\"", "'a, b'", "c"]);
        assert_eq!(parts("a cat's eye,b"), ["a cat's eye", "b"]);
        assert_eq!(parts("1,"), ["1", ""]);
    }

    #[test]
    fn every_combination_has_its_own_name() {
        let sweep = Sweep::parse(&["prompt=a red/b,a red:b".into(), "seed=1,2,3".into()]).unwrap();
        let names: Vec<_> = (0..sweep.count()).map(|index| sweep.name(index)).collect();
        assert_eq!(names[0], "prompt=a_red_b,seed=1");
        assert_eq!(names[5], "prompt=a_red_b~2,seed=3");
        assert_eq!(names.iter().collect::<std::collections::HashSet<_>>().len(), 6);
        assert!(Sweep::parse(&["seed=1,1".into()]).is_err() && Sweep::parse(&["seed".into()]).is_err());
    }
}
