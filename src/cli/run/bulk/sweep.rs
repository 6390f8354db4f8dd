//! `--sweep name=a,b,c`: every combination of the values of some parameters, and their contact sheet.

use std::path::{Path, PathBuf};

use lsregen_engine::{Diagnostic, Digest, Label, Override, Source, Span};
use lsregen_nodes::sheet::{self, Sheet};
use serde_json::json;

use crate::cli::{Exit, terminal, usage};

/// Rows that a sweep may have; more are most likely a mistake.
const MAX_ROWS: usize = 100_000;

/// The longest name of a row, in bytes. Other rows have their numbers as names.
const LONGEST_NAME: usize = 60;

/// Columns of a sheet with one axis; more values wrap.
const COLUMNS: usize = 8;

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

    pub fn has_axis(&self, name: &str) -> bool {
        self.0.iter().any(|axis| axis.name == name)
    }

    /// The folder of the sweep below the output folder: another sweep, or the same with other values of `--set`, has
    /// another one, and the same command finds its own again.
    pub fn folder(&self, stem: &str, set: &[Override]) -> String {
        let values = |axis: &Axis| axis.values.iter().map(|value| value.text.clone()).collect::<Vec<_>>();
        let axes: Vec<_> = self.0.iter().map(|axis| json!([axis.name, values(axis)])).collect();
        let set: Vec<_> = set.iter().map(|given| json!([given.name(), given.text()])).collect();
        let digest = Digest::of(json!([axes, set]).to_string().as_bytes()).to_string();
        format!("{}.sweep-{digest:.6}", slug(stem))
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
        if name.len() <= LONGEST_NAME { name } else { format!("{:04}", index + 1) }
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
        let title = |axis: &Axis, value: &AxisValue| format!("{} = {}", axis.name, value.text);
        let titles = |axis: &Axis| axis.values.iter().map(|value| title(axis, value)).collect::<Vec<_>>();
        let labels = || (0..count).map(|index| self.label(index)).collect();
        // The columns are the last axis, and the rows the combinations of the others.
        sheet::png(match self.0.as_slice() {
            [only] if only.values.len() > COLUMNS => Sheet::Cells { pictures: &pictures, labels: labels() },
            [down @ .., across] => {
                let firsts = (0..count).step_by(across.values.len());
                let row = |index: usize| {
                    let parts = self.values(index).into_iter().take(down.len()).map(|(axis, value)| title(axis, value));
                    parts.collect::<Vec<_>>().join(", ")
                };
                Sheet::Table { pictures: &pictures, rows: firsts.map(row).collect(), columns: titles(across) }
            }
            [] => Sheet::Cells { pictures: &pictures, labels: labels() },
        })
        .map_err(|error| format!("{error:#}"))
    }
}

impl Axis {
    fn parse(argument: &str) -> Result<Axis, Box<Diagnostic>> {
        let source = Source::new("--sweep", argument);
        let error = |message: String, span: Span| {
            let help =
                "write `--sweep name=a,b,c` or `--sweep name=1..8`; a comma in brackets or quotes separates nothing";
            Box::new(Diagnostic::error("override", message, Label::new(&source, span, "")).help(help.to_string()))
        };
        let whole = Span::new(0, argument.len());
        let Some((name, list)) = argument.split_once('=').filter(|(name, _)| !name.trim().is_empty()) else {
            return Err(error("the argument has no name and `=`".into(), whole));
        };
        let mut values: Vec<AxisValue> = vec![];
        let mut items = vec![];
        for span in split(list) {
            let span = Span::new(name.len() + 1 + span.start, name.len() + 1 + span.end);
            let written = source.slice(span);
            let start = span.start + (written.len() - written.trim_start().len());
            let text = written.trim();
            let span = Span::new(start, start + text.len());
            if text.is_empty() {
                return Err(error("a value is missing".into(), span));
            }
            match range(text) {
                Some(Ok(numbers)) => items.extend(numbers.into_iter().map(|number| (number, span))),
                Some(Err(message)) => return Err(error(message, span)),
                None => items.push((text.to_string(), span)),
            }
        }
        for (text, span) in &items {
            let (text, span) = (text.as_str(), *span);
            // Quotes keep commas together; they are not part of the value.
            let is_quoted = text.starts_with(['"', '\'']);
            let unquoted = is_quoted.then(|| serde_yaml::from_str::<String>(text).ok()).flatten();
            let value = unquoted.as_deref().unwrap_or(text);
            let given = Override::read(&source, (name, Span::new(0, name.len())), (value, span));
            if values.iter().any(|value| value.text == text) {
                return Err(error(format!("`{text}` occurs twice"), span));
            }
            let slug = format!("{name}={}", slug(text));
            let same = |slug: &str| values.iter().any(|value| value.slug.eq_ignore_ascii_case(slug));
            let slug = match same(&slug) {
                true => (2..).map(|n| format!("{slug}~{n}")).find(|slug| !same(slug)).unwrap_or_default(),
                false => slug,
            };
            values.push(AxisValue { given, text: text.to_string(), slug });
        }
        Ok(Axis { name: name.into(), values })
    }
}

