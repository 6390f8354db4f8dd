//! Prompts: from a user's text to chunks of weighted tokens, and the sizes on which SDXL is conditioned.
//!
//! The weighting syntax and the distribution of tokens to chunks are those of ComfyUI, so that the same text gives the same
//! image. Tokens come from a tokenizer, and weights act on the output of the text encoder.

use std::ops::Range;

/// A prompt or negative prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// The text, in the weighting syntax of [`parse`].
    pub text: String,
    /// The text for SDXL's second encoder and for the pooled text; by default the same text.
    pub text_2: Option<String>,
}

impl Prompt {
    /// The text of encoder number `index`, from 0.
    pub fn of_encoder(&self, index: usize) -> &str {
        match (&self.text_2, index) {
            (Some(text), 1..) => text,
            _ => &self.text,
        }
    }
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Prompt { text: text.into(), text_2: None }
    }
}

/// The sizes on which SDXL is conditioned, (width, height) in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// The original size of the image; by default its size.
    pub original: Option<(usize, usize)>,
    /// The target size; by default the size of the image.
    pub target: Option<(usize, usize)>,
    /// The crop at the left and at the top.
    pub crop: (usize, usize),
}

/// The factor of a pair of parentheses without a number.
const EMPHASIS: f64 = 1.1;

/// A segment of text with one weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// The text without parentheses, and with `\(` and `\)` resolved.
    pub text: String,
    /// The weight; 1 is neutral. It may be infinite if very many parentheses are nested.
    pub weight: f64,
}

/// Splits a prompt into weighted segments.
///
/// `(text)` has 1.1 times the weight of the text around it, `(text:1.5)` exactly 1.5. `\(` and `\)` are literal parentheses.
/// If the part after the colon is not a finite number, it is text.
///
/// A parenthesis without a partner is literal. A surplus `)` makes the next `(` literal too. If a text ends in `)` while a
/// `(` is open, it closes that one, whichever it belongs to. These are ComfyUI's rules, here in linear time and without
/// recursion.
pub fn parse(prompt: &str) -> Vec<Segment> {
    let (text, marks) = unescape(prompt);
    let matches = matches(&marks);
    let mut segments = Vec::new();
    let mut add = |range: Range<usize>, weight| {
        if !range.is_empty() {
            segments.push(Segment { text: text[range].into(), weight });
        }
    };
    // The parts still to be read, the last first.
    let mut open = vec![Stretch { text: 0..text.len(), marks: 0..marks.len(), weight: 1.0 }];
    while let Some(Stretch { text: span, marks: inside, weight }) = open.pop() {
        let Some(first) = opening(&marks[inside.clone()]).map(|i| i + inside.start) else {
            add(span, weight);
            continue;
        };
        add(span.start..marks[first].at, weight);
        // The partner, or else the `)` that ends the segment. The rest is read next.
        let ends = |last: usize| last > first && marks[last].kind == MarkKind::Close && marks[last].at + 1 == span.end;
        let close = match matches[first] {
            Some(partner) if partner < inside.end => partner,
            _ => match inside.end.checked_sub(1).filter(|last| ends(*last)) {
                Some(last) => last,
                None => {
                    add(marks[first].at..span.end, weight);
                    continue;
                }
            },
        };
        open.push(Stretch { text: marks[close].at + 1..span.end, marks: close + 1..inside.end, weight });
        open.push(group(&text, &marks, first, close, weight));
    }
    segments
}

/// A part of the text, the marks in it, and the weight around it.
struct Stretch {
    text: Range<usize>,
    marks: Range<usize>,
    weight: f64,
}

/// The text between two parentheses, with its weight.
fn group(text: &str, marks: &[Mark], open: usize, close: usize, around: f64) -> Stretch {
    let (start, end) = (marks[open].at + 1, marks[close].at);
    // Only the last mark can be the colon of a number, because numbers have no parentheses.
    let colon = (open + 1..close).next_back().filter(|i| marks[*i].kind == MarkKind::Colon && marks[*i].at > start);
    let weighted = colon.and_then(|i| Some((i, text[marks[i].at + 1..end].trim().parse::<f64>().ok()?)));
    match weighted {
        Some((i, weight)) if weight.is_finite() => Stretch { text: start..marks[i].at, marks: open + 1..i, weight },
        _ => Stretch { text: start..end, marks: open + 1..close, weight: around * EMPHASIS },
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MarkKind {
    Open,
    Close,
    Colon,
}

/// A character with a meaning, and its byte index.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: usize,
    kind: MarkKind,
}

/// Resolves escapes. Returns the text and the marks that were not escaped.
fn unescape(prompt: &str) -> (String, Vec<Mark>) {
    let mut text = String::with_capacity(prompt.len());
    let mut marks = Vec::new();
    let mut chars = prompt.chars().peekable();
    while let Some(c) = chars.next() {
        let kind = match c {
            '\\' => match chars.next_if(|next| matches!(next, '(' | ')')) {
                Some(letter) => {
                    text.push(letter);
                    continue;
                }
                None => None,
            },
            '(' => Some(MarkKind::Open),
            ')' => Some(MarkKind::Close),
            ':' => Some(MarkKind::Colon),
            _ => None,
        };
        marks.extend(kind.map(|kind| Mark { at: text.len(), kind }));
        text.push(c);
    }
    (text, marks)
}

/// For each mark that opens, the one that closes it.
fn matches(marks: &[Mark]) -> Vec<Option<usize>> {
    let mut partners = vec![None; marks.len()];
    let mut open = Vec::new();
    for (i, mark) in marks.iter().enumerate() {
        match mark.kind {
            MarkKind::Open => open.push(i),
            MarkKind::Close => {
                if let Some(partner) = open.pop() {
                    partners[partner] = Some(i);
                }
            }
            MarkKind::Colon => {}
        }
    }
    partners
}

/// The first `(` that is not literal because of a surplus `)`.
fn opening(marks: &[Mark]) -> Option<usize> {
    let mut too_many = 0;
    marks.iter().position(|mark| match mark.kind {
        MarkKind::Open if too_many == 0 => true,
        MarkKind::Open => {
            too_many -= 1;
            false
        }
        MarkKind::Close => {
            too_many += 1;
            false
        }
        MarkKind::Colon => false,
    })
}

/// Tokens of one weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Token ids, without special tokens.
    pub ids: Vec<u32>,
    /// Their weight.
    pub weight: f32,
}

/// The tokens of a chunk between begin and end of text, with their weights.
pub type Chunk = Vec<(u32, f32)>;

/// Groups of up to this many tokens are not split, unless they are longer than a chunk.
const LARGEST_WHOLE: usize = 7;

/// Distributes groups to chunks of `room` tokens (at least 1). Returns at least one chunk.
///
/// A group of up to seven tokens that does not fit starts the next chunk; a larger one is split at the end of the chunk.
pub fn chunks(groups: &[Group], room: usize) -> Vec<Chunk> {
    let room = room.max(1);
    let mut done = Vec::new();
    let mut chunk = Chunk::new();
    for group in groups {
        let whole = group.ids.len() <= LARGEST_WHOLE.min(room);
        if whole && chunk.len() + group.ids.len() > room {
            done.push(std::mem::take(&mut chunk));
        }
        for &id in &group.ids {
            if chunk.len() == room {
                done.push(std::mem::take(&mut chunk));
            }
            chunk.push((id, group.weight));
        }
    }
    done.push(chunk);
    done
}
