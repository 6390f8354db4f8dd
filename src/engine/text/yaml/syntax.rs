//! Syntax errors of YAML, in words for someone who writes it.

use saphyr_parser::ScanError;

use super::reader::Reader;
use crate::text::{Label, Span};

impl Reader<'_> {
    /// If the parser rejects a `:` because another one is missing before it: the incomplete line (its own or the one above)
    /// and the help.
    fn unfinished(&self, at: usize) -> Option<(Span, String)> {
        let text = self.source.text();
        let line = self.source.line_span(self.source.position(at).line);
        let before = &text[line.start..at];
        if before.contains('{') {
            let help = "write the name of the node, a `:` and a space before the `{`: `name: { type: …, … }`";
            return Some((Span::new(line.start + indent(before), line.end), help.into()));
        }
        let above = text[..line.start].trim_end();
        let above = Span::new(above.rfind('\n').map_or(0, |end| end + 1), above.len());
        let written = self.source.slice(above);
        let is_entry = written.contains(": ") || written.ends_with(':') || written.trim_start().starts_with(['#', '-']);
        let begins = before.trim().is_empty() || (is_word(before.trim()) && indent(before) == indent(written));
        let help = match written.trim().split_once(':') {
            Some((key, value)) => format!("write a space after the `:`: `{key}: {value}`"),
            None => "write a `:` and a space between a key and its value".into(),
        };
        let span = Span::new(above.start + indent(written), above.end);
        (begins && !written.is_empty() && !is_entry).then_some((span, help))
    }

    /// If the parser rejects a `:` inside a value: the value as far as its line goes, and the help. `start` is where the
    /// entry begins.
    fn colon_in_value(&self, start: usize, at: usize) -> Option<(Span, String)> {
        let text = self.source.text();
        let (key, value) = text.get(start..at)?.split_once(": ")?;
        let from = start + key.len() + 2 + indent(value);
        let rest = &text[at..self.source.line_span(self.source.position(at).line).end];
        let end = rest.find([',', '}', ']']).unwrap_or(rest.len());
        let (written, key) = (text[from..at + end].trim_end(), key.trim());
        if written.starts_with("type:") {
            return Some((
                Span::new(from, from + written.len()),
                format!("put the keys in braces: `{key}: {{ type: …, … }}`"),
            ));
        }
        let quotes = format!("put a text that contains `: ` in quotes: `{key}: \"{written}\"`");
        let help = match value.trim().rsplit_once(' ') {
            Some((_, word)) if is_word(word) => format!("put a comma before `{word}`, if that is a key; or {quotes}"),
            _ => quotes,
        };
        Some((Span::new(from, from + written.len()), help))
    }

    /// Reports a syntax error inside brackets. `open` is the bracket that is not closed yet.
    fn in_brackets(&mut self, open: usize, at: usize) {
        let source = self.source;
        let text = source.text();
        let line_of = |at: usize| source.line_span(source.position(at).line);
        let (first, line) = (line_of(open), line_of(at));
        let indent_of = |line: Span| indent(source.slice(line));
        let is_end = text[at..].chars().nth(1).is_none();
        let (bracket, closing) = if text[open..].starts_with('[') { ('[', ']') } else { ('{', '}') };
        let opened = Label::new(source, Span::new(open, open + 1), "opened here");
        let here = text[at..].chars().next().unwrap_or_default();
        if line.start != first.start && (is_end || indent_of(line) <= indent_of(first)) {
            // The next node, or the end of the file: the bracket should have been closed before it.
            let before = if is_end { text.trim_end() } else { text[..line.start].trim_end() };
            let error = self.error("syntax", format!("this `{bracket}` is never closed"), Span::new(open, open + 1));
            error.secondary.push(Label::new(
                source,
                Span::new(before.len(), before.len()),
                "nothing up to here closes it",
            ));
            error.help = Some(format!("write a `{closing}` where the entry ends"));
            return;
        }
        if matches!(here, ']' | '}') {
            let span = Span::new(at, at + 1);
            let error = self.error("syntax", format!("this `{here}` does not close the `{bracket}`"), span);
            error.secondary.push(opened);
            error.help = Some(format!("write a `{closing}` before it"));
            return;
        }
        let start = open
            + 1
            + text.get(open + 1..at).unwrap_or_default().rfind([',', '{', '[', '}', ']']).map_or(0, |last| last + 1);
        if let Some((span, help)) = self.colon_in_value(start, at).filter(|_| here == ':')
            && line_of(span.start).start == line.start
        {
            let error = self.error("syntax", "this value contains `: `, which separates a key from its value", span);
            error.help = Some(help);
            return;
        }
        let last = text[..line.start].trim_end();
        let is_next_line = here == ':' && is_word(text[line.start..at].trim()) && !last.ends_with([',', '{', '[']);
        let span = match is_next_line {
            // The value on the line above has no comma behind it.
            true => Span::new(last.len(), last.len()),
            false => Span::new(at, at + here.len_utf8()),
        };
        let message = if is_next_line { "a comma is missing here" } else { "this does not fit inside the brackets" };
        let error = self.error("syntax", message, span);
        error.secondary.push(opened);
        error.help = Some("close the bracket, or put a comma before the next value".into());
    }

    /// Reports a syntax error.
    pub(super) fn syntax(&mut self, error: &ScanError) {
        let text = self.source.text();
        let mut at = self.bytes.at(*error.marker());
        if text[at..].trim().is_empty() {
            at = text.trim_end().char_indices().next_back().map_or(0, |(last, _)| last);
        }
        let span = Span::new(at, at + text[at..].chars().next().map_or(0, char::len_utf8));
        let info = error.info();
        if info.contains("recursion limit") {
            return self.too_deep(span);
        }
        if info.contains("tab") {
            let tab = text[at..].find('\t').map(|far| at + far).or_else(|| text[..at].rfind('\t'));
            let span = tab.map_or(span, |tab| Span::new(tab, tab + 1));
            self.error("syntax", "YAML does not allow tabs in indentation", span).help =
                Some("use spaces instead of tabs".into());
            return;
        }
        let open = self.stack.iter().rev().find(|frame| frame.flow).map(|frame| frame.start);
        let has = |part: &str| info.contains(part);
        let (message, help) = if has("unexpected end of stream") || has("invalid indentation in quoted") {
            ("the quoted text that begins here is never closed".into(), "close it with the same quote")
        } else if has("unknown anchor") {
            ("no value above is marked with this anchor".into(), "mark a value with `&name`, and use it as `*name`")
        } else if has("unexpected character") {
            let c = &text[span.range()];
            (format!("a text cannot begin with `{c}`"), "put the text in quotes")
        } else if has("escape") || has("hexadecimal") {
            let help = "inside \"…\" write \\\\ for a backslash; inside '…' it stands for itself";
            ("a double-quoted text has an escape that YAML does not know".into(), help)
        } else if has("trailing content") {
            ("the quoted text has ended, but the line goes on".into(), "put the whole text into the quotes")
        } else if let Some(open) = open {
            return self.in_brackets(open, at);
        } else if let Some((line, help)) =
            self.unfinished(at).filter(|_| has("mapping values are not allowed") || has("':'"))
        {
            self.error("syntax", "this line is not `key: value`", line).help = Some(help);
            return;
        } else if let Some((value, help)) = self
            .colon_in_value(self.source.line_span(self.source.position(at).line).start, at)
            .filter(|_| has("mapping values are not allowed"))
        {
            let message = "this value contains `: `, which separates a key from its value";
            self.error("syntax", message, value).help = Some(help);
            return;
        } else if has("mapping values are not allowed") || has("':'") {
            let help = "put a text that contains `: ` in quotes; give the keys of one mapping the same indentation";
            ("a `:` is not expected here".into(), help)
        } else if has("bracket") {
            ("this bracket closes no other".into(), "remove it, or put the text in quotes")
        } else if has("expected key") || has("'-'") || has("indentation") || has("document start") || has("simple key")
        {
            let help = "indent the keys of one mapping, and the items of one list, alike; a key ends in `: `";
            ("this line does not continue what is above it".into(), help)
        } else {
            (format!("this is not YAML: {info}"), "docs/authoring.md shows how to write a workflow")
        };
        self.error("syntax", message, span).help = Some(help.into());
    }
}

/// Whether a text is one plain word, such as a key.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
}

/// Bytes of white space at the beginning.
fn indent(text: &str) -> usize {
    text.len() - text.trim_start().len()
}
