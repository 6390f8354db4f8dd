//! Boxes as parameters.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsregen_diffusion::layout::{self, Bounds, GroundedPhrase};
use lsregen_diffusion::layout_file::{self, FileLayout};
use lsregen_engine::{CheckContext, Context, FileRef, NodeError};
use lsregen_tensor::{Error, Result};
use lsregen_weights::FileCache;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::values::Phrases;

/// An object of a layout: a phrase in a box.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct PhraseBox {
    /// The content of the box, in words that the prompt also contains: `a red circle`.
    #[schemars(length(min = 1))]
    pub phrase: String,
    /// `[x0, y0, x1, y1]`: the left, upper, right and lower side, as fractions of the image with the origin at the top left.
    #[serde(rename = "box")]
    pub bounds: [f64; 4],
}

/// Reports, at `path`, a box that is invalid or reaches beyond the image.
pub(crate) fn error(path: String, bounds: &[f64; 4]) -> Option<NodeError> {
    match layout::bounds(*bounds) {
        Ok((_, false)) => None,
        Ok((_, true)) => Some(
            NodeError::new(path, "the box reaches beyond the image and is clamped to it")
                .help("write sides between 0 and 1")
                .as_warning("clamped"),
        ),
        Err(message) => Some(NodeError::new(path, message).help(
            "write [x0, y0, x1, y1] with x0 < x1 and y0 < y1, as fractions of the image; the origin is at the top left",
        )),
    }
}

/// The help for a file that is no layout.
const FORM: &str = "write JSON such as {\"boxes\": [{\"phrase\": \"a red circle\", \"box\": [0.1, 0.1, 0.5, 0.5]}]}";

/// Returns the part of a box that lies in the image.
///
/// # Errors
/// If the box is invalid.
pub(crate) fn inside(bounds: &[f64; 4]) -> anyhow::Result<Bounds> {
    let (bounds, _) = layout::bounds(*bounds).map_err(anyhow::Error::msg)?;
    Ok(bounds)
}

/// Layout files that the nodes of a host have read: a service of the host.
#[derive(Default)]
pub struct LayoutFiles(FileCache<(PathBuf, Option<u64>), FileLayout>);

impl LayoutFiles {
    fn read(&self, path: PathBuf, image_id: Option<u64>) -> Result<Arc<FileLayout>> {
        let files = vec![path.clone()];
        self.0.get(&(path.clone(), image_id), || layout_file::read(&path, image_id), |_| files)
    }
}

/// A layout as a node's parameters give it: in the graph, or as a file.
pub(crate) struct LayoutParams<'a> {
    pub boxes: Option<&'a [PhraseBox]>,
    pub file: Option<&'a Path>,
    /// The image of a COCO file.
    pub image_id: Option<u64>,
}

impl LayoutParams<'_> {
    /// Returns the objects.
    ///
    /// # Errors
    /// If the file cannot be read, or if a box is invalid.
    pub fn objects(&self, cx: &Context) -> anyhow::Result<Vec<GroundedPhrase>> {
        let Some(file) = self.file else {
            let object = |object: &PhraseBox| {
                Ok(GroundedPhrase { phrase: object.phrase.clone(), bounds: inside(&object.bounds)? })
            };
            return self.boxes.iter().copied().flatten().map(object).collect();
        };
        let files = cx.service::<LayoutFiles>().unwrap_or_default();
        let layout = files.read(cx.resolve(file), self.image_id)?;
        layout.notes.iter().for_each(|note| cx.note(note));
        Ok(layout.objects.clone())
    }

    /// Returns the phrases, if the layout can be read.
    pub fn phrases(&self, cx: &CheckContext) -> Phrases {
        match self.file {
            Some(file) => {
                let layout = self.file_layout(file, cx);
                Phrases(layout.iter().flat_map(|layout| &layout.objects).map(|object| object.phrase.clone()).collect())
            }
            None => Phrases(self.boxes.iter().copied().flatten().map(|object| object.phrase.clone()).collect()),
        }
    }

    /// Returns the file that it is read from.
    pub fn files(&self, cx: &CheckContext) -> Vec<FileRef> {
        self.file.iter().map(|file| FileRef::new("layout_file", cx.resolve(file))).collect()
    }

    /// Reports a layout that is invalid, missing, given twice, or larger than `slots`.
    pub fn errors(&self, slots: u32, cx: &CheckContext) -> Vec<NodeError> {
        let too_many = |path: &str, n: usize| {
            (n > slots as usize).then(|| {
                NodeError::new(
                    path,
                    format!("{n} boxes do not fit into {slots} slot{}", if slots == 1 { "" } else { "s" }),
                )
                .help("leave some out, or raise `slots` (models are trained with 30)")
            })
        };
        let id_without_file = self.image_id.filter(|_| self.file.is_none()).map(|_| {
            NodeError::new("image_id", "`image_id` selects an image of a COCO file, but `layout_file` is missing")
                .help("give `layout_file`, or leave `image_id` out")
        });
        let errors: Vec<NodeError> = match (self.boxes, self.file) {
            (Some(_), Some(_)) => vec![
                NodeError::new("layout_file", "the layout is given twice, by `boxes` and by `layout_file`")
                    .help("keep one of them"),
            ],
            (None, None) => vec![
                NodeError::new("", "the layout is missing")
                    .help("give `boxes`, or `layout_file`, a JSON file that holds them"),
            ],
            (Some(boxes), None) => {
                let blank = boxes.iter().enumerate().filter(|(_, object)| object.phrase.trim().is_empty());
                let blank = blank.map(|(i, _)| {
                    NodeError::new(format!("boxes/{i}/phrase"), "the phrase is empty")
                        .help("name the object in the box")
                });
                let each = boxes.iter().enumerate().filter_map(|(i, b)| error(format!("boxes/{i}/box"), &b.bounds));
                each.chain(blank).chain(too_many("boxes", boxes.len())).collect()
            }
            (None, Some(file)) => match self.file_layout(file, cx) {
                Ok(layout) => {
                    let notes =
                        layout.notes.iter().map(|note| NodeError::new("layout_file", note).as_warning("clamped"));
                    notes.chain(too_many("layout_file", layout.objects.len())).collect()
                }
                // The engine reports every file that a node reads and that cannot be read; but it may be read and no text.
                Err(Error::Io { source, .. }) if source.kind() != ErrorKind::InvalidData => vec![],
                Err(error) => {
                    let message = error.to_string();
                    let selects = message.contains("image_id") || self.image_id.is_some();
                    let help = if selects { "write `image_id: 1`, with the id of one of its images" } else { FORM };
                    vec![NodeError::new("layout_file", message).help(help)]
                }
            },
        };
        errors.into_iter().chain(id_without_file).collect()
    }

    fn file_layout(&self, file: &Path, cx: &CheckContext) -> Result<Arc<FileLayout>> {
        cx.service::<LayoutFiles>().unwrap_or_default().read(cx.resolve(file), self.image_id)
    }
}
