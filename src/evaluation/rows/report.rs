//! What was left out or changed on the way from a dataset to rows, and why.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

/// What a [`Reason`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Annotations that were left out.
    Annotation,
    /// Images that were left out, with all their annotations.
    Image,
    /// Rows, or boxes in them, that were changed.
    Note,
}

/// Why something was left out or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// `iscrowd` is 1.
    Crowd,
    /// `bbox` is missing, or is no list of four numbers.
    NoBox,
    /// A number of the box is NaN or infinite.
    NotFinite,
    /// The width or the height of the box is 0 or negative.
    NoArea,
    /// No part of the box lies in the image.
    Outside,
    /// The file does not list the image.
    NoImage,
    /// The file does not list the category, or its name is blank.
    UnknownCategory,
    /// The image has no size.
    ImageWithoutSize,
    /// An annotation with the same id, image, category and box has been read.
    RepeatedAnnotation,
    /// `multi` takes the two largest.
    NotLargest,
    /// The image has more objects than a row may have.
    TooMany,
    /// An image with the same id has been read.
    RepeatedImage,
    /// The width or height of the image is missing, 0, negative or not finite.
    NoSize,
    /// No image file of this name, from which its size would be read.
    NoImageFile,
    /// No object is left.
    NoObjects,
    /// `multi` needs two.
    OneObject,
    /// `single` needs one.
    SeveralObjects,
    /// The image has no caption.
    NoCaption,
    /// Outside of the sample.
    NotSampled,
    /// Beyond the limit.
    BeyondLimit,
    /// The box reached beyond the image by more than rounding.
    Clipped,
    /// The annotation has no area; that of its box is used.
    AreaOfBox,
    /// The prompt is made of category names, because there is no caption.
    PromptOfNames,
    /// A phrase of the boxes is not in the caption.
    PhraseNotInPrompt,
    /// The size was reduced to what an image may have.
    SizeReduced,
    /// A side was less than half a multiple and became one multiple.
    SizeRaised,
    /// Another row has the same name.
    Renamed,
}

impl Reason {
    /// Returns what is counted.
    pub fn subject(self) -> Subject {
        use Reason::*;
        match self {
            Crowd | NoBox | NotFinite | NoArea | Outside | NoImage | UnknownCategory | ImageWithoutSize
            | RepeatedAnnotation | NotLargest | TooMany => Subject::Annotation,
            RepeatedImage | NoSize | NoImageFile | NoObjects | OneObject | SeveralObjects | NoCaption | NotSampled
            | BeyondLimit => Subject::Image,
            Clipped | AreaOfBox | PromptOfNames | PhraseNotInPrompt | SizeReduced | SizeRaised | Renamed => {
                Subject::Note
            }
        }
    }

    /// Returns the reason in words.
    pub fn text(self) -> &'static str {
        match self {
            Reason::Crowd => "marks a crowd (`iscrowd`)",
            Reason::NoBox => "no box of four numbers",
            Reason::NotFinite => "a box with NaN or infinity",
            Reason::NoArea => "a box without width or height",
            Reason::Outside => "a box outside of its image",
            Reason::NoImage => "an image that is not listed",
            Reason::UnknownCategory => "a category that is not listed, or has no name",
            Reason::ImageWithoutSize => "an image without a size",
            Reason::RepeatedAnnotation => "the same annotation once more",
            Reason::NotLargest => "not one of the two largest objects of an image",
            Reason::TooMany => "beyond the largest objects of an image (`--max-objects`)",
            Reason::RepeatedImage => "the same id once more; the first image is used",
            Reason::NoSize => "no size",
            Reason::NoImageFile => "no image file of this name",
            Reason::NoObjects => "no object",
            Reason::OneObject => "only one object",
            Reason::SeveralObjects => "more than one object",
            Reason::NoCaption => "no caption",
            Reason::NotSampled => "not in the sample (`--sample`)",
            Reason::BeyondLimit => "beyond the limit (`--limit`)",
            Reason::Clipped => "box clipped to its image",
            Reason::AreaOfBox => "no `area`; that of the box is used",
            Reason::PromptOfNames => "no caption; the prompt names the objects",
            Reason::PhraseNotInPrompt => "the caption lacks a phrase of the boxes",
            Reason::SizeReduced => "size reduced to the largest (`--max-pixels`, 8192 a side)",
            Reason::SizeRaised => "side raised to one `--multiple`",
            Reason::Renamed => "another row has this name; a number is appended",
        }
    }
}

/// Counts by [`Reason`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many images were read.
    pub images: usize,
    /// How many annotations were read.
    pub annotations: usize,
    counts: BTreeMap<Reason, Count>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Count {
    number: usize,
    /// The first that was counted.
    first: String,
}

impl Report {
    /// Returns a report of what was read.
    pub fn new(images: usize, annotations: usize) -> Report {
        Report { images, annotations, counts: BTreeMap::new() }
    }

    /// Counts one more, which `id` names.
    pub fn add(&mut self, reason: Reason, id: impl Display) {
        self.counts.entry(reason).or_insert_with(|| Count { number: 0, first: id.to_string() }).number += 1;
    }

    /// Returns how many were counted.
    pub fn count(&self, reason: Reason) -> usize {
        self.counts.get(&reason).map_or(0, |count| count.number)
    }
}

/// A table: a heading for each subject, then a line for each reason.
impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.counts.values().map(|count| count.number.to_string().len()).max().unwrap_or_default();
        for (subject, heading) in [
            (Subject::Annotation, "annotations left out"),
            (Subject::Image, "images left out"),
            (Subject::Note, "notes"),
        ] {
            let counts: Vec<_> = self.counts.iter().filter(|(reason, _)| reason.subject() == subject).collect();
            if !counts.is_empty() {
                writeln!(f, "  {heading}")?;
            }
            for (reason, Count { number, first }) in counts {
                let first = if *number == 1 { first.clone() } else { format!("first: {first}") };
                writeln!(f, "    {number:>width$}  {} ({first})", reason.text())?;
            }
        }
        Ok(())
    }
}
