//! Prompts: from the text that a user writes to chunks of weighted tokens; and what SDXL is told beside them.
//!
//! Knows the weighting syntax, and how tokens are laid into chunks; in both it follows ComfyUI, so that one text means
//! one picture. Knows no vocabulary and no network: tokens come from a tokenizer, and weights act on an encoder's output.

use std::ops::Range;

/// What a model is asked to draw, or not to draw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// The text, in the weighting syntax of [`parse`].
    pub text: String,
    /// The text of SDXL's second encoder, which the pooled text comes from too; the first's where there is none.
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

/// What SDXL is told of its picture's origin; widths before heights, in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Size of the photograph that the picture is taken from; the picture's where there is none.
    pub original: Option<(usize, usize)>,
    /// Size that it is shown at; the picture's where there is none.
    pub target: Option<(usize, usize)>,
    /// Where the picture's left and upper side were cut.
    pub crop: (usize, usize),
}

/// What a pair of parentheses without a number weighs more than the text around it.
const EMPHASIS: f64 = 1.1;

/// A stretch of text of one weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// As it is tokenized: without the parentheses, and with `\(` and `\)` resolved.
    pub text: String,
    /// 1 is neutral. May be infinite, where very many parentheses multiply.
    pub weight: f64,
}

/// Splits a prompt into its weighted stretches.
///
/// `(text)` weighs 1.1 times the text around it, `(text:1.5)` exactly 1.5, whatever stands around it. `\(` and `\)` are
/// parentheses as letters. What stands behind the colon is text if it is not a finite number.
///
/// A parenthesis without a partner is a letter. A `)` too many takes the meaning from the next `(`, which makes up for it;
/// a text that ends in `)` while a `(` is open is closed by it, whichever it belongs to. All of this is ComfyUI's reading,
/// here in linear time and without recursion.
pub fn parse(prompt: &str) -> Vec<Segment> {
    let (text, marks) = unescape(prompt);
    let matches = matches(&marks);
    let mut segments = Vec::new();
    let mut add = |range: Range<usize>, weight| {
        if !range.is_empty() {
            segments.push(Segment { text: text[range].into(), weight });
        }
    };
    // What is still to be read, the last first.
    let mut open = vec![Stretch { text: 0..text.len(), marks: 0..marks.len(), weight: 1.0 }];
    while let Some(Stretch { text: span, marks: inside, weight }) = open.pop() {
        let Some(first) = opening(&marks[inside.clone()]).map(|i| i + inside.start) else {
            add(span, weight);
            continue;
        };
        add(span.start..marks[first].at, weight);
        // The partner, or else the `)` that ends the stretch; what follows it is read next.
        let ends = |last: usize| last > first && marks[last].kind == Kind::Close && marks[last].at + 1 == span.end;
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

/// What stands between two parentheses, with its weight.
fn group(text: &str, marks: &[Mark], open: usize, close: usize, around: f64) -> Stretch {
    let (start, end) = (marks[open].at + 1, marks[close].at);
    // Only the last mark can be a number's colon: no number has a parenthesis in it.
    let colon = (open + 1..close).next_back().filter(|i| marks[*i].kind == Kind::Colon && marks[*i].at > start);
    let weighted = colon.and_then(|i| Some((i, text[marks[i].at + 1..end].trim().parse::<f64>().ok()?)));
    match weighted {
        Some((i, weight)) if weight.is_finite() => Stretch { text: start..marks[i].at, marks: open + 1..i, weight },
        _ => Stretch { text: start..end, marks: open + 1..close, weight: around * EMPHASIS },
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Open,
    Close,
    Colon,
}

/// A character with a meaning, at a byte of the text.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: usize,
    kind: Kind,
}

/// The text with its escapes resolved, and the marks that were not escaped.
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
            '(' => Some(Kind::Open),
            ')' => Some(Kind::Close),
            ':' => Some(Kind::Colon),
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
            Kind::Open => open.push(i),
            Kind::Close => {
                if let Some(partner) = open.pop() {
                    partners[partner] = Some(i);
                }
            }
            Kind::Colon => {}
        }
    }
    partners
}

/// The first `(` that opens something: one that makes up for a `)` too many does not.
fn opening(marks: &[Mark]) -> Option<usize> {
    let mut too_many = 0;
    marks.iter().position(|mark| match mark.kind {
        Kind::Open if too_many == 0 => true,
        Kind::Open => {
            too_many -= 1;
            false
        }
        Kind::Close => {
            too_many += 1;
            false
        }
        Kind::Colon => false,
    })
}

/// Tokens of one weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Token ids, none of them special.
    pub ids: Vec<u32>,
    /// Their weight.
    pub weight: f32,
}

/// What a chunk holds between begin and end of text: tokens and their weights.
pub type Chunk = Vec<(u32, f32)>;

/// Tokens of a group that is never divided, unless it is longer than a chunk.
const LARGEST_WHOLE: usize = 7;

/// Lays groups into chunks of `room` tokens, at least one chunk. `room` is at least 1.
///
/// A group of up to seven tokens that does not fit begins the next chunk; a larger one is divided where the chunk ends.
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
