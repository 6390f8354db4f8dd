//! YAML text → a tree of values, each with its location.
//!
//! Reads the parser's event stream, for serde_yaml keeps no locations and lets the last of two equal keys win; serde_yaml
//! says what a plain scalar means. Anchors are written out, within bounds. Knows nothing of workflows.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};
use serde_json::Number;

use crate::diagnostic::{Diagnostic, Label};
use crate::sink::DiagnosticSink;
use crate::source::{Source, Span};

/// Lists and mappings inside each other.
pub(crate) const MAX_DEPTH: usize = 64;

/// What aliases and `${…}` may add to a document, in values and 32 bytes of text.
pub(crate) const MAX_COPIES: usize = 100_000;

/// Where a value stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Location {
    /// Which text: 0 is the document's, the others are values given from outside.
    pub origin: usize,
    pub span: Span,
    /// The `${…}` in the document by which the value came to its node.
    pub via: Option<Span>,
}

/// A value with its location.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct YamlValue {
    pub location: Location,
    pub data: YamlData,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum YamlData {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<YamlValue>),
    Map(Vec<(YamlKey, YamlValue)>),
    /// What stood here is faulty, and has been told of.
    Poison,
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct YamlKey {
    pub name: String,
    pub location: Location,
}

impl YamlValue {
    pub fn get(&self, key: &str) -> Option<&(YamlKey, YamlValue)> {
        match &self.data {
            YamlData::Map(entries) => entries.iter().find(|(k, _)| k.name == key),
            _ => None,
        }
    }

    /// What a copy costs of [`MAX_COPIES`].
    pub fn weight(&self) -> usize {
        match &self.data {
            YamlData::Text(text) => 1 + text.len() / 32,
            YamlData::List(items) => 1 + items.iter().map(YamlValue::weight).sum::<usize>(),
            YamlData::Map(entries) => {
                1 + entries.iter().map(|(k, v)| 1 + k.name.len() / 32 + v.weight()).sum::<usize>()
            }
            _ => 1,
        }
    }

    pub fn depth(&self) -> usize {
        match &self.data {
            YamlData::List(items) => 1 + items.iter().map(YamlValue::depth).max().unwrap_or(0),
            YamlData::Map(entries) => 1 + entries.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// Changes the span of every value and key in it.
    pub fn move_locations(&mut self, moved: &impl Fn(Span) -> Span) {
        self.location.span = moved(self.location.span);
        match &mut self.data {
            YamlData::List(items) => items.iter_mut().for_each(|item| item.move_locations(moved)),
            YamlData::Map(entries) => entries.iter_mut().for_each(|(key, value)| {
                key.location.span = moved(key.location.span);
                value.move_locations(moved);
            }),
            _ => {}
        }
    }

    /// What it is, for a sentence: `the text "up"`, `a list`.
    pub fn describe(&self) -> String {
        match &self.data {
            YamlData::Null | YamlData::Poison => "nothing".into(),
            YamlData::Bool(flag) => format!("`{flag}`"),
            YamlData::Number(number) => format!("the number {number}"),
            YamlData::Text(text) => format!("the text {}", quoted(text)),
            YamlData::List(_) => "a list".into(),
            YamlData::Map(_) => "a mapping".into(),
        }
    }
}

/// A text in quotes, shortened where it is long.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 40;
    if text.chars().count() <= SHOWN {
        return format!("{text:?}");
    }
    format!("{:?}", text.chars().take(SHOWN).chain(['…']).collect::<String>())
}

/// A name as code, shortened where it is long.
pub(crate) fn code(name: &str) -> String {
    let quoted = quoted(name);
    format!("`{}`", &quoted[1..quoted.len() - 1])
}

/// Reads the one document of a text. `None`, with the faults, where it is no YAML.
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

/// What a plain scalar means; `Err` says why it means nothing.
pub(crate) fn plain(text: &str) -> Result<YamlData, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(YamlData::Null),
        "true" | "True" | "TRUE" => return Ok(YamlData::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(YamlData::Bool(false)),
        _ => {}
    }
    let unsigned = text.trim_start_matches(['+', '-', '.']);
    let numeric = text.len() < 400
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        && (unsigned.starts_with(|c: char| c.is_ascii_digit())
            || matches!(unsigned.to_lowercase().as_str(), "inf" | "nan"));
    if !numeric {
        return Ok(YamlData::Text(text.into()));
    }
    if text.trim_start_matches(['+', '-']).bytes().all(|b| b.is_ascii_digit()) && too_large(text) {
        return Err("is beyond the whole numbers, which go from -9223372036854775808 to 18446744073709551615".into());
    }
    if let Some(number) = everyday(text) {
        return Ok(YamlData::Number(number));
    }
    match serde_yaml::from_str(text) {
        Ok(serde_yaml::Value::Number(number)) => {
            let json = match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(whole), _, _) => Some(whole.into()),
                (_, Some(whole), _) => Some(whole.into()),
                (_, _, Some(float)) => Number::from_f64(float),
                _ => None,
            };
            json.map(YamlData::Number).ok_or_else(|| "is not a finite number".into())
        }
        _ => Ok(YamlData::Text(text.into())),
    }
}

