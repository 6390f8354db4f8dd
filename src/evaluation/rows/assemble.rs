//! Makes rows of a dataset.

use std::collections::HashSet;

use lsregen_tensor::{Error, Result};

use super::captions::Captions;
use super::dataset::{Dataset, DatasetImage, DatasetObject};
use super::id::Id;
use super::prompt::{contains, literal, names_prompt};
use super::report::{Reason, Report};
use super::row::{Row, RowBox};
use super::select::{Sample, Split};
use super::size::SizeRule;

/// What becomes of an image without a caption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingCaption {
    /// Its prompt names the objects.
    Names,
    /// It is left out.
    LeaveOut,
    /// It is an error.
    Fail,
}

/// How rows are made.
#[derive(Clone, Debug)]
pub struct Assembly<'a> {
    /// Which images and objects.
    pub split: Split,
    /// The most objects of a row. GLIGEN models are trained with 30.
    pub most_objects: usize,
    /// The prompts; without captions, prompts name the objects.
    pub captions: Option<&'a Captions>,
    /// Images that have no caption.
    pub missing: MissingCaption,
    /// The size of the large image.
    pub size: SizeRule,
    /// A part of the rows; by default all.
    pub sample: Option<Sample>,
    /// The most rows, after the sample is drawn.
    pub limit: Option<usize>,
}

/// An image with the objects and the prompt of its row.
struct Chosen<'a> {
    image: &'a DatasetImage,
    objects: Vec<&'a DatasetObject>,
    prompt: String,
}

/// Makes rows, in the order of their images' ids. Adds to the report of the dataset what is left out.
///
/// # Errors
/// If an image has no caption and [`MissingCaption::Fail`] is set, or if no image of the dataset has one.
pub fn assemble(dataset: &mut Dataset, how: &Assembly) -> Result<Vec<Row>> {
    let Dataset { images, report } = dataset;
    if let Some(captions) = how.captions {
        same_images(captions, images)?;
    }
    let mut chosen = vec![];
    for image in &*images {
        match how.split.of(&image.objects, how.most_objects) {
            Err(reason) => report.add(reason, &image.id),
            Ok(selected) => {
                for object in &selected.left_out {
                    let label = object.id.as_ref().unwrap_or(&image.id);
                    report.add(selected.reason, label);
                }
                if let Some(prompt) = prompt(image, &selected.kept, how, report)? {
                    chosen.push(Chosen { image, objects: selected.kept, prompt });
                }
            }
        }
    }
    let kept = how.sample.map_or_else(|| (0..chosen.len()).collect(), |sample| sample.indices(chosen.len()));
    let (drawn, rest) = part(chosen, &kept);
    rest.iter().for_each(|chosen| report.add(Reason::NotSampled, &chosen.image.id));
    let limit = how.limit.unwrap_or(usize::MAX).min(drawn.len());
    let (rows, beyond) = drawn.split_at(limit);
    beyond.iter().for_each(|chosen| report.add(Reason::BeyondLimit, &chosen.image.id));
    let mut names = HashSet::new();
    Ok(rows.iter().map(|chosen| row(chosen, how, &mut names, report)).collect())
}

/// Fails if no image has a caption: they are of another dataset.
fn same_images(captions: &Captions, images: &[DatasetImage]) -> Result<()> {
    if images.is_empty() || images.iter().any(|image| captions.of(&image.id).is_some()) {
        return Ok(());
    }
    let list = |ids: &mut dyn Iterator<Item = &Id>| ids.take(3).map(Id::to_string).collect::<Vec<_>>().join(", ");
    Err(Error::Input(format!(
        "the captions are of other images: they have the ids {}, …, but the annotations {}, …; give the captions of this dataset",
        list(&mut captions.some_ids().into_iter()),
        list(&mut images.iter().map(|image| &image.id)),
    )))
}

/// Parts a list into the items of some ascending indices, and the others.
fn part<T>(items: Vec<T>, indices: &[usize]) -> (Vec<T>, Vec<T>) {
    let mut wanted = indices.iter().peekable();
    let (mut kept, mut rest) = (vec![], vec![]);
    for (i, item) in items.into_iter().enumerate() {
        if wanted.next_if(|&&wanted| wanted == i).is_some() { kept.push(item) } else { rest.push(item) }
    }
    (kept, rest)
}

/// The prompt of an image, or `None` if it is left out.
fn prompt(
    image: &DatasetImage,
    objects: &[&DatasetObject],
    how: &Assembly,
    report: &mut Report,
) -> Result<Option<String>> {
    let names = || names_prompt(&objects.iter().map(|object| object.phrase.as_str()).collect::<Vec<_>>());
    let Some(captions) = how.captions else { return Ok(Some(names())) };
    match (captions.of(&image.id), how.missing) {
        (Some(caption), _) => Ok(Some(literal(caption))),
        (None, MissingCaption::Names) => Ok(Some(names())),
        (None, MissingCaption::LeaveOut) => {
            report.add(Reason::NoCaption, &image.id);
            Ok(None)
        }
        (None, MissingCaption::Fail) => Err(Error::Input(format!(
            "the image {} has no caption; add one, or write `--without-caption names` or `drop`",
            image.id
        ))),
    }
}

fn row(chosen: &Chosen, how: &Assembly, names: &mut HashSet<String>, report: &mut Report) -> Row {
    let Chosen { image, objects, prompt } = chosen;
    let ((width, height), resized) = how.size.size(image.width, image.height);
    let captioned = how.captions.map(|captions| captions.of(&image.id).is_some());
    let lacks_phrase = objects.iter().any(|object| !contains(prompt, &object.phrase));
    let notes = [
        resized,
        (captioned == Some(false)).then_some(Reason::PromptOfNames),
        (captioned == Some(true) && lacks_phrase).then_some(Reason::PhraseNotInPrompt),
    ];
    notes.into_iter().flatten().for_each(|note| report.add(note, &image.id));
    // Folders of rows are told apart without case.
    let mut id = image.name.clone();
    for number in 2.. {
        if names.insert(id.to_lowercase()) {
            break;
        }
        id = format!("{}-{number}", image.name);
    }
    if id != image.name {
        report.add(Reason::Renamed, &image.id);
    }
    let boxes = objects.iter().map(|object| RowBox { phrase: object.phrase.clone(), bounds: object.bounds });
    let (prompt, boxes, seed) = (prompt.clone(), boxes.collect(), image.id.seed());
    Row { id, prompt, boxes, width, height, seed, seed_small: seed, seed_large: seed }
}
