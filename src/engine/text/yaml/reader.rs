//! Reads the events of the YAML parser into a tree of values with their locations.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use super::mask::{mask, unmask};
use super::{Location, MAX_COPIES, MAX_DEPTH, YamlData, YamlKey, YamlValue, plain};
use crate::text::{Diagnostic, DiagnosticSink, Label, Source, Span};

/// Reads the YAML document of a text. Returns `None`, and errors, if it is invalid.
pub(crate) fn read(source: &Arc<Source>, origin: usize) -> (Option<YamlValue>, DiagnosticSink) {
    let mut reader = Reader {
        source,
        origin,
        bytes: Bytes::new(source.text()),
        stack: vec![],
        root: None,
        anchors: HashMap::new(),
        copied: 0,
        diagnostics: DiagnosticSink::default(),
    };
    let finished = reader.read();
    (reader.root.filter(|_| finished), reader.diagnostics)
}

/// Converts the parser's character indices to bytes. The parser never sees a byte order mark.
pub(super) struct Bytes {
    /// The byte at which each character begins; empty if the text is ASCII.
    starts: Vec<usize>,
    bom: usize,
    len: usize,
}

impl Bytes {
    fn new(text: &str) -> Bytes {
        let bom = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let body = &text[bom..];
        let starts = if body.is_ascii() { vec![] } else { body.char_indices().map(|(at, _)| at).collect() };
        Bytes { starts, bom, len: body.len() }
    }

    pub(super) fn at(&self, marker: Marker) -> usize {
        let index = marker.index();
        let byte = if self.starts.is_empty() { index } else { self.starts.get(index).copied().unwrap_or(self.len) };
        self.bom + byte.min(self.len)
    }
}

/// A list or mapping that is being read.
pub(super) struct Frame {
    anchor: usize,
    pub(super) start: usize,
    /// The end of its last value.
    end: usize,
    /// Whether it is written in brackets.
    pub(super) flow: bool,
    body: Body,
}

enum Body {
    List(Vec<YamlValue>),
    Map {
        entries: Vec<(YamlKey, YamlValue)>,
        seen: HashMap<String, Span>,
        slot: Slot,
        merged: Vec<(YamlKey, YamlValue)>,
        /// A key that is not a text has been reported. Others are not reported.
        odd_key: bool,
    },
}

/// What a mapping expects next.
enum Slot {
    YamlKey,
    Value(YamlKey),
    /// The value of `<<`.
    Merge(Location),
    /// The value of an invalid key. It is dropped.
    Dropped,
}

pub(super) struct Reader<'a> {
    pub(super) source: &'a Arc<Source>,
    origin: usize,
    pub(super) bytes: Bytes,
    pub(super) stack: Vec<Frame>,
    root: Option<YamlValue>,
    anchors: HashMap<usize, YamlValue>,
    copied: usize,
    diagnostics: DiagnosticSink,
}

