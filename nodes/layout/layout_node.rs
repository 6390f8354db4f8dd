//! The node Layout.

use std::path::PathBuf;
use std::sync::Arc;

use lsregen_engine::{CheckContext, Context, Declaration, FileRef, Links, Node, NodeError, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::bridge::raise;
use crate::params::boxes::{self, PhraseBox};
use crate::values::{self, declared};

/// Defines a layout: phrases in boxes.
///
/// Guidances follow a layout, and DrawLayout shows it. GLIGENLayout outputs its own layout too; this node is for graphs
/// without a GLIGEN model.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// The objects, each a `phrase` and a `box`. Either this or `layout_file`.
    #[serde(default)]
    pub boxes: Option<Vec<PhraseBox>>,
    /// A JSON file of boxes, relative to the graph file: `{"boxes": [{"phrase": …, "box": [x0, y0, x1, y1]}]}` in
    /// fractions, or COCO's `bbox: [x, y, width, height]` in pixels, with the image's `width` and `height`.
    #[serde(default)]
    pub layout_file: Option<PathBuf>,
}

sockets! {
    pub struct LayoutInputs {}
}

outputs! {
    pub struct LayoutOutputs {
        /// The boxes and phrases.
        pub layout: Arc<values::Layout>,
    }
}

impl Node for Layout {
    const TYPE: &'static str = "Layout";
    const VERSION: u32 = 1;

    type Inputs = LayoutInputs;
    type Outputs = LayoutOutputs;

    fn check(&self, cx: &CheckContext) -> Vec<NodeError> {
        boxes::errors(self.boxes.as_deref(), self.layout_file.as_deref(), u32::MAX, cx)
    }

    fn declare(&self, _: &Links, cx: &CheckContext) -> Vec<(&'static str, Declaration)> {
        let phrases = boxes::phrases(self.boxes.as_deref(), self.layout_file.as_deref(), cx);
        declared("layout", Some(phrases))
    }

    fn files(&self, cx: &CheckContext) -> Vec<FileRef> {
        self.layout_file.iter().map(|file| FileRef::new("layout_file", cx.resolve(file))).collect()
    }

    fn run(&self, _: LayoutInputs, cx: &Context) -> anyhow::Result<LayoutOutputs> {
        let layout = boxes::layout(self.boxes.as_deref(), self.layout_file.as_deref(), cx).map_err(raise)?;
        Ok(LayoutOutputs { layout: Arc::new(values::Layout(layout)) })
    }
}
