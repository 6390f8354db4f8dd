//! Boxes as parameters.

use std::path::Path;

use lsregen_diffusion::layout::{self, GroundedPhrase};
use lsregen_engine::{CheckContext, Context, NodeError};
use lsregen_tensor::Error;
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

impl From<&PhraseBox> for GroundedPhrase {
    fn from(object: &PhraseBox) -> Self {
        GroundedPhrase { phrase: object.phrase.clone(), bounds: object.bounds.map(|v| v as f32) }
    }
}

/// Returns the error of a box at `path`, if it has one.
pub(crate) fn error(path: String, bounds: &[f64; 4]) -> Option<NodeError> {
    let message = layout::error(&bounds.map(|v| v as f32))?;
    Some(NodeError::new(path, message).help(
        "write [x0, y0, x1, y1] with x0 < x1 and y0 < y1, as fractions of the image; the origin is at the top left",
    ))
}

/// The help for a file that is no layout.
const FORM: &str = "write a JSON list such as [{\"phrase\": \"a red circle\", \"box\": [0.1, 0.1, 0.5, 0.5]}]";

/// Returns a layout that is given in the graph or as a file.
///
/// # Errors
/// If the file cannot be read.
pub(crate) fn layout(
    boxes: Option<&[PhraseBox]>,
    file: Option<&Path>,
    cx: &Context,
) -> lsregen_tensor::Result<Vec<GroundedPhrase>> {
    match file {
        Some(file) => layout::read(&cx.resolve(file)),
        None => Ok(boxes.iter().copied().flatten().map(GroundedPhrase::from).collect()),
    }
}

/// Reports a layout that is invalid, missing or given both in the graph and as a file.
pub(crate) fn errors(
    boxes: Option<&[PhraseBox]>,
    file: Option<&Path>,
    slots: u32,
    cx: &CheckContext,
) -> Vec<NodeError> {
    let too_many = |path: &str, n: usize| {
        (n > slots as usize).then(|| {
            NodeError::new(path, format!("{n} boxes do not fit into {slots} slot{}", if slots == 1 { "" } else { "s" }))
                .help("leave some out, or raise `slots` (models are trained with 30)")
        })
    };
    match (boxes, file) {
        (Some(_), Some(_)) => vec![
            NodeError::new("layout_file", "the layout is given twice, by `boxes` and by `layout_file`")
                .help("keep one of them"),
        ],
        (None, None) => vec![
            NodeError::new("", "the layout is missing")
                .help("give `boxes`, or `layout_file`, a JSON file that holds them"),
        ],
        (Some(boxes), None) => {
            let each = boxes.iter().enumerate().filter_map(|(i, b)| error(format!("boxes/{i}/box"), &b.bounds));
            each.chain(too_many("boxes", boxes.len())).collect()
        }
        (None, Some(file)) => match layout::read(&cx.resolve(file)) {
            Ok(objects) => too_many("layout_file", objects.len()).into_iter().collect(),
            // The engine reports every missing file that a node reads.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => vec![],
            Err(error) => vec![NodeError::new("layout_file", error.to_string()).help(FORM)],
        },
    }
}

/// Returns the phrases of a layout that is given in the graph, or in a file that can be read.
pub(crate) fn phrases(boxes: Option<&[PhraseBox]>, file: Option<&Path>, cx: &CheckContext) -> Phrases {
    match file {
        Some(file) => {
            let objects = layout::read(&cx.resolve(file)).unwrap_or_default();
            Phrases(objects.into_iter().map(|object| object.phrase).collect())
        }
        None => Phrases(boxes.iter().copied().flatten().map(|object| object.phrase.clone()).collect()),
    }
}