impl Reader<'_> {
    /// Reads all events. Returns whether the text could be read to its end.
    fn read(&mut self) -> bool {
        let source = self.source.clone();
        let text = mask(&source.text()[self.bytes.bom..]);
        let mut parser = Parser::new_from_str(&text);
        let mut documents = 0;
        while let Some(event) = parser.next_event() {
            let (event, span) = match event {
                Ok(event) => event,
                Err(error) => {
                    self.syntax(&error);
                    return false;
                }
            };
            let span = Span::new(self.bytes.at(span.start), self.bytes.at(span.end));
            let span = Span::new(span.start.min(span.end), span.end);
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        self.error(
                            "several-documents",
                            "a file contains one workflow, but a second one begins here",
                            span,
                        )
                        .help = Some("remove the `---`, or move what follows to a file of its own".into());
                        return true;
                    }
                }
                Event::Scalar(text, style, anchor, tag) => {
                    let span = self.untagged(span, anchor, tag.is_some());
                    let data = self.scalar(&text, style, span);
                    let merge = style == ScalarStyle::Plain && text == "<<";
                    self.value(YamlValue { location: self.location(span), data }, anchor, merge);
                }
                Event::SequenceStart(anchor, tag) => {
                    let span = self.untagged(span, anchor, tag.is_some());
                    if !self.open(span, anchor, Body::List(vec![])) {
                        return false;
                    }
                }
                Event::MappingStart(anchor, tag) => {
                    let span = self.untagged(span, anchor, tag.is_some());
                    let (entries, merged) = (vec![], vec![]);
                    let body = Body::Map { entries, seen: HashMap::new(), slot: Slot::YamlKey, merged, odd_key: false };
                    if !self.open(span, anchor, body) {
                        return false;
                    }
                }
                Event::SequenceEnd | Event::MappingEnd => self.close(span),
                Event::Alias(anchor) => match self.alias(anchor, span) {
                    Some(item) => self.value(item, 0, false),
                    None => return false,
                },
                _ => {}
            }
            if self.copied > MAX_COPIES {
                self.overfull(span);
                return false;
            }
        }
        true
    }

    fn location(&self, span: Span) -> Location {
        Location { origin: self.origin, span, via: None }
    }

    pub(super) fn error(&mut self, code: &'static str, message: impl Into<String>, span: Span) -> &mut Diagnostic {
        let diagnostic = Diagnostic::error(code, message, Label::new(self.source, span, ""));
        self.diagnostics.push(diagnostic)
    }

    /// The span of a value without its anchor and tag. Reports the tag.
    fn untagged(&mut self, span: Span, anchor: usize, tagged: bool) -> Span {
        let mut start = span.start;
        for _ in 0..usize::from(anchor != 0) + usize::from(tagged) {
            let rest = self.source.slice(Span::new(start, span.end));
            if !rest.starts_with(['&', '!']) {
                break;
            }
            let word = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let gap = rest[word..].len() - rest[word..].trim_start().len();
            if rest.starts_with('!') {
                let tag = Span::new(start, start + word);
                let message = format!("tags such as `{}` are not supported", self.source.slice(tag));
                self.error("tag", message, tag).help =
                    Some("remove it; put a number in quotes to make it a text".into());
            }
            start += word + gap;
        }
        let text = self.source.slice(Span::new(start, span.end));
        Span::new(start, start + text.trim_end().len())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, span: Span) -> YamlData {
        if style != ScalarStyle::Plain {
            return YamlData::Text(unmask(text, style == ScalarStyle::DoubleQuoted));
        }
        plain(&unmask(text, false)).unwrap_or_else(|why| {
            let message = format!("`{}` {why}", self.source.slice(span));
            self.error("number", message, span).help = Some("if it is meant as a text, put it in quotes".into());
            YamlData::Poison
        })
    }

    /// Begins a list or mapping. Returns false, after reporting it, if it is nested too deep.
    fn open(&mut self, span: Span, anchor: usize, body: Body) -> bool {
        if self.stack.len() >= MAX_DEPTH {
            self.too_deep(span);
            return false;
        }
        let flow = self.source.text()[span.start..].starts_with(['[', '{']);
        self.stack.push(Frame { anchor, start: span.start, end: span.end, flow, body });
        true
    }

    pub(super) fn too_deep(&mut self, span: Span) {
        let message = format!("lists and mappings are nested more than {MAX_DEPTH} deep");
        self.error("too-deep", message, span).help = Some("no workflow needs that: flatten it".into());
    }

    fn close(&mut self, span: Span) {
        let Some(frame) = self.stack.pop() else { return };
        let end = if frame.flow { span.end } else { frame.end };
        let data = match frame.body {
            Body::List(items) => YamlData::List(items),
            Body::Map { mut entries, mut seen, merged, odd_key, .. } => {
                for (key, value) in merged {
                    if seen.insert(key.name.clone(), key.location.span).is_none() {
                        entries.push((key, value));
                    }
                }
                if odd_key && entries.is_empty() { YamlData::Poison } else { YamlData::Map(entries) }
            }
        };
        let start = frame.start.min(end);
        // The parser's span of a bracket includes the spaces behind it.
        let span = Span::new(start, start + self.source.slice(Span::new(start, end)).trim_end().len());
        self.value(YamlValue { location: self.location(span), data }, frame.anchor, false);
    }

    /// Returns a copy of the value that an anchor marks.
    fn alias(&mut self, anchor: usize, span: Span) -> Option<YamlValue> {
        let name = self.source.slice(span).to_string();
        let Some(item) = self.anchors.get(&anchor) else {
            let message = format!("`{name}` is inside the value that it stands for");
            self.error("recursive-alias", message, span).help = Some("write the inner value out".into());
            return None;
        };
        let depth = item.depth();
        self.copied += item.weight();
        if self.overfull(span) {
            return None;
        }
        if self.stack.len() + depth > MAX_DEPTH {
            self.too_deep(span);
            return None;
        }
        self.anchors.get(&anchor).cloned()
    }

    /// Whether anchors and aliases have made too many copies. If so, reports it.
    fn overfull(&mut self, span: Span) -> bool {
        let overfull = self.copied > MAX_COPIES;
        if overfull {
            let message = format!("the aliases of this file expand to more than {MAX_COPIES} values");
            self.error("too-large", message, span).help =
                Some("mark smaller values, and use fewer aliases of aliases".into());
        }
        overfull
    }

    /// Adds a complete value to the list or mapping that contains it.
    fn value(&mut self, item: YamlValue, anchor: usize, merge: bool) {
        if anchor != 0 {
            self.copied += item.weight();
            if self.copied <= MAX_COPIES {
                self.anchors.insert(anchor, item.clone());
            }
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(item);
            return;
        };
        if item.location.span.start >= frame.start {
            frame.end = frame.end.max(item.location.span.end);
        }
        match &mut frame.body {
            Body::List(items) => items.push(item),
            Body::Map { entries, slot, merged, .. } => match std::mem::replace(slot, Slot::YamlKey) {
                Slot::YamlKey => {
                    let next = self.key(item, merge);
                    if let Some(Frame { body: Body::Map { slot, .. }, .. }) = self.stack.last_mut() {
                        *slot = next;
                    }
                }
                Slot::Value(key) => entries.push((key, item)),
                Slot::Dropped => {}
                Slot::Merge(location) => match item.data {
                    YamlData::Map(more) => merged.extend(more),
                    YamlData::List(maps) if maps.iter().all(|map| matches!(map.data, YamlData::Map(_))) => {
                        merged.extend(maps.into_iter().flat_map(|map| match map.data {
                            YamlData::Map(more) => more,
                            _ => vec![],
                        }));
                    }
                    YamlData::Poison => {}
                    _ => {
                        self.error(
                            "merge",
                            "`<<` merges the keys of a mapping, but this is not a mapping",
                            location.span,
                        )
                        .help = Some("write `<<: *name`, where `&name` marks a mapping above".into());
                    }
                },
            },
        }
    }

    /// If a number in brackets comes directly after a number and a comma, as in `cfg: 7,5`: both, and the number that is
    /// meant.
    fn decimal_comma(&self, item: &YamlValue) -> Option<(Span, String)> {
        let frame = self.stack.last().filter(|frame| frame.flow)?;
        let Body::Map { entries, .. } = &frame.body else { return None };
        let (_, before) = entries.last()?;
        let span = Span::new(before.location.span.start, item.location.span.end);
        let number = self.source.slice(span).replacen(',', ".", 1);
        let is_pair = matches!((&before.data, &item.data), (YamlData::Number(_), YamlData::Number(_)));
        (is_pair && number.parse::<f64>().is_ok()).then_some((span, number))
    }

    fn key(&mut self, item: YamlValue, merge: bool) -> Slot {
        let location = item.location;
        let name = match item.data {
            YamlData::Text(_) if merge => return Slot::Merge(location),
            YamlData::Text(name) => name,
            YamlData::Poison => return Slot::Dropped,
            ref other => {
                if let Some(Frame { body: Body::Map { odd_key, .. }, .. }) = self.stack.last_mut()
                    && std::mem::replace(odd_key, true)
                {
                    return Slot::Dropped;
                }
                if let Some((span, number)) = self.decimal_comma(&item) {
                    let message = "a comma separates entries, so these are two numbers";
                    self.error("key", message, span).help = Some(format!("write a decimal point: `{number}`"));
                    return Slot::Dropped;
                }
                let flow = self.stack.last().is_some_and(|frame| frame.flow);
                let written = self.source.slice(location.span);
                let (message, help) = match other {
                    YamlData::List(_) | YamlData::Map(_) => (
                        "a key is a text, but this is not".to_string(),
                        Some(
                            "a text that begins with `{` or `[` needs quotes; `${name}` names a parameter".to_string(),
                        ),
                    ),
                    YamlData::Null => ("a key is missing before the `:`".to_string(), None),
                    _ => (
                        format!("a key is a text, but `{written}` is read as {}", item.describe()),
                        Some(match flow {
                            true => "a list is written in brackets, `[…, …]`; a key needs quotes".into(),
                            false => "begin it with a letter, or put it in quotes".into(),
                        }),
                    ),
                };
                self.error("key", message, location.span).help = help;
                return Slot::Dropped;
            }
        };
        let Some(Frame { body: Body::Map { seen, .. }, .. }) = self.stack.last_mut() else { return Slot::Dropped };
        if let Some(&first) = seen.get(&name) {
            let first = Label::new(self.source, first, "first here");
            let diagnostic =
                self.error("duplicate-key", format!("this mapping has the key `{name}` twice"), location.span);
            diagnostic.primary.text = "and again here".into();
            diagnostic.secondary.push(first);
            diagnostic.help = Some("keep one of the two".into());
            return Slot::Dropped;
        }
        seen.insert(name.clone(), location.span);
        Slot::Value(YamlKey { name, location })
    }
}