/// A number as most are written, `7` or `-0.25`, for which no YAML decoder needs to be asked.
fn everyday(text: &str) -> Option<Number> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) || (whole.len() > 1 && whole.starts_with('0')) {
        return None;
    }
    if digits.contains('.') {
        return Number::from_f64(text.parse().ok()?);
    }
    text.parse::<u64>().map(Number::from).or_else(|_| text.parse::<i64>().map(Number::from)).ok()
}

/// Whether a run of digits is a whole number that 64 bits do not hold.
fn too_large(digits: &str) -> bool {
    let text = digits.trim_start_matches('+');
    text.parse::<i64>().is_err() && text.parse::<u64>().is_err() && !text.trim_start_matches('-').is_empty()
}

/// Stand for the braces of a `${name}` while the parser reads; the document's check refuses both in a text.
const MASKS: [char; 2] = ['\u{fdd0}', '\u{fdd1}'];

/// Hides the braces of every `${name}`, so that it needs no quotes inside `{…}`. No character is added or lost.
fn mask(text: &str) -> Cow<'_, str> {
    let mut masked = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at + 1);
        let name = reference[1..]
            .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | ' ')))
            .unwrap_or(reference.len() - 1);
        masked.push_str(before);
        rest = &reference[1 + name..];
        if let Some(after) = rest.strip_prefix('}') {
            masked.extend([MASKS[0]]);
            masked.push_str(&reference[1..1 + name]);
            masked.extend([MASKS[1]]);
            rest = after;
        } else {
            masked.push_str(&reference[..1 + name]);
        }
    }
    if masked.is_empty() {
        return Cow::Borrowed(text);
    }
    masked.push_str(rest);
    Cow::Owned(masked)
}

fn unmask(text: &str) -> String {
    text.replace(MASKS[0], "{").replace(MASKS[1], "}")
}

/// From the parser's characters to bytes. A byte order mark is not counted, as the parser never sees it.
struct Bytes {
    /// Byte of each character; empty where all characters are one byte long.
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

    fn at(&self, marker: Marker) -> usize {
        let index = marker.index();
        let byte = if self.starts.is_empty() { index } else { self.starts.get(index).copied().unwrap_or(self.len) };
        self.bom + byte.min(self.len)
    }
}

/// A list or mapping that is being read.
struct Frame {
    anchor: usize,
    start: usize,
    /// Where the last of its values ends.
    end: usize,
    /// Written in brackets.
    flow: bool,
    body: Body,
}

enum Body {
    List(Vec<YamlValue>),
    Map {
        entries: Vec<(YamlKey, YamlValue)>,
        seen: HashMap<String, Span>,
        slot: Slot,
        merged: Vec<(YamlKey, YamlValue)>,
        /// A key that is no text was told of; one is enough.
        odd_key: bool,
    },
}

/// What a mapping waits for.
enum Slot {
    YamlKey,
    Value(YamlKey),
    /// The value of `<<`.
    Merge(Location),
    /// The value of a faulty key, to be dropped.
    Dropped,
}

struct Reader<'a> {
    source: &'a Arc<Source>,
    origin: usize,
    bytes: Bytes,
    stack: Vec<Frame>,
    root: Option<YamlValue>,
    anchors: HashMap<usize, YamlValue>,
    copied: usize,
    diagnostics: DiagnosticSink,
}

