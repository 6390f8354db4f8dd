//! The documentation of node types.

use insta::assert_snapshot;
use lsregen_engine::reference;

use crate::nodes::REGISTRY;

#[test]
fn text_of_one_type() {
    let text = ["Layout", "Upsample", "Sample", "Kinds", "SaveImage"]
        .map(|name| reference::text(REGISTRY.get(name).expect("a type"), usize::MAX));
    assert_snapshot!(text.join("----\n"));
}

#[test]
fn markdown_of_all() {
    assert_snapshot!(reference::markdown(&REGISTRY));
}
