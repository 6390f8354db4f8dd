//! Names of output files with `{counter}` and `{date}`.
//!
//! The engine has put the values of parameters into the name. These two depend on the day and on the files that are there, so
//! they are filled in when the file is written, and no memo key contains them.

/// A part of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Counter,
    Date,
}

/// The least digits of a counter.
const DIGITS: usize = 4;

/// One component of a path: the name of a folder or file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutputName(Vec<Part>);

impl OutputName {
    /// Parses a name.
    ///
    /// # Errors
    /// Returns what is wrong with a brace that begins neither `{counter}` nor `{date}`, or with a second counter.
    pub(crate) fn parse(text: &str) -> Result<OutputName, String> {
        let mut parts = vec![];
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            if at > 0 {
                parts.push(Part::Text(rest[..at].into()));
            }
            rest = &rest[at..];
            let (part, name) = match rest {
                _ if rest.starts_with("{counter}") => (Part::Counter, "{counter}"),
                _ if rest.starts_with("{date}") => (Part::Date, "{date}"),
                _ => return Err(format!("`{text}` has a brace that encloses no name")),
            };
            parts.push(part);
            rest = &rest[name.len()..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        if parts.iter().filter(|part| **part == Part::Counter).count() > 1 {
            return Err(format!("`{text}` has two counters"));
        }
        Ok(OutputName(parts))
    }

    /// Whether the name contains a counter.
    pub(crate) fn is_counted(&self) -> bool {
        self.0.contains(&Part::Counter)
    }

    /// Whether the name is the same on every day and beside all files.
    pub(crate) fn is_fixed(&self) -> bool {
        !self.is_counted() && !self.0.contains(&Part::Date)
    }

    /// The name with this number and this day.
    pub(crate) fn filled(&self, counter: u64, date: &str) -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Counter => format!("{counter:0DIGITS$}"),
            Part::Date => date.into(),
        };
        self.0.iter().map(text).collect()
    }

    /// The number that a name of this form has, or 0 if the form has no counter; `None` if the name has another form. Without
    /// `date`, every day fits.
    pub(crate) fn number(&self, name: &str, date: Option<&str>) -> Option<u64> {
        number(&self.0, name, date)
    }
}

fn number(parts: &[Part], name: &str, date: Option<&str>) -> Option<u64> {
    let Some((part, parts)) = parts.split_first() else { return name.is_empty().then_some(0) };
    match part {
        Part::Text(text) => number(parts, name.strip_prefix(text.as_str())?, date),
        Part::Date => {
            let (day, rest) = name.split_at_checked("2026-01-31".len())?;
            let digit = |(at, c): (usize, u8)| if at == 4 || at == 7 { c == b'-' } else { c.is_ascii_digit() };
            let fits = date.is_none_or(|date| date == day) && day.bytes().enumerate().all(digit);
            fits.then(|| number(parts, rest, date))?
        }
        Part::Counter => {
            let digits = name.bytes().take_while(u8::is_ascii_digit).count();
            // A digit may follow the counter in the form.
            (1..=digits).rev().find_map(|end| {
                number(parts, &name[end..], date)?;
                name[..end].parse().ok()
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_and_recognised() {
        let name = |text: &str| OutputName::parse(text).unwrap();
        for (form, counter, filled) in [
            ("plain.png", 0, "plain.png"),
            ("a-{counter}.png", 7, "a-0007.png"),
            ("{counter}", 12345, "12345"),
            ("{date}-{counter}0.png", 3, "2026-01-31-00030.png"),
        ] {
            let form = name(form);
            assert_eq!(form.filled(counter, "2026-01-31"), filled);
            assert_eq!(form.number(filled, Some("2026-01-31")), Some(counter), "{filled}");
            assert_eq!(form.number(filled, None), Some(counter), "{filled}");
        }
        assert_eq!(name("a-{counter}.png").number("a-7.png", None), Some(7));
        for (form, other) in
            [("a-{counter}.png", "a-x.png"), ("a-{counter}.png", "a-.png"), ("{date}", "2026-01-3x"), ("{date}", "ä")]
        {
            assert_eq!(name(form).number(other, None), None, "{other}");
        }
        assert_eq!(name("{date}").number("2026-01-30", Some("2026-01-31")), None);
        assert!(name("x.png").is_fixed() && !name("{date}.png").is_fixed() && name("{counter}").is_counted());
        for text in ["{", "a}", "{x}", "{counter", "{counter}{counter}", "{}"] {
            assert!(OutputName::parse(text).is_err(), "{text}");
        }
    }
}
