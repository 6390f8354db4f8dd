//! Nodes of layouts: phrases in boxes.

mod draw_layout;
mod layout_node;

pub use draw_layout::{DrawLayout, DrawLayoutInputs, DrawLayoutOutputs};
pub use layout_node::Layout;