impl Reader<'_> {
    /// Whether the text could be read to its end.
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
                        self.error("several-documents", "a file holds one workflow, but a second begins here", span)
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

    fn error(&mut self, code: &'static str, message: impl Into<String>, span: Span) -> &mut Diagnostic {
        let diagnostic = Diagnostic::error(code, message, Label::new(self.source, span, ""));
        self.diagnostics.push(diagnostic)
    }

    /// The span without the anchor and tag before the value; a tag is a fault.
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
                let message = format!("tags such as `{}` have no meaning here", self.source.slice(tag));
                self.error("tag", message, tag).help =
                    Some("remove it; to make a text of what looks like a number, put it in quotes".into());
            }
            start += word + gap;
        }
        let text = self.source.slice(Span::new(start, span.end));
        Span::new(start, start + text.trim_end().len())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, span: Span) -> YamlData {
        if style != ScalarStyle::Plain {
            return YamlData::Text(unmask(text));
        }
        plain(&unmask(text)).unwrap_or_else(|why| {
            let message = format!("`{}` {why}", self.source.slice(span));
            self.error("number", message, span).help = Some("if it is meant as a text, put it in quotes".into());
            YamlData::Poison
        })
    }

    /// Whether the value may be opened at this depth.
    fn open(&mut self, span: Span, anchor: usize, body: Body) -> bool {
        if self.stack.len() >= MAX_DEPTH {
            self.too_deep(span);
            return false;
        }
        let flow = self.source.text()[span.start..].starts_with(['[', '{']);
        self.stack.push(Frame { anchor, start: span.start, end: span.end, flow, body });
        true
    }

    fn too_deep(&mut self, span: Span) {
        let message = format!("lists and mappings lie inside each other more than {MAX_DEPTH} deep");
        self.error("too-deep", message, span).help = Some("nothing in a workflow needs that: flatten it".into());
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
        // The parser counts the spaces after a bracket to it.
        let span = Span::new(start, start + self.source.slice(Span::new(start, end)).trim_end().len());
        self.value(YamlValue { location: self.location(span), data }, frame.anchor, false);
    }

    /// A copy of what the anchor marks.
    fn alias(&mut self, anchor: usize, span: Span) -> Option<YamlValue> {
        let name = self.source.slice(span).to_string();
        let Some(item) = self.anchors.get(&anchor) else {
            let message = format!("`{name}` stands inside the value that it stands for");
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

    /// Whether anchors and aliases have made too many copies, which is told.
    fn overfull(&mut self, span: Span) -> bool {
        let overfull = self.copied > MAX_COPIES;
        if overfull {
            let message = format!("written out, the anchors of this file make more than {MAX_COPIES} values");
            self.error("too-large", message, span).help =
                Some("mark smaller values, and use fewer aliases of aliases".into());
        }
        overfull
    }

    /// Puts a finished value where it belongs.
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
                        self.error("merge", "`<<` takes in the keys of a mapping, but this is none", location.span)
                            .help = Some("write `<<: *name`, where `&name` marks a mapping above".into());
                    }
                },
            },
        }
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
                            true => {
                                "a list of values stands in brackets, `[…, …]`; a key that is meant needs quotes".into()
                            }
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
                self.error("duplicate-key", format!("`{name}` stands twice in one mapping"), location.span);
            diagnostic.primary.text = "and again here".into();
            diagnostic.secondary.push(first);
            diagnostic.help = Some("keep one of the two".into());
            return Slot::Dropped;
        }
        seen.insert(name.clone(), location.span);
        Slot::Value(YamlKey { name, location })
    }

    /// Where a `:` surprised the parser because another is missing before it: the line above, or the start of its own.
    fn unfinished(&self, at: usize) -> Option<(Span, &'static str)> {
        let text = self.source.text();
        let line = self.source.line_span(self.source.position(at).line);
        let before = &text[line.start..at];
        if before.contains('{') {
            let start = line.start + (before.len() - before.trim_start().len());
            return Some((
                Span::new(start, line.end),
                "before the `{` of a node stand its name, a `:` and a space: `name: { type: …, … }`",
            ));
        }
        let above = text[..line.start].trim_end();
        let above = Span::new(above.rfind('\n').map_or(0, |end| end + 1), above.len());
        let written = self.source.slice(above);
        let is_entry = written.contains(": ") || written.ends_with(':') || written.trim_start().starts_with(['#', '-']);
        let start = above.start + (written.len() - written.trim_start().len());
        (before.trim().is_empty() && !written.is_empty() && !is_entry)
            .then_some((Span::new(start, above.end), "between a key and its value stand a `:` and a space"))
    }

    /// A fault of the YAML itself, in words of someone who writes it.
    fn syntax(&mut self, error: &ScanError) {
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
            self.error("syntax", "a tab stands where YAML indents", span).help =
                Some("use spaces instead of tabs".into());
            return;
        }
        let open = self.stack.iter().rev().find(|frame| frame.flow).map(|frame| frame.start);
        let has = |part: &str| info.contains(part);
        let (message, help) = if has("unexpected end of stream") || has("invalid indentation in quoted") {
            ("the quoted text that begins here is never closed".into(), "close it with the same quote")
        } else if has("unknown anchor") {
            ("no value above is marked with this anchor".into(), "mark one with `&name`; then `*name` stands for it")
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
            self.error("syntax", "this line is no `key: value`", line).help = Some(help.into());
            return;
        } else if has("mapping values are not allowed") || has("':'") {
            let help = "put a text that contains `: ` in quotes; give the keys of one mapping the same indentation";
            ("a `:` is not expected here".into(), help)
        } else if has("bracket") {
            ("this bracket closes nothing".into(), "remove it, or put the text in quotes")
        } else if has("expected key") || has("'-'") || has("indentation") || has("document start") || has("simple key")
        {
            let help = "indent the keys of one mapping, and the items of one list, alike; a key ends in `: `";
            ("this line does not continue what is above it".into(), help)
        } else {
            (format!("this is not YAML: {info}"), "see docs/authoring.md for how a workflow is written")
        };
        let source = self.source;
        let diagnostic = self.error("syntax", message, span);
        diagnostic.help = Some(help.into());
        if let Some(open) = open.filter(|_| diagnostic.message.contains("brackets")) {
            diagnostic.secondary.push(Label::new(source, Span::new(open, open + 1), "opened here"));
        }
    }
}
