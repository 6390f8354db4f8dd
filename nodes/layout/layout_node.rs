//! The node Layout.

use std::path::PathBuf;
use std::sync::Arc;

use lsregen_engine::{CheckContext, Context, Declaration, FileRef, Links, Node, NodeError, outputs, sockets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::params::boxes::{LayoutParams, PhraseBox};
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
    /// fractions, or COCO's `bbox: [x, y, width, height]` in pixels, with the image's `width` and `height`; or a file of
    /// COCO's annotations, such as `instances_val2017.json`, with `image_id`.
    #[serde(default)]
    pub layout_file: Option<PathBuf>,
    /// The image of a COCO file whose annotations are the layout; the phrases are the names of their categories.
    #[serde(default)]
    pub image_id: Option<u64>,
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

impl Layout {
    fn layout(&self) -> LayoutParams<'_> {
        LayoutParams { boxes: self.boxes.as_deref(), file: self.layout_file.as_deref(), image_id: self.image_id }
    }
}

impl Node for Layout {
    const TYPE: &'static str = "Layout";
    const VERSION: u32 = 1;

    type Inputs = LayoutInputs;
    type Outputs = LayoutOutputs;

    fn check(&self, cx: &CheckContext) -> Vec<NodeError> {
        self.layout().errors(u32::MAX, cx)
    }

    fn declare(&self, _: &Links, cx: &CheckContext) -> Vec<(&'static str, Declaration)> {
        declared("layout", Some(self.layout().phrases(cx)))
    }

    fn files(&self, cx: &CheckContext) -> Vec<FileRef> {
        self.layout().files(cx)
    }

    fn run(&self, _: LayoutInputs, cx: &Context) -> anyhow::Result<LayoutOutputs> {
        Ok(LayoutOutputs { layout: Arc::new(values::Layout(self.layout().objects(cx)?)) })
    }
}