/// The beginning of a text, in characters that every file system and shell accepts.
fn slug(text: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "-+._".contains(c) { c } else { '_' };
    let text: String = text.chars().map(plain).take(24).collect();
    text.trim_matches(['.', '_']).to_string()
}

/// The numbers of `1..8` or `0..1..0.25`, both ends included; `None` if the text is no range.
fn range(text: &str) -> Option<Result<Vec<String>, String>> {
    let decimals = |part: &str| part.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let parts: Vec<_> = text.split("..").map(str::trim).collect();
    let (first, last, step) = match *parts.as_slice() {
        [first, last] => (first, last, "1"),
        [first, last, step] => (first, last, step),
        _ => return None,
    };
    let number = |part: &str| {
        let digits = part.strip_prefix('-').unwrap_or(part);
        let is_number = digits.starts_with(|c: char| c.is_ascii_digit()) && decimals(part) <= 9;
        // In steps of the last decimal, which are exact.
        is_number.then(|| part.parse::<f64>().ok()).flatten().filter(|number| number.abs() < 1e12)
    };
    let (from, to, by) = (number(first)?, number(last)?, number(step)?);
    let places = [first, last, step].map(decimals).into_iter().max().unwrap_or(0);
    let unit = 10f64.powi(places as i32);
    let [from, to, by] = [from, to, by].map(|number| (number * unit).round() as i128);
    if by <= 0 || from > to {
        return Some(Err(format!(
            "the range `{text}` has no values; write the smaller number first, and a step above 0"
        )));
    }
    if (to - from) / by >= MAX_ROWS as i128 {
        return Some(Err(format!("the range `{text}` has more than {MAX_ROWS} values")));
    }
    let values = (0..=(to - from) / by).map(|n| {
        let value = from + n * by;
        if places == 0 { value.to_string() } else { format!("{:.places$}", value as f64 / unit) }
    });
    Some(Ok(values.collect()))
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
    fn a_range_has_both_of_its_ends() {
        let values = |text: &str| range(text).unwrap().unwrap().join(" ");
        assert_eq!(values("1..8"), "1 2 3 4 5 6 7 8");
        assert_eq!(values("-1..1"), "-1 0 1");
        assert_eq!(values("0..1..0.25"), "0.00 0.25 0.50 0.75 1.00");
        assert_eq!(values("0.1..0.35..0.1"), "0.10 0.20 0.30");
        assert_eq!(values("18446744073..18446744074"), "18446744073 18446744074");
        for text in ["8..1", "1..8..0", "1..1000000"] {
            assert!(range(text).unwrap().is_err(), "{text}");
        }
        for text in ["1", "a..b", "..", "1..", "../x.png", "1...3", "a picture .. of 1"] {
            assert!(range(text).is_none(), "{text}");
        }
        let sweep = Sweep::parse(&["seed=1..3,7".into(), "cfg=2".into()]).unwrap();
        assert_eq!(sweep.name(sweep.count() - 1), "seed=7,cfg=2");
    }

    #[test]
    fn another_sweep_has_another_folder() {
        let folder = |sweep: &str, set: &[&str]| {
            let set: Vec<_> = set.iter().map(|set| Override::parse(set).ok().unwrap()).collect();
            Sweep::parse(&[sweep.into()]).unwrap().folder("my graph", &set)
        };
        assert_eq!(folder("seed=1,2", &[]), folder("seed=1..2", &[]));
        let others =
            [folder("seed=1,2", &[]), folder("seed=1,3", &[]), folder("cfg=1,2", &[]), folder("seed=1,2", &["cfg=3"])];
        assert_eq!(others.iter().collect::<std::collections::HashSet<_>>().len(), 4, "{others:?}");
        assert!(others.iter().all(|folder| folder.starts_with("my_graph.sweep-") && folder.len() == 21), "{others:?}");
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
