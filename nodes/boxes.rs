//! Boxes as parameters.

use std::path::Path;

use lsregen_diffusion::Error;
use lsregen_diffusion::layout::{self, GroundedPhrase};
use lsregen_engine::{CheckContext, Context, NodeError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An object of a layout: what, and where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct PhraseBox {
    /// What stands in the box, in words that the prompt has too: `a red circle`.
    #[schemars(length(min = 1))]
    pub phrase: String,
    /// `[x0, y0, x1, y1]`: left, upper, right and lower side as fractions of the picture, origin top left.
    #[serde(rename = "box")]
    pub bounds: [f64; 4],
}

impl From<&PhraseBox> for GroundedPhrase {
    fn from(object: &PhraseBox) -> Self {
        GroundedPhrase { phrase: object.phrase.clone(), bounds: object.bounds.map(|v| v as f32) }
    }
}

/// The fault of one box, if any, at `path`.
pub(crate) fn fault(path: String, bounds: &[f64; 4]) -> Option<NodeError> {
    let message = layout::fault(&bounds.map(|v| v as f32))?;
    Some(NodeError::new(path, message).help("write [x0, y0, x1, y1] with x0 < x1 and y0 < y1; the origin is top left"))
}

/// A layout that is given in the graph or as a file.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn layout(
    boxes: Option<&[PhraseBox]>,
    file: Option<&Path>,
    cx: &Context,
) -> lsregen_diffusion::Result<Vec<GroundedPhrase>> {
    match file {
        Some(file) => layout::read(&cx.resolve(file)),
        None => Ok(boxes.iter().copied().flatten().map(GroundedPhrase::from).collect()),
    }
}

/// Faults of a layout that is given in the graph or as a file, but not both.
pub(crate) fn faults(
    boxes: Option<&[PhraseBox]>,
    file: Option<&Path>,
    slots: u32,
    cx: &CheckContext,
) -> Vec<NodeError> {
    let too_many = |path: &str, n: usize| {
        (n > slots as usize).then(|| {
            NodeError::new(path, format!("{n} boxes do not fit into {slots} slots"))
                .help("leave some out, or raise `slots` (models are trained with 30)")
        })
    };
    match (boxes, file) {
        (Some(_), Some(_)) => vec![
            NodeError::new("layout_file", "the layout is given twice, by `boxes` and by `layout_file`")
                .help("keep one of them"),
        ],
        (None, None) => vec![
            NodeError::new("", "there is no layout")
                .help("give `boxes`, or `layout_file`, a JSON file that holds them"),
        ],
        (Some(boxes), None) => {
            let each = boxes.iter().enumerate().filter_map(|(i, b)| fault(format!("boxes/{i}/box"), &b.bounds));
            each.chain(too_many("boxes", boxes.len())).collect()
        }
        (None, Some(file)) => match layout::read(&cx.resolve(file)) {
            Ok(objects) => too_many("layout_file", objects.len()).into_iter().collect(),
            // That the file is not there is said of every file that a node reads.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => vec![],
            Err(error) => vec![NodeError::new("layout_file", error.to_string())],
        },
    }
}
