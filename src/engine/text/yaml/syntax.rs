//! Syntax errors of YAML, in words for someone who writes it.

use saphyr_parser::ScanError;

use super::reader::Reader;
use crate::text::{Label, Span};

impl Reader<'_> {
    /// If the parser rejects a `:` because another one is missing before it: the incomplete line (its own or the one above)
    /// and the help.
    fn unfinished(&self, at: usize) -> Option<(Span, &'static str)> {
        let text = self.source.text();
        let line = self.source.line_span(self.source.position(at).line);
        let before = &text[line.start..at];
        if before.contains('{') {
            let start = line.start + (before.len() - before.trim_start().len());
            return Some((
                Span::new(start, line.end),
                "write the name of the node, a `:` and a space before the `{`: `name: { type: …, … }`",
            ));
        }
        let above = text[..line.start].trim_end();
        let above = Span::new(above.rfind('\n').map_or(0, |end| end + 1), above.len());
        let written = self.source.slice(above);
        let is_entry = written.contains(": ") || written.ends_with(':') || written.trim_start().starts_with(['#', '-']);
        let start = above.start + (written.len() - written.trim_start().len());
        (before.trim().is_empty() && !written.is_empty() && !is_entry)
            .then_some((Span::new(start, above.end), "write a `:` and a space between a key and its value"))
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
        } else if open.is_some() {
            ("this does not fit inside the brackets".into(), "close the bracket, or put a comma before the next value")
        } else if let Some((line, help)) =
            self.unfinished(at).filter(|_| has("mapping values are not allowed") || has("':'"))
        {
            self.error("syntax", "this line is not `key: value`", line).help = Some(help.into());
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
        let source = self.source;
        let diagnostic = self.error("syntax", message, span);
        diagnostic.help = Some(help.into());
        if let Some(open) = open.filter(|_| diagnostic.message.contains("brackets")) {
            diagnostic.secondary.push(Label::new(source, Span::new(open, open + 1), "opened here"));
        }
    }
}
